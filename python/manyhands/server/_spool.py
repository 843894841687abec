"""Spool: bytes that wait for somebody to take them, in memory up to a bound and then in a temporary file.

What a client has not taken of its response, and what it has sent of a long body. The file has no name, so nothing is left of
it when the process dies. Once something is in the file, everything behind it goes there too, until all of it was taken.

Threads: one at a time. Writing to the file, and reading from it, may wait for the disk.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable
from typing import BinaryIO, Final

from manyhands.server._budget import FREE, Budget

__all__ = ["Spool"]

FILE_READ: Final = 131_072
"""Bytes read from the file at once: what a socket takes in one go, roughly."""


class Spool:
    """First in, first out: `append` behind, `front` and `advance` before.

    Args:
        memory: Bytes that are held in memory; None for any number.
    """

    __slots__ = ("_budget", "_file", "_kept", "_limit", "_memory", "_pieces", "_read", "_written")

    def __init__(self, memory: int | None = None) -> None:
        self._limit = memory
        self._pieces: deque[memoryview] = deque()
        self._memory = 0
        self._budget: Budget | None = None
        self._kept = 0  # bytes of the budget
        self._file: BinaryIO | None = None
        self._read = self._written = 0

    def __len__(self) -> int:
        return self._memory + self._written - self._read

    @property
    def in_file(self) -> int:
        """How many bytes wait in the file."""
        return self._written - self._read

    def append(self, data: bytes | memoryview, *, spill: bool = True) -> None:
        """Put bytes behind the others.

        Args:
            data: They are not copied while they are in memory.
            spill: Whether they may go to the file. False for what the caller holds in memory anyway.

        Raises:
            OSError: there is no room on the disk, or no place for temporary files.
        """
        if not data:
            return
        full = spill and self._limit is not None and self._memory + len(data) > self._limit
        if self._written == self._read and not full:
            self._pieces.append(memoryview(data))
            self._memory += len(data)
            return
        self._write_behind(memoryview(data))

    def _write_behind(self, left: memoryview) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as long as this does
        while left:
            count = os.pwrite(self._file.fileno(), left, self._written)
            self._written += count
            left = left[count:]

    def settle(self, budget: Budget) -> None:
        """It is to wait for long: what is in memory stays there if the budget has room for it, and goes to the file if not.

        What comes behind a file is left as it is: there is no more of it than `memory`.

        Raises:
            OSError: as `append`; what is here is not whole then.
        """
        if self._kept or self._memory <= FREE or self._written > self._read:
            return
        if budget.take(self._memory):
            self._budget, self._kept = budget, self._memory
            return
        pieces, self._pieces, self._memory = self._pieces, deque(), 0
        for piece in pieces:
            self._write_behind(piece)

    def _give_back(self) -> None:
        if self._budget is not None:
            kept, self._kept = self._kept, 0
            self._budget.give_back(kept)
            self._budget = None

    def front(self) -> memoryview:
        """The first bytes that wait, some of them or all; empty if none do."""
        if self._pieces:
            return self._pieces[0]
        if self._file is not None and self._written > self._read:
            # Read again if not all of it is taken: a client that waits costs no memory then.
            size = min(FILE_READ, self._written - self._read)
            return memoryview(os.pread(self._file.fileno(), size, self._read))
        return memoryview(b"")

    def advance(self, count: int) -> None:
        """So many of the bytes that `front` gave were taken."""
        if not self._pieces:
            self._read += count
            if self._file is not None and self._read == self._written:
                os.ftruncate(self._file.fileno(), 0)
                self._read = self._written = 0
            return
        self._memory -= count
        piece = self._pieces[0]
        if count == len(piece):
            self._pieces.popleft()
            if not self._pieces:
                self._give_back()
        else:
            self._pieces[0] = piece[count:]

    def write_to(self, write: Callable[[memoryview], int]) -> int:
        """Give what there is to `write`, until it takes less than it was given.

        Args:
            write: Returns how many bytes it took; a negative number, if it takes no more at all.

        Returns:
            What `write` returned last; 0 if there was nothing.
        """
        taken = 0
        while piece := self.front():
            taken = write(piece)
            if taken > 0:
                self.advance(taken)
            if taken < len(piece):
                break
        return taken

    def close(self) -> None:
        """Throw away what is left. Idempotent."""
        self._pieces.clear()
        self._give_back()
        self._memory = self._read = self._written = 0
        if self._file is not None:
            self._file.close()
            self._file = None
