"""ThreadPool: a bounded pool whose jobs have a name, a status and an owner, and can be told to stop.

The queue, the statuses and the waiting are in the core; here are the policy, the start of threads and what a user sees.
"""

from __future__ import annotations

import _thread
import concurrent.futures
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from manyhands import _core, _guards, _monitor
from manyhands._arguments import check_choice, check_int, check_number, check_seconds
from manyhands._job import Job, JobSnapshot, StopReason, snapshot, threads_by_ident
from manyhands._job_group import JobGroup
from manyhands._log import Log
from manyhands._mapping import map_jobs
from manyhands._pool_thread import serve, thread_main
from manyhands._stacks import stack_text
from manyhands._stats import PoolStats, histogram
from manyhands.errors import WouldDeadlock

if TYPE_CHECKING:
    from typing import Self

    from manyhands._executor import PoolExecutor

__all__ = ["ThreadPool"]

T = TypeVar("T")

logger = Log("manyhands.pool")

MOST_THREADS = 10_000
"""Threads that a pool may ask for: more than any process is given."""

ERRAND_THREADS = 4
"""Threads, at most, that run callbacks of jobs that never ran or were told to stop."""

OWN_THREADS = 4
"""Threads, at most, of the library's own lane."""

IDLE_LOOK = 0.5
"""Seconds: an idle thread of a free-threaded interpreter looks up so often, to let go of what others have dropped."""

REASONS = list(StopReason)


class ThreadPool(_core.PoolCore, concurrent.futures.Executor):
    """A bounded pool of threads for calls that block; a `concurrent.futures.Executor` whose jobs can be stopped.

    ```python
    pool = manyhands.ThreadPool(threads=8, name="reports")
    job = pool.enqueue(render, report, owner=watch, on_done=send)
    ```

    Args:
        threads: How many jobs run at a time, at most; threads are started when they are needed. None for
            `min(32, cores + 4)`.
        max_queue_depth: How many jobs may wait beyond those that a thread takes at once, 0 or more; None for any number.
        when_full: What `enqueue` does then: "refuse" (QueueFull), "wait", or "run_here", in the calling thread.
        full_timeout: Seconds that "wait" waits before QueueFull; None for ever.
        name: Part of its threads' names, `mh-<name>-<n>`.
        max_done: How many ended jobs are kept to be reaped; beyond them the oldest is dropped, and counted.
        slow_share: The share of the threads that jobs enqueued with `slow=True` may take, above 0 and up to 1; at least
            one thread.
        stop_warning: Seconds after which a job that was told to stop and has not checked in is logged, with its stack.
        on_submit: Called as `on_submit(job)` in the submitting thread when a job was taken.
        on_start: Called as `on_start(job)` on the job's thread, before its function.
        on_end: Called as `on_end(job)` when it has ended.

    Threads: any.
    """

    def __init__(
        self,
        threads: int | None = None,
        *,
        max_queue_depth: int | None = 1024,
        when_full: str = "refuse",
        full_timeout: float | None = None,
        name: str = "pool",
        max_done: int = 1024,
        slow_share: float = 0.5,
        stop_warning: float = 1.0,
        on_submit: Callable[[Job[Any]], object] | None = None,
        on_start: Callable[[Job[Any]], object] | None = None,
        on_end: Callable[[Job[Any]], object] | None = None,
    ) -> None:
        if threads is None:
            threads = min(32, (os.cpu_count() or 1) + 4)
        check_int("threads", threads, at_least=1, at_most=MOST_THREADS)
        if max_queue_depth is not None:
            check_int("max_queue_depth", max_queue_depth, at_least=0)
        check_int("max_done", max_done, at_least=0)
        check_choice("when_full", when_full, ("refuse", "wait", "run_here"))
        check_seconds("full_timeout", full_timeout)
        check_number("stop_warning", stop_warning, "0 seconds or more, and finite", lambda value: 0 <= value < math.inf)
        check_number("slow_share", slow_share, "above 0 and at most 1", lambda value: 0 < value <= 1)
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, and got {name!r}")
        for hook_name, hook in (("on_submit", on_submit), ("on_start", on_start), ("on_end", on_end)):
            if hook is not None and not callable(hook):
                raise TypeError(f"{hook_name} must be callable, and got {hook!r}")
        self._open(
            name=name,
            threads=threads,
            errand_threads=ERRAND_THREADS,
            max_queue_depth=max_queue_depth,
            max_done=max_done,
            max_slow=max(1, math.floor(threads * slow_share)),
            stop_warning=float(stop_warning),
            idle_look=None if _guards.gil_enabled() else IDLE_LOOK,
            when_full=when_full,
            full_timeout=full_timeout,
            job_class=Job,
            on_submit=on_submit,
            on_start=on_start,
            on_end=on_end,
        )
        self._limit = threads
        self._depth = max_queue_depth
        self._stop_warning = float(stop_warning)
        self._finished = False
        # How many threads of each lane were started: gives them their numbers.
        self._numbers = [0, 0]
        self._own: ThreadPool | None = None
        self._own_lock = threading.Lock()
        _guards.register_pool(self)
        _monitor.look_after_pool(self)

    @property
    def threads(self) -> int:
        """How many jobs run at a time, at most."""
        return self._limit

    @property
    def finished(self) -> bool:
        """Whether it takes no more jobs."""
        return self._finished

    # Its threads

    def _start_thread(self, lane: int) -> None:
        # Whoever submits may be a finalizer that came while this very thread held a lock of `threading`: so the thread is
        # started by a thread of its own, which holds none.
        _thread.start_new_thread(self._start_thread_proper, (lane,))

    def _start_thread_proper(self, lane: int) -> None:
        try:
            number, self._numbers[lane] = self._numbers[lane], self._numbers[lane] + 1
            name = f"mh-{self.name}-{'x' if lane else ''}{number}"
            # In a list, from which it is taken: a thread must not hold its pool as long as it lives.
            threading.Thread(target=thread_main, args=([self], lane, name), name=name, daemon=True).start()
        except BaseException:
            self._start_failed(lane)
            logger.exception("pool %r could not start a thread", self.name)

    def _call_hook(self, name: str, hook: Callable[[Job[Any]], object], job: Job[Any]) -> None:
        try:
            hook(job)
        except BaseException as error:
            # In the submitter's thread Ctrl-C is the submitter's; a thread of the pool serves other jobs.
            if name == "on_submit" and not isinstance(error, Exception):
                raise
            logger.exception("%s %r of pool %r raised", name, hook, self.name)

    def _run_here(self, worker: _core.Worker, job: Job[Any]) -> None:
        serve(worker)
        if isinstance(job._error, (KeyboardInterrupt, SystemExit)) and not job.stop_requested:
            # On the submitter's own thread it is the submitter's.
            raise job._error

    # The library's own

    def _own_lane(self) -> ThreadPool:
        """The library's own lane, which no user's job can fill: names are resolved and files read here."""
        with self._own_lock:
            if self._own is None:
                self._own = ThreadPool(OWN_THREADS, name=f"{self.name}-own", max_queue_depth=None)
            return self._own

    # Executor

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,  # noqa: ARG002 - concurrent.futures' signature
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call a function with the elements of the iterables, and give its results in their order.

        As `concurrent.futures.Executor.map`, and with `buffersize` on every Python: then at most so many jobs are under
        way or have results that were not taken, and the iterables are read as the results are taken.

        Args:
            fn: The function.
            iterables: Its arguments; the shortest ends it.
            timeout: Seconds from now in which every result has to come.
            chunksize: For processes; of no effect here.
            buffersize: At least 1; None for any number.

        Raises:
            TimeoutError: a result was not there in time.
        """
        return map_jobs(self, fn, iterables, timeout=timeout, buffersize=buffersize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """As `concurrent.futures.Executor.shutdown`: take no more jobs; those that are queued still run.

        Args:
            wait: Wait until every job has ended and every thread has left.
            cancel_futures: Stop the jobs that have not begun.

        Raises:
            WouldDeadlock: `wait`, on a lent thread.
        """
        if wait and _core.is_lent():
            raise _waits("shutdown(wait=True)", self.name)
        self._finished = True
        self._close_entrance()
        if cancel_futures:
            self._stop_all(REASONS.index(StopReason.CALLER), False)
        if wait:
            try:
                self._wait_left(None)
            except BaseException:
                # Ctrl-C ends the wait, and the jobs are told.
                self.finish()
                raise
        with self._own_lock:
            own = self._own
        if own is not None:
            own.shutdown(wait, cancel_futures=cancel_futures)

    def finish(self) -> None:
        """Take no more jobs, stop those that are queued, and tell those that run to stop (POOL_FINISHING). Returns at once.

        Threads: any; also a handler of signals or a finalizer.
        """
        self._finished = True
        self._close_entrance()
        self._stop_all(REASONS.index(StopReason.POOL_FINISHING), True)
        own = self._own
        if own is not None:
            own.finish()

    def destroy(self, timeout: float | None = None) -> list[JobSnapshot]:
        """`finish()`, and wait until every job has ended and every thread has left.

        Args:
            timeout: Seconds; None for ever.

        Returns:
            The jobs that still run after `timeout`; each is logged with its stack.

        Raises:
            WouldDeadlock: the calling thread is lent.
        """
        if _core.is_lent():
            raise _waits("destroy()", self.name)
        check_seconds("timeout", timeout)
        self.finish()
        if self._wait_left(timeout):
            return []
        return self._report_left()

    def _report_left(self) -> list[JobSnapshot]:
        left = [job for job in self.jobs() if job.thread is not None]
        for job in left:
            logger.warning(
                "pool %r: job %r (%s, %.3f s old) still runs on thread %r; it neither checks in nor has an on_stop. "
                "It is at:\n%s",
                self.name,
                job.name,
                job.status.name,
                job.age,
                job.thread,
                stack_of(job.thread),
            )
        return left

    def executor(self) -> PoolExecutor:
        """Make a `concurrent.futures.ThreadPoolExecutor` whose calls are jobs of this pool.

        For `asyncio`, whose `set_default_executor` insists on that class. On a thread that runs an asyncio loop a full
        queue is QueueFull, where another caller would wait. Its `shutdown` waits for its own jobs and leaves the pool.
        """
        from manyhands._executor import PoolExecutor  # noqa: PLC0415 - a subclass of what few programs need

        return PoolExecutor(self)

    def job_group(self) -> JobGroup:
        """Make a group: the end of its `with` block waits for its jobs, and the first error stops the others."""
        return JobGroup(self)

    # Sight

    def jobs(self, owner: object = None) -> list[JobSnapshot]:
        """Every job that has not been reaped, the earliest first.

        Args:
            owner: Only this owner's; None for all.
        """
        names = threads_by_ident()
        views = self._views()
        return [snapshot(job, status, age, names) for job, status, age in views if owner is None or job.owner is owner]

    def stats(self) -> PoolStats:
        """Counts at this moment; `submitted` is the sum of everything from `queued` to `stopped`."""
        counts = self._counts()
        return PoolStats(
            name=self.name,
            threads=counts.threads,
            busy=counts.busy,
            queued=counts.queued,
            oldest_wait=counts.oldest_wait,
            submitted=counts.submitted,
            refused=counts.refused,
            running=counts.running,
            syncing_held=counts.syncing_held,
            syncing_parked=counts.syncing_parked,
            stopping=counts.stopping,
            finished=counts.finished,
            stopped=counts.stopped,
            done=counts.done,
            dropped=counts.dropped,
            wait_seconds=histogram(counts.wait_times),
            run_seconds=histogram(counts.run_times),
        )

    def dump(self) -> str:
        """The pool as text: its counts, and every job with status, age, owner, thread and progress."""
        stats = self.stats()
        state = ", finished" if self.finished else ""
        counts = (
            f"{stats.threads} of {self.threads} threads, {stats.busy} busy, {stats.queued} queued, {stats.done} done"
        )
        lines = [f"pool {self.name!r}: {counts}{state}"]
        for job in self.jobs():
            reason = f" ({job.reason.name})" if job.reason is not None else ""
            line = f"  job {job.id} {job.name!r} {job.status.name}{reason} {job.age:.3f} s"
            line += f" on {job.thread}" if job.thread is not None else ""
            line += f" of {job.owner!r}" if job.owner is not None else ""
            if job.progress is not None:
                done, total, note = job.progress
                line += f" {done:g}" + (f"/{total:g}" if total is not None else "") + (f" {note}" if note else "")
            lines.append(line)
        return "\n".join(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            # Ctrl-C: whoever leaves like this does not want to wait for jobs that nobody has told.
            self.finish()
        if not _core.is_lent():
            self.shutdown()
            return
        # Nobody else will end it.
        self.shutdown(wait=False)
        if kind is None:
            raise _waits("the end of the with block", self.name)

    def __repr__(self) -> str:
        state = " finished" if self.finished else ""
        return f"<manyhands.ThreadPool {self.name!r} threads={self.threads}{state}>"


def _waits(call: str, name: str) -> WouldDeadlock:
    return WouldDeadlock.about(
        f"{call} of pool {name!r} would wait, and this thread is lent to a loop or a job: call finish() here, and wait from "
        "another thread"
    )


def stack_of(name: str | None) -> str:
    """The stack of a thread, as text."""
    ident = next((thread.ident for thread in threading.enumerate() if thread.name == name), None)
    return stack_text(ident)
