"""Closing a loop: what it waits for, what it runs, what it counts, and what it leaves: nothing."""

from __future__ import annotations

import logging
import signal
import threading

import pytest

import manyhands as mh
from descriptors import count_descriptors
from gate import Gate
from manyhands.testing import wait_all_idle
from support import LONG, wait_until

READ = mh.Events.READ


def nothing(*_args: object) -> None:
    pass


def test_close_stops_first(make_loop, spawn):
    """T16. Threads that wait in the poller leave before it is closed, and their join returns as after a stop."""
    loop = make_loop()
    threads = [spawn(loop.join) for _ in range(4)]
    wait_until(lambda: loop.joined == 4)
    wait_all_idle(loop)

    loop.close(LONG)
    assert loop.closed
    assert loop.joined == 0
    assert [thread.result() for thread in threads] == [0] * 4


def test_close_twice_is_harmless(make_loop):
    """T16. `close()` is idempotent."""
    loop = make_loop()
    loop.close()
    loop.close()
    loop.close(0)
    assert loop.closed


AFTERWARDS = {
    "join": lambda loop: loop.join(),
    "run_ready": lambda loop: loop.run_ready(),
    "request_stop": lambda loop: loop.request_stop(),
    "wait": lambda loop: loop.wait(),
    "stop": lambda loop: loop.stop(),
    "restart": lambda loop: loop.restart(),
    "add": lambda loop: loop.add(0, READ, nothing),
    "get": lambda loop: loop.get(0),
    "post": lambda loop: loop.post(nothing),
    "post_urgent": lambda loop: loop.post_urgent(nothing),
    "post_terminal": lambda loop: loop.post_terminal(),
    "call_later": lambda loop: loop.call_later(1, nothing),
    "call_at": lambda loop: loop.call_at(1, nothing),
    "call_every": lambda loop: loop.call_every(1, nothing),
    "now": lambda loop: loop.now(),
    "strand": lambda loop: loop.strand(),
    "on_signal": lambda loop: loop.on_signal(signal.SIGUSR1, nothing),
    "stats": lambda loop: loop.stats(),
    "dump": lambda loop: loop.dump(),
}


@pytest.mark.parametrize("method", AFTERWARDS)
def test_every_method_of_a_closed_loop_raises(make_loop, method):
    """T16. Afterwards each method raises LoopClosed, which names the loop."""
    loop = make_loop(name="cellar")
    loop.close()
    with pytest.raises(mh.LoopClosed, match="cellar") as caught:
        AFTERWARDS[method](loop)
    assert caught.value.loop == "cellar"


def test_close_that_runs_out_of_time_can_be_tried_again(make_loop, joined):
    """T16. A handler does not end: TimeoutError, the loop stays stopped and open, and a second close succeeds."""
    loop = make_loop()
    with joined(loop), Gate() as gate:
        loop.post(gate)
        gate.wait_entered()
        with pytest.raises(TimeoutError):
            loop.close(0.05)
        assert loop.stopped
        assert not loop.closed
        gate.open()
        loop.close(LONG)
    assert loop.closed


def test_close_runs_the_callbacks_that_are_owed(make_loop, pair):
    """T16. Watches that are alive get their last callback, on the closing thread."""
    loop = make_loop()
    a, _b = pair()
    last = []
    loop.add(a, READ, nothing, on_removed=lambda watch, reason: last.append((watch.fd, reason, threading.get_ident())))
    number = a.fileno()

    loop.close()
    assert last == [(number, mh.RemovalReason.LOOP_CLOSED, threading.get_ident())]


def test_close_says_how_many_messages_never_ran(make_loop, caplog):
    """T16. Nothing is lost in silence: one warning counts the messages that nobody ran."""
    loop = make_loop(name="attic")
    for _ in range(3):
        loop.post(nothing)
    with caplog.at_level(logging.WARNING, logger="manyhands.loop"):
        loop.close()

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "manyhands.loop"
    assert "3" in record.getMessage()
    assert "attic" in record.getMessage()


def test_close_of_a_loop_that_ran_everything_is_silent(make_loop, caplog):
    """T16. No message was left, so there is nothing to warn of."""
    loop = make_loop()
    loop.post(nothing)
    loop.join(until_idle=True)
    loop.close()
    assert caplog.records == []


@pytest.mark.race
def test_two_threads_that_close_at_once_both_return(make_loop, joined, spawn):
    """FAULT 20. Two closes at the same time: both return when the loop is closed."""
    loop = make_loop()
    with joined(loop, 2):
        wait_until(lambda: loop.joined == 2)
        together = threading.Barrier(2)

        def close() -> bool:
            together.wait(LONG)
            loop.close(LONG)
            return loop.closed

        assert [thread.result() for thread in [spawn(close), spawn(close)]] == [True, True]


def test_close_leaves_no_descriptor(make_loop):
    """T16. What the loop opened for itself is closed with it."""
    before = count_descriptors()
    loop = make_loop()
    assert count_descriptors() > before
    loop.close()
    assert count_descriptors() == before
