"""Cuts: where in what a client sent a head ends, and where a chunked body.

They say where to look, and decide nothing: see `_request.py`. What comes may come in any pieces, one byte at a time too, and is
looked at once: what of a piece the next one needs is kept here.

Rules for code in this file: as in `_request.py`.
Source: RFC 9112, 7.1 (chunked).
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["BLANK_LINE", "Cuts"]

BLANK_LINE: Final = b"\r\n\r\n"

CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]+")


class Cuts:
    """Of one connection. Each method is given the bytes that come next, and returns how many belong to what is looked at.

    Threads: one at a time.
    """

    __slots__ = ("_chunk_left", "_last_chunk", "_size_line", "_tail")

    def __init__(self) -> None:
        self._tail = b""  # the last three bytes seen: a blank line may begin in them
        self.begin_chunks()

    def behind_blank_line(self, unread: bytes, start: int = 0) -> int:
        """Return where the next blank line ends; all of it if there is none."""
        tail = self._tail
        if tail:
            found = (tail + unread[start : start + 3]).find(BLANK_LINE)
            if found >= 0:
                self._tail = b""
                return start + found + 4 - len(tail)
        found = unread.find(BLANK_LINE, start)
        if found < 0:
            self._tail = (tail + unread[max(start, len(unread) - 3) :])[-3:]
            return len(unread)
        self._tail = b""
        return found + 4

    def begin_chunks(self) -> None:
        """What comes next is a chunked body."""
        self._chunk_left = 0  # bytes of the chunk that is not whole, the end of its line included
        self._size_line = b""  # a part of one
        self._last_chunk = False  # was seen

    def behind_chunks(self, unread: bytes) -> int:
        """Return where a chunked body ends, its trailers included; all of it if it does not end here.

        A line that is not as it should be is given to llhttp with all that follows, and it refuses that.
        """
        at = 0
        while not self._last_chunk:
            if self._chunk_left >= len(unread) - at:
                self._chunk_left -= len(unread) - at
                return len(unread)
            at += self._chunk_left
            self._chunk_left = 0
            if self._size_line.endswith(b"\r") and unread.startswith(b"\n", at):
                line, behind = self._size_line, at + 1
            else:
                found = unread.find(b"\r\n", at)
                if found < 0:
                    self._size_line += unread[at:]
                    return len(unread)
                line, behind = self._size_line + unread[at:found], found + 2
            self._size_line = b""
            digits = CHUNK_SIZE.match(line)
            if digits is None:
                return len(unread)
            at = behind
            size = int(digits[0], 16)
            if size:
                self._chunk_left = size + 2  # and the end of its line
            else:
                self._last_chunk = True
                self._tail = b"\r\n"
        return self.behind_blank_line(unread, at)
