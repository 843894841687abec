"""A worker's line: how a process that was started by the supervisor finds it, and what it tells it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from typing import Final

__all__ = ["LINE", "READY", "Line", "fresh_python"]

LINE: Final = "MANYHANDS_WORKER_LINE"
"""The environment variable that tells a worker the descriptor of its line, and behind a comma that of its figures."""

READY: Final = b"r"
"""What a worker says when it serves."""


class Line:
    """A worker's end of its line.

    Args:
        number: Its descriptor.
        figures: The descriptor on which it is asked for its figures; None if nobody shows them.

    Attributes:
        socket: To be watched: it is readable when the supervisor has ended.
        figures: The socket of its figures, or None.
    """

    def __init__(self, number: int, figures: int | None = None) -> None:
        self.socket = _adopt(number)
        self.socket.setblocking(False)
        self.figures = None if figures is None else _adopt(figures)
        # The supervisor sees by the end of the line that a worker has ended: no child of it may hold it open.
        os.register_at_fork(after_in_child=self._close_in_child)

    @classmethod
    def take(cls) -> Line | None:
        """Return the line of this process if it is a worker; the first time only, so that no child takes it for its own."""
        numbers = os.environ.pop(LINE, None)
        return None if numbers is None else cls(*map(int, numbers.split(",")))

    def say_ready(self) -> None:
        """Say that it serves."""
        with contextlib.suppress(OSError):
            self.socket.send(READY)

    def _close_in_child(self) -> None:
        for each in (self.socket, self.figures):
            if each is not None:
                each.close()


def _adopt(number: int) -> socket.socket:
    adopted = socket.socket(fileno=number)
    adopted.set_inheritable(False)
    return adopted


def fresh_python(module: str, *arguments: str) -> list[str]:
    """Write the command line that runs a module in an interpreter like this one."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing does
    return [sys.executable, *flags, "-m", module, *arguments]
