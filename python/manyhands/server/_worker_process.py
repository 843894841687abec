"""A worker, as its supervisor has it."""

from __future__ import annotations

import enum
import socket
import subprocess
from time import monotonic
from typing import Final

__all__ = ["State", "Worker"]

START: Final = 60.0
"""Seconds that a worker may take to import its application; then it is killed, and counts as one that has ended."""


class State(enum.Enum):
    """What it is at."""

    STARTING = 1
    SERVING = 2
    ENDING = 3
    GONE = 4
    WAITING = 5  # none of its number: the next is due after a pause, or at the next change


class Worker:
    """One process."""

    def __init__(
        self,
        number: int,
        process: subprocess.Popen[bytes],
        line: socket.socket,
        figures: socket.socket | None,
        pause: float,
    ) -> None:
        self.number = number
        self.process = process
        self.line = line
        self.figures = figures  # for the page; kept open here, so that a new page process can have it
        self.pause = pause  # before the next one is started, should this one end soon
        self.state = State.STARTING
        self.born = monotonic()
        self.deadline = self.born + START  # not while it serves
        self.left = False  # it has closed its line, and comes to its end

    @property
    def names(self) -> tuple[int, int]:
        """What the log calls it: its number from 1 on, and its process."""
        return self.number + 1, self.process.pid

    def close(self) -> None:
        """Close what there is of it here."""
        self.line.close()
        if self.figures is not None:
            self.figures.close()
