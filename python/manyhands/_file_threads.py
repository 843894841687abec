"""File operations by calls that block, on the pool's own lane: what is left where the kernel has no ring to give.

An operation is begun by the thread that takes its right to begin; a cancel takes that too, so one that has begun is
finished and one that was cancelled never begins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from manyhands._events import Events
from manyhands.errors import ClosedResourceError

if TYPE_CHECKING:
    from manyhands import _core
    from manyhands._loop import EventLoop
    from manyhands._operation import Operation
    from manyhands._pool import ThreadPool

__all__ = ["ThreadFiles"]


class ThreadFiles:
    """Carries out file operations on the threads of a pool's own lane."""

    backend: Final = "threads"

    def __init__(
        self,
        loop: EventLoop,
        pool: ThreadPool,
        pending: dict[Operation[Any], None],
        ended: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._pending = pending
        self._closed = False
        # Never readable: the end of its watch is how the loop says that it was closed.
        self._watch = loop.add(
            os.eventfd(0),
            Events.READ,
            _nothing,
            name="proactor",
            close=True,
            on_removed=lambda _watch, _reason: ended(),
        )

    def read(self, operation: Operation[bytes], size: int, offset: int) -> None:
        """Start it."""
        self._start(operation, os.pread, size, offset)

    def read_into(self, operation: Operation[int], buffer: Any, offset: int) -> None:
        """Start it."""
        # An export of the buffer, as long as the operation has arguments: it cannot change its size.
        self._start(operation, _read_into, memoryview(buffer), offset)

    def write(self, operation: Operation[int], buffer: Any, offset: int) -> None:
        """Start it."""
        self._start(operation, os.pwrite, memoryview(buffer), offset)

    def fsync(self, operation: Operation[None]) -> None:
        """Start it."""
        self._start(operation, os.fsync)

    def abort(self, operation: Operation[Any]) -> None:
        """Complete it, if it has not begun."""
        taken = _take_right(operation)
        if taken is not None:
            self._settle(operation, None, operation._ended_by(), taken[1])

    def end_operations(self, fd: int, deadline: float) -> None:
        """Complete every operation of a descriptor that has not begun, and wait for the others until a deadline."""
        self._end([operation for operation in list(self._pending) if operation._fd == fd], deadline)

    def close(self, deadline: float) -> None:
        """Complete every operation that has not begun, and wait for the others until a deadline."""
        self._closed = True
        self._end(list(self._pending), deadline)
        self._watch.remove(timeout=0)

    def _end(self, operations: list[Operation[Any]], deadline: float) -> None:
        for operation in operations:
            operation._closing = True
            self.abort(operation)
        for operation in operations:
            if not operation.done:
                operation._wait_anywhere(max(0.0, deadline - time.monotonic()))

    def _start(self, operation: Operation[Any], function: Callable[..., Any], *args: Any) -> None:
        operation._arguments = ([(function, args)],)
        self._pending[operation] = None
        # In this order, and the close the other way round: one of the two sees the other.
        if self._closed and _take_right(operation) is not None:
            self._let_go(operation, args)
            raise ClosedResourceError(f"the Proactor of loop {operation._loop.name!r}")
        try:
            self._pool._own_lane().enqueue(
                self._run, operation, name=operation._kind, cleanup=lambda _job: self._give_up(operation)
            )
        except BaseException:
            # Refused, unless a close was first and has completed it.
            if _take_right(operation) is None:
                return
            self._let_go(operation, args)
            raise

    def _run(self, operation: Operation[Any]) -> None:
        taken = _take_right(operation)
        if taken is None:
            return
        function, args = taken
        try:
            value = function(operation._fd, *args)
        except OSError as error:
            self._settle(operation, None, error, args)
        else:
            moved = 0 if value is None else len(value) if isinstance(value, bytes) else value
            self._settle(operation, value, None, args, moved)

    def _give_up(self, operation: Operation[Any]) -> None:
        """Its job has ended: if it never ran, the pool was finished."""
        # Not by `abort`: one that is being cancelled at this moment is cancelled, and not closed.
        taken = _take_right(operation)
        if taken is not None:
            operation._closing = True
            self._settle(operation, None, operation._ended_by(), taken[1])

    def _settle(
        self,
        operation: Operation[Any],
        value: object,
        error: BaseException | None,
        args: tuple[Any, ...] = (),
        moved: int = 0,
    ) -> None:
        self._let_go(operation, args)
        operation._settle(value, error, moved)

    def _let_go(self, operation: Operation[Any], args: tuple[Any, ...]) -> None:
        self._pending.pop(operation, None)
        for arg in args:
            if isinstance(arg, memoryview):
                # Now, and not when the last reference goes: the caller's buffer is free before anybody is told.
                arg.release()


def _take_right(operation: Operation[Any]) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """The right to begin it: a function and its arguments, once."""
    try:
        (right,) = operation._arguments
        taken: tuple[Callable[..., Any], tuple[Any, ...]] = right.pop()
    except (IndexError, ValueError):
        return None
    return taken


def _read_into(fd: int, buffer: memoryview, offset: int) -> int:
    return os.preadv(fd, [buffer], offset)


def _nothing(_watch: _core.Watch, _events: Events) -> None:
    pass
