"""Stopping a loop: whom a stop releases, what it waits for, and what it leaves behind."""

from __future__ import annotations

import threading
import time

import pytest

import manyhands as mh
from gate import Gate
from manyhands import testing
from manyhands.testing import hold, wait_all_idle
from support import LONG, wait_until

READ = mh.Events.READ


def needs_points(test):
    """Needs a build with named points, and them for itself: a point holds whoever of the process comes first."""
    test = pytest.mark.skipif(not testing.points_compiled(), reason="a build without named points")(test)
    return pytest.mark.thread_unsafe(reason="named points are the process's")(test)


def nothing(*_args: object) -> None:
    pass


# ---------------------------------------------------------------------------------------------------------- join and stop


@pytest.mark.parametrize("count", [1, 2, 32])
def test_one_stop_releases_every_joined_thread(make_loop, spawn, count):
    """T1. However many threads have joined, one stop lets them all leave, and nobody is counted afterwards."""
    loop = make_loop()
    threads = [spawn(loop.join) for _ in range(count)]
    wait_until(lambda: loop.joined == count)

    loop.request_stop()

    assert [thread.result() for thread in threads] == [0] * count
    assert loop.joined == 0
    assert loop.stopped


def test_a_stop_that_meets_nobody_is_not_forgotten(make_loop, spawn):
    """T2. The stop is sticky: the next join returns at once and runs nothing."""
    loop = make_loop()
    ran = []
    loop.request_stop()
    loop.post(ran.append, 1)

    assert spawn(loop.join).result() == 0
    assert ran == []


def test_request_stop_does_not_wait_for_a_handler(make_loop, joined, spawn):
    """T4. While a handler is inside for long, request_stop returns, however often it is called."""
    loop = make_loop()
    with joined(loop, 2), Gate() as gate:
        loop.post(gate)
        gate.wait_entered()
        for _ in range(2):
            spawn(loop.request_stop).result()

        assert loop.joined >= 1, "the handler was waited for"
        gate.open()
        assert loop.wait(LONG)


def test_ten_stops_at_once_have_one_effect(make_loop, spawn):
    """T4. Ten threads ask at the same time: nobody gets an error, and one restart undoes it."""
    loop = make_loop()
    workers = [spawn(loop.join) for _ in range(4)]
    wait_until(lambda: loop.joined == 4)
    together = threading.Barrier(10)

    def ask() -> None:
        together.wait(LONG)
        loop.request_stop()

    for thread in [spawn(ask) for _ in range(10)]:
        thread.result()
    for thread in workers:
        thread.result()
    loop.restart()
    loop.post(nothing)

    assert loop.join(until_idle=True) == 1


@needs_points
@pytest.mark.race
def test_stop_races_leave_and_returns_only_when_all_have_left(make_loop, spawn):
    """T5. A thread that has decided to leave but is still inside keeps `stop()` waiting."""
    loop = make_loop()
    threads = [spawn(loop.join) for _ in range(3)]
    wait_until(lambda: loop.joined == 3)
    with hold("join.leaving") as held:
        loop.request_stop()
        held.wait_reached()

        assert loop.stop(0.05) is False
        assert loop.joined >= 1
        held.release()
        assert loop.stop(LONG) is True
    assert loop.joined == 0
    for thread in threads:
        thread.result()


def test_stop_returns_true_after_the_handler_that_was_inside(make_loop, joined, spawn):
    """T5. `stop()` from outside waits for a running handler, and then says True."""
    loop = make_loop()
    order = []
    with joined(loop), Gate() as gate:

        def handler() -> None:
            gate()
            order.append("handler ended")

        def stop() -> bool:
            answer = loop.stop(LONG)
            order.append("stop returned")
            return answer

        loop.post(handler)
        gate.wait_entered()
        stopping = spawn(stop)
        wait_until(lambda: loop.stopped)
        gate.open()

        assert stopping.result() is True
        assert order == ["handler ended", "stop returned"]


def test_two_handlers_that_stop_at_the_same_time_release_everybody(make_loop, spawn):
    """T7. Two handlers on two threads call request_stop together; all four threads leave."""
    loop = make_loop(handover=0)
    threads = [spawn(loop.join) for _ in range(4)]
    wait_until(lambda: loop.joined == 4)
    together = threading.Barrier(2)

    def handler() -> None:
        together.wait(LONG)
        loop.request_stop()

    loop.post(handler)
    loop.post(handler)

    assert sum(thread.result() for thread in threads) == 2
    assert loop.joined == 0


def test_stop_with_a_timeout_gives_up_and_the_loop_stops_later(make_loop, joined):
    """T8. A handler outlasts the timeout: False, no earlier than asked; when the handler ends the loop has stopped."""
    loop = make_loop()
    with joined(loop, 2), Gate() as gate:
        loop.post(gate)
        gate.wait_entered()
        started = time.monotonic()

        assert loop.stop(0.05) is False
        assert 0.05 <= time.monotonic() - started < LONG / 2
        assert loop.joined == 1, "only the one in the handler is still inside"
        gate.open()
        assert loop.wait(LONG)
        assert loop.stopped


def test_stop_twice_returns_at_once(make_loop):
    """FAULT 20. Stopping what has stopped is no error."""
    loop = make_loop()
    assert loop.stop() is True
    assert loop.stop(0) is True
    assert loop.stop(drain=True) is True


@needs_points
@pytest.mark.race
def test_a_join_that_meets_a_stop_is_counted_once_and_runs_nothing(make_loop, spawn):
    """T9. A thread has come in when the stop comes: it is counted (the restart waits for it) and leaves without work."""
    loop = make_loop()
    ran = []
    with hold("join.entered") as held:
        joining = spawn(loop.join)
        held.wait_reached()
        assert loop.joined == 1
        loop.post(ran.append, 1)
        loop.request_stop()
        with pytest.raises(RuntimeError):
            loop.restart()
        held.release()
    assert joining.result() == 0
    assert ran == []
    assert loop.joined == 0

    loop.restart()
    assert loop.join(until_idle=True) == 1
    assert ran == [1]


# ---------------------------------------------------------------------------------------------- what a stop leaves behind


def test_an_event_polled_beside_the_one_that_stops_is_delivered_after_the_restart(make_loop, pair):
    """T12. Two descriptors are ready in one poll; the first handler stops the loop, the second event is not lost."""
    loop = make_loop()
    pairs = [pair(), pair()]
    handled = []

    def handler(watch, _events) -> None:
        watch.source.recv(10)
        handled.append(watch.fd)
        loop.request_stop()

    for a, b in pairs:
        loop.add(a, READ, handler)
        b.send(b"x")

    assert loop.join(LONG) == 1
    assert len(handled) == 1
    loop.restart()
    assert loop.join(LONG) == 1
    assert sorted(handled) == sorted(a.fileno() for a, _b in pairs)


@needs_points
@pytest.mark.race
def test_a_stop_in_the_interval_after_the_poll_loses_no_event(make_loop, spawn, pair):
    """T12. The stop comes when the poller has returned and nothing was looked up yet."""
    loop = make_loop()
    a, b = pair()
    handled = []
    loop.add(a, READ, lambda watch, _events: handled.append(watch.source.recv(10)))
    b.send(b"x")
    with hold("poll.returned") as held:
        serving = spawn(loop.join)
        held.wait_reached()
        loop.request_stop()
        held.release()
    assert serving.result() == 0
    assert handled == []
    loop.restart()
    loop.join(until_idle=True)
    assert handled == [b"x"]


@needs_points
@pytest.mark.race
def test_a_stop_before_the_poll_wakes_the_poller(make_loop, spawn):
    """T13. The stop comes when a thread has decided to wait but does not wait yet."""
    loop = make_loop()
    with hold("poll.enter") as held:
        serving = spawn(loop.join)
        held.wait_reached()
        loop.request_stop()
        held.release()
    assert serving.result() == 0


@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
def test_threads_that_wait_for_nothing_are_released(make_loop, spawn, poller):
    """T13. Nothing is registered, no timeout: four threads wait, and leave at the stop."""
    loop = make_loop(poller=poller)
    threads = [spawn(loop.join) for _ in range(4)]
    wait_until(lambda: loop.joined == 4)
    wait_all_idle(loop)

    loop.request_stop()
    assert [thread.result() for thread in threads] == [0] * 4
