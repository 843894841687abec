"""What a process does to its loops: it forks, it exits, it gets signals.

Loops register here when they are made and are held weakly, in a dict: copying its values is one step for the
interpreter, so neither a finalizer nor another thread can come in between, and no lock is needed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol

from manyhands import _core

__all__ = ["EXIT_TIMEOUT", "at_exit", "gil_enabled", "in_child", "on_main_thread", "register", "signals_held"]

EXIT_TIMEOUT = 1.0
"""Seconds that interpreter exit waits for the handlers that still run, before it leaves them behind."""


class Loop(Protocol):
    """What is asked of a loop here."""

    def request_stop(self, *, drain: bool = False) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    def _hold_signals(self, readable: int, previous: int) -> None: ...
    def _release_signals(self) -> None: ...


_loops: dict[int, weakref.ref[Loop]] = {}
_at_exit: list[Callable[[], None]] = []
_in_child: list[Callable[[], None]] = []


def register(loop: Loop) -> None:
    """Stop this loop when the interpreter exits."""
    key = id(loop)
    _loops[key] = weakref.ref(loop, lambda _: _loops.pop(key, None))


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
    for loop in loops:
        with contextlib.suppress(Exception):
            loop.request_stop()
    for loop in loops:
        with contextlib.suppress(Exception):
            loop.wait(EXIT_TIMEOUT)
    for callback in _at_exit:
        callback()


def _after_fork_in_child() -> None:
    """The child inherits no loop: it closes what it has of them and takes no lock."""
    _core.after_fork_in_child()
    _loops.clear()
    for callback in _in_child:
        callback()


# Registered callbacks of `threading` run before it waits for threads that are not daemons; `atexit` runs after, and
# would never come while such a thread is in `join()`. The name is private and has been there since 3.9; without it
# loops are stopped by `atexit`, which is enough for daemon threads.
_register: Callable[[Callable[[], None]], object]
_register = getattr(threading, "_register_atexit", None) or __import__("atexit").register
_register(_stop_all)
os.register_at_fork(after_in_child=_after_fork_in_child)


@contextlib.contextmanager
def signals_held(loop: Loop) -> Iterator[None]:
    """While the main thread serves: a signal wakes the poller, which unparks the main thread, which runs its handler.

    CPython's own note of a signal is a byte written to the wake-up descriptor; it must be a socket or a pipe, since an
    eventfd refuses single bytes. Whoever had it before gets a copy of each byte, and gets it back.
    """
    readable, writable = socket.socketpair()
    with readable, writable:
        readable.setblocking(False)
        writable.setblocking(False)
        previous = signal.set_wakeup_fd(writable.fileno(), warn_on_full_buffer=False)
        try:
            loop._hold_signals(readable.fileno(), previous)  # noqa: SLF001: the loop's own seam
            yield
        finally:
            loop._release_signals()  # noqa: SLF001
            signal.set_wakeup_fd(previous)


def gil_enabled() -> bool:
    """Whether only one thread runs Python at a time, now: an import may switch the GIL on in a free-threaded build."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
