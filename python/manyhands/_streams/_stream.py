"""A connection of the kernel's that tasks read and write."""

from __future__ import annotations

import contextlib
import socket
import sys
import warnings
from typing import TYPE_CHECKING, Any

from manyhands import _core
from manyhands._tasks._sleep import cancel_shielded_checkpoint
from manyhands.errors import EndOfStream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["SocketStream"]


class SocketStream(_core.StreamCore):
    """A TCP or Unix connection. Made by `connect_tcp`, `connect_unix` or a listener.

    `receive`, `receive_exactly`, `receive_until`, `receive_into` and `send` are awaited by tasks: one reads while another
    writes, two readers are refused. `async for chunk in stream` reads to the end; `async with stream` closes it.

    Threads: any task of its loop, on any thread.
    """

    __slots__ = ()

    async def send_eof(self) -> None:
        """Tell the peer that no more comes; it may go on sending.

        Raises:
            BusyResourceError: another task sends.
        """
        self.shutdown()
        await cancel_shielded_checkpoint()

    async def aclose(self) -> None:
        """Close it. Idempotent; whoever waits for it gets ClosedResourceError."""
        self.close()
        await cancel_shielded_checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[socket.socket]:
        """Lend a socket object on a duplicate of the descriptor."""
        with socket.socket(fileno=self.duplicate()) as borrowed:
            yield borrowed

    @property
    def local_address(self) -> Any:
        """Where this end is, as `socket.getsockname()` says it."""
        with self._borrowed() as borrowed:
            return borrowed.getsockname()

    @property
    def remote_address(self) -> Any:
        """Where the peer is, as `socket.getpeername()` says it; OSError if it has gone."""
        with self._borrowed() as borrowed:
            return borrowed.getpeername()

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        """Read an option, as `socket.getsockopt`."""
        with self._borrowed() as borrowed:
            return borrowed.getsockopt(level, option, size) if size else borrowed.getsockopt(level, option)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Set an option, as `socket.setsockopt`."""
        with self._borrowed() as borrowed:
            borrowed.setsockopt(level, option, value)

    def __repr__(self) -> str:
        return f"<manyhands.SocketStream {'closed' if self.closed else f'fd={self.fileno()}'}>"

    def __del__(self) -> None:
        if self.closed or sys.is_finalizing():
            return
        if not self.inherited:
            warnings.warn(f"{self!r} was not closed: use `async with`", ResourceWarning, source=self, stacklevel=2)
        self.close()
