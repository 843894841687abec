"""EventLoop: the policy around the compiled core.

The core (`_core.LoopCore`) serves; here it is decided who may wait, what a failure costs, what is logged, and what the
loop shows of itself.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from manyhands import _core, _guards, _monitor, _sight
from manyhands._events import KEEP, ErrorReport, Events
from manyhands._log import Log
from manyhands._signal_watch import SignalWatch
from manyhands._stats import LoopStats
from manyhands.errors import LoopClosed, WouldDeadlock

if TYPE_CHECKING:
    from typing import Self

    from manyhands._pool import ThreadPool
    from manyhands.testing import MockClock

__all__ = ["EventLoop"]

logger = Log("manyhands.loop")

OnError = Callable[[ErrorReport], object]


class EventLoop(_core.LoopCore):
    """An event loop that any number of threads may turn together.

    A thread serves the loop by calling `join()`; it may come and go at any time. What runs, runs on a strand: one thread
    inside at a time, in order; different strands run on different threads. `stop()` makes every thread leave.

    ```python
    loop = manyhands.EventLoop()
    loop.call_later(0.1, print, "tick")
    loop.join(timeout=0.2)
    loop.close()
    ```

    Args:
        name: What threads, errors and logs show.
        poller: "epoll", or "poll" or "select", which cost more with every watch (select: descriptors below 1024, and a
            hang-up is reported as READ).
        clock: A `manyhands.testing.MockClock` for tests; None for the monotonic clock. Only timers go by it.
        pool: Where blocking work for this loop is done; None for `manyhands.default_pool()`. `dump()` shows it.
        on_error: Called with an `ErrorReport` when a callback raises; may return `manyhands.KEEP` to keep the watch or
            timer. None logs one record with the traceback on the logger `manyhands.loop`.
        slow_handler: Seconds; a handler that runs for longer is logged with its stack while it still runs.
        handover: Seconds; when the thread that waits for events has been in a handler for longer, another joined thread
            takes over the waiting. With an idle thread joined, a watch is served within `handover` + 1 ms. With the GIL a
            job in place is waited for like a handler, for a millisecond at the least.

    Raises:
        ValueError: a value that makes no sense, named with what was expected.
        OSError: no descriptor is left for the poller.

    Threads: every method may be called from any thread unless its page says otherwise.
    """

    slow_handler: float

    def __init__(
        self,
        *,
        name: str = "loop",
        poller: str = "epoll",
        clock: MockClock | None = None,
        pool: ThreadPool | None = None,
        on_error: OnError | None = None,
        slow_handler: float = 0.1,
        handover: float = 200e-6,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, and got {name!r}")
        if on_error is not None and not callable(on_error):
            raise TypeError(f"on_error must be callable, and got {on_error!r}")
        if not slow_handler > 0:
            raise ValueError(f"slow_handler must be a number of seconds above 0, and got {slow_handler!r}")
        if pool is not None and not isinstance(pool, _core.PoolCore):
            raise TypeError(f"pool must be a ThreadPool or None, and got {pool!r}")
        self._pool = pool
        self._clock = clock
        self._on_error = on_error
        self._signal_watches: dict[int, SignalWatch] = {}
        # What has more to end than a strand: called once the loop is closed, before the final callbacks that are owed, and
        # when the interpreter exits.
        self._ends: dict[int, Callable[[], object]] = {}
        self._root: _core.Group | None = None  # holds the tasks of a program while the loop can be joined
        self._strays: list[_core.Group] = []  # groups whose host has ended without leaving them
        self._waited: dict[int, Any] = {}  # by descriptor: whose readiness tasks wait for
        self.slow_handler = float(slow_handler)
        _guards.open_signal_pair()  # before the loop has descriptors: when there are none left, nothing stays open
        self._open(name, poller, clock, not _guards.gil_enabled(), handover)
        _guards.register(self)

    @property
    def pool(self) -> ThreadPool | None:
        """The pool that was given to it; None for `manyhands.default_pool()`. Closing the loop leaves the pool as it is."""
        return self._pool

    # Threads.

    def join(
        self,
        timeout: float | None = None,
        *,
        until_idle: bool = False,
        wait_restart: bool = False,
        max_handlers: int | None = None,
    ) -> int:
        """Serve the loop on the calling thread, until it is stopped.

        Args:
            timeout: Seconds to serve for; None for ever, 0 for one look at what is ready.
            until_idle: Leave when nothing is queued, nothing is ready, nothing is due and nobody is inside. Timers of the
                future and watches do not count.
            wait_restart: On a stopped loop wait for `restart()` first, instead of returning at once.
            max_handlers: Leave after so many handlers, at least 1.

        Returns:
            How many handlers, messages and timers this thread ran. 0 at once if the loop is stopped.

        Raises:
            KeyboardInterrupt, SystemExit: raised by a callback on this thread, or by a signal's handler while the main
                thread serves; the loop can be used on.
            RuntimeError: this thread is serving a loop already.
            LoopClosed: it was closed.
        """
        if timeout == 0 and not until_idle:
            return self.run_ready(max_handlers)
        return self._serve(timeout, until_idle=until_idle, wait_restart=wait_restart, max_handlers=max_handlers)

    def run_ready(self, max_handlers: int | None = None) -> int:
        """Run on this thread, without waiting, what is ready now: one tick.

        Args:
            max_handlers: At most so many handlers.

        Returns:
            How many handlers, messages and timers it ran.

        Raises:
            As `join`.
        """
        return self._serve(None, max_handlers=max_handlers, one_tick=True)

    def _serve(
        self,
        timeout: float | None,
        *,
        until_idle: bool = False,
        wait_restart: bool = False,
        max_handlers: int | None = None,
        one_tick: bool = False,
    ) -> int:
        if max_handlers is not None and not isinstance(max_handlers, int):
            raise TypeError(f"max_handlers must be an int or None, and got {max_handlers!r}")
        if max_handlers is not None and max_handlers < 1:
            raise ValueError(f"max_handlers must be at least 1 (None for any number), and got {max_handlers}")
        holds_signals = _guards.on_main_thread() and not _core.is_lent() and not self.closed and not self.stopped
        with _monitor.looked_after(self), _guards.signals_held(self) if holds_signals else contextlib.nullcontext():
            return self._join(timeout, until_idle, wait_restart, max_handlers, one_tick)

    def stop(self, timeout: float | None = None, *, drain: bool = False) -> bool:
        """Ask every joined thread to leave and wait until they have.

        Args:
            timeout: Seconds to wait; None for ever.
            drain: Let everything that is queued run first. With nobody joined this thread serves the drain. A drain that
                has not ended by the timeout becomes an immediate stop.

        Returns:
            True if every thread has left (and the drain was completed); False after `timeout`: the loop goes on stopping,
            and `dump()` says who is inside.

        Raises:
            WouldDeadlock: the calling thread is lent: use `request_stop()`.
            LoopClosed: it was closed.
        """
        if _core.is_lent():
            raise WouldDeadlock("stop()", self.name)
        _check_timeout(timeout)
        self._check_open()
        self.request_stop(drain=drain)
        if drain and not self.joined:
            # What is left of the timeout would be one handler's time at most: a served drain ends by itself.
            self._serve(timeout)
        left = self.wait(timeout)
        if not left and drain:
            self.request_stop()
        return left

    def close(self, timeout: float | None = None) -> None:
        """Stop the loop, end every actor, watch, strand and timer, and run on this thread the final callbacks that are owed.

        Idempotent. Messages that have not run are dropped and counted in a warning on the logger `manyhands.loop`.

        Args:
            timeout: Seconds to wait for handlers that still run; None for ever.

        Raises:
            TimeoutError: a handler still runs; the loop stays stopped, close it again.
            WouldDeadlock: the calling thread is lent.
        """
        if _core.is_lent():
            raise WouldDeadlock("close()", self.name)
        _check_timeout(timeout)
        if self.closed:
            return
        try:
            self.request_stop()
            left = self.wait(timeout)
        except LoopClosed:  # another thread closed it meanwhile
            return
        if not left:
            raise TimeoutError(
                f"loop {self.name!r} was not closed: a handler still runs after {timeout} s\n{self.dump()}"
            )
        for watch in list(self._signal_watches.values()):
            if _guards.on_main_thread():
                watch.remove()
        was_open, lost = self._close()
        if was_open and lost:
            logger.warning(
                "loop %r was closed with %d message(s) that never ran; stop(drain=True) runs them", self.name, lost
            )
        try:
            self._call_ends()
        finally:
            self._run_owed()

    def _call_ends(self) -> None:
        with contextlib.ExitStack() as ends:  # each is called, also if one is interrupted; the last first
            for end in self._ends.copy().values():
                ends.callback(end)

    def __enter__(self) -> Self:
        """Use the loop in a `with` statement, which closes it."""
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # At interpreter exit the module's names may be gone before the loop is.
    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if self._opened and not self.closed:
            _warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            # Sources that were added with close=True are closed; final callbacks of a forgotten loop do not run.
            try:  # noqa: SIM105 - at interpreter exit a module that would do it may be gone
                self._close()
            except Exception:  # noqa: BLE001, S110 - a finalizer can tell nobody
                pass

    # Signals.

    def on_signal(self, signum: int, callback: Callable[[int], object]) -> SignalWatch:
        """Run `callback(signum)` on a joined thread when the process gets a signal.

        Args:
            signum: For example `signal.SIGTERM`.
            callback: Posted to the loop, before ordinary messages, each time.

        Returns:
            A `SignalWatch`, whose `remove()` puts the previous handler back.

        Raises:
            ValueError: called on another than the main thread, or no such signal.
            LoopClosed: it was closed.
        """
        if not _guards.on_main_thread():
            raise ValueError(
                "on_signal() must be called on the main thread: Python runs handlers of signals there only"
            )
        if not callable(callback):
            raise TypeError(f"callback must be callable, and got {callback!r}")
        self._check_open()
        return SignalWatch(self, signum, callback)

    # Sight.

    def stats(self) -> LoopStats:
        """Count what the loop has and has done; the numbers are of one moment, or nearly.

        Returns:
            A frozen `LoopStats`.
        """
        self._check_open()
        (joined, parked, ready, watches, timers), (handled, polls, wakes, standbys, errors), counts = self._stats()
        bounds = [*(2**i / 1e6 for i in range(len(counts) - 1)), float("inf")]
        return LoopStats(
            joined=joined,
            parked=parked,
            ready=ready,
            watches=watches,
            timers=timers,
            handled=handled,
            polls=polls,
            wakes=wakes,
            standbys=standbys,
            errors=errors,
            handler_seconds=tuple(zip(bounds, counts, strict=True)),
        )

    def dump(self) -> str:
        """Show threads with what they run, watches, strands, timers and its pool, as text for a log or a bug report."""
        return _sight.dump(self)

    # Failures.

    def _report(
        self,
        source: str,
        watch: _core.Watch | None,
        strand: _core.Strand | None,
        timer: _core.Timer | None,
        events: Events | None,
        handler: Callable[..., Any],
        error: BaseException,
        on_error: OnError | None,
    ) -> bool:
        """Tell whoever asked to be told that a callback raised; True if its watch or timer is kept."""
        report = ErrorReport(self, source, watch, strand, timer, events, handler, error)
        hook = on_error or self._on_error
        if hook is None:
            _log(report)
            return False
        try:
            return hook(report) is KEEP
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            _log(report)
            logger.exception("loop %r: on_error itself raised", self.name)
            return False


def _check_timeout(timeout: float | None) -> None:
    """Refuse a timeout that makes no sense before anything is done with it."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds, 0 or more (None for ever), and got {timeout!r}")


def _log(report: ErrorReport) -> None:
    what = f"handler of watch {report.watch.name!r}" if report.watch is not None else report.source
    cost = {"watch": "; the watch was removed", "timer": "; the timer was ended"}.get(report.source, "")
    logger.error("loop %r: %s raised (%r)%s", report.loop.name, what, report.handler, cost, exc_info=report.error)
