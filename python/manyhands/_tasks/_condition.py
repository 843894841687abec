"""Conditions: a lock, and a place to wait under it."""

from __future__ import annotations

import collections
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manyhands import _core
from manyhands._tasks._lock import Lock
from manyhands._tasks._run import current_task
from manyhands._tasks._scope import CancelScope
from manyhands._tasks._sleep import checkpoint_if_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from manyhands._tasks._lock import LockStatistics

__all__ = ["Condition", "ConditionStatistics"]


@dataclass(frozen=True)
class ConditionStatistics:
    """A condition at one moment.

    Attributes:
        tasks_waiting: How many tasks wait to be notified.
        lock_statistics: Of its lock.
    """

    tasks_waiting: int
    lock_statistics: LockStatistics


class Condition:
    """A lock, and a place to wait until another task says that something under the lock has changed.

    Args:
        lock: The lock; None for one of its own. Two conditions may share one.
    """

    __slots__ = ("__weakref__", "_lock", "_waits")

    def __init__(self, lock: Lock | None = None) -> None:
        self._lock = Lock() if lock is None else lock
        self._waits: collections.deque[_core.Wait] = collections.deque()

    async def acquire(self) -> None:
        """Take its lock: `Lock.acquire`."""
        await self._lock.acquire()

    def acquire_nowait(self) -> None:
        """Take its lock: `Lock.acquire_nowait`."""
        self._lock.acquire_nowait()

    def release(self) -> None:
        """Release its lock: `Lock.release`."""
        self._lock.release()

    def locked(self) -> bool:
        """Whether a task has its lock."""
        return self._lock.locked()

    def _check_owner(self, call: str) -> None:
        if self._lock._owner is not current_task():  # noqa: SLF001 - a lock is one half of it
            raise RuntimeError(f"{call}() is for the task that has the condition's lock: use it inside of `async with`")

    def notify(self, n: int = 1) -> None:
        """Let the first `n` of those who wait go on, as soon as they get the lock. One that was cancelled does not count.

        Raises:
            RuntimeError: the running task does not have the lock.
        """
        self._check_owner("notify")
        with contextlib.suppress(IndexError):
            while n > 0:
                n -= self._waits.popleft().complete()

    def notify_all(self) -> None:
        """Let everybody who waits go on, one after the other, as they get the lock.

        Raises:
            RuntimeError: the running task does not have the lock.
        """
        self._check_owner("notify_all")
        self.notify(len(self._waits))

    async def wait(self) -> None:
        """Release the lock, wait to be notified, and take the lock again, also when the task is to stop.

        Raises:
            RuntimeError: the running task does not have the lock.
            Cancelled: the task is to stop, and was not notified. It has the lock again.
        """
        self._check_owner("wait")
        await checkpoint_if_cancelled()
        wait = _core.Wait()
        self._waits.append(wait)
        self._lock.release()
        try:
            await wait
        except BaseException:
            with contextlib.suppress(ValueError):
                self._waits.remove(wait)
            raise
        finally:
            with CancelScope(shield=True):
                await self._lock.acquire()

    async def wait_for(self, predicate: Callable[[], Any]) -> Any:
        """Wait until `predicate()`, called under the lock, is true; returns what it returned then.

        Raises:
            As `wait`.
        """
        self._check_owner("wait_for")
        while not (value := predicate()):
            await self.wait()
        return value

    def statistics(self) -> ConditionStatistics:
        """Say how many wait, and of its lock who has it."""
        return ConditionStatistics(len(self._waits), self._lock.statistics())

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def __repr__(self) -> str:
        return f"<manyhands.Condition {len(self._waits)} waiting, of {self._lock!r}>"
