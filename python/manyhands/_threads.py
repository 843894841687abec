"""ThreadedEventLoop: a loop that owns its threads."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict

from manyhands import _core, _guards
from manyhands._loop import EventLoop
from manyhands.errors import LoopClosed, WouldDeadlock

if TYPE_CHECKING:
    from typing import Self, Unpack

    from _typeshed import FileDescriptorLike

    from manyhands._events import ErrorReport, Events, RemovalReason
    from manyhands._loop import OnError
    from manyhands._pool import ThreadPool
    from manyhands.testing import MockClock

__all__ = ["ThreadedEventLoop"]

LOOK = 0.05
"""Seconds after which a thread that waits for others looks for signals, as the core does."""


class LoopOptions(TypedDict, total=False):
    """What `EventLoop` takes."""

    name: str
    poller: str
    clock: MockClock | None
    pool: ThreadPool | None
    on_error: OnError | None
    slow_handler: float
    handover: float


class WatchOptions(TypedDict, total=False):
    """What `EventLoop.add` takes by keyword."""

    strand: _core.Strand | None
    name: str | None
    close: bool
    on_error: Callable[[ErrorReport], object] | None
    on_removed: Callable[[_core.Watch, RemovalReason], object] | None


class ThreadedEventLoop(EventLoop):
    """An event loop that starts, names and ends the threads that serve it.

    Override `handle_events`, or pass `handler`; it serves every watch that is added without a handler of its own.

    ```python
    with manyhands.ThreadedEventLoop(threads=4, handler=serve) as loop:
        loop.add(listener, manyhands.Events.READ)
        ...
    ```

    Args:
        threads: How many, at least 1; None for one where the GIL is on, and one per core where it is off.
        handler: Called as `handler(watch, events)`; None for `handle_events`.
        loop_options: As `EventLoop`.

    Threads: the owned threads are daemons named `mh-<name>-<n>`, start with an empty context.
    """

    def __init__(
        self,
        threads: int | None = None,
        handler: Callable[[_core.Watch, Events], object] | None = None,
        **loop_options: Unpack[LoopOptions],
    ) -> None:
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int)):
            raise TypeError(f"threads must be an int or None, and got {threads!r}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1 (None chooses), and got {threads}")
        if handler is not None and not callable(handler):
            raise TypeError(f"handler must be callable, and got {handler!r}")
        super().__init__(**loop_options)
        self._handler = handler
        self._count = threads or (1 if _guards.gil_enabled() else os.cpu_count() or 1)
        self._owned: list[threading.Thread] = []
        self._owned_lock = threading.Lock()
        self._raised: BaseException | None = None

    def start(self) -> None:
        """Start the threads and return.

        Raises:
            RuntimeError: they run already, or a thread could not be started; then none is left behind.
            WouldDeadlock: the calling thread is lent.
            LoopClosed: it was closed.
        """
        if _core.is_lent():
            raise WouldDeadlock("start()", self.name)
        with self._owned_lock:
            if any(thread.is_alive() for thread in self._owned):
                raise RuntimeError(f"loop {self.name!r} runs already: call stop() first")
            if self.closed:
                raise LoopClosed(self.name)
            self._raised = None
            self.restart()
            self._owned = []
            try:
                for n in range(self._count):
                    thread = threading.Thread(target=self._run, args=(n,), name=f"mh-{self.name}-{n}", daemon=True)
                    self._owned.append(thread)
                    thread.start()
            except BaseException:
                self.request_stop()
                for thread in self._owned:
                    if thread.ident is not None:
                        thread.join()
                self._owned = []
                self.restart()
                raise

    def _run(self, n: int) -> None:
        _guards.name_thread(f"mh-{self.name}", n)
        try:
            contextvars.Context().run(self.join)
        except (KeyboardInterrupt, SystemExit) as error:
            self._raised = error
            self.request_stop()
        except LoopClosed:
            pass

    def stop(self, timeout: float | None = None, *, drain: bool = False) -> bool:
        """Ask every joined thread to leave, wait until they have, and end the owned threads.

        Args:
            timeout: Seconds to wait; None for ever.
            drain: As `EventLoop.stop`.

        Returns:
            True if every thread has left; False after `timeout`.

        Raises:
            KeyboardInterrupt, SystemExit: what a callback raised in an owned thread, once.
            WouldDeadlock: the calling thread is lent: use `request_stop()`.
            LoopClosed: it was closed.
        """
        if _core.is_lent():
            raise WouldDeadlock("stop()", self.name)
        with self._owned_lock:
            # Those of now: while this thread waits for them, another may start new ones, which nobody told to leave.
            threads = list(self._owned)
        left = super().stop(timeout, drain=drain)
        if left:
            self._reap(threads)
        return left

    def _reap(self, threads: list[threading.Thread]) -> None:
        for thread in threads:
            thread.join()
        with self._owned_lock:
            self._owned = [thread for thread in self._owned if thread not in threads]
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def close(self, timeout: float | None = None) -> None:
        """Stop the threads and close the loop: see `EventLoop.close`.

        Raises:
            KeyboardInterrupt, SystemExit: what a callback raised in an owned thread, once, after the loop was closed.
            TimeoutError, WouldDeadlock: as `EventLoop.close`.
        """
        super().close(timeout)
        self._reap(list(self._owned))

    def run(self) -> None:
        """Start the threads, wait until the loop is stopped or Ctrl-C is pressed, and end in order.

        The first Ctrl-C or SIGTERM asks every thread to leave and waits for the handlers they are in; the second one ends
        the process at once, with status 130 or 143. Handlers of signals that were there before are put back.

        Raises:
            SystemExit: what a callback raised in an owned thread.
            RuntimeError: the threads run already.
        """
        with _guards.Ending(self):
            self.start()
            # Not wait(): that is over at once if none of the threads has come to its join() yet.
            _wait_for(list(self._owned))
        self._reap(list(self._owned))

    def handle_events(self, watch: _core.Watch, events: Events) -> object:
        """Serve a watch that was added without a handler: to be overridden, unless `handler` was given."""
        if self._handler is None:
            raise NotImplementedError(f"{type(self).__name__}.handle_events() is to be overridden")
        return self._handler(watch, events)

    def add(
        self,
        fd: FileDescriptorLike,
        events: Events,
        handler: Callable[[_core.Watch, Events], object] | None = None,
        **options: Unpack[WatchOptions],
    ) -> _core.Watch:
        """Watch a descriptor; without a handler `handle_events` serves it. See `EventLoop.add`."""
        unserved = type(self).handle_events is ThreadedEventLoop.handle_events and self._handler is None
        if handler is None and unserved:
            raise TypeError(
                f"{type(self).__name__} has no handler for {fd!r}: pass handler= here or to the constructor, "
                "or override handle_events()"
            )
        return super().add(fd, events, self.handle_events if handler is None else handler, **options)

    def __enter__(self) -> Self:
        """Start the threads; leaving the `with` block stops them and closes the loop, whatever was raised inside."""
        self.start()
        return self


def _wait_for(threads: list[threading.Thread]) -> None:
    """Wait for threads, in slices: CPython misses a signal that comes between its last look and its wait for a lock.

    Seen on 3.12 and 3.13, with the GIL and without; the wait ends only with the next signal.
    """
    for thread in threads:
        while thread.is_alive():
            thread.join(LOOK)
