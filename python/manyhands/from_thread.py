"""From a job back to the loop: for what `manyhands.run_job` runs.

The task that waits for the job does what is asked here, so it runs in that task's scopes: cancelling them cancels it, and
what it raises comes back to the job. While it runs the job waits, and a stop of the job ends the wait: the call is
cancelled, and when it has ended `JobStopped` is raised.

Anywhere else these calls are a RuntimeError. From a thread that runs no such job use `TaskGroup.start_soon` or
`EventLoop.post`, which any thread may call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from manyhands import _core
from manyhands._tasks._job import Errand, caller_of, raise_stopped

__all__ = ["check_cancelled", "run", "run_sync"]

T = TypeVar("T")


def run(async_fn: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Have the task that waits for this job await `async_fn(*args)`, and wait for the result.

    Raises:
        JobStopped: the job, or its task, is to stop; the call has ended.
        RuntimeError: the thread runs no job of `run_job`.
        Exception: whatever the function raises.

    Blocks: until it has returned.
    """
    return cast("T", _ask("run", async_fn, args, awaits=True))


def run_sync(fn: Callable[..., T], *args: Any) -> T:
    """Have the task that waits for this job call `fn(*args)`, on the loop, and wait for the result.

    Raises:
        Exception: as `run`.

    Blocks: until it has returned.
    """
    return cast("T", _ask("run_sync", fn, args, awaits=False))


def _ask(call: str, function: Callable[..., Any], args: tuple[Any, ...], *, awaits: bool) -> Any:
    if not callable(function):
        raise TypeError(f"from_thread.{call}() takes a function and its arguments, and got {function!r}")
    job = _core.current_job()
    caller = caller_of(job, call)
    assert job is not None
    errand = Errand(lambda: function(*args), awaits=awaits)
    caller.tell(errand)
    return errand.wait(job)


def check_cancelled() -> None:
    """Raise `JobStopped` if the task that waits for this job is cancelled, or the job is to stop: as `check_in`, and sooner.

    Raises:
        JobStopped: it is.
        RuntimeError: the thread runs no job of `run_job`.
    """
    job = _core.current_job()
    caller = caller_of(job, "check_cancelled")
    assert job is not None
    scope = caller.task.scope
    if job.stop_requested or (scope is not None and scope.stopping):
        raise_stopped(job)
