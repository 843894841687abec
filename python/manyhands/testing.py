"""Tools for tests of programs that use manyhands: a clock moved by hand, forced interleavings, the leak line.

Named points are compiled to nothing in normal builds: `hold` raises there. `make build` compiles them in.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from manyhands import _core

if TYPE_CHECKING:
    from manyhands._loop import EventLoop
    from manyhands._stats import LoopStats

__all__ = ["POINTS", "Hold", "MockClock", "hold", "live_objects", "points_compiled", "wait_all_idle"]

POINTS: tuple[str, ...] = tuple(_core.point_names())
"""The name of every point at which a thread can be held."""


class MockClock(_core.ManualClock):
    """A clock for a loop's timers that stands until it is moved: `EventLoop(clock=MockClock())`.

    Only timers go by it; how long `join`, `pause` or `stop` wait is always real time.

    Args:
        start: Seconds that it shows at first, 0 or more.
        autojump: Move by itself, to the next timer, whenever every joined thread of its loops waits.

    Threads: any.
    """


class Hold:
    """A thread held at a named point, or about to be. Made by `hold`."""

    def __init__(self, point: _core.HoldPoint, name: str) -> None:
        self._point = point
        self._name = name

    @property
    def reached(self) -> bool:
        """Whether a thread has come to the point and was held."""
        return self._point.reached

    def wait_reached(self, timeout: float = 10.0) -> None:
        """Wait until a thread is held.

        Raises:
            TimeoutError: none came within `timeout` seconds.
        """
        if not self._point.wait(timeout):
            raise TimeoutError(f"no thread came to the point {self._name!r} within {timeout} s")

    def release(self) -> None:
        """Let the thread go on, and hold no other. Idempotent."""
        self._point.release()


@contextlib.contextmanager
def hold(name: str, *, after: int = 0) -> Iterator[Hold]:
    """Hold the next thread that comes to a named point, until `release()` or the end of the `with` block.

    Args:
        name: One of `POINTS`.
        after: Let so many threads pass first.

    Raises:
        ValueError: no point has this name.
        RuntimeError: this build has no points.
    """
    held = Hold(_core.HoldPoint(name, after), name)
    try:
        yield held
    finally:
        held.release()


def points_compiled() -> bool:
    """Whether this build has named points."""
    return _core.points_compiled()


def wait_all_idle(*loops: EventLoop, timeout: float = 10.0) -> None:
    """Wait until nothing is queued, ready or due on these loops, nobody is inside, and every joined thread waits.

    Raises:
        TimeoutError: that was not so within `timeout` seconds; with every loop's `dump()`.
    """
    deadline = time.monotonic() + timeout
    pause = threading.Event()

    def wait_for(predicate: Callable[[], bool]) -> None:
        while not predicate():
            if time.monotonic() > deadline:
                dumps = "\n".join(loop.dump() for loop in loops)
                raise TimeoutError(f"not idle after {timeout} s:\n{dumps}")
            pause.wait(0.001)

    def look() -> list[LoopStats]:
        wait_for(lambda: all(loop._is_idle() for loop in loops))  # noqa: SLF001 - the loop's own seam
        return [loop.stats() for loop in loops]

    def came_round(loop: EventLoop, polls: int) -> bool:
        return not loop.joined or loop.stats().polls > polls

    # A leader whose poller has just returned still looks as if it waited, with events in its hand. So everybody is made
    # to come out and go in once more: what they had has then been handled, and shows in the counts.
    before = look()
    while True:
        for loop, stats in zip(loops, before, strict=True):
            loop._nudge()  # noqa: SLF001 - the loop's own seam
            wait_for(functools.partial(came_round, loop, stats.polls))
        after = look()
        if [stats.handled for stats in before] == [stats.handled for stats in after]:
            return
        before = after


def live_objects() -> dict[str, int]:
    """Count the core's live objects by kind: all 0 when every loop was closed and collected."""
    return dict(_core.live_objects())
