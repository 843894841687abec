"""Files as responses: `wsgi.file_wrapper`, and the part of a file that the kernel sends by itself.

What an application wraps is iterated like any other response, block by block, unless it is a file of the operating system and
nothing else: then its bytes go from the file to the socket without passing through Python. An object that merely has
a `fileno()` is no such file: a `GzipFile` has that of what it unpacks.

Knows no socket; a `Region` is given the connection's `send_file`. Source: PEP 3333, *Optional Platform-Specific File Handling*.
"""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["FileWrapper", "Region"]

BURST: Final = 1 << 20
"""Bytes that are sent in one call, so that others get a turn in between."""

_PLAIN: Final = (io.FileIO, io.BufferedReader, io.BufferedRandom)


class FileLike(Protocol):
    """What an application may wrap."""

    def read(self, size: int, /) -> bytes:
        """Read."""


class FileWrapper:
    """What `environ["wsgi.file_wrapper"]` makes of a file: an iterable of its blocks.

    Args:
        filelike: Has `read`, and perhaps `close` and `fileno`.
        block_size: Bytes read at once, if it has to be read.
    """

    def __init__(self, filelike: FileLike, block_size: int = 65_536) -> None:
        self.filelike = filelike
        self.block_size = block_size

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        block = self.filelike.read(self.block_size)
        if not block:
            raise StopIteration
        return block

    def close(self) -> None:
        """Close the file, if it can be closed."""
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()

    def region(self) -> Region | None:
        """What is left of the file from where it stands, if the kernel can send it."""
        file: object = self.filelike
        if isinstance(file, tempfile._TemporaryFileWrapper):  # noqa: SLF001 - the class has no public name
            file = file.file
        if type(file) not in _PLAIN:
            return None
        assert isinstance(file, _PLAIN)
        if not isinstance(file, io.FileIO) and type(file.raw) is not io.FileIO:
            return None  # a buffer around what unpacks, or decrypts
        try:
            if file.writable():
                file.flush()
            found = os.fstat(file.fileno())
            offset = file.tell()
        except (OSError, ValueError):
            return None  # reading it will say why
        if not stat.S_ISREG(found.st_mode):
            return None
        return Region(file.fileno(), offset, max(0, found.st_size - offset))


class Region:
    """Bytes of an open file that are to be sent.

    Attributes:
        left: How many are still to be sent.
    """

    __slots__ = ("_fd", "_offset", "_owned", "left")

    def __init__(self, fd: int, offset: int, left: int) -> None:
        self._fd = fd
        self._offset = offset
        self._owned = False
        self.left = left

    def keep_open(self) -> None:
        """From here on it does not matter whether the application closes its file. To be closed."""
        if not self._owned:
            self._fd = os.dup(self._fd)
            self._owned = True

    def send(self, send_file: Callable[[int, int, int], int]) -> int:
        """Send some of it.

        Args:
            send_file: Called with a descriptor, an offset and a count; returns how many bytes were taken.

        Returns:
            What `send_file` returned: 0 or less, if there is no room.

        Raises:
            OSError: the file cannot be read, or has become shorter.
        """
        size = os.fstat(self._fd).st_size
        if size < self._offset + self.left:
            raise OSError("the file became shorter while it was sent")
        count = send_file(self._fd, self._offset, min(self.left, BURST))
        if count > 0:
            self._offset += count
            self.left -= count
        return count

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._owned:
            self._owned = False
            os.close(self._fd)
