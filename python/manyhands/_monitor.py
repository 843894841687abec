"""One thread of the process that looks after the time when every other is busy.

It names a handler that blocks, with its stack, while it still blocks: nobody else can, if every joined thread is in one.
It runs no user code. It starts with the first loop that is joined, looks twice per `slow_handler` while handlers run,
backs off to ten times that while nothing does, and ends when no loop is left.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from manyhands import _core, _guards
from manyhands.errors import ManyhandsError

if TYPE_CHECKING:
    from manyhands._loop import EventLoop

__all__ = ["looked_after"]

logger = logging.getLogger("manyhands.loop")

_IDLE = 10
"""While nothing runs, one look in so many intervals."""


class _Monitor:
    def __init__(self) -> None:
        self.wake = threading.Condition(threading.Lock())
        # How many calls serve each loop. One that nobody serves stays until the next look: a program that calls
        # run_ready() over and over wakes nobody.
        self.loops: weakref.WeakKeyDictionary[EventLoop, int] = weakref.WeakKeyDictionary()
        self.thread: threading.Thread | None = None
        self.ending = False
        self.added = 0

    def add(self, loop: EventLoop) -> None:
        with self.wake:
            known = loop in self.loops
            self.loops[loop] = self.loops.get(loop, 0) + 1
            if known:
                return
            self.added += 1
            if self.thread is None and not self.ending:
                self.thread = threading.Thread(target=self.run, name="mh-monitor", daemon=True)
                self.thread.start()
            self.wake.notify()

    def leave(self, loop: EventLoop) -> None:
        with self.wake:
            if loop in self.loops:  # not in a child that a handler forked
                self.loops[loop] -= 1

    def end(self) -> None:
        with self.wake:
            self.ending = True
            self.wake.notify()
            thread = self.thread
        if thread is not None:
            thread.join(_guards.EXIT_TIMEOUT)

    def run(self) -> None:
        _core.set_thread_name("mh-monitor")
        reported: dict[tuple[int, int], int] = {}
        while True:
            busy, pause, loop = False, float("inf"), None
            with self.wake:
                loops, added = list(self.loops), self.added
            for loop in loops:
                try:
                    busy |= _look(loop, reported)
                except ManyhandsError:  # closed meanwhile
                    continue
                pause = min(pause, loop.slow_handler / 2)
            # Hold none of them while it waits: they could not be collected.
            loops.clear()
            del loop
            with self.wake:
                unserved = [loop for loop, calls in self.loops.items() if calls == 0]
                while unserved:
                    del self.loops[unserved.pop()]
                if self.ending or not self.loops:
                    self.thread = None
                    return
                if added == self.added:  # else a loop came that this look has not seen
                    self.wake.wait(min(pause if busy else pause * _IDLE, threading.TIMEOUT_MAX))


def _look(loop: EventLoop, reported: dict[tuple[int, int], int]) -> bool:
    """Log each handler of the loop that has run for longer than `slow_handler`, once; say whether any handler ran."""
    busy = False
    for seat in loop._seats():  # noqa: SLF001 - the loop's own seam
        if seat.running is None:
            continue
        busy = True
        key = (id(loop), seat.thread)
        if seat.running >= loop.slow_handler and reported.get(key) != seat.handled:
            reported[key] = seat.handled
            _report(loop, seat)
    return busy


def _report(loop: EventLoop, seat: _core.Seat) -> None:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frame = sys._current_frames().get(seat.thread)  # noqa: SLF001 - the documented way to another thread's stack
    stack = "".join(traceback.format_stack(frame)) if frame is not None else "  (the thread has ended)\n"
    watch = loop._watch_by_token(seat.watch)  # noqa: SLF001
    what = "a callback" if watch is None else f"of watch {watch.name!r}"
    logger.warning(
        "loop %r: a handler (%s) has run for %.3f s on thread %r, longer than slow_handler=%g s; other joined threads "
        "go on. Do blocking work on a thread of its own. It is at:\n%s",
        loop.name,
        what,
        seat.running or 0.0,
        names.get(seat.thread, str(seat.thread)),
        loop.slow_handler,
        stack,
    )


_monitor = _Monitor()


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
