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
from manyhands._tasks import _scope
from manyhands._tasks._event import Event
from manyhands.errors import Cancelled, LoopClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from manyhands._loop import EventLoop
    from manyhands._stats import LoopStats

__all__ = [
    "POINTS",
    "Hold",
    "MockClock",
    "Sequencer",
    "hold",
    "live_objects",
    "points_compiled",
    "wait_all_idle",
    "wait_all_tasks_blocked",
]

POINTS: tuple[str, ...] = tuple(_core.point_names())
"""The name of every point at which a thread can be held."""


class MockClock(_core.ManualClock):
    """A clock for a loop's timers that stands until it is moved: `EventLoop(clock=MockClock())`, `run(..., clock=...)`.

    Only timers go by it; how long `join`, `pause` or `stop` wait is always real time.

    Args:
        start: Seconds that it shows at first, 0 or more.
        autojump: Move by itself, to the next timer, whenever every joined thread of its loops waits.

    A program of tasks that sleep is over at once on a clock that moves by itself, and everything has happened in the order
    of its times. It does not see jobs: a pool's thread that works does not hold it back.

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

    def look_at_the_time() -> None:
        if time.monotonic() > deadline:
            dumps = "\n".join(loop.dump() for loop in loops)
            raise TimeoutError(f"not idle after {timeout} s:\n{dumps}")

    _wait_idle(loops, look_at_the_time)


def _wait_idle(loops: tuple[EventLoop, ...], between: Callable[[], None]) -> None:
    """As `wait_all_idle`, until `between` raises."""
    pause = threading.Event()

    def wait_for(predicate: Callable[[], bool]) -> None:
        while not predicate():
            between()
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


async def wait_all_tasks_blocked() -> None:
    """Wait until every other task of the program waits for something, and nothing is queued, ready or due.

    A task that sleeps waits. A `MockClock(autojump=True)` stands while somebody waits here, so that what is blocked now is
    seen before time moves on.

    Raises:
        Cancelled: the task is to stop.
    """
    loop = _scope.current_loop()
    wait = _core.Wait()
    with _standing(loop._clock):  # noqa: SLF001 - the loop's own seam
        # Whoever looks must not be one of those that are looked at.
        threading.Thread(target=_tell_when_idle, args=(loop, wait), name="mh-blocked", daemon=True).start()
        await wait


def _tell_when_idle(loop: EventLoop, wait: _core.Wait) -> None:
    def between() -> None:
        if wait.done:
            raise LoopClosed(loop.name)

    with contextlib.suppress(LoopClosed):
        _wait_idle((loop,), between)
        wait.complete()


_stands: dict[int, int] = {}
_stands_lock = threading.Lock()


@contextlib.contextmanager
def _standing(clock: _core.ManualClock | None) -> Iterator[None]:
    """Keep a clock that moves by itself where it is."""
    with _stands_lock:
        if clock is None or not (clock.autojump or id(clock) in _stands):
            clock = None
        else:
            _stands[id(clock)] = _stands.get(id(clock), 0) + 1
            clock.autojump = False
    try:
        yield
    finally:
        with _stands_lock:
            if clock is not None:
                left = _stands.pop(id(clock)) - 1
                if left:
                    _stands[id(clock)] = left
                else:
                    clock.autojump = True


class Sequencer:
    """Makes the blocks of several tasks run in one order, which the test chooses: 0, 1, 2 and so on, each once.

    ```python
    sequence = Sequencer()


    async def worker():
        async with sequence(1):
            ...  # after the block of sequence(0), before that of sequence(2)
    ```

    A task that is cancelled while it waits for its turn breaks the sequence: it gets a RuntimeError, and so does everybody
    else who waits, or comes later. trio's `Sequencer` has the same meaning.

    Threads: any.
    """

    def __init__(self) -> None:
        self._turns: dict[int, Event] = {}
        self._claimed: dict[int, object] = {}
        self._broken = False

    def _turn(self, position: int) -> Event:
        return self._turns.setdefault(position, Event())

    @contextlib.asynccontextmanager
    async def __call__(self, position: int) -> AsyncIterator[None]:
        """Wait until the block of the position before has ended; position 0 begins at once.

        Raises:
            RuntimeError: the position was used before; somebody was cancelled while he waited for his.
        """
        claim = object()
        if self._claimed.setdefault(position, claim) is not claim:
            raise RuntimeError(f"position {position} of the sequence is used twice")
        if self._broken:
            raise RuntimeError("the sequence is broken: a task was cancelled while it waited for its turn")
        if position != 0:
            try:
                await self._turn(position).wait()
            except Cancelled:
                self._break()
                raise RuntimeError(
                    f"the task was cancelled while it waited for position {position}: the sequence is broken"
                ) from None
            if self._broken:
                raise RuntimeError("the sequence is broken: a task was cancelled while it waited for its turn")
        try:
            yield
        finally:
            self._turn(position + 1).set()

    def _break(self) -> None:
        self._broken = True
        for turn in list(self._turns.values()):
            turn.set()


def live_objects() -> dict[str, int]:
    """Count the core's live objects by kind: all 0 when every loop was closed and collected."""
    return dict(_core.live_objects())
