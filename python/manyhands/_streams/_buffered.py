"""Reading exactly so much, or up to a delimiter, from a stream that gives what it has."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Protocol

from manyhands import _core
from manyhands._tasks._sleep import checkpoint, checkpoint_if_cancelled
from manyhands.errors import BusyResourceError, DelimiterNotFound, EndOfStream, IncompleteRead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from typing import Self

__all__ = ["Buffered", "ByteStream"]

MAX_BYTES = 65536
"""What a reader gets at most if it does not say: `SocketStream`'s number."""


class ByteStream(Protocol):
    """What TLS can be put on: `SocketStream`, `TLSStream`, or anything with these methods and their meaning."""

    def receive(self, max_bytes: int = ..., /) -> Awaitable[bytes]:
        """Wait for some bytes; raises EndOfStream."""

    def send(self, data: bytes, /) -> Awaitable[None]:
        """Send all of it."""

    def aclose(self) -> Awaitable[None]:
        """Close it."""


class Buffered:
    """The reading half of a stream: a subclass says how to get some bytes, this has the ways to ask for them.

    One reader at a time. What was read for a task that was cancelled is read again by the next.
    """

    def __init__(self) -> None:
        self._reader = threading.Lock()  # never waited for
        self._left = b""  # read, and not yet asked for; the reader's

    async def _receive_some(self, max_bytes: int) -> bytes:
        """Get at least one byte and at most `max_bytes`; raises EndOfStream."""
        raise NotImplementedError

    def _check_open(self) -> None:
        """Raise ClosedResourceError if it was closed."""
        raise NotImplementedError

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        if not self._reader.acquire(blocking=False):
            raise BusyResourceError("receiving from")
        try:
            self._check_open()
            yield
        finally:
            self._reader.release()

    async def receive(self, max_bytes: int = MAX_BYTES) -> bytes:
        """Read what there is, at least one byte and at most `max_bytes`.

        Raises:
            EndOfStream: the peer has sent its last byte.
            BusyResourceError: another task receives from it.
            BrokenResourceError: the connection was lost. ClosedResourceError: it was closed here.
        """
        _check("max_bytes", max_bytes)
        # Not by `_reading`: every message comes along here.
        if not self._reader.acquire(blocking=False):
            raise BusyResourceError("receiving from")
        try:
            self._check_open()
            if _core.told_to_stop():
                await checkpoint()
            if self._left:
                data, self._left = self._left[:max_bytes], self._left[max_bytes:]
                return data
            return await self._receive_some(max_bytes)
        finally:
            self._reader.release()

    async def receive_exactly(self, count: int) -> bytes:
        """Read exactly so many bytes.

        Raises:
            IncompleteRead: the peer has sent its last byte before; `partial` has what came.
            Otherwise as `receive`.
        """
        _check("count", count)
        with self._reading():
            await checkpoint_if_cancelled()
            data = bytearray(self._left[:count])
            self._left = self._left[count:]
            try:
                while len(data) < count:
                    data += await self._receive_some(count - len(data))
            except EndOfStream:
                raise IncompleteRead(bytes(data)) from None
            except BaseException:
                self._left = bytes(data)
                raise
            return bytes(data)

    async def receive_until(self, delimiter: bytes, max_bytes: int = MAX_BYTES) -> bytes:
        """Read up to and with a delimiter, at most `max_bytes`.

        Raises:
            IncompleteRead: the peer has sent its last byte before; `partial` has what came.
            DelimiterNotFound: it is not among the first `max_bytes`, which are read by the next call.
            Otherwise as `receive`.
        """
        if not delimiter:
            raise ValueError("delimiter must have at least one byte")
        _check("max_bytes", max_bytes)
        with self._reading():
            await checkpoint_if_cancelled()
            searched = 0
            while True:
                end = self._left.find(delimiter, max(0, searched - len(delimiter) + 1)) + len(delimiter)
                if len(delimiter) <= end <= max_bytes:
                    line, self._left = self._left[:end], self._left[end:]
                    return line
                searched = len(self._left)
                if searched >= max_bytes:
                    raise DelimiterNotFound(max_bytes)
                try:
                    self._left += await self._receive_some(MAX_BYTES)
                except EndOfStream:
                    partial, self._left = self._left, b""
                    raise IncompleteRead(partial) from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None


def _check(name: str, count: Any) -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be a count of bytes, and got {count!r}")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, and got {count}")
