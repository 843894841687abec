"""The process that shows the figures of all workers on one page, as the supervisor sees it.

The supervisor runs no loop, and nothing that a client sends may come near it. So the page is served by a process of its own.
All that the supervisor does for it is to tell it who works: a message for every change of a worker's life, and with a worker's
first one the socket on which it can be asked for its figures. The page asks the workers itself; what they answer, and how
late, never passes the supervisor.

Telling never waits. A page process that takes no messages any more is killed and started anew, one that ends is too, after a
pause; it is told everything again, for the supervisor keeps a worker's socket open as long as the worker lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final

from manyhands._log import Log
from manyhands.server._line import LINE

__all__ = ["PageProcess"]

logger = Log("manyhands.server")

PAUSE: Final = 1.0
"""Seconds between the end of one and the start of the next: nobody's request depends on it."""


class PageProcess:
    """Keeps the page's process.

    Args:
        command: What it is started with.
        listening: The descriptor of the socket on which it serves the page, which it inherits.
        variables: What its environment has beside this process's.

    Attributes:
        line: A socket that is readable when the process has ended; None while there is none.
        due: When it is to be started, while there is none.

    Threads: the supervisor's.
    """

    def __init__(self, command: Sequence[str], listening: int, variables: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._listening = listening
        self._variables = dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.line: socket.socket | None = None
        self.due = 0.0

    def start(self) -> None:
        """Start it. If that fails it is due again after a pause."""
        # Messages keep their bounds, and the descriptors that come with them.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                pass_fds=(self._listening, theirs.fileno()),
                env={**os.environ, **self._variables, LINE: str(theirs.fileno())},
                process_group=0,
            )
        except OSError as error:
            logger.error("the dashboard's process could not be started: %s", error)  # noqa: TRY400 - no traceback wanted
            ours.close()
            self.due = monotonic() + PAUSE
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self.line = ours

    def tell(self, message: dict[str, Any], figures: socket.socket | None = None) -> None:
        """Tell it of a worker, and hand on the worker's socket. One that does not listen is killed; its line ends then."""
        if self.line is None or self._process is None:
            return
        try:
            socket.send_fds(
                self.line, [json.dumps(message).encode("ascii")], [] if figures is None else [figures.fileno()]
            )
        except OSError as error:
            if not isinstance(error, BlockingIOError | ConnectionError):
                logger.error("the dashboard's process could not be told of a worker: %s", error)  # noqa: TRY400
            self._process.kill()

    def bury(self) -> None:
        """Its line has ended."""
        if self._process is not None:
            status = self._end()
            logger.error(
                "the dashboard's process ended by itself, with status %d: started again in %.0f s", status, PAUSE
            )
        self.due = monotonic() + PAUSE

    def kill(self) -> None:
        """End it at once: it has nothing that could be lost."""
        if self._process is not None:
            self._end()

    def _end(self) -> int:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        status = self._process.wait()
        self._process = None
        if self.line is not None:
            self.line.close()
            self.line = None
        return status
