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
    from types import TracebackType
    from typing import Self

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


def _statistics(channel: _core.Channel) -> MemoryObjectStreamStatistics:
    used, *others = channel.counts()
    return MemoryObjectStreamStatistics(used, math.inf if channel.room is None else channel.room, *others)


class MemoryObjectSendStream(_core.SendEnd, Generic[T]):
    """The sending end of a memory object stream. Made by `create_memory_object_stream`, and by `clone`.

    `await send(item)` waits until somebody receives the item or there is room for it. Closed by `close()`, `aclose()` or
    the end of a `with` or `async with` block.

    Threads: any; what waits is for tasks. `send_nowait` and `close` also in finalizers.
    """

    if TYPE_CHECKING:

        def send(self, item: T) -> Awaitable[None]: ...
        def send_nowait(self, item: T) -> None: ...

    def clone(self) -> Self:
        """Another holder of this end: the end is closed when all of them are.

        Raises:
            ClosedResourceError: this one is closed.
        """
        if self._closed:
            raise ClosedResourceError("clone one that is open")
        return type(self)(self._channel)

    async def aclose(self) -> None:
        """`close()`, and a checkpoint."""
        self.close()
        await checkpoint()

    def statistics(self) -> MemoryObjectStreamStatistics:
        """Say how much is in the stream and who waits."""
        return _statistics(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        _unclosed(self)


class MemoryObjectReceiveStream(_core.ReceiveEnd, Generic[T]):
    """The receiving end of a memory object stream. Made by `create_memory_object_stream`, and by `clone`.

    `await receive()` waits for an item; `async for` receives until every sending end is closed. Each item goes to one
    receiver.

    Threads: as the sending end.
    """

    if TYPE_CHECKING:

        def receive(self) -> Awaitable[T]: ...
        def receive_nowait(self) -> T: ...
        def __anext__(self) -> Awaitable[T]: ...

    def clone(self) -> Self:
        """Another holder of this end: the end is closed when all of them are.

        Raises:
            ClosedResourceError: this one is closed.
        """
        if self._closed:
            raise ClosedResourceError("clone one that is open")
        return type(self)(self._channel)

    async def aclose(self) -> None:
        """`close()`, and a checkpoint."""
        self.close()
        await checkpoint()

    def statistics(self) -> MemoryObjectStreamStatistics:
        """Say how much is in the stream and who waits."""
        return _statistics(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        _unclosed(self)


def _unclosed(end: MemoryObjectSendStream[T] | MemoryObjectReceiveStream[T]) -> None:
    if not end._closed:  # noqa: SLF001
        # Else the other side would wait for ever.
        end.close()
        name = type(end).__name__
        warnings.warn(f"a {name} was not closed: use `with`, or close()", ResourceWarning, source=end, stacklevel=1)


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
