"""How a job is run: its steps, its owner's visits, its end. Called by the core and by the loop of a pool's thread."""

from __future__ import annotations

import enum
import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, cast

from manyhands._events import Events
from manyhands._job import CHECKING_IN, RUNNING, STOPPED, STOPPING, SYNC, Job, JobStatus, StopReason
from manyhands._log import Log
from manyhands.errors import JobAborted, JobStopped, LoopClosed, StrandClosed

if TYPE_CHECKING:
    from manyhands._core import Watch

__all__ = [
    "aborted",
    "break_blocking_calls",
    "call_on_done",
    "end",
    "go_on_by_steps",
    "step",
    "visit",
    "visit_when_writable",
]

logger = Log("manyhands.pool")


def aborted(reason: StopReason) -> JobAborted:
    """Make the error of a job that was stopped by anybody but its caller; a TimeoutError too if time was the reason."""
    return JobAborted.of(reason)


def end(job: Job[Any]) -> None:
    """See a job to its end: cleanup, then its status, then those who wait, then the callbacks."""
    duplicate = job.__dict__.pop("duplicate", None)
    if duplicate is not None:
        # It was told to stop while it waited for its owner's descriptor.
        duplicate.remove()
    cleanup = job._take_cleanup()
    if cleanup is not None:
        try:
            job._context.run(cleanup, job)
        except BaseException:
            logger.exception("cleanup %r of job %r raised", cleanup, job.name)
    while True:
        condition = job._conditioned
        if condition is None:
            if job._conclude(False):
                break
        else:
            with condition:
                job._conclude(True)
                _notify(job)
                condition.notify_all()
            break
    for callback in job._take_callbacks():
        try:
            job._call_back(callback)
        except BaseException:
            # SystemExit as well: the thread is the pool's, and serves other jobs.
            logger.exception("done callback %r of job %r raised", callback, job.name)
    hook = job._pool._on_end
    if hook is not None:
        job._pool._call_hook("on_end", hook, job)
    job._let_go()


def call_on_done(job: Job[Any]) -> None:
    """Call the on_done of a job that has ended after its owner's loop was closed."""
    owed = job._take_on_done()
    if owed is None:
        return
    on_done, context = owed
    try:
        context.run(on_done, job)
    except BaseException:
        logger.exception("on_done %r of job %r raised", on_done, job.name)


def _notify(job: Job[Any]) -> None:
    for waiter in job._waiters:
        if job.cancelled():
            waiter.add_cancelled(job)
        elif job._exception is not None:
            waiter.add_exception(job)
        else:
            waiter.add_result(job)


class _Parked(enum.Enum):
    """The step ends and the job does not: what it waits for was left with the core."""

    PARKED = 1


def step(job: Job[Any]) -> object:
    """Run a stepwise job until it lets go of its thread or ends.

    Only one thread at a time is here for one job: the core has the job on one thread, or parked.
    """
    generator = job.__dict__.get("generator")
    try:
        if generator is None:
            generator = job.__dict__["generator"] = _generator(job)
            wish = next(generator)
        else:
            wish = generator.send(_word(job))
        while not _parks(job, wish):
            wish = generator.send(_word(job))
    except StopIteration as stop:
        job.__dict__.pop("generator", None)
        if stop.value is STOPPED:
            raise JobStopped(job.reason) from None
        return stop.value
    except BaseException:
        job.__dict__.pop("generator", None)
        if generator is not None:
            generator.close()
        raise
    else:
        return _Parked.PARKED
    finally:
        # What is raised has this frame in its traceback, and the job has what is raised.
        del job, generator


def go_on_by_steps(job: Job[Any], generator: Generator[object, JobStatus, object]) -> object:
    """Run the rest of a job's function, which is this generator: as a stepwise job from the moment at which it has to wait.

    The last thing that the function does, whose value is this one's. One that never has to wait costs no more than a loop.
    """
    try:
        wish = next(generator)
        while not _parks(job, wish):
            wish = generator.send(_word(job))
    except StopIteration as stop:
        return stop.value
    job.__dict__["generator"] = generator
    job._go_on_by_steps()
    return _Parked.PARKED


def _generator(job: Job[Any]) -> Generator[object, JobStatus, object]:
    work = job._take_work()
    assert work is not None
    function, args, kwargs = work
    generator = function(*args, **(kwargs or {}))
    if not hasattr(generator, "send"):
        raise TypeError(f"enqueue_steps() takes a generator function, and {function!r} returned {generator!r}")
    return cast("Generator[object, JobStatus, object]", generator)


def _parks(job: Job[Any], wish: object) -> bool:
    """Whether the job lets go of its thread for what it has yielded."""
    if wish is CHECKING_IN:
        if not job._others_wait():
            return False
        job._park()
        return True
    if wish is SYNC:
        wish = SYNC()
    if not isinstance(wish, SYNC):
        raise TypeError(f"a stepwise job yields CHECKING_IN or SYNC(value), and yielded {wish!r}")
    return job._park_for_sync(wish.value, wish.timeout, wish.when_writable)


def _word(job: Job[Any]) -> JobStatus:
    return STOPPING if job._told() else RUNNING


def visit(job: Job[Any], number: int, value: object) -> None:
    """On the owner's strand: the owner's side of a sync."""
    if not job._enter_meeting(number):
        return
    failed = True
    try:
        on_sync = job._on_sync()
        if on_sync is not None:
            on_sync(job, value)
        failed = False
    finally:
        job._leave_meeting(number, failed)


def visit_when_writable(job: Job[Any], number: int, value: object) -> None:
    """Have the owner visit when its descriptor can be written to.

    A duplicate of the descriptor is watched for that, on the owner's strand: what the owner's own watch asks for is its
    user's business.
    """
    watch = cast("Watch", job._owned)
    context = job._enqueue_context.copy()

    def writable(duplicate: Watch, events: Events) -> None:  # noqa: ARG001
        job.__dict__.pop("duplicate", None)
        duplicate.remove()
        context.run(visit, job, number, value)

    try:
        duplicate = os.dup(watch.fd)
    except OSError:
        if watch.removed:
            return  # a stepwise job was stopped meanwhile, has ended on another thread, and its owner too
        raise
    try:
        made = job._event_loop.add(duplicate, Events.WRITE, writable, strand=watch.strand, close=True)
    except (StrandClosed, LoopClosed):
        # The owner has ended, and the job is told so.
        os.close(duplicate)
    except BaseException:
        os.close(duplicate)
        raise
    else:
        job.__dict__["duplicate"] = made


def break_blocking_calls(job: Job[Any]) -> None:
    """The job was told to stop: call what it registered for that."""
    for on_stop in list(job._on_stops):
        on_stop.fire()
