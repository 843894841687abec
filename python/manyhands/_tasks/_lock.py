"""Locks between tasks.

A lock, a semaphore and a limiter stand on `_core.Permits`: so many at a time, first come, first served, handed over at the
release. What is decided in Python is who may release, and what a mistake is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from manyhands import _core
from manyhands._tasks._run import current_task
from manyhands.errors import WouldBlock

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Lock", "LockStatistics"]


@dataclass(frozen=True)
class LockStatistics:
    """A lock at one moment.

    Attributes:
        locked: Whether a task has it.
        owner: The task that has it, or None.
        tasks_waiting: How many tasks wait for it.
    """

    locked: bool
    owner: _core.Task | None
    tasks_waiting: int


class Lock:
    """A lock that one task at a time has; it goes to those who wait in the order in which they came.

    ```python
    async with lock:
        ...  # whatever this raises, the lock is released
    ```

    A task that is cancelled while it waits is in no queue any more when it sees that; one that was given the lock at that
    very moment has it.

    Threads: tasks on any; for threads that are no tasks there is `threading.Lock`.
    """

    __slots__ = ("__weakref__", "_owner", "_permit")

    def __init__(self) -> None:
        self._permit = _core.Permits(1, 1)
        self._owner: _core.Task | None = None

    async def acquire(self) -> None:
        """Take it, waiting in line for it.

        Raises:
            RuntimeError: the task has it already.
            Cancelled: the task is to stop; it does not have it.
        """
        task = current_task()
        self._refuse(task)
        await self._permit.acquire()
        self._owner = task

    def acquire_nowait(self) -> None:
        """Take it if nobody has it.

        Raises:
            WouldBlock: another task has it.
            RuntimeError: the task has it already.
        """
        task = current_task()
        self._refuse(task)
        if not self._permit.acquire_nowait():
            raise WouldBlock("another task has the lock: await acquire(), which waits")
        self._owner = task

    def _refuse(self, task: _core.Task) -> None:
        if self._owner is task:
            raise RuntimeError(f"task {task.name!r} has this lock already, and would wait for itself")

    def release(self) -> None:
        """Hand it to the first who waits.

        Raises:
            RuntimeError: the running task does not have it.
        """
        owner, task = self._owner, current_task()
        if owner is not task:
            whose = "nobody has it" if owner is None else f"task {owner.name!r} has it"
            raise RuntimeError(f"task {task.name!r} releases a lock, and {whose}: whoever acquires it releases it")
        self._owner = None
        self._permit.release()

    def locked(self) -> bool:
        """Whether a task has it."""
        return self._permit.free <= 0

    def statistics(self) -> LockStatistics:
        """Say who has it and how many wait."""
        return LockStatistics(self.locked(), self._owner, self._permit.waiting)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "free"
        return f"<manyhands.Lock {state}, {self._permit.waiting} waiting>"
