"""The loop of a pool's thread.

It is Python's: nothing of the core may lie below a user's function on a thread that the end of the interpreter may take by
surprise.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from manyhands import _core, _guards
from manyhands._running import break_blocking_calls, call_on_done, end

if TYPE_CHECKING:
    from manyhands._job import Job
    from manyhands._pool import ThreadPool

__all__ = ["call_hooked", "run_errand", "serve", "thread_main"]


def thread_main(pools: list[ThreadPool], lane: int, name: str) -> None:
    """Serve a pool on a thread of its own."""
    worker = pools.pop()._worker(lane)
    front, _, number = name.rpartition("-")
    _guards.name_thread(front, number)
    worker.lend()
    contextvars.Context().run(serve, worker)


def serve(worker: _core.Worker) -> None:
    """Run what the pool has, until it has nothing more for this thread."""
    try:
        while (call := worker.take()) is not None:
            function, args, kwargs = call
            try:
                value = function(*args, **kwargs) if kwargs else function(*args)
            except BaseException as error:  # noqa: BLE001 - it is the job's
                job = worker.failed(error)
            else:
                job = worker.returned(value)
                value = None
            # Nothing of a job may be held while the thread waits for the next.
            call = function = args = kwargs = None  # type: ignore[assignment]
            if job is not None:
                end(job)
                job = None
    except BaseException as error:
        # Ctrl-C between two of the worker's calls, on a thread that is not the pool's: the job must not stay half done.
        job = worker.interrupted(error)
        if job is not None:
            end(job)
        raise


def call_hooked(
    hook: Callable[[object], object],
    job: _core.JobCore,
    function: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
) -> object:
    """Call a job's function after the pool's on_start."""
    begun = cast("Job[Any]", job)
    if not begun.__dict__.get("hooked"):
        begun.__dict__["hooked"] = True
        begun._pool._call_hook("on_start", hook, begun)
    # What the function raises has this frame in its traceback, and the job has what it raises.
    del job, begun
    return function(*args, **(kwargs or {}))


_ERRANDS: dict[str, Callable[[Job[Any]], None]] = {
    "conclude": end,
    "on_stop": break_blocking_calls,
    "on_done": call_on_done,
}


def run_errand(job: Job[Any], errand: str) -> None:
    """Do what is owed to a job and is neither its own thread's nor its owner's loop's to do."""
    _ERRANDS[errand](job)
