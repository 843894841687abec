"""Who is in a pool: its places, its slots, its coroutines.

A *place* is the right to have one coroutine: there are `limit` of them, and `_places` holds, for each that is free, the id
that its next coroutine gets. A coroutine gives back its id + `limit`. So ids are never used again, without a counter that
threads would share, and there is never one coroutine more than places, nor one refused while a place is free.

A *slot* is what a coroutine needs beside its own code: a strand and a storage. A coroutine object of Python cannot be started
anew, so slots are what the pool keeps: it makes them by steps, reuses the latest, and drops those that are idle beyond a bound.
A place is exact, a slot is a convenience: two threads that grow the pool at one moment may make a few slots too many, which are
dropped as their coroutines end.

No lock is taken: `work` and `notify` may be called by a finalizer, in the middle of anything on the same thread. What threads
share is a deque, a list or a dict, and each step of theirs is one call of these, in C: exact with the GIL, and exact without,
where each has a lock of its own that is held for the call only and never while code of Python's runs (keys are plain ints).
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from manyhands._log import Log
from manyhands.coroutines._task import Pending, Queue, Task, TaskId, running_roster
from manyhands.errors import LoopClosed, LoopStopped, PoolFinished, QueueFull, StrandClosed

__all__ = ["CoroutineStats", "Logger", "Roster", "Slot", "notify"]

Logger = logging.Logger | logging.LoggerAdapter[Any]

_logger = Log("manyhands.coroutines")

_CLOSED = 0
"""No coroutine's id. In the dict of coroutines it says that the pool is closed, so that of `work` and `close` at one moment
the second sees the first: both write to this dict first and read it then."""


@dataclass(frozen=True, slots=True)
class CoroutineStats:
    """What a pool of coroutines has.

    Attributes:
        alive: Coroutines that were given to `work` and have not ended.
        idle: Slots that wait for a coroutine.
        slots: Slots, those of the coroutines and the idle ones.
        limit: How many coroutines there may be.
        started: Coroutines there have been, those that are alive included.
    """

    alive: int
    idle: int
    slots: int
    limit: int
    started: int


class Slot:
    """What is reused: a strand, and a storage that is empty between two coroutines."""

    __slots__ = ("kept", "queue", "storage")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.storage: dict[Hashable, object] = {}
        self.kept = False
        """Whether it has one of the `idle_limit` rooms."""


class Roster:
    """The places, slots and coroutines of one pool."""

    def __init__(
        self,
        make_queue: Callable[[], Queue],
        *,
        polls: bool,
        initial: int,
        grow_by: int,
        limit: int,
        idle_limit: int,
        logger: Logger | None,
    ) -> None:
        _check("limit", limit, 1)
        _check("grow_by", grow_by, 1)
        _check("idle_limit", idle_limit, 0)
        _check("initial", initial, 0)
        if initial > limit:
            raise ValueError(f"initial must be at most limit={limit}, and got {initial}")
        if logger is not None and not isinstance(logger, logging.Logger | logging.LoggerAdapter):
            raise TypeError(f"logger must be a logging.Logger or None, and got {logger!r}")
        self.polls = polls
        """Whether its coroutines may wait for a condition."""
        self._make_queue = make_queue
        self._logger = logger or _logger
        self._limit = limit
        self._grow_by = grow_by
        self._places = deque(range(1, limit + 1))
        self._uses = [0] * limit
        """How many coroutines each place has had; written by the one that has it."""
        self._room = [True] * idle_limit
        self._idle: list[Slot] = []
        self._tasks: dict[int, Task | None] = {}
        self._watching: dict[int, Pending] = {}
        self._ref = weakref.ref(self)
        for _ in range(initial):
            slot = self._make()
            if not self._keep(slot):
                self._idle.append(slot)  # asked for by number: it is used once at least

    # Work.

    @property
    def closed(self) -> bool:
        """Whether new work is refused for good."""
        return _CLOSED in self._tasks

    def work(self, function: Callable[..., object], args: tuple[Any, ...]) -> TaskId:
        """Take a place and a slot, and begin."""
        if not callable(function):
            raise TypeError(f"function must be callable, and got {function!r}")
        if self.closed:
            raise _finished()
        try:
            number = self._places.popleft()
        except IndexError:
            raise QueueFull(
                None,
                self._limit,
                f"the pool has limit={self._limit} coroutines and took no other: "
                "wait until one has ended, or make limit larger",
            ) from None
        try:
            slot = self._take()
        except BaseException:
            self._places.append(number)
            raise
        task = Task(TaskId.of(number, self._ref), self, slot, function, args)
        self._uses[(number - 1) % self._limit] += 1
        self._tasks[number] = task
        if self.closed:
            task.close()  # it has not begun: only its place and its slot are given back
            raise _finished()
        try:
            slot.queue.post(task.start)
        except BaseException:
            task.close()
            raise
        return task.id

    def ended(self, task: Task, error: BaseException | None) -> None:
        """Take back what a coroutine had, and say what it died of.

        Of a closed pool it may be called twice, by `work` and by `close` at one moment: nothing is taken from it any more.
        """
        self._tasks.pop(int(task.id), None)
        task.slot.storage.clear()
        if not self.closed:
            self._keep(task.slot)
        self._places.append(int(task.id) + self._limit)
        self._kick()
        if error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
            self._logger.error(
                "coroutine %d (%s) ended with an error; its pool goes on", task.id, task.name, exc_info=error
            )

    # Waits.

    def notify(self, task_id: int, event: object, values: tuple[Any, ...]) -> bool:
        """End the wait of a coroutine, if it waits for this event."""
        if not isinstance(task_id, int):
            raise TypeError(f"task_id must be what work() or running() gave, and got {task_id!r}")
        if isinstance(task_id, TaskId) and task_id.roster is not self._ref:
            return False
        task = self._tasks.get(int(task_id))
        pending = task.pending if task is not None else None
        if task is None or pending is None or not pending.wait.matches(event) or not pending.claim():
            return False
        if not _post(task.slot.queue, task.resume, pending, values):
            return False
        self._kick()
        return True

    def watch(self, task_id: TaskId, pending: Pending) -> None:
        """Have the condition of a wait looked at after events of the pool."""
        self._watching[int(task_id)] = pending

    def unwatch(self, task_id: TaskId) -> None:
        """Undo `watch`."""
        self._watching.pop(int(task_id), None)

    def _kick(self) -> None:
        if not self._watching:
            return
        for pending in self._watching.copy().values():
            task = pending.task
            if task is not None and pending.claim_kick():
                _post(task.slot.queue, task.look, pending)

    # Slots.

    def _make(self) -> Slot:
        return Slot(self._make_queue())

    def _keep(self, slot: Slot) -> bool:
        try:
            slot.kept = self._room.pop()
        except IndexError:
            return False
        self._idle.append(slot)
        return True

    def _take(self) -> Slot:
        try:
            slot = self._idle.pop()
        except IndexError:
            return self._grow()
        if slot.kept:
            slot.kept = False
            self._room.append(True)
        return slot

    def _grow(self) -> Slot:
        for _ in range(min(self._grow_by - 1, len(self._places) - len(self._idle))):
            if not self._keep(self._make()):
                break
        return self._make()

    # The end, and sight.

    def refuse(self) -> None:
        """Take no more work."""
        self._tasks[_CLOSED] = None
        self._idle.clear()

    def close(self) -> None:
        """Refuse new work, and close each coroutine on its queue."""
        self.refuse()
        for task in self._alive():
            _post(task.slot.queue, task.close)

    def close_now(self) -> None:
        """Close each coroutine on this thread: nobody else steps any more."""
        self.refuse()
        for task in self._alive():
            task.close()

    def _alive(self) -> list[Task]:
        return [task for task in self._tasks.copy().values() if task is not None]

    def stats(self) -> CoroutineStats:
        """Count."""
        alive, idle = len(self._alive()), len(self._idle)
        return CoroutineStats(alive=alive, idle=idle, slots=alive + idle, limit=self._limit, started=sum(self._uses))


def notify(task_id: int, event: object, *values: object) -> bool:
    """End the wait of a coroutine, of whichever pool: see `CoroutinePool.notify`.

    Args:
        task_id: A `TaskId`; a plain number only inside a coroutine, for one of the same pool.
        event: What it has to wait for now, compared by `==`.
        values: What its `wait` gives back, as a tuple.

    Returns:
        True if the coroutine will get the values; False, and nothing has happened, if it does not wait for `event` now.

    Raises:
        RuntimeError: a plain number, and no coroutine runs on this thread that would say of which pool.
    """
    known = task_id.roster if isinstance(task_id, TaskId) else None
    roster = known() if known is not None else running_roster()
    if roster is None and known is None:
        raise RuntimeError(f"{task_id!r} does not say of which pool it is: call notify() of the pool")
    return roster is not None and roster.notify(task_id, event, values)


def _post(queue: Queue, callback: Callable[..., object], *args: object) -> bool:
    """Post for a coroutine that is there already; False if its loop is closed, which closes the coroutine as well."""
    try:
        queue.post(callback, *args)
    except LoopStopped:
        # Drained: it takes no messages until it is restarted, but it takes timers. Refusing is too late, the wait is over.
        queue.call_later(0, callback, *args)
    except (LoopClosed, StrandClosed):
        return False
    return True


def _finished() -> PoolFinished:
    return PoolFinished("coroutines", "the pool of coroutines is closed and takes no work: make a new one")


def _check(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, and got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, and got {value}")
