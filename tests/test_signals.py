"""Signals: stops from signal handlers, and on_signal."""

from __future__ import annotations

import os
import signal
import threading

import pytest

import manyhands as mh
from manyhands.testing import wait_all_idle
from support import LONG, wait_until

# ------------------------------------------------------------------------------------- stops out of signal handlers


def test_request_stop_from_a_signal_handler_at_any_moment(script):
    """T94. A timer signal every 300 us stops the loop while main joins, restarts, posts, adds, removes: it never hangs."""
    script("""
loop = make_loop()
a, b = socket.socketpair()
a.setblocking(False)
b.send(b"never read")
stops = 0
def stop(*_):
    global stops
    stops += 1
    loop.request_stop()
signal.signal(signal.SIGALRM, stop)
handled = []
strand = loop.strand()
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
for number in range(1500):
    loop.restart()
    loop.post(handled.append, number)
    strand.post(int)
    timer = loop.call_later(0.0001, int)
    watch = loop.add(a, READ, lambda watch, events: None)
    loop.join(LONG)
    assert loop.joined == 0
    timer.cancel()
    watch.remove()
signal.setitimer(signal.ITIMER_REAL, 0)
loop.restart()
loop.join(until_idle=True)
assert sorted(handled) == list(range(1500)), len(handled)
assert stops > 100
loop.close()
a.close()
b.close()
""")


def test_request_stop_from_a_signal_handler_with_workers_joined(script):
    """T94. Main and three workers are joined and busy; the signal handler stops them all, a hundred times."""
    script(
        """
loop = make_loop(handover=0)
signal.signal(signal.SIGALRM, lambda *_: loop.request_stop())
def again():
    loop.post(again)
for _ in range(4):
    loop.post(again)
rounds = 100
meet = threading.Barrier(4)
def work():
    for _ in range(rounds):
        meet.wait(LONG)
        loop.join()
        meet.wait(LONG)
workers = [thread(work) for _ in range(3)]
for number in range(rounds):
    meet.wait(LONG)
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    loop.join()
    assert loop.wait(LONG)
    meet.wait(LONG)
    assert loop.joined == 0
    loop.restart()
for worker in workers:
    worker.join(LONG)
signal.setitimer(signal.ITIMER_REAL, 0)
close_without_a_word(loop)
""",
        timeout=120,
    )


def test_other_calls_from_a_signal_handler(script):
    """T94. Posting, urgent posts, setting a timer and looking are as safe there as a stop."""
    script("""
loop = make_loop()
strand = loop.strand()
posted, ran = [], []
def handler(*_):
    posted.append(1)
    loop.post(ran.append, 1)
    loop.post_urgent(ran.append, 1)
    strand.post(ran.append, 1)
    loop.call_later(0, ran.append, 1)
    loop.stats()
    loop.dump()
    if len(posted) >= 500:
        loop.request_stop()
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
def again():
    loop.call_later(0, again)
    strand.post(int)
loop.post(again)
loop.join()
signal.setitimer(signal.ITIMER_REAL, 0)
assert loop.stopped
loop.restart()
loop.join(0.05)
assert len(ran) == 4 * len(posted), (len(ran), len(posted))
close_without_a_word(loop)
""")


# ----------------------------------------------------------------------------------------------------------- on_signal


def test_on_signal_calls_back_on_a_joined_thread(on_main, make_loop, joined):
    """The callback gets the number of the signal, on a thread of the loop and not inside Python's signal handler."""
    loop = make_loop()
    seen = []
    done = threading.Event()

    def callback(signum: int) -> None:
        seen.append((signum, threading.get_ident()))
        done.set()

    watch = loop.on_signal(signal.SIGUSR1, callback)
    assert isinstance(watch, mh.SignalWatch)
    assert watch.signum == signal.SIGUSR1
    assert not watch.removed
    with joined(loop):
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until(done.is_set)
    ((signum, ident),) = seen
    assert signum == signal.SIGUSR1
    assert ident != threading.get_ident()
    watch.remove()


def test_on_signal_wakes_a_joined_main_thread(on_main, make_loop, spawn):
    """Main alone is joined and waits in the poller: the signal is handled at once, by main."""
    loop = make_loop()
    seen = []

    def callback(signum: int) -> None:
        seen.append((signum, threading.get_ident()))
        loop.request_stop()

    watch = loop.on_signal(signal.SIGUSR1, callback)

    def send() -> None:
        wait_until(lambda: loop.joined == 1)
        wait_all_idle(loop)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    sending = spawn(send)
    assert loop.join(LONG) == 1
    sending.result()
    assert seen == [(signal.SIGUSR1, threading.get_ident())]
    watch.remove()


def test_on_signal_may_stop_a_loop_that_main_waits_for(on_main, make_loop, joined):
    """T95. The usual end of a service: workers joined, main in `wait()`, a signal asks to stop."""
    loop = make_loop()
    loop.on_signal(signal.SIGUSR1, lambda _signum: loop.request_stop())
    with joined(loop, 2):
        wait_until(lambda: loop.joined == 2)
        loop.call_later(0, os.kill, os.getpid(), signal.SIGUSR1)
        assert loop.wait(LONG) is True
    assert loop.stopped


def test_a_signal_with_nobody_joined_is_kept_for_the_next_join(on_main, make_loop):
    """A message waits for a thread, and so does what a signal asks for."""
    loop = make_loop()
    seen: list[int] = []
    watch = loop.on_signal(signal.SIGUSR1, seen.append)
    signal.raise_signal(signal.SIGUSR1)
    assert seen == []
    loop.join(until_idle=True)
    assert seen == [signal.SIGUSR1]
    watch.remove()


def test_on_signal_off_the_main_thread_is_refused(make_loop, spawn):
    """ValueError, as `signal.signal` says it; the handler of the signal is as before."""
    loop = make_loop()
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(ValueError, match="main thread"):
        spawn(loop.on_signal, signal.SIGUSR1, print).result()
    assert signal.getsignal(signal.SIGUSR1) is before


@pytest.mark.parametrize(
    ("signum", "callback", "error"),
    [
        ("SIGUSR1", print, TypeError),
        (signal.SIGUSR1, None, TypeError),
        (0, print, ValueError),
        (-1, print, ValueError),
        (999, print, ValueError),
        (signal.SIGKILL, print, (ValueError, OSError)),
    ],
)
def test_a_signal_that_cannot_be_watched_is_refused(on_main, make_loop, signum, callback, error):
    """At the call, and nothing is changed."""
    loop = make_loop()
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(error):
        loop.on_signal(signum, callback)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_removing_a_signal_watch_puts_the_handler_back(on_main, make_loop):
    """The previous handler is the handler again; `remove()` twice is harmless; nothing is called back any more."""
    loop = make_loop()
    seen: list[int] = []
    ours = []

    def previous(signum: int, _frame: object) -> None:
        ours.append(signum)

    before = signal.signal(signal.SIGUSR1, previous)
    try:
        watch = loop.on_signal(signal.SIGUSR1, seen.append)
        assert signal.getsignal(signal.SIGUSR1) is not previous
        watch.remove()
        watch.remove()
        assert watch.removed
        assert signal.getsignal(signal.SIGUSR1) is previous
        signal.raise_signal(signal.SIGUSR1)
        loop.join(until_idle=True)
        assert (seen, ours) == ([], [signal.SIGUSR1])
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_closing_the_loop_removes_its_signal_watches(on_main, make_loop):
    """A closed loop has no hold on the process: the previous handlers are back."""
    loop = make_loop()
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)
    watches = [loop.on_signal(signum, print) for signum in (signal.SIGUSR1, signal.SIGUSR2)]
    loop.close()
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)) == before
    assert [watch.removed for watch in watches] == [True, True]


def test_an_error_in_a_signal_callback_is_reported(on_main, make_loop):
    """T92. It costs only itself: the report says that it came from a signal, and the next signal is served."""
    reports: list = []
    loop = make_loop(on_error=reports.append)

    def callback(_signum: int) -> None:
        raise KeyError("signal")

    watch = loop.on_signal(signal.SIGUSR1, callback)
    for _ in range(2):
        signal.raise_signal(signal.SIGUSR1)
        loop.join(until_idle=True)
    assert [report.source for report in reports] == ["signal", "signal"]
    assert all(isinstance(report.error, KeyError) for report in reports)
    watch.remove()


def test_many_signals_are_not_lost(on_main, make_loop, joined):
    """Ten signals, each sent when the one before was seen: ten calls."""
    loop = make_loop()
    seen: list[int] = []
    watch = loop.on_signal(signal.SIGUSR1, seen.append)
    with joined(loop, 2):
        for number in range(1, 11):
            signal.raise_signal(signal.SIGUSR1)
            wait_until(lambda number=number: len(seen) == number)
    watch.remove()
