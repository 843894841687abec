"""A `concurrent.futures.ThreadPoolExecutor` whose calls are jobs of a pool: for code that insists on that class."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from manyhands import _core
from manyhands._mapping import map_jobs
from manyhands.errors import PoolFinished, WouldDeadlock

if TYPE_CHECKING:
    from manyhands._job import Job
    from manyhands._pool import ThreadPool

__all__ = ["PoolExecutor"]

T = TypeVar("T")


class PoolExecutor(concurrent.futures.ThreadPoolExecutor):
    """A pool behind the class that `asyncio` asks for. Made by `ThreadPool.executor`."""

    def __init__(self, pool: ThreadPool) -> None:
        # Not ThreadPoolExecutor's: it has no queue and no threads of its own. These are what others look at.
        self._pool = pool
        self._max_workers = pool.threads
        self._thread_name_prefix = f"mh-{pool.name}"
        self._changed = threading.Condition()
        self._open = True
        self._jobs: set[Job[Any]] = set()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Job[T]:
        """As `ThreadPool.submit`, but that it raises QueueFull instead of waiting on a thread that runs an asyncio loop."""
        if not self._open:
            raise PoolFinished(f"{self._pool.name} (executor)")
        if asyncio._get_running_loop() is not None:
            job = self._pool._submit_now(fn, args, kwargs)
        else:
            job = self._pool.submit(fn, *args, **kwargs)
        with self._changed:
            self._jobs.add(job)
        job.add_done_callback(self._ended)
        return job

    def _ended(self, job: Any) -> None:
        with self._changed:
            self._jobs.discard(job)
            self._changed.notify_all()

    def map(self, fn: Callable[..., T], *iterables: Any, **options: Any) -> Any:
        """As `ThreadPool.map`."""
        if not self._open:
            raise PoolFinished(f"{self._pool.name} (executor)")
        options.pop("chunksize", None)
        return map_jobs(
            self, fn, iterables, timeout=options.pop("timeout", None), buffersize=options.pop("buffersize", None)
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take no more calls; wait for those that were made here. The pool goes on."""
        with self._changed:
            self._open = False
            jobs = list(self._jobs)
        if cancel_futures:
            for job in jobs:
                if not job.running():
                    job.cancel()
        if wait and _core.is_lent():
            raise WouldDeadlock.about(
                f"shutdown(wait=True) of an executor of pool {self._pool.name!r} would wait, and this thread is lent: "
                "use wait=False here"
            )
        if wait:
            with self._changed:
                self._changed.wait_for(lambda: not self._jobs)
