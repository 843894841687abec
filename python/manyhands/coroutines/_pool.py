"""What both pools of coroutines have in common: the face of a roster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from manyhands.coroutines._roster import CoroutineStats, Roster
from manyhands.coroutines._task import TaskId, TaskLocal, running, task_local

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Pool"]


class Pool:
    """A pool of coroutines, whoever drives it."""

    task_local: TaskLocal = task_local
    """The storage of the coroutine that runs on this thread: `get(key, default=None)`, `set(key, value)`."""

    _roster: Roster

    def work(self, function: Callable[..., object], *args: Any) -> TaskId:
        """Run `function(*args)` as a coroutine of this pool, later, in a copy of the caller's context.

        Args:
            function: An `async def`, a generator function, or a plain function, which cannot wait. What it raises is
                logged; what it returns is dropped.
            args: Its arguments.

        Returns:
            Its id, which no other coroutine of this pool ever has.

        Raises:
            QueueFull: the pool has `limit` coroutines; this one was not taken.
            PoolFinished: the pool was closed.
            LoopStopped, LoopClosed: its loop takes no more.
            TypeError: `function` cannot be called.

        Blocks: never.
        """
        return self._roster.work(function, args)

    def notify(self, task_id: int, event: object, *values: object) -> bool:
        """End the wait of a coroutine of this pool, if it waits for `event` at this moment.

        It is resumed later, never in this call. A notify that comes too early is not kept: who must not miss it looks at what
        this returns, or leaves a note where a `wait_until` finds it.

        Args:
            task_id: What `work` or `running` gave, or the same number.
            event: What the coroutine gave to `wait`, compared by `==`.
            values: What its `wait` gives back, as a tuple.

        Returns:
            True if the coroutine will get the values (unless the pool is closed before). False, and nothing has happened:
            it waits for another event or for no event, runs, has ended or has timed out, or is none of this pool's.

        Raises:
            TypeError: `task_id` is no number.

        Threads: any; finalizers too.

        Blocks: never.
        """
        return self._roster.notify(task_id, event, values)

    def running(self) -> TaskId:
        """Tell which pooled coroutine runs on this thread.

        Raises:
            RuntimeError: none does.
        """
        return running()

    @property
    def closed(self) -> bool:
        """Whether `close()` was called, or the pool's loop was closed."""
        return self._roster.closed

    def stats(self) -> CoroutineStats:
        """Count coroutines and slots; the numbers are of one moment, or nearly."""
        return self._roster.stats()

    def close(self) -> None:
        """Refuse new work, and end every coroutine where it stands. Idempotent."""
        self._roster.close()

    def __enter__(self) -> Self:
        """Use the pool in a `with` statement, which closes it."""
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        stats = self.stats()
        state = " closed" if self.closed else ""
        return f"<{type(self).__name__} {stats.alive} of {stats.limit} coroutines, {stats.idle} idle slots{state}>"
