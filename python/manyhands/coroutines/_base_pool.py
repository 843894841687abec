"""BasePool: the same coroutines without a loop, driven by hand."""

from __future__ import annotations

import heapq
import itertools
import numbers
from collections import deque
from collections.abc import Callable
from typing import Any

from manyhands.coroutines._pool import Pool
from manyhands.coroutines._roster import Logger, Roster
from manyhands.coroutines._wait import TIMEOUT, Timeout, Wait, seconds

__all__ = ["BasePool"]

_REBUILD = 64
"""A heap smaller than this is never rebuilt. The core's timers have the same rule."""


class _HandTimer:
    __slots__ = ("_queue", "args", "callback")

    def __init__(self, queue: _HandQueue, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._queue = queue
        self.callback: Callable[..., object] | None = callback
        self.args = args

    def cancel(self) -> None:
        """See that it never fires, and let go of what it would have called."""
        if self.callback is not None:
            self.callback, self.args = None, ()
            self._queue.cancelled()


class _HandQueue:
    """The queue of all coroutines of a pool: what is ready, and a heap of deadlines.

    Anybody may post, a deque's `append` being one step. All else is done by whoever has the pool's turn.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._moment = float("-inf")
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._heap: list[tuple[float, int, _HandTimer]] = []
        self._order = itertools.count()
        self._dead = 0

    def post(self, callback: Callable[..., object], /, *args: Any) -> None:
        """Run `callback(*args)` in the next `run`."""
        self._ready.append((callback, args))

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> _HandTimer:
        """Run `callback(*args)` in the first `run` that is `delay` seconds later."""
        timer = _HandTimer(self, callback, args)
        # Of the two clocks the later one: a wait must not end early because the driver's moment is old.
        heapq.heappush(self._heap, (max(self._moment, self._now()) + delay, next(self._order), timer))
        return timer

    def cancelled(self) -> None:
        """Count a dead entry, and rebuild the heap if most are."""
        self._dead += 1
        if self._dead > _REBUILD and self._dead > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    def run(self, moment: float) -> int:
        """Run what is ready and due now, once each; not what becomes so meanwhile.

        Returns:
            How many of them ran a coroutine.
        """
        self._moment = moment
        while self._next() is not None and self._heap[0][0] <= moment:
            timer = heapq.heappop(self._heap)[2]
            callback, args, timer.callback = timer.callback, timer.args, None
            if callback is not None:
                self._ready.append((callback, args))
        ran = 0
        for _ in range(len(self._ready)):
            callback, args = self._ready.popleft()
            ran += bool(callback(*args))
        return ran

    def deadline(self) -> float | None:
        """Tell when there is something to run: the moment itself if there is already."""
        return self._moment if self._ready else self._next()

    def _next(self) -> float | None:
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
            self._dead -= 1
        return self._heap[0][0] if self._heap else None


class BasePool(Pool):
    """Pooled coroutines without a loop: nothing runs but in `check_timeout`, which somebody calls again and again.

    ```python
    pool = BasePool(now=time.monotonic)
    pool.work(function)
    while (deadline := pool.check_timeout()[0]) is not None:
        time.sleep(max(0, deadline - time.monotonic()))
    ```

    Its coroutines wait for events, `await pool.wait(event, timeout)`; there is no `wait_until`.

    Args:
        now: Tells the time in seconds; it never goes back.
        initial, grow_by, limit, idle_limit, logger: As `CoroutinePool`; a slot is only a storage here, as all coroutines
            run where `check_timeout` is called.

    Threads: one at a time drives it, no matter which (`check_timeout` on two at once raises). `work` and `notify` may be
    called from any thread, also while it is driven; nobody is woken by them, the next `check_timeout` sees them.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        initial: int = 0,
        grow_by: int = 10,
        limit: int = 1000,
        idle_limit: int = 100,
        logger: Logger | None = None,
    ) -> None:
        if not callable(now):
            raise TypeError(f"now must be callable, and got {now!r}")
        self._now = now
        self._queue = _HandQueue(now)
        self._turn = [True]
        self._roster = Roster(
            lambda: self._queue,
            polls=False,
            initial=initial,
            grow_by=grow_by,
            limit=limit,
            idle_limit=idle_limit,
            logger=logger,
        )

    def wait(self, event: object, timeout: float | None = None) -> Wait[tuple[Any, ...] | Timeout]:
        """Wait for an event: `await pool.wait(...)`, or `yield pool.wait(...)` in a generator.

        Args:
            event: What `notify` has to name, compared by `==`. A number is an event as well.
            timeout: Seconds, 0 or more; None waits for ever.

        Returns:
            A request, which gives the tuple of `notify`'s values, or `TIMEOUT`.

        Raises:
            TypeError, ValueError: `timeout` is no number, or below 0.
        """
        return Wait(event, None if timeout is None else seconds("timeout", timeout), TIMEOUT)

    def check_timeout(self, now: float | None = None) -> tuple[float | None, int]:
        """Run every coroutine that is new, was notified, or has timed out: once each, to its next wait.

        What becomes ready meanwhile is left for the next call, so that this one ends.

        Args:
            now: The time to go by, on the pool's clock; None asks the clock.

        Returns:
            When to call again, at the latest (the time of this call, if something is ready already; None if only a notify
            or new work can make anything ready), and how many coroutines were run.

        Raises:
            RuntimeError: it runs already, on another thread or further up on this one.
            KeyboardInterrupt, SystemExit: raised by a coroutine, which has ended; the rest is run by the next call.
        """
        moment = self._now() if now is None else _number(now)
        if not self._take_turn():
            raise RuntimeError("check_timeout() of this pool runs already, and only one thread at a time may drive it")
        try:
            ran = self._queue.run(moment)
            deadline = self._queue.deadline()
        finally:
            self._turn.append(True)
            if self.closed:
                self._close_all()
        return None if self.closed else deadline, ran

    def close(self) -> None:
        """Refuse new work, and end every coroutine where it stands, on this thread. Idempotent.

        A coroutine that waits has GeneratorExit raised there, which runs its `finally` blocks; they cannot wait. While
        the pool is driven, on another thread or further up on this one, whoever drives it does this before it returns.
        """
        self._roster.refuse()
        self._close_all()

    def _take_turn(self) -> bool:
        # One call in C, that two threads cannot both win, nor a finalizer on this one: see `_task.Pending`.
        try:
            return self._turn.pop()
        except IndexError:
            return False

    def _close_all(self) -> None:
        # Who cannot take the turn leaves it to the one who has it, and who looks at `closed` after giving it back.
        if self._take_turn():
            try:
                self._roster.close_now()
            finally:
                self._turn.append(True)


def _number(now: Any) -> float:
    """Check a moment that was passed in."""
    if isinstance(now, bool) or not isinstance(now, numbers.Real):
        raise TypeError(f"now must be a number of seconds or None, and got {now!r}")
    return float(now)
