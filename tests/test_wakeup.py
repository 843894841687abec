"""The wake-up descriptor of signals: whose it is while main is joined, and afterwards."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

import manyhands as mh
from manyhands.testing import wait_all_idle
from support import LONG, wait_until

READ = mh.Events.READ


@pytest.fixture
def wakeup(on_main):
    """A wake-up descriptor that somebody else has set; yields the end to read from and the number."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield ours, theirs.fileno()
    signal.signal(signal.SIGUSR1, previous)
    signal.set_wakeup_fd(before)
    ours.close()
    theirs.close()


def current_wakeup_fd() -> int:
    number = signal.set_wakeup_fd(-1)
    if number != -1:
        signal.set_wakeup_fd(number, warn_on_full_buffer=False)
    return number


def test_the_wakeup_descriptor_is_put_back(wakeup, make_loop):
    """While main is joined the loop holds it; afterwards it is again whose it was."""
    _ours, number = wakeup
    loop = make_loop()
    inside = []
    loop.post(lambda: inside.append(current_wakeup_fd()))
    loop.join(until_idle=True)
    assert inside[0] not in (-1, number)
    assert current_wakeup_fd() == number

    loop.post(lambda: None)
    loop.run_ready()
    assert current_wakeup_fd() == number


def test_without_a_wakeup_descriptor_there_is_none_afterwards(on_main, make_loop):
    """Nobody had one set: afterwards nobody has."""
    before = signal.set_wakeup_fd(-1)
    try:
        loop = make_loop()
        loop.join(until_idle=True)
        loop.join(0.01)
        assert current_wakeup_fd() == -1
        loop.close()
        assert current_wakeup_fd() == -1
    finally:
        signal.set_wakeup_fd(before)


def test_the_wakeup_descriptor_is_put_back_when_join_raises(wakeup, make_loop):
    """An exit out of a handler leaves join by an exception, with the books straight."""
    _ours, number = wakeup
    loop = make_loop()

    def leave() -> None:
        raise SystemExit(3)

    loop.post(leave)
    with pytest.raises(SystemExit):
        loop.join()
    assert current_wakeup_fd() == number


def test_a_join_of_another_thread_does_not_touch_the_wakeup_descriptor(wakeup, make_loop, joined):
    """Only a lent main thread needs it."""
    _ours, number = wakeup
    loop = make_loop()
    with joined(loop, 2):
        wait_until(lambda: loop.joined == 2)
        assert current_wakeup_fd() == number


def test_the_wakeup_descriptor_of_somebody_else_is_written_to(wakeup, make_loop, spawn):
    """Whoever had set one hears of the signals that come while main is joined: the loop passes them on."""
    ours, _number = wakeup
    loop = make_loop()

    def send() -> None:
        wait_until(lambda: loop.joined == 1)
        wait_all_idle(loop)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    heard = []

    def hear(watch, _events) -> None:
        heard.append(watch.source.recv(10))
        loop.request_stop()

    watch = loop.add(ours, READ, hear)
    sending = spawn(send)
    loop.join(LONG)
    sending.result()
    assert heard == [bytes([signal.SIGUSR1])]
    assert watch.remove()


def test_a_wakeup_descriptor_that_is_full_does_no_harm(wakeup, make_loop, spawn):
    """The other one does not read: the loop does not block on it and serves its signals all the same."""
    ours, number = wakeup
    loop = make_loop()
    with socket.fromfd(number, socket.AF_UNIX, socket.SOCK_STREAM) as theirs:
        theirs.setblocking(False)
        while True:
            try:
                theirs.send(b"\0" * 65536)
            except BlockingIOError:
                break
    watch = loop.on_signal(signal.SIGUSR2, lambda _signum: loop.request_stop())

    def send() -> None:
        wait_until(lambda: loop.joined == 1)
        wait_all_idle(loop)
        os.kill(os.getpid(), signal.SIGUSR2)

    sending = spawn(send)
    assert loop.join(LONG) == 1
    sending.result()
    watch.remove()
    assert ours.recv(1)


def test_a_signal_that_nobody_handles_costs_a_joined_main_thread_nothing(wakeup, make_loop, spawn):
    """Main wakes for it, runs Python's handler, and waits on; join does not return for it."""
    _ours, _number = wakeup
    loop = make_loop()

    def send() -> None:
        wait_until(lambda: loop.joined == 1)
        for _ in range(20):
            wait_all_idle(loop)
            os.kill(os.getpid(), signal.SIGUSR1)
        wait_all_idle(loop)
        assert loop.joined == 1
        loop.request_stop()

    sending = spawn(send)
    assert loop.join(LONG) == 0
    sending.result()
    assert loop.stopped
