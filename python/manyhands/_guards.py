"""What a process does to its loops: it forks, it exits, it gets signals.

Loops register here when they are made and are held weakly, in a dict: copying its values is one step for the
interpreter, so neither a finalizer nor another thread can come in between, and no lock is needed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from manyhands import _core

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "EXIT_TIMEOUT",
    "Ending",
    "at_exit",
    "gil_enabled",
    "in_child",
    "name_thread",
    "on_main_thread",
    "open_signal_pair",
    "register",
    "register_pool",
    "signals_held",
]

EXIT_TIMEOUT = 1.0
"""Seconds that interpreter exit waits for the handlers that still run, before it leaves them behind."""


class Loop(Protocol):
    """What is asked of a loop here."""

    def request_stop(self, *, drain: bool = False) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    def _call_ends(self) -> None: ...
    def _hold_signals(self, readable: int, previous: int) -> None: ...
    def _release_signals(self) -> None: ...


class Pool(Protocol):
    """What is asked of a pool here."""

    def finish(self) -> None: ...
    def _wait_left(self, timeout: float | None = None) -> bool: ...
    def _report_left(self) -> object: ...


_loops: dict[int, weakref.ref[Loop]] = {}
_pools: dict[int, weakref.ref[Pool]] = {}
_at_exit: list[Callable[[], None]] = []
_in_child: list[Callable[[], None]] = []


def register(loop: Loop) -> None:
    """Stop this loop when the interpreter exits."""
    open_signal_pair()
    key = id(loop)
    _loops[key] = weakref.ref(loop, lambda _: _loops.pop(key, None))


def register_pool(pool: Pool) -> None:
    """Finish this pool when the interpreter exits."""
    key = id(pool)
    _pools[key] = weakref.ref(pool, lambda _: _pools.pop(key, None))


def at_exit(callback: Callable[[], None]) -> None:
    """Call this when the interpreter exits, after every loop was stopped."""
    _at_exit.append(callback)


def in_child(callback: Callable[[], None]) -> None:
    """Call this in a forked child."""
    _in_child.append(callback)


def on_main_thread() -> bool:
    """Whether Python's handlers of signals run on the calling thread."""
    return threading.current_thread() is threading.main_thread()


def _stop_all() -> None:
    """Before the interpreter waits for its threads: every joined thread leaves, or is given up after `EXIT_TIMEOUT`.

    A thread that came back to a finalising interpreter would be ended inside our code (CPython before 3.14), so none
    may be left in a wait of ours.
    """
    loops = [loop for reference in list(_loops.values()) if (loop := reference()) is not None]
    pools = [pool for reference in list(_pools.values()) if (pool := reference()) is not None]
    for loop in loops:
        with contextlib.suppress(Exception):
            loop.request_stop()
    for pool in pools:
        with contextlib.suppress(Exception):
            pool.finish()
    deadline = time.monotonic() + EXIT_TIMEOUT
    for loop in loops:
        with contextlib.suppress(Exception):
            loop.wait(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(Exception):
            loop._call_ends()  # noqa: SLF001 - a thread that waits for an answer would keep the process for ever
    for pool in pools:
        with contextlib.suppress(Exception):
            if not pool._wait_left(max(0.0, deadline - time.monotonic())):  # noqa: SLF001 - the pool's own seam
                pool._report_left()  # noqa: SLF001
    for callback in _at_exit:
        callback()


def _after_fork_in_child() -> None:
    """The child inherits no loop: it closes what it has of them and takes no lock."""
    _core.after_fork_in_child()
    _loops.clear()
    _pools.clear()
    for callback in _in_child:
        callback()


# Registered callbacks of `threading` run before it waits for threads that are not daemons; `atexit` runs after, and
# would never come while such a thread is in `join()`. The name is private and has been there since 3.9; without it
# loops are stopped by `atexit`, which is enough for daemon threads.
_register: Callable[[Callable[[], None]], object]
_register = getattr(threading, "_register_atexit", None) or atexit.register
_register(_stop_all)
# After the threads that are no daemons have ended: what is left must not come back to an interpreter that ends.
atexit.register(_core.leave_behind)
os.register_at_fork(after_in_child=_after_fork_in_child)


_signal_pair: tuple[int, int] | None = None
"""Readable, writable. Numbers, since nobody closes them: they are the process's."""


def open_signal_pair() -> None:
    """Open the descriptors that `signals_held` needs, once in a process: a thread that joins needs none any more."""
    global _signal_pair  # noqa: PLW0603 - one of the process
    if _signal_pair is None:
        ends = socket.socketpair()
        for end in ends:
            end.setblocking(False)
        _signal_pair = (ends[0].detach(), ends[1].detach())


def _fresh_signal_pair() -> None:
    global _signal_pair
    pair, _signal_pair = _signal_pair, None
    for end in pair or ():
        os.close(end)


_in_child.append(_fresh_signal_pair)


@contextlib.contextmanager
def signals_held(loop: Loop) -> Iterator[None]:
    """While the main thread serves: a signal wakes the poller, which unparks the main thread, which runs its handler.

    CPython's own note of a signal is a byte written to the wake-up descriptor; it must be a socket or a pipe, since an
    eventfd refuses single bytes. Whoever had it before gets a copy of each byte, and gets it back.
    """
    open_signal_pair()
    pair = _signal_pair
    assert pair is not None
    readable, writable = pair
    previous = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    try:
        loop._hold_signals(readable, previous)  # noqa: SLF001 - the loop's own seam
        yield
    finally:
        loop._release_signals()  # noqa: SLF001
        if _signal_pair is pair:
            signal.set_wakeup_fd(previous)


class Ending:
    """While entered on the main thread, SIGINT and SIGTERM end a loop: the first in order, the second the process at once.

    Args:
        loop: The loop.
        insist: False: the second means no more than the first. So it is where somebody else sees to the end, as a supervisor
            does: its workers may get a signal from it, and the same one from who has sent it to all of them.

    `request_stop()` neither blocks nor takes a lock, so a signal's handler may call it. The handlers that were there are
    put back. On another thread it does nothing: Python has handlers of signals on the main thread only.

    Attributes:
        signal_name: Which signal came, None for none.
    """

    def __init__(self, loop: Loop, *, insist: bool = True) -> None:
        self._loop = loop
        self._insist = insist
        self._previous: dict[signal.Signals, Any] = {}
        self.signal_name: str | None = None

    def __enter__(self) -> Self:
        if on_main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal) or signal.SIG_DFL
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's own signature
        if self.signal_name is not None:
            if self._insist:
                os._exit(128 + number)
            return
        self.signal_name = signal.Signals(number).name
        self._loop.request_stop()


def name_thread(front: str, number: int | str) -> None:
    """Name the calling thread `<front>-<number>` for the kernel too.

    It keeps 15 bytes: the number must be among them, and no character may be cut in two.
    """
    suffix = f"-{number}"
    _core.set_thread_name(front.encode()[: 15 - len(suffix)].decode(errors="ignore") + suffix)


def gil_enabled() -> bool:
    """Whether only one thread runs Python at a time, now: an import may switch the GIL on in a free-threaded build."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
