"""A body as it comes in: in memory up to a bound, and then in a temporary file.

What all clients' bodies take together has a bound in both: see `_budget.py`. The file has no name: nothing is left of it when
the process dies.

Rules for code in this file: as in `_request.py`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from http import HTTPStatus
from typing import BinaryIO, Final

from manyhands._accept import SHORTAGE
from manyhands.server._budget import FREE, Budget
from manyhands.server._head import Refused, Request

__all__ = ["Body"]

NO_ROOM: Final = "there is no room for the body beside those of other clients"


class Body:
    """The bytes of one request's body, until the request has them.

    Args:
        memory: Bytes that may be in memory.
        budget: What the bodies of all connections may take of the memory; None for any.
        files: What they may take in temporary files; None for any.

    Threads: one at a time.
    """

    __slots__ = ("_budget", "_file", "_files", "_kept", "_kept_of", "_limit", "_memory")

    def __init__(self, memory: int, budget: Budget | None, files: Budget | None) -> None:
        self._limit = memory
        self._budget = budget
        self._files = files
        self._memory: bytes | bytearray = b""
        self._file: BinaryIO | None = None  # if it was too long for the memory
        self._kept = 0  # bytes that it has of a budget
        self._kept_of: Budget | None = None  # which that is

    def append(self, data: bytes) -> None:
        """Keep a piece.

        Raises:
            Refused: there is no room for it.
        """
        length = len(self._memory) + len(data)
        if self._file is not None or length > self._limit or (length > FREE and not self._take(length)):
            self._keep_in_file(data)
        elif not self._memory:
            self._memory = data
        else:  # a bytearray grows in place: a body may come in small pieces
            if not isinstance(self._memory, bytearray):
                self._memory = bytearray(self._memory)
            self._memory += data

    def hand_over(self, request: Request) -> None:
        """Give it to the request, with what it has of a budget.

        Raises:
            Refused: there is no room for the last of it.
        """
        if self._file is not None:
            request.length = self._file.tell()
            with _room():
                self._file.seek(0)  # which writes what is in its buffer
            request.file, self._file = self._file, None
        else:
            request.body = bytes(self._memory)
            request.length = len(self._memory)
        request.kept, self._kept = self._kept, 0
        request.budget = self._kept_of

    def close(self) -> None:
        """Throw it away."""
        self._give_back()
        if self._file is not None:
            self._file.close()

    def _keep_in_file(self, data: bytes) -> None:
        with _room():
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - the request has it, then the application
                self._file.write(self._memory)
                self._memory = b""
                self._give_back()
            if self._files is not None:
                more = self._file.tell() - self._kept + len(data)
                if not self._files.take(more):
                    raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, NO_ROOM)
                self._kept += more
                self._kept_of = self._files
            self._file.write(data)

    def _take(self, length: int) -> bool:
        """Whether so many bytes may stay in memory."""
        if self._budget is None:
            return True
        taken = self._budget.take(length - self._kept)
        if taken:
            self._kept = length
            self._kept_of = self._budget
        return taken

    def _give_back(self) -> None:
        if self._kept:
            assert self._kept_of is not None
            self._kept_of.give_back(self._kept)
            self._kept = 0


@contextlib.contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        code = HTTPStatus.SERVICE_UNAVAILABLE if error.errno in SHORTAGE else HTTPStatus.INSUFFICIENT_STORAGE
        raise Refused(code, f"there is no room for the body: {error.strerror}") from None
