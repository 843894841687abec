"""One thread of the process that looks after the time when every other is busy.

It names a handler that blocks, with its stack, while it still blocks: nobody else can, if every joined thread is in one.
It stops jobs whose deadline has passed, and names those that were told to stop and do not check in. It runs no user code:
what it has to say is logged by another thread, see `_reports`.
It starts with the first loop that is joined or the first pool that is made, looks twice per `slow_handler` while handlers
run, backs off to ten times that while nothing does, sleeps until something expires for pools, and ends when nothing is
left to look after.

It is woken by the core's alarm, which takes no lock of Python's: a finalizer may set a deadline.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING

from manyhands import _core, _guards
from manyhands._log import Log
from manyhands._reports import Reports, going_on
from manyhands._sight import what_runs
from manyhands._stacks import stack_text

if TYPE_CHECKING:
    from manyhands._loop import EventLoop
    from manyhands._pool import ThreadPool

__all__ = ["look_after_pool", "looked_after"]

logger = Log("manyhands.loop")
pool_logger = Log("manyhands.pool")

_POOL_LOOK = 5.0
"""Seconds: while there are pools, a look at least so often."""

_IDLE = 10
"""While nothing runs, one look in so many intervals."""


class _Monitor:
    def __init__(self) -> None:
        self.lock = threading.RLock()  # reentrant: a finalizer may make a pool, or serve a loop, wherever it comes by
        # Plain dicts of weak references, of which entries go at any moment: the collector calls `forget`. To list the keys or
        # the values of one is one step; to list its items is not, where a new tuple may start a collection.
        self.loops: dict[int, weakref.ref[EventLoop]] = {}
        self.pools: dict[int, weakref.ref[ThreadPool]] = {}
        # How many calls serve each loop. One that nobody serves stays until the next look: a program that calls
        # run_ready() over and over wakes nobody.
        self.calls: dict[int, int] = {}
        self.thread: threading.Thread | None = None
        self.ending = False
        self.reports = Reports()

    def add(self, loop: EventLoop) -> None:
        with self.lock:
            key = id(loop)
            if key not in self.loops:
                self.start()
                self.loops[key] = weakref.ref(loop, lambda _: self.forget(key))
                _core.alarm_ring()
            self.calls[key] = self.calls.get(key, 0) + 1

    def leave(self, loop: EventLoop) -> None:
        with self.lock:
            if id(loop) in self.calls:  # not in a child that a handler forked
                self.calls[id(loop)] -= 1

    def forget(self, key: int) -> None:
        self.loops.pop(key, None)
        self.calls.pop(key, None)

    def forget_unserved(self) -> None:
        for key in list(self.calls):
            if self.calls.get(key) == 0:
                self.forget(key)

    def add_pool(self, pool: ThreadPool) -> None:
        with self.lock:
            key = id(pool)
            self.start()
            self.pools[key] = weakref.ref(pool, lambda _: self.pools.pop(key, None))
            _core.alarm_ring()

    def start(self) -> None:
        """Have a thread. What is to be looked after is entered behind it: if none is to be had, nothing has begun."""
        if self.thread is None and not self.ending:
            self.thread = threading.Thread(target=self.run, name="mh-monitor", daemon=True)
            try:
                self.thread.start()
            except BaseException:
                self.thread = None
                raise

    def end(self) -> None:
        with self.lock:
            self.ending = True
            thread = self.thread
        _core.alarm_ring()
        until = monotonic() + _guards.EXIT_TIMEOUT
        if thread is not None:
            thread.join(_guards.EXIT_TIMEOUT)
        self.reports.join(max(0.0, until - monotonic()))

    def run(self) -> None:
        _core.set_thread_name("mh-monitor")
        reported: dict[tuple[int, int], int] = {}
        rung = 0
        while True:
            # Whoever comes after this look rings, and the wait is over at once.
            rung = _core.alarm_wait(rung, 0.0)
            pause = _POOL_LOOK
            with going_on():
                pause = min(self.look_at_loops(reported), self.look_at_pools())
            with self.lock:
                with going_on():
                    self.forget_unserved()
                if self.ending or not (self.loops or self.pools):
                    self.thread = None
                    return
            rung = _core.alarm_wait(rung, min(pause, threading.TIMEOUT_MAX))

    def look_at_loops(self, reported: dict[tuple[int, int], int]) -> float:
        """Say how many seconds may pass until the next look."""
        busy, pause = False, float("inf")
        loops = [loop for reference in list(self.loops.values()) if (loop := reference()) is not None]
        # It holds none of them while it waits: they could not be collected.
        while loops:
            loop = loops.pop()
            pause = min(pause, loop.slow_handler / 2)
            with going_on():
                busy |= self.look_at_loop(loop, reported)
        return pause if busy else pause * _IDLE

    def look_at_pools(self) -> float:
        """Say how many seconds may pass until the next look."""
        pause = float("inf")
        pools = [pool for reference in list(self.pools.values()) if (pool := reference()) is not None]
        while pools:
            pool = pools.pop()
            with going_on():
                expires, silent = pool._expire()
                if expires is not None:
                    pause = min(pause, max(0.0, expires - _core.now()))
                while silent:
                    with going_on():
                        self.report_silent(pool, silent.pop())
            if not pools:
                # A pool that nobody holds any more is looked for now and then: its entry is the monitor's reason to stay.
                pause = min(pause, _POOL_LOOK)
        return pause

    def look_at_loop(self, loop: EventLoop, reported: dict[tuple[int, int], int]) -> bool:
        """Log each handler of the loop that has run for longer than `slow_handler`, once; say whether any handler ran."""
        busy = False
        for seat in loop._seats():
            if seat.running is None:
                continue
            busy = True
            key = (id(loop), seat.thread)
            if seat.running >= loop.slow_handler and reported.get(key) != seat.handled:
                reported[key] = seat.handled
                self.report(loop, seat)
        return busy

    def report(self, loop: EventLoop, seat: _core.Seat) -> None:
        if not logger.isEnabledFor(logging.WARNING):
            return  # nobody reads it
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        self.reports.warn(
            logger,
            "loop %r: %s has run for %.3f s on thread %r, longer than slow_handler=%g s; other joined threads go on. "
            "Do blocking work on a thread of its own. It is at:\n%s",
            loop.name,
            what_runs(loop, seat),
            seat.running or 0.0,
            names.get(seat.thread, str(seat.thread)),
            loop.slow_handler,
            stack_text(seat.thread),
        )

    def report_silent(self, pool: ThreadPool, job: _core.JobCore) -> None:
        if job.done() or not job._thread or not pool_logger.isEnabledFor(logging.WARNING):
            return
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        self.reports.warn(
            pool_logger,
            "pool %r: job %r was told to stop (%s) and has not checked in for %g s, on thread %r; let it call "
            "manyhands.check_in() now and then, or give it an on_stop. It is at:\n%s",
            pool.name,
            job.name,
            job.reason.name if job.reason is not None else "",
            pool._stop_warning,
            names.get(job._thread, str(job._thread)),
            stack_text(job._thread),
        )


_monitor = _Monitor()


def look_after_pool(pool: ThreadPool) -> None:
    """Have the monitor look after the deadlines of a pool, as long as somebody holds it."""
    _monitor.add_pool(pool)


@contextlib.contextmanager
def looked_after(loop: EventLoop) -> Iterator[None]:
    """While entered, the monitor looks after the loop: the calling thread is about to serve it."""
    _monitor.add(loop)
    try:
        yield
    finally:
        _monitor.leave(loop)


def _fresh() -> None:
    global _monitor  # noqa: PLW0603 - the parent's lock may be held by a thread that does not exist here
    _monitor = _Monitor()


_guards.at_exit(lambda: _monitor.end())  # noqa: PLW0108 - the one of then: a forked child has another
_guards.in_child(_fresh)
