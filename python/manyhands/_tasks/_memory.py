"""Memory object streams: objects from task to task.

The channel is in the core (`_core.Channel`), and so is the way of an object through it; here are the two ends as a user
holds them. The meaning is AnyIO's, but for one thing: closing an end ends the waits of the tasks that wait on it, as trio's
channels do.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from manyhands import _core
from manyhands._tasks._sleep import checkpoint
from manyhands.errors import ClosedResourceError

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Protocol, Self

    class _CompiledEnd(Protocol):
        """What both compiled ends have."""

        def __init__(self, channel: _core.Channel) -> None: ...
        def close(self) -> None: ...
        @property
        def _closed(self) -> bool: ...
        @property
        def _channel(self) -> _core.Channel: ...

    _E = TypeVar("_E", bound=_CompiledEnd)

__all__ = [
    "MemoryObjectReceiveStream",
    "MemoryObjectSendStream",
    "MemoryObjectStreamStatistics",
    "create_memory_object_stream",
]

T = TypeVar("T")


@dataclass(frozen=True)
class MemoryObjectStreamStatistics:
    """A memory object stream at one moment.

    Attributes:
        current_buffer_used: How many items are in the buffer.
        max_buffer_size: How many may be.
        open_send_streams: How many clones of the sending end are open.
        open_receive_streams: How many clones of the receiving end are open.
        tasks_waiting_send: How many tasks wait to send.
        tasks_waiting_receive: How many tasks wait to receive.
    """

    current_buffer_used: int
    max_buffer_size: float
    open_send_streams: int
    open_receive_streams: int
    tasks_waiting_send: int
    tasks_waiting_receive: int


class _End:
    """What both ends do: a mixin before the compiled end, whose attributes it takes for granted."""

    __slots__ = ()

    def clone(self: _E) -> _E:  # noqa: PYI019 - Self would be the mixin, which makes nothing
        """Another holder of this end: the end is closed when all of them are.

        Raises:
            ClosedResourceError: this one is closed.
        """
        if self._closed:
            raise ClosedResourceError("clone one that is open")
        return type(self)(self._channel)

    async def aclose(self: _CompiledEnd) -> None:
        """`close()`, and a checkpoint."""
        self.close()
        await checkpoint()

    def statistics(self: _CompiledEnd) -> MemoryObjectStreamStatistics:
        """Say how much is in the stream and who waits."""
        used, *others = self._channel.counts()
        room = math.inf if self._channel.room is None else self._channel.room
        return MemoryObjectStreamStatistics(used, room, *others)

    def __enter__(self) -> Self:
        return self

    def __exit__(self: _CompiledEnd, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self: _CompiledEnd, *exc: object) -> None:
        self.close()

    def __del__(self: _CompiledEnd) -> None:
        if not self._closed:
            # Else the other side would wait for ever.
            self.close()
            name = type(self).__name__
            warnings.warn(
                f"a {name} was not closed: use `with`, or close()", ResourceWarning, source=self, stacklevel=1
            )


class MemoryObjectSendStream(_End, _core.SendEnd, Generic[T]):
    """The sending end of a memory object stream. Made by `create_memory_object_stream`, and by `clone`.

    `await send(item)` waits until somebody receives the item or there is room for it. Closed by `close()`, `aclose()` or
    the end of a `with` or `async with` block.

    Threads: any; what waits is for tasks. `send_nowait` and `close` also in finalizers.
    """

    if TYPE_CHECKING:

        def send(self, item: T) -> Awaitable[None]: ...
        def send_nowait(self, item: T) -> None: ...


class MemoryObjectReceiveStream(_End, _core.ReceiveEnd, Generic[T]):
    """The receiving end of a memory object stream. Made by `create_memory_object_stream`, and by `clone`.

    `await receive()` waits for an item; `async for` receives until every sending end is closed. Each item goes to one
    receiver.

    Threads: as the sending end.
    """

    if TYPE_CHECKING:

        def receive(self) -> Awaitable[T]: ...
        def receive_nowait(self) -> T: ...
        def __anext__(self) -> Awaitable[T]: ...


class create_memory_object_stream(tuple[MemoryObjectSendStream[T], MemoryObjectReceiveStream[T]]):  # noqa: N801
    """Make a memory object stream: `send, receive = create_memory_object_stream[int](10)`.

    Called as a function; the type in brackets is for type checkers.

    Args:
        max_buffer_size: How many items may be sent that nobody has received yet. 0: a send waits for its receive. There is
            no bound only if it is asked for: `math.inf`.

    Returns:
        The `MemoryObjectSendStream` and the `MemoryObjectReceiveStream`.
    """

    __slots__ = ()

    def __new__(  # type: ignore[misc]  # what is made is a plain tuple
        cls, max_buffer_size: float = 0
    ) -> tuple[MemoryObjectSendStream[T], MemoryObjectReceiveStream[T]]:
        if max_buffer_size != math.inf:
            if isinstance(max_buffer_size, bool) or not isinstance(max_buffer_size, int):
                raise TypeError(f"max_buffer_size must be an int or math.inf, and got {max_buffer_size!r}")
            if max_buffer_size < 0:
                raise ValueError(f"max_buffer_size must be 0 or more, and got {max_buffer_size}")
        channel = _core.Channel(None if max_buffer_size == math.inf else int(max_buffer_size))
        return MemoryObjectSendStream(channel), MemoryObjectReceiveStream(channel)
