"""Counts of a loop or a pool at one moment."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LoopStats", "PoolStats", "histogram"]


@dataclass(frozen=True, slots=True)
class LoopStats:
    """Counts of a loop at one moment: what `EventLoop.stats()` returns.

    Attributes:
        joined: Threads in `join()`.
        parked: Of these, threads that wait without leading.
        ready: Entries of the run queue: strands with something to do, messages, timers that are due.
        watches: Registered descriptors.
        timers: Timers that are set.
        handled: Handlers, messages and timers run since the loop was made.
        polls: Waits in the poller.
        wakes: Threads woken because there was something to do.
        standbys: Parked threads woken to take over the waiting should a handler last too long.
        errors: Callbacks that raised.
        handler_seconds: Histogram of how long they took: (upper bound in seconds, count); the last bound is infinite.
    """

    joined: int
    parked: int
    ready: int
    watches: int
    timers: int
    handled: int
    polls: int
    wakes: int
    standbys: int
    errors: int
    handler_seconds: tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts of a pool at one moment: what `ThreadPool.stats()` returns.

    `submitted` is the sum of `queued`, `running`, `syncing_held`, `syncing_parked`, `stopping`, `finished` and `stopped`.

    Attributes:
        name: The pool's name.
        threads: Threads that were started for jobs and live.
        busy: Jobs that have a thread, in place included.
        queued: Jobs that have not begun.
        oldest_wait: Seconds that the longest waiting one has waited, or None.
        submitted: Jobs taken since the pool was made.
        refused: Jobs refused because the queue was full.
        running: Jobs that run.
        syncing_held: Jobs that wait for their owner and hold a thread.
        syncing_parked: Stepwise jobs that wait for their owner, without a thread.
        stopping: Jobs that were told to stop and have not ended.
        finished: Jobs that have ended by themselves.
        stopped: Jobs that never ran, or gave up when they were told to stop.
        done: Ended jobs that wait to be reaped.
        dropped: Ended jobs that were not reaped and made room for later ones.
        wait_seconds: Histogram of how long jobs waited before they began: (upper bound in seconds, count).
        run_seconds: Histogram of how long they took.
    """

    name: str
    threads: int
    busy: int
    queued: int
    oldest_wait: float | None
    submitted: int
    refused: int
    running: int
    syncing_held: int
    syncing_parked: int
    stopping: int
    finished: int
    stopped: int
    done: int
    dropped: int
    wait_seconds: tuple[tuple[float, int], ...]
    run_seconds: tuple[tuple[float, int], ...]


def histogram(counts: list[int]) -> tuple[tuple[float, int], ...]:
    """The core's counts with their upper bounds in seconds: 2^i microseconds, the last one infinite."""
    last = len(counts) - 1
    return tuple((float("inf") if i == last else 2**i / 1e6, count) for i, count in enumerate(counts))
