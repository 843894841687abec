"""What `ThreadPool.map` gives: the results of many jobs, in order, of which only so many are under way."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from manyhands._executor import PoolExecutor
    from manyhands._job import Job
    from manyhands._pool import ThreadPool

__all__ = ["map_jobs"]

T = TypeVar("T")


def map_jobs(
    pool: ThreadPool | PoolExecutor,
    function: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    *,
    timeout: float | None,
    buffersize: int | None,
) -> Iterator[T]:
    """Begin the jobs now, as `concurrent.futures` does, and return an iterator over their results."""
    if not callable(function):
        raise TypeError(f"fn must be callable, and got {function!r}")
    if buffersize is not None and (isinstance(buffersize, bool) or not isinstance(buffersize, int)):
        raise TypeError(f"buffersize must be an int or None, and got {buffersize!r}")
    if buffersize is not None and buffersize < 1:
        raise ValueError(f"buffersize must be at least 1 (None for any number), and got {buffersize}")
    if not iterables:
        return iter(())
    end = None if timeout is None else time.monotonic() + timeout
    calls = zip(*iterables, strict=False)
    pending: collections.deque[Job[T]] = collections.deque()
    try:
        for args in calls:
            pending.append(pool.submit(function, *args))
            if buffersize is not None and len(pending) >= buffersize:
                break
    except BaseException:
        _stop(pending)
        raise
    return _results(pool, function, calls if buffersize is not None else iter(()), pending, end)


def _results(
    pool: ThreadPool | PoolExecutor,
    function: Callable[..., T],
    calls: Iterator[tuple[Any, ...]],
    pending: collections.deque[Job[T]],
    end: float | None,
) -> Generator[T, None, None]:
    try:
        while pending:
            # Nothing of a result is held here while the caller has it.
            yield _result(pending.popleft(), end)
            for args in calls:
                pending.append(pool.submit(function, *args))
                break
    finally:
        _stop(pending)


def _result(job: Job[T], end: float | None) -> T:
    try:
        return job.result(None if end is None else max(0.0, end - time.monotonic()))
    finally:
        job.cancel()
        del job


def _stop(jobs: collections.deque[Job[T]]) -> None:
    for job in jobs:
        job.cancel()
