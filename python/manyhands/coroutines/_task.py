"""One pooled coroutine: its steps, its waits, and who may end a wait.

A task belongs to one strand, and everything that steps it is a message or a timer of that strand: so one thread at a time
is inside, and a coroutine is never stepped by two (which crashes free-threaded CPython up to 3.14).

A suspension is a `Pending`. Whoever ends it (a notify on any thread, the timer on the strand, the end of the pool) must take
its token; there is one, so exactly one ends it. It is published when the step that made it is nearly over, and what the
winner does is a message to the strand: a notify that is given True while the step still runs is delivered after it.

No lock is taken here, since a notify may come from a finalizer, which may run in the middle of anything on this very thread.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from manyhands.coroutines._wait import Wait

if TYPE_CHECKING:
    import weakref

    from typing_extensions import disjoint_base

    from manyhands.coroutines._roster import Roster, Slot
else:

    def disjoint_base(cls: type) -> type:
        """Say nothing at run time: it is for type checkers, of a class that has a layout of its own."""
        return cls


__all__ = ["Pending", "Queue", "Task", "TaskId", "TaskLocal", "Timer", "running", "running_roster", "task_local"]

_T = TypeVar("_T")

_current = threading.local()
"""`.task`: the task whose code runs on this thread. Not a context variable: those travel to other threads."""


class Timer(Protocol):
    """What `Queue.call_later` gives."""

    def cancel(self) -> object:
        """See that it never fires; harmless when it has."""


class Queue(Protocol):
    """What a task's steps go through, one at a time and in order: a strand, or what takes its place without a loop."""

    def post(self, callback: Callable[..., object], /, *args: Any) -> None:
        """Run `callback(*args)` after what was posted before."""

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> Timer:
        """Run `callback(*args)` in `delay` seconds."""


@disjoint_base
class TaskId(int):
    """The number of one pooled coroutine, unique in its pool and never used again.

    It is a number so that it can be sent along with a request and come back with the answer. It also remembers its pool: a
    plain number means a coroutine of whichever pool is asked.
    """

    _roster: weakref.ref[Roster]

    @classmethod
    def of(cls, number: int, roster: weakref.ref[Roster]) -> TaskId:
        """Make the id of a roster's coroutine."""
        made = cls(number)
        made._roster = roster
        return made

    @property
    def roster(self) -> weakref.ref[Roster] | None:
        """Whose it is; None for one that was not made by a pool."""
        return getattr(self, "_roster", None)

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """Leave the pool behind: in another process it is a number."""
        return int, (int(self),)


class Pending:
    """One suspension of a task: what it waits for, and the one token that whoever ends it must take.

    The token is the only item of a list of its own, and taking it is `list.pop`: one call in C, which the interpreter makes
    under the list's own lock on free-threaded builds and without letting go of the GIL on others. Of two who call it at the
    same moment one gets the item and the other an IndexError; a finalizer cannot come between.
    """

    __slots__ = ("_kick", "_token", "task", "timer", "wait")

    def __init__(self, task: Task, wait: Wait[Any]) -> None:
        self.task: Task | None = task
        self.wait = wait
        self.timer: Timer | None = None
        self._token = [True]
        self._kick: list[bool] = []

    def claim(self) -> bool:
        """Take the right to end the wait; True to exactly one caller."""
        try:
            return self._token.pop()
        except IndexError:
            return False

    def claim_kick(self) -> bool:
        """Take the one look at the condition, between two by the clock, that an event of the pool may cause."""
        try:
            return self._kick.pop()
        except IndexError:
            return False

    def expire(self) -> bool:
        """End the wait because its time is over. On the task's queue."""
        task = self.task
        return task is not None and self.claim() and task.resume(self, self.wait.late)

    def poll(self) -> bool:
        """Look at the condition because its interval is over. On the task's queue."""
        task = self.task
        return task is not None and task.poll(self)

    def allow_kick(self) -> None:
        """Begin a new interval. On the task's queue."""
        if not self._kick:
            self._kick.append(True)

    def detach(self) -> None:
        """Let go of the task, so that a timer that cannot be cancelled keeps nothing alive."""
        timer, self.timer, self.task = self.timer, None, None
        if timer is not None:
            timer.cancel()


class Task:
    """One call of `work`: from the place that it takes to the end of its function."""

    __slots__ = ("_args", "_context", "_coroutine", "_function", "finished", "id", "name", "pending", "roster", "slot")

    def __init__(
        self, task_id: TaskId, roster: Roster, slot: Slot, function: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self.id = task_id
        self.roster = roster
        self.slot = slot
        self.name: str = getattr(function, "__qualname__", None) or repr(function)
        self.pending: Pending | None = None
        self.finished = False
        self._function: Callable[..., object] | None = function
        self._args = args
        self._context = contextvars.copy_context()
        self._coroutine: Coroutine[Any, Any, Any] | Generator[Any, Any, Any] | None = None

    # Everything below runs on the task's queue. True says that code of the user's function was run.

    def start(self) -> bool:
        """Call the function; what it gives back is stepped, if it is a coroutine or a generator."""
        if self.roster.closed:
            self.close()
        function, args = self._function, self._args
        self._function, self._args = None, ()
        if function is None:
            return False
        try:
            made = self._inside(function, *args)
        except BaseException as error:  # noqa: BLE001 - reported by _finish
            self._finish(error)
            return True
        if isinstance(made, Coroutine | Generator):
            self._coroutine = made
            self._step(made.send, None)
        elif isinstance(made, Wait | Awaitable | AsyncGeneratorType):
            wanted = "a function, a generator function or async def"
            self._finish(TypeError(f"{self.name} must be {wanted}, and it gave back {made!r}"))
        else:
            self._finish(None)
        return True

    def resume(self, pending: Pending, value: object) -> bool:
        """Give the wait, which the caller has claimed, its result."""
        coroutine = self._coroutine
        if self.pending is not pending or coroutine is None:
            return False  # the pool was closed meanwhile
        self._leave(pending)
        self._step(coroutine.send, value)
        return True

    def poll(self, pending: Pending) -> bool:
        """Look at the condition, and set the timer for the next look."""
        ended = self.look(pending)
        if self.pending is pending:
            try:
                pending.timer = self.slot.queue.call_later(pending.wait.interval or 0, pending.poll)
            except BaseException as error:  # noqa: BLE001 - nobody would ever wake it: it ends, and says why
                self._finish(error)
            pending.allow_kick()
        return ended

    def look(self, pending: Pending) -> bool:
        """Ask the condition, and end the wait if it holds or raises."""
        condition, coroutine = pending.wait.condition, self._coroutine
        if self.pending is not pending or condition is None or coroutine is None:
            return False
        try:
            holds = self._inside(condition)
            if not holds:
                return False
        except BaseException as error:  # noqa: BLE001 - it is the coroutine's own, and raised there
            return pending.claim() and self._throw(error, pending)
        return pending.claim() and self.resume(pending, holds)

    def close(self) -> None:
        """End the coroutine where it stands: GeneratorExit is raised there, which runs its cleanup."""
        if self.pending is not None:
            self.pending.claim()
        self._finish(None)

    def _throw(self, error: BaseException, pending: Pending | None = None) -> bool:
        coroutine = self._coroutine
        if self.pending is not pending or coroutine is None:
            return False
        if pending is not None:
            self._leave(pending)
        self._step(coroutine.throw, error)
        return True

    def _step(self, advance: Callable[[Any], object], value: object) -> None:
        """Run the coroutine to its next wait, or to its end."""
        try:
            yielded = self._inside(advance, value)
            self._suspend(yielded)
        except StopIteration:
            self._finish(None)
        except BaseException as error:  # noqa: BLE001 - reported by _finish
            self._finish(error)

    def _inside(self, call: Callable[..., _T], *args: object) -> _T:
        """Call what is the user's, as this task."""
        before = getattr(_current, "task", None)
        _current.task = self
        try:
            return self._context.run(call, *args)
        finally:
            _current.task = before

    def _suspend(self, wait: object) -> None:
        queue = self.slot.queue
        if not isinstance(wait, Wait):
            # By a message of its own: one that catches this and does it again must not hold the thread.
            queue.post(
                self._throw, TypeError(f"a pooled coroutine can only wait for wait() and wait_until(), got {wait!r}")
            )
            return
        wait.take()
        if wait.condition is not None and not self.roster.polls:
            queue.post(self._throw, TypeError("a BasePool has no wait_until(): wait for an event"))
            return
        pending = Pending(self, wait)
        if wait.condition is not None:
            self.pending = pending
            self.roster.watch(self.id, pending)
            queue.post(pending.poll)
            return
        if wait.interval is not None:
            pending.timer = queue.call_later(wait.interval, pending.expire)
        self.pending = pending  # from here on a notify finds it

    def _leave(self, pending: Pending) -> None:
        self.pending = None
        if pending.wait.condition is not None:
            self.roster.unwatch(self.id)
        pending.detach()

    def _finish(self, error: BaseException | None) -> None:
        if self.finished:
            return
        self.finished = True
        coroutine, self._coroutine = self._coroutine, None
        self._function, self._args = None, ()
        if self.pending is not None:
            self._leave(self.pending)
        if coroutine is not None:
            try:
                self._inside(coroutine.close)  # of one that has ended: nothing
            except BaseException as raised:  # noqa: BLE001 - reported below
                error = raised if error is None else error
        self.roster.ended(self, error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error


class TaskLocal:
    """What a coroutine keeps for itself: empty when it starts, seen by no other, forgotten when it ends."""

    def set(self, key: Hashable, value: object) -> None:
        """Keep a value.

        Raises:
            RuntimeError: no pooled coroutine runs on this thread.
        """
        _running().slot.storage[key] = value

    @overload
    def get(self, key: Hashable) -> Any: ...
    @overload
    def get(self, key: Hashable, default: _T) -> Any | _T: ...
    def get(self, key: Hashable, default: object = None) -> Any:
        """Give back what was kept, or `default`.

        Raises:
            RuntimeError: no pooled coroutine runs on this thread.
        """
        return _running().slot.storage.get(key, default)


task_local = TaskLocal()
"""The storage of the coroutine that runs on this thread: see `TaskLocal`."""


def running() -> TaskId:
    """Tell which pooled coroutine runs on this thread.

    Raises:
        RuntimeError: none does.
    """
    return _running().id


def running_roster() -> Roster | None:
    """Tell whose coroutine runs on this thread."""
    task: Task | None = getattr(_current, "task", None)
    return None if task is None else task.roster


def _running() -> Task:
    task: Task | None = getattr(_current, "task", None)
    if task is None:
        raise RuntimeError("no pooled coroutine runs on this thread: call this inside one")
    return task
