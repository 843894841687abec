"""Blocking calls from tasks: a job of a pool, awaited. It stops when its task is cancelled.

The task waits; the job's thread tells it of two things only, one after the other: that the job has ended, and, before that,
any number of times, that it wants something run on the loop (`manyhands.from_thread`). The task itself runs that, so it is
in the task's scopes and groups by nature, and the job's thread waits meanwhile. So there is one outstanding message at most
and nobody searches for whom it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from manyhands import _core
from manyhands._default_pool import default_pool
from manyhands._job import JobStatus
from manyhands._pool import ThreadPool
from manyhands._tasks._run import current_task
from manyhands._tasks._scope import CancelScope, current_loop
from manyhands._tasks._sleep import checkpoint_if_cancelled
from manyhands.errors import Cancelled, JobStopped, QueueFull

if TYPE_CHECKING:
    from manyhands._job import Job

__all__ = ["Errand", "caller_of", "raise_stopped", "run_job"]

T = TypeVar("T")

LOOK = 0.05
"""Seconds: a task that waits for room in a pool's queue looks so often whether others' jobs have left some."""

ENDED: Final = None
"""What a task is told when its job has ended."""


class Errand:
    """Something that a job's thread wants done by the task that waits for the job."""

    __slots__ = ("_awaits", "_done", "_error", "_function", "_value", "scope")

    def __init__(self, function: Callable[[], Any], *, awaits: bool) -> None:
        self.scope = CancelScope()
        self._function = function
        self._awaits = awaits
        self._done = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    async def run(self) -> None:
        """On the task: do it, whatever becomes of it."""
        try:
            with self.scope:
                value = self._function()
                self._value = await value if self._awaits else value
            if self.scope.cancelled_caught:
                self._error = Cancelled()
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - it is the job's thread that asked
            self._error = error

    def answer(self) -> None:
        """On the task: let the job's thread go on."""
        self._done.set()

    def wait(self, job: Job[Any]) -> Any:
        """On the job's thread: wait until it is done; a stop of the job cancels it.

        Raises:
            JobStopped: the job, or the task, is to stop.
            Exception: whatever the function raises.
        """
        with job.on_stop(self.scope.cancel):
            self._done.wait()
        error, self._error = self._error, None
        if isinstance(error, Cancelled):
            raise_stopped(job)
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self._value


def raise_stopped(job: Job[Any]) -> NoReturn:
    """On the job's thread: raise its JobStopped, since its task is to stop, or the job itself."""
    job.stop()
    raise JobStopped(job.reason) from None


class Caller:
    """The task that waits for a job, as the job's thread sees it."""

    __slots__ = ("_waits", "cancelled", "task")

    def __init__(self, task: _core.Task) -> None:
        self.task = task
        self.cancelled: Cancelled | None = None
        self.listen()

    def listen(self) -> None:
        """On the task, before the job's thread goes on: be ready for the next message."""
        # The last is for when the first was cancelled: the job's end is waited for, whatever happens.
        shielded = _core.Wait(abortable=False)
        self._waits = (_core.Wait(), shielded) if self.cancelled is None else (shielded,)

    def tell(self, message: Errand | None) -> None:
        """Leave a message for the task. Any thread, one message at a time."""
        for wait in self._waits:
            if wait.complete(message):
                return

    def ended(self, job: object) -> None:  # noqa: ARG002 - a done callback
        """The job has ended."""
        self.tell(ENDED)

    async def attend(self, job: Job[Any]) -> None:
        """Wait until the job has ended, and do its errands."""
        while True:
            try:
                message: Errand | None = await self._waits[0]
            except Cancelled as error:
                self.cancelled = error
                job.stop()
                message = await self._waits[-1]
            if message is ENDED:
                return
            await message.run()
            self.listen()
            message.answer()


class _Room:
    """Where tasks wait until there is room in a pool's queue: in line, and the first of them looks."""

    __slots__ = ("turn", "wait")

    def __init__(self) -> None:
        self.turn = _core.Permits(1)
        self.wait: _core.Wait | None = None

    def look(self) -> None:
        """A job has ended: perhaps there is room now."""
        wait = self.wait
        if wait is not None:
            wait.complete()


def _room(pool: ThreadPool) -> _Room:
    room: _Room | None = pool.__dict__.get("room")
    return pool.__dict__.setdefault("room", _Room()) if room is None else room


def _enqueue(pool: ThreadPool, work: tuple[Callable[..., T], tuple[Any, ...], dict[str, Any]]) -> Job[T] | None:
    try:
        return pool._enqueue_now(*work)  # noqa: SLF001 - enqueue() may wait, and would hold the thread
    except QueueFull:
        return None


async def _enqueue_in_line(
    room: _Room, pool: ThreadPool, work: tuple[Callable[..., T], tuple[Any, ...], dict[str, Any]]
) -> Job[T]:
    await room.turn.acquire()
    try:
        while True:
            room.wait = _core.Wait()
            job = _enqueue(pool, work)
            if job is not None:
                return job
            # Jobs of run_job() say when they end; of others nobody tells.
            timer = current_loop().call_later(LOOK, room.wait.complete)
            try:
                await room.wait
            finally:
                timer.cancel()
    finally:
        room.wait = None
        room.turn.release()


def caller_of(job: Job[Any] | None, call: str) -> Caller:
    """Who waits for the job that the thread runs.

    Raises:
        RuntimeError: the thread runs no job that a task waits for.
    """
    caller = None if job is None else job.user
    if not isinstance(caller, Caller):
        where = "no job" if job is None else f"job {job.name!r}, which no task waits for"
        raise RuntimeError(  # noqa: TRY004 - it is where it is called, not what with
            f"from_thread.{call}() is for what run_job() runs, and this thread runs {where}: start the function by "
            "`await manyhands.run_job(function)`; from elsewhere use TaskGroup.start_soon() or EventLoop.post()"
        )
    return caller


async def run_job(
    function: Callable[..., T],
    *args: Any,
    pool: ThreadPool | None = None,
    name: str | None = None,
    deadline: float | None = None,
    priority: int = 0,
    slow: bool = False,
) -> T:
    """Run `function(*args)` on a thread of a pool, and wait for what it returns: for calls that block.

    When the task is cancelled the job is told to stop, the task waits until it has ended, and only then `Cancelled`
    passes: nothing of a scope runs on after the scope. A job that was still queued never runs. If the pool's queue is
    full, the task waits in line for room, and holds no thread meanwhile.

    Args:
        function: A function. It runs in a copy of the task's context; `manyhands.check_in()` in it, or anything of
            `manyhands.blocking`, ends it when it is to stop. `manyhands.from_thread` is for calling the loop from it.
        args: Its arguments; for keywords use `functools.partial`.
        pool: Where; None for the loop's own pool, or `default_pool()` if it has none.
        name: What `jobs()`, `dump()` and the log call it.
        deadline: On `manyhands.now()`: then it is stopped.
        priority: The higher, the sooner.
        slow: It takes long: such jobs have at most their share of the pool's threads.

    Returns:
        What the function returned.

    Raises:
        Cancelled: the task was cancelled, and the job has ended. If the job raised an error of its own meanwhile, that
            passes instead.
        JobAborted: the job was stopped for another reason, which the error has; a TimeoutError if that was the deadline.
        JobCancelled: somebody else has called the job's `stop()`.
        PoolFinished: the pool takes no more jobs.
        Exception: whatever the function raises.
    """
    caller = Caller(current_task())
    await checkpoint_if_cancelled()
    # An option that is not given costs nothing.
    options: dict[str, Any] = {"user": caller}
    if name is not None:
        options["name"] = name
    if deadline is not None:
        options["deadline"] = deadline
    if priority != 0:
        options["priority"] = priority
    if slow:
        options["slow"] = True
    if pool is None:
        pool = current_loop().pool or default_pool()
    room, work = _room(pool), (function, args, options)
    job = _enqueue(pool, work) if room.turn.free else None
    if job is None:
        job = await _enqueue_in_line(room, pool, work)
    job.add_done_callback(caller.ended)
    try:
        await caller.attend(job)
        room.look()
        stopped = job.status is JobStatus.STOPPED
        if caller.cancelled is not None and (stopped or job.exception() is None):
            raise caller.cancelled  # noqa: TRY301 - as it came
        if stopped:
            # The job may have heard of it before the task did: `from_thread.check_cancelled`.
            await checkpoint_if_cancelled()
        return job.result()
    except BaseException:
        job.stop()
        raise
    finally:
        # What is raised has this frame in its traceback, and the job and the task have what is raised.
        caller.cancelled = None
        del job, caller, options, work
