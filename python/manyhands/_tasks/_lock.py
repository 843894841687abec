"""Locks, semaphores, limiters and conditions between tasks.

All of them stand on `_core.Permits`: so many at a time, first come, first served, handed over at the release. What is
decided here is who may release, and what a mistake is called.
"""

from __future__ import annotations

import collections
import contextlib
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manyhands import _core
from manyhands._tasks._run import current_task
from manyhands._tasks._scope import CancelScope
from manyhands._tasks._sleep import checkpoint_if_cancelled
from manyhands.errors import WouldBlock

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "CapacityLimiter",
    "CapacityLimiterStatistics",
    "Condition",
    "ConditionStatistics",
    "Lock",
    "LockStatistics",
    "Semaphore",
    "SemaphoreStatistics",
]

_UNBOUNDED = 2**62
"""Permits of a limiter without a limit."""


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


@dataclass(frozen=True)
class SemaphoreStatistics:
    """A semaphore at one moment.

    Attributes:
        tasks_waiting: How many tasks wait for it.
    """

    tasks_waiting: int


@dataclass(frozen=True)
class CapacityLimiterStatistics:
    """A limiter at one moment.

    Attributes:
        borrowed_tokens: How many tokens are out.
        total_tokens: How many there are.
        borrowers: Who has one.
        tasks_waiting: How many tasks wait for one.
    """

    borrowed_tokens: int
    total_tokens: float
    borrowers: tuple[object, ...]
    tasks_waiting: int


@dataclass(frozen=True)
class ConditionStatistics:
    """A condition at one moment.

    Attributes:
        tasks_waiting: How many tasks wait to be notified.
        lock_statistics: Of its lock.
    """

    tasks_waiting: int
    lock_statistics: LockStatistics


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


class Semaphore:
    """So many tasks at a time, in the order in which they came.

    Args:
        initial_value: How many may acquire it before one has to wait, 0 or more.
        max_value: A release beyond it is a ValueError; None for none.

    Threads: `release` from any thread, also in finalizers.
    """

    __slots__ = ("__weakref__", "_max_value", "_permits")

    def __init__(self, initial_value: int, *, max_value: int | None = None) -> None:
        _check_int("initial_value", initial_value)
        if max_value is not None:
            _check_int("max_value", max_value)
            if max_value < initial_value:
                raise ValueError(f"max_value must be at least initial_value={initial_value}, and got {max_value}")
        self._permits = _core.Permits(initial_value, max_value)
        self._max_value = max_value

    @property
    def value(self) -> int:
        """How many can acquire it now without waiting."""
        return self._permits.free

    @property
    def max_value(self) -> int | None:
        """As it was made with."""
        return self._max_value

    def acquire(self) -> Awaitable[None]:
        """Take one, waiting in line for it. To be awaited.

        Raises:
            Cancelled: the task is to stop; it took none.
        """
        return self._permits.acquire()

    def acquire_nowait(self) -> None:
        """Take one.

        Raises:
            WouldBlock: none is free.
        """
        if not self._permits.acquire_nowait():
            raise WouldBlock("the semaphore has none left: await acquire(), which waits")

    def release(self) -> None:
        """Give one to the first who waits.

        Raises:
            ValueError: there would be more than `max_value`.
        """
        if not self._permits.release():
            raise ValueError(f"the semaphore was released more often than acquired: max_value is {self._max_value}")

    def statistics(self) -> SemaphoreStatistics:
        """Say how many wait."""
        return SemaphoreStatistics(self._permits.waiting)

    def __aenter__(self) -> Awaitable[None]:
        return self._permits.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<manyhands.Semaphore value={self.value}, {self._permits.waiting} waiting>"


class CapacityLimiter:
    """So many tokens, each with a borrower who may have one only: for bounding what runs at a time.

    Args:
        total_tokens: How many there are, 0 or more; `math.inf` for any number.

    Threads: tasks on any; `total_tokens` and `release_on_behalf_of` from any thread.
    """

    __slots__ = ("__weakref__", "_borrowers", "_permits", "_total")

    def __init__(self, total_tokens: float) -> None:
        self._total = _check_tokens(total_tokens)
        self._permits = _core.Permits(_permits(self._total))
        # Who has a token, True, or waits for one, an object of that wait. Claimed by `setdefault`, which is one step.
        self._borrowers: dict[object, object] = {}

    @property
    def total_tokens(self) -> float:
        """How many there are. More are given to those who wait at once; fewer are taken back as they are released."""
        return self._total

    @total_tokens.setter
    def total_tokens(self, total_tokens: float) -> None:
        total_tokens = _check_tokens(total_tokens)
        before, self._total = self._total, total_tokens
        self._permits.add(_permits(total_tokens) - _permits(before))

    @property
    def borrowed_tokens(self) -> int:
        """How many are out."""
        return len(self._holders())

    @property
    def available_tokens(self) -> float:
        """How many can be borrowed now; below 0 after `total_tokens` was made smaller than what is out."""
        return math.inf if self._total == math.inf else self._permits.free

    def _holders(self) -> tuple[object, ...]:
        return tuple(borrower for borrower, state in list(self._borrowers.items()) if state is True)

    async def acquire(self) -> None:
        """Borrow one for the running task, waiting in line for it.

        Raises:
            RuntimeError: the task has one, or waits for one, already.
            Cancelled: the task is to stop; it has none.
        """
        await self.acquire_on_behalf_of(current_task())

    def acquire_nowait(self) -> None:
        """Borrow one for the running task.

        Raises:
            WouldBlock: none is available.
            RuntimeError: as `acquire`.
        """
        self.acquire_on_behalf_of_nowait(current_task())

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Borrow one for anybody: any object that can be hashed.

        Raises:
            As `acquire`.
        """
        self._claim(borrower)
        try:
            await self._permits.acquire()
        except BaseException:
            del self._borrowers[borrower]
            raise
        self._borrowers[borrower] = True

    def acquire_on_behalf_of_nowait(self, borrower: object) -> None:
        """Borrow one for anybody.

        Raises:
            As `acquire_nowait`.
        """
        self._claim(borrower)
        if not self._permits.acquire_nowait():
            del self._borrowers[borrower]
            raise WouldBlock("every token is out: await acquire(), which waits")
        self._borrowers[borrower] = True

    def _claim(self, borrower: object) -> None:
        claim = object()
        if self._borrowers.setdefault(borrower, claim) is not claim:
            raise RuntimeError(f"{borrower!r} has one of this limiter's tokens, or waits for one, already")

    def release(self) -> None:
        """Give the running task's back.

        Raises:
            RuntimeError: it has none.
        """
        self.release_on_behalf_of(current_task())

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give somebody's back.

        Raises:
            RuntimeError: the borrower has none.
        """
        if self._borrowers.get(borrower) is not True or self._borrowers.pop(borrower, None) is not True:
            raise RuntimeError(f"{borrower!r} has none of this limiter's tokens")
        self._permits.release()

    def statistics(self) -> CapacityLimiterStatistics:
        """Say who has one and how many wait."""
        holders = self._holders()
        return CapacityLimiterStatistics(len(holders), self._total, holders, self._permits.waiting)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return (
            f"<manyhands.CapacityLimiter {self.borrowed_tokens} of {self._total} out, {self._permits.waiting} waiting>"
        )


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
        if self._lock._owner is not current_task():  # noqa: SLF001 - one noun in two classes
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


def _check_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, and got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, and got {value}")


def _check_tokens(total: Any) -> float:
    if total != math.inf:
        _check_int("total_tokens", total)
    tokens: float = total
    return tokens


def _permits(total: float) -> int:
    return _UNBOUNDED if total == math.inf else int(total)
