"""Restarting a loop: joins that meet a stop, joins that wait for the restart, and both at once."""

from __future__ import annotations

import threading
import time

import pytest

import manyhands as mh
from descriptors import count_descriptors
from gate import Gate
from manyhands.testing import wait_all_idle
from support import LONG, OWN_THREADS, wait_until

READ = mh.Events.READ


def nothing(*_args: object) -> None:
    pass


class Returners:
    """Threads that call `join(wait_restart=True)`, counted as they are about to call it."""

    def __init__(self) -> None:
        self._here = threading.Semaphore(0)

    def __call__(self, loop: mh.EventLoop) -> int:
        self._here.release()
        return loop.join(LONG, wait_restart=True)

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self._here.acquire(timeout=LONG)


def test_a_restarted_loop_serves_again(make_loop):
    """T2. After `restart()` a join runs what had been posted before and after the stop."""
    loop = make_loop()
    ran = []
    loop.post(ran.append, "before")
    loop.request_stop()
    assert loop.join() == 0
    loop.restart()
    loop.post(ran.append, "after")

    assert not loop.stopped
    assert loop.join(until_idle=True) == 2
    assert sorted(ran) == ["after", "before"]


@pytest.mark.parametrize("handover", [0, 200e-6])
def test_of_many_threads_that_join_after_a_restart_none_is_stuck(make_loop, spawn, handover):
    """T2. Sixteen threads that join a restarted loop all take part: sixteen messages meet at one barrier."""
    count = 16
    loop = make_loop(handover=handover)
    loop.request_stop()
    assert [thread.result() for thread in [spawn(loop.join) for _ in range(count)]] == [0] * count
    loop.restart()
    threads = [spawn(loop.join) for _ in range(count)]
    meeting = threading.Barrier(count)
    for _ in range(count):
        loop.post(meeting.wait, LONG)
    wait_until(lambda: meeting.broken or loop.stats().handled >= count)

    assert not meeting.broken
    loop.request_stop()
    assert sum(thread.result() for thread in threads) == count


def test_a_hundred_joins_and_restarts_cost_no_descriptor(make_loop, spawn):
    """T3. A loop is joined, stopped and restarted a hundred times; no descriptor and no thread is left over."""
    loop = make_loop()

    def cycle() -> None:
        threads = [spawn(loop.join) for _ in range(2)]
        wait_until(lambda: loop.joined == 2)
        assert loop.stop(LONG)
        for thread in threads:
            thread.result()
        loop.restart()

    def threads() -> set[str]:
        return {thread.name for thread in threading.enumerate()} - OWN_THREADS

    cycle()
    before = count_descriptors(), threads()
    for _ in range(100):
        cycle()

    assert (count_descriptors(), threads()) == before
    assert loop.joined == 0


@pytest.mark.race
def test_a_join_that_waits_for_the_restart_is_counted_once(make_loop, spawn):
    """T9. Threads that wait for a restart do not keep it back; after it each is counted once."""
    loop = make_loop()
    loop.request_stop()
    returners = Returners()
    threads = [spawn(returners, loop) for _ in range(4)]
    returners.wait_for(4)
    assert loop.joined == 0
    loop.restart()
    wait_until(lambda: loop.joined == 4)
    loop.post(nothing)
    wait_all_idle(loop)
    assert loop.joined == 4
    loop.request_stop()
    assert sum(thread.result() for thread in threads) == 1


@pytest.mark.race
def test_stop_and_restart_race_join_and_every_message_runs_once(make_loop, spawn):
    """T9. Four threads join again and again while the loop is stopped and restarted 200 times: each message runs once."""
    loop = make_loop()
    over = threading.Event()
    ran: list[int] = []

    def serve() -> int:
        handled = 0
        while not over.is_set():
            handled += loop.join(0.05, wait_restart=True)
        return handled

    threads = [spawn(serve) for _ in range(4)]
    for number in range(200):
        loop.post(ran.append, number)
        assert loop.stop(LONG)
        assert loop.joined == 0
        loop.post(ran.append, 1000 + number)
        loop.restart()
    wait_until(lambda: len(ran) >= 400)
    over.set()
    assert loop.stop(LONG)

    assert sum(thread.result() for thread in threads) == 400
    assert sorted(ran) == [*range(200), *range(1000, 1200)]
    assert loop.joined == 0


def test_wait_restart_ends_with_its_timeout(make_loop):
    """`join(timeout, wait_restart=True)` on a loop that nobody restarts returns 0 when the time is over."""
    loop = make_loop()
    loop.request_stop()
    started = time.monotonic()

    assert loop.join(0.03, wait_restart=True) == 0
    assert time.monotonic() - started >= 0.03


def test_restart_of_an_open_loop_has_no_effect(make_loop):
    """`restart()` of a loop that was not stopped changes nothing."""
    loop = make_loop()
    loop.post(nothing)
    loop.restart()

    assert not loop.stopped
    assert loop.join(until_idle=True) == 1


def test_restart_with_threads_inside_is_refused(make_loop, joined):
    """A stopped loop with a handler still inside cannot be restarted; when it has ended it can."""
    loop = make_loop()
    with joined(loop), Gate() as gate:
        loop.post(gate)
        gate.wait_entered()
        loop.request_stop()
        with pytest.raises(RuntimeError):
            loop.restart()
        gate.open()
        assert loop.wait(LONG)
    loop.restart()
    assert not loop.stopped


@pytest.mark.race
def test_after_stop_returned_no_handler_starts(make_loop, spawn, pair):
    """T10. Twenty rounds with a descriptor that is always ready and a message that posts itself."""
    loop = make_loop(handover=0)
    a, b = pair()
    b.send(b"never read")
    returned = threading.Event()
    late = []

    def handler(*_args) -> None:
        if returned.is_set():
            late.append("watch")

    def again() -> None:
        if returned.is_set():
            late.append("message")
        loop.post(again)

    loop.add(a, READ, handler)
    loop.post(again)
    for _ in range(20):
        threads = [spawn(loop.join) for _ in range(3)]
        handled = loop.stats().handled
        wait_until(lambda handled=handled: loop.stats().handled > handled + 20)
        assert loop.stop(LONG)
        returned.set()
        for thread in threads:
            thread.result()
        assert late == []
        returned.clear()
        loop.restart()
