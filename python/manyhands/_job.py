"""Job: a blocking call under control. Its life is in the core, how it is run in `_running`; this is its public face."""

from __future__ import annotations

import concurrent.futures
import contextlib
import enum
import threading
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast

from manyhands import _core
from manyhands._log import Log

__all__ = [
    "CHECKING_IN",
    "FINISHED",
    "RUNNING",
    "STOPPED",
    "STOPPING",
    "SYNC",
    "Job",
    "JobSnapshot",
    "JobStatus",
    "StopReason",
]

T = TypeVar("T")

logger = Log("manyhands.pool")


class JobStatus(enum.Enum):
    """Where a job is. The core's table has every way from one to the next (docs/design/job.md)."""

    # In the order of the core's numbers.
    QUEUED = "queued"
    """Accepted; no thread has begun it."""
    RUNNING = "running"
    """Begun. A stepwise job between two steps runs too, without a thread."""
    SYNCING = "syncing"
    """It waits for its owner's answer."""
    STOPPING = "stopping"
    """It was told to stop and has not ended."""
    FINISHED = "finished"
    """It ended by itself, with a value or an exception."""
    STOPPED = "stopped"
    """It never ran, or gave up when it was told to stop."""


class StopReason(enum.Enum):
    """Why a job was told to stop."""

    # In the order of the core's numbers.
    CALLER = "caller"
    """`stop()` or `cancel()` was called."""
    OWNER_GONE = "owner gone"
    """Its owner ended: the client hung up."""
    DEADLINE = "deadline"
    """Its deadline passed."""
    SYNC_TIMEOUT = "sync timeout"
    """Nobody answered its sync in time."""
    SYNC_FAILED = "sync failed"
    """Its `on_sync` raised."""
    POOL_FINISHING = "pool finishing"
    """Its pool is being finished."""
    LOOP_STOPPING = "loop stopping"
    """The loop on whose thread it runs stops."""


RUNNING: Final = JobStatus.RUNNING
STOPPING: Final = JobStatus.STOPPING
FINISHED: Final = JobStatus.FINISHED
STOPPED: Final = JobStatus.STOPPED


class _CheckingIn(enum.Enum):
    CHECKING_IN = "checking in"


CHECKING_IN: Final = _CheckingIn.CHECKING_IN
"""What a stepwise job yields where it can be stopped."""


@dataclass(frozen=True)
class SYNC:
    """What a stepwise job yields to meet its owner: `if (yield manyhands.SYNC(value)) is manyhands.STOPPING: ...`.

    Attributes:
        value: For `on_sync`.
        timeout: Seconds; then the job is stopped with SYNC_TIMEOUT. None for ever.
        when_writable: Call `on_sync` when the owner's descriptor can be written to.
    """

    value: object = None
    timeout: float | None = 30.0
    when_writable: bool = False


@dataclass(frozen=True)
class JobSnapshot:
    """A job at one moment.

    Attributes:
        id: Unique in the process.
        name: Its name.
        status: Where it is.
        age: Seconds since it was accepted.
        thread: The name of the thread that runs it, or None.
        progress: (done, total, note) as it last said, or None.
        reason: Why it was told to stop, or None.
        owner: Its owner, or None.
    """

    id: int
    name: str
    status: JobStatus
    age: float
    thread: str | None
    progress: tuple[float, float | None, str] | None
    reason: StopReason | None
    owner: object


class _OnStop:
    """One registration of a callback: called at most once, and not after the end of its `with` block."""

    def __init__(self, job: Job[Any], callback: Callable[[], object]) -> None:
        self._job = job
        self._callback = callback
        self._lock = threading.Lock()
        self._over = False

    def __enter__(self) -> None:
        on_stops = self._job._on_stops
        on_stops.append(self)
        if not self._job._want_on_stop(True):
            self.fire()

    def __exit__(self, *exc: object) -> None:
        # A call that is on its way is waited for: what it breaks may be something else afterwards.
        with self._lock:
            self._over = True
        with contextlib.suppress(ValueError):
            self._job._on_stops.remove(self)

    def fire(self) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
            try:
                self._callback()
            except BaseException:
                logger.exception("on_stop callback %r of job %r raised", self._callback, self._job.name)


class Job(_core.JobCore, concurrent.futures.Future[T]):
    """A blocking call under control: it has a name, a status and an owner, and it can be told to stop.

    Made by `ThreadPool.submit` and `ThreadPool.enqueue`. It is a `concurrent.futures.Future` too: `result`, `exception`,
    `add_done_callback`, `concurrent.futures.wait` and `asyncio.wrap_future` work with it.

    Attributes:
        id: Unique in the process; a later job has a larger one.
        name: As given, or `job-<id>`.
        status: A `JobStatus`. Looking at it does not reap.
        owner: The Watch or Strand that it belongs to, or None.
        user: What was given as `user=`.
        reason: A `StopReason` once it was told to stop, or None.
        stop_requested: Whether it was told to stop.
        answered: What the owner answered to the last sync.

    Threads: any, but for what the job itself calls: `check_in`, `sync`, `progress`, `on_stop`.
    """

    # The core made everything; the Future's own lock and lists are made when somebody asks for them.
    __init__ = object.__init__

    if TYPE_CHECKING:
        # The core's, with the type of what the function returns.
        def result(self, timeout: float | None = None) -> T: ...

    @property
    def _on_stops(self) -> list[_OnStop]:
        return cast("list[_OnStop]", self.__dict__.setdefault("on_stops", []))

    def on_stop(self, callback: Callable[[], object]) -> contextlib.AbstractContextManager[None]:
        """In a `with` block: have `callback()` called once when the job is told to stop, to break a blocking call.

        It is called on a thread of the pool that runs no jobs; at once, on this thread, if the job was told before. It
        is never called after the block has ended.

        Example: `with job.on_stop(connection.interrupt): cursor.execute(...)`.
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, and got {callback!r}")
        return _OnStop(self, callback)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far it is: `jobs()` and `dump()` show it.

        Args:
            done: How much is done.
            total: Of how much, if that is known.
            note: Anything else.
        """
        # Made numbers here: whoever looks at it later calls nothing of the program's.
        self.__dict__["last_progress"] = (_number(done), None if total is None else _number(total), note)

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """As `concurrent.futures.Future.add_done_callback`: `fn(job)` is called once when it has ended, or at once."""
        if not self._add_callback(fn):
            self._call_back(fn)

    def _call_back(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call a done callback; what it raises is logged, as `concurrent.futures` does."""
        try:
            fn(self)
        except Exception:
            logger.exception("done callback %r of job %r raised", fn, self.name)

    def set_running_or_notify_cancel(self) -> NoReturn:
        """Not for a job: its pool does that."""
        raise InvalidStateError("a job's pool begins it: this is for executors")

    def set_result(self, result: object) -> NoReturn:  # noqa: ARG002
        """Not for a job: its function's value is its result."""
        raise InvalidStateError("a job's result is what its function returns")

    def set_exception(self, exception: object) -> NoReturn:  # noqa: ARG002
        """Not for a job: what its function raises is its exception."""
        raise InvalidStateError("a job's exception is what its function raises")

    # What concurrent.futures.wait and as_completed look at; for a type checker they are the Future's own.
    if not TYPE_CHECKING:

        @property
        def _result(self) -> T | None:
            return cast("T | None", self._value)

        @property
        def _exception(self) -> BaseException | None:
            return self._error

        @property
        def _state(self) -> str:
            status = self.status
            if status is JobStatus.QUEUED:
                return "PENDING"
            if status in (JobStatus.FINISHED, JobStatus.STOPPED):
                cancelled = self.cancelled()
                if self._concluded:
                    return "CANCELLED_AND_NOTIFIED" if cancelled else "FINISHED"
                return "CANCELLED" if cancelled else "RUNNING"
            return "RUNNING"

        @property
        def _condition(self) -> threading.Condition:
            return cast("threading.Condition", self._conditioned or self._set_condition(threading.Condition()))

        @property
        def _waiters(self) -> list[Any]:
            return cast("list[Any]", self.__dict__.setdefault("waiters", []))

    def __repr__(self) -> str:
        reason = f" ({self.reason.name})" if self.reason is not None else ""
        return f"<manyhands.Job {self.id} {self.name!r} {self.status.name}{reason}>"


def _number(value: float) -> float:
    if type(value) in (int, float):
        return value
    try:
        return float(value)  # Decimal and numpy's are welcome, and so may be anything that says it is a number
    except Exception:  # noqa: BLE001 - it is shown as none: a job does not end because it said how far it is
        return value


def threads_by_ident() -> dict[int | None, str]:
    """The names of the process's threads."""
    return {thread.ident: thread.name for thread in threading.enumerate()}


def snapshot(job: Job[Any], status: JobStatus, age: float, names: dict[int | None, str]) -> JobSnapshot:
    """A job at one moment."""
    thread = job._thread
    return JobSnapshot(
        id=job.id,
        name=job.name,
        status=status,
        age=age,
        thread=names.get(thread, str(thread)) if thread else None,
        progress=job.__dict__.get("last_progress"),
        reason=job.reason,
        owner=job.owner,
    )
