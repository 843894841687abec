"""Counts of a loop at one moment."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LoopStats"]


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
