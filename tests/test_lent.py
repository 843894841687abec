"""Calls that a thread which serves a loop must not make: they raise instead of waiting for ever."""

from __future__ import annotations

import signal
import threading

import pytest

import manyhands as mh
from support import LONG

READ = mh.Events.READ


def nothing(*_args: object) -> None:
    pass


def refused(loop: mh.EventLoop) -> list[str]:
    """Which of the calls that a lent thread may not make were refused with WouldDeadlock."""
    calls = []
    for name in ("stop", "close", "restart", "wait"):
        try:
            getattr(loop, name)()
        except mh.WouldDeadlock as error:
            assert name in error.call
            calls.append(name)
    return calls


ALL_REFUSED = ["stop", "close", "restart", "wait"]


def test_stop_in_a_handler_would_deadlock(make_loop, joined, pair):
    """T6. In the handler of a watch every call that waits for the loop is refused, and the loop can still be stopped."""
    loop = make_loop()
    seen = []
    done = threading.Event()
    a, b = pair()

    def handler(watch, _events) -> None:
        watch.source.recv(1)
        seen.extend(refused(loop))
        done.set()

    with joined(loop):
        loop.add(a, READ, handler)
        b.send(b"x")
        assert done.wait(LONG)
        assert seen == ALL_REFUSED
        assert not loop.stopped
        assert loop.stop(LONG)


def test_stop_of_another_loop_in_a_handler_would_deadlock(make_loop):
    """T6. A lent thread does not wait for any loop, so that the handlers of two loops cannot wait for each other."""
    loop, other = make_loop(name="one"), make_loop(name="other")
    seen = []
    loop.post(lambda: seen.extend(refused(other)))

    loop.join(until_idle=True)
    assert seen == ALL_REFUSED
    assert not other.stopped
    assert other.stop(LONG)


def test_stop_in_a_timer_and_in_on_removed_would_deadlock(make_loop, pair):
    """T6. Callbacks of timers and the last callback of a watch run on a lent thread as well."""
    loop = make_loop()
    seen = []
    a, _b = pair()
    watch = loop.add(a, READ, nothing)
    watch.remove(on_removed=lambda _watch, _reason: seen.append(refused(loop)))
    loop.call_later(0, lambda: seen.append(refused(loop)))

    loop.join(timeout=LONG, max_handlers=2)
    assert seen == [ALL_REFUSED, ALL_REFUSED]
    assert loop.stop(LONG)


def test_stop_in_on_error_would_deadlock(make_loop):
    """T6. The error hook runs where the handler ran."""
    seen = []
    loop = make_loop(on_error=lambda _report: seen.extend(refused(loop)))
    loop.post(lambda: 1 / 0)

    loop.join(until_idle=True)
    assert seen == ALL_REFUSED
    assert loop.stop(LONG)


class Finalized:
    """Calls back when it is collected."""

    def __init__(self, callback) -> None:
        self._callback = callback

    def __del__(self) -> None:
        self._callback()


def test_stop_in_a_finalizer_would_deadlock(make_loop):
    """T6. A finalizer that runs on a lent thread is refused too."""
    loop = make_loop()
    seen = []

    loop.post(lambda: Finalized(lambda: seen.extend(refused(loop))) and None)
    loop.join(until_idle=True)
    assert seen == ALL_REFUSED
    assert loop.stop(LONG)


def test_stop_in_a_signal_handler_of_a_joined_main_thread_would_deadlock(make_loop):
    """T6. A signal handler that interrupts join() runs on a lent thread."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signal handlers are set on the main thread")
    loop = make_loop()
    seen = []
    previous = signal.signal(signal.SIGUSR1, lambda *_: seen.extend(refused(loop)))
    try:
        loop.post(signal.raise_signal, signal.SIGUSR1)
        loop.join(until_idle=True)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert seen == ALL_REFUSED
    assert loop.stop(LONG)


def test_join_inside_a_handler_names_the_loop(make_loop):
    """T14. A nested join, of this loop or of another, raises RuntimeError at once."""
    loop, other = make_loop(name="kitchen"), make_loop(name="cellar")
    errors = []

    def handler() -> None:
        for call in (loop.join, loop.run_ready, other.join, other.run_ready):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))

    loop.post(handler)
    assert loop.join(until_idle=True) == 1
    assert len(errors) == 4
    assert "kitchen" in errors[0]
    assert "kitchen" in errors[1]
    assert loop.joined == 0
    assert other.joined == 0
