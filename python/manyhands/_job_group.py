"""Jobs that belong together: whoever leaves the group has waited for all of them, and the first error stops the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from manyhands import _core
from manyhands._job import JobStatus
from manyhands.errors import JobCancelled

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from manyhands._job import Job
    from manyhands._pool import ThreadPool

__all__ = ["JobGroup"]

T = TypeVar("T")


class JobGroup:
    """Jobs of one pool that end together. Made by `ThreadPool.job_group`, used as a context manager.

    At the end of the block it waits for every job. The first that raises, or an error of the block itself, stops the
    others; then an ExceptionGroup with every error is raised.

    Threads: the block and its jobs may add jobs, from any thread, until the block has been left.
    """

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self._jobs: list[Job[Any]] = []
        self._stopped: set[int] = set()
        self._stopping = False
        self._left = False

    @property
    def jobs(self) -> list[Job[Any]]:
        """Its jobs, in the order in which they were added."""
        return list(self._jobs)

    def enqueue(self, function: Callable[..., T], /, *args: Any, **options: Any) -> Job[T]:
        """Enqueue a job of the group, with the options of `ThreadPool.enqueue`."""
        return self._add(self._enter().enqueue(function, *args, **options))

    def enqueue_steps(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Job[Any]:
        """Enqueue a stepwise job of the group, with the options of `ThreadPool.enqueue`."""
        return self._add(self._enter().enqueue_steps(function, *args, **options))

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Job[T]:
        """Submit a call as a job of the group; the queue may be waited for, as by `ThreadPool.submit`."""
        return self._add(self._enter().submit(function, *args, **kwargs))

    def _enter(self) -> ThreadPool:
        if self._left:
            raise RuntimeError("the group has been left: make a new one by pool.job_group()")
        return self._pool

    def _add(self, job: Job[T]) -> Job[T]:
        self._jobs.append(job)
        job.add_done_callback(self._on_done)
        if self._stopping:
            self._stop_one(job)
        return job

    def _on_done(self, job: Any) -> None:
        if not job.cancelled() and job._error is not None:
            self.stop()

    def _stop_one(self, job: Job[Any]) -> None:
        if job.reason is None and not job.done():
            # First: who waits may see the end at once.
            self._stopped.add(job.id)
            job.stop()

    def stop(self) -> None:
        """Stop every job of the group; those are no errors of it."""
        self._stopping = True
        for job in list(self._jobs):
            self._stop_one(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        if error is not None:
            self.stop()
        errors: list[BaseException] = [] if error is None else [error]
        waited = 0
        try:
            # A job may have added another meanwhile.
            while waited < len(self._jobs):
                errors.extend(self._wait(self._jobs[waited]))
                waited += 1
        except BaseException:
            # Ctrl-C, or a check-in of the job that waits here: nobody waits for the rest, but it is told.
            self.stop()
            raise
        finally:
            self._left = True
        if isinstance(error, Exception) or (error is None and errors):
            group = [one for one in errors if isinstance(one, Exception)]
            rest = [one for one in errors if not isinstance(one, Exception)]
            if rest:
                raise BaseExceptionGroup("jobs of a group failed", [*group, *rest]) from None
            raise ExceptionGroup("jobs of a group failed", group) from None

    def _wait(self, job: Job[Any]) -> list[BaseException]:
        while True:
            try:
                # In slices: the waiting thread may itself run a job that is told to stop.
                error = job.exception(0.05 if _core.current_job() is not None else None)
            except TimeoutError:
                if job.done():
                    continue
                _core.check_in()
            except JobCancelled as cancelled:
                return [] if job.id in self._stopped else [cancelled]
            else:
                gave_up = job.status is JobStatus.STOPPED and job.id in self._stopped
                if error is None or gave_up:
                    return []
                return [error]
