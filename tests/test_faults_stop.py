"""Faults of starting, stopping and closing, at the wrong moment, on the wrong thread, or twice."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

import manyhands as mh
from gate import Gate
from manyhands.testing import wait_all_idle
from support import LONG, OWN_THREADS, wait_until

# -- FAULT 19: stop during start, stop before run --------------------------------------------------


def threads_now() -> set[threading.Thread]:
    """Every thread but the library's monitor and what writes its reports."""
    return {thread for thread in threading.enumerate() if thread.name not in OWN_THREADS}


def races_of_start_and_stop(rounds: int) -> None:
    """Two threads start and stop one owned-threads loop as they like."""
    before = threads_now()
    loop = mh.ThreadedEventLoop(threads=2, name="racer")
    meeting = threading.Barrier(2)
    wrong: list[BaseException] = []

    def start_all() -> None:
        try:
            for _ in range(rounds):
                meeting.wait(LONG)
                with contextlib.suppress(RuntimeError):  # it still runs: the other one was quicker, or slower
                    loop.start()
        except BaseException as error:
            wrong.append(error)

    def stop_all() -> None:
        try:
            for _ in range(rounds):
                meeting.wait(LONG)
                loop.stop(timeout=5)
        except BaseException as error:
            wrong.append(error)

    racers = [threading.Thread(target=target) for target in (start_all, stop_all)]
    for thread in racers:
        thread.start()
    for thread in racers:
        thread.join()
    try:
        assert wrong == []
        assert loop.stop(timeout=5) is True
        assert loop.joined == 0
        with contextlib.suppress(RuntimeError):
            loop.start()
        ran = threading.Event()
        loop.post(ran.set)
        assert ran.wait(LONG), "the loop does not serve any more"
    finally:
        loop.close(timeout=5)
    assert threads_now() == before


@pytest.mark.race
def test_start_races_stop_and_no_thread_is_left_or_stuck():
    """FAULT 19. 100 races of start and stop from two threads: 0 hangs, 0 threads left, the loop still works."""
    races_of_start_and_stop(100)


@pytest.mark.race
@pytest.mark.stress
def test_ten_thousand_starts_race_stops():
    """FAULT 19. The same, 10,000 times."""
    races_of_start_and_stop(10_000)


@pytest.mark.race
@pytest.mark.parametrize("threads", [1, 4])
def test_join_races_stop_and_restart_and_nobody_is_stuck(make_loop, spawn, threads):
    """FAULT 19. Threads join while another stops and restarts: each join returns, every round."""
    loop = make_loop(handover=0)
    enough = threading.Event()

    def keep_joining() -> int:
        rounds = 0
        while not enough.is_set():
            loop.join(timeout=LONG)
            rounds += 1
        return rounds

    crew = [spawn(keep_joining) for _ in range(threads)]
    for number in range(300):
        ran = threading.Event()
        loop.post(ran.set)
        assert ran.wait(LONG), f"nobody serves in round {number}"
        assert loop.stop(timeout=LONG) is True
        loop.restart()
    enough.set()
    loop.request_stop()
    assert all(thread.result() >= 1 for thread in crew)


def test_a_stop_before_anybody_joined_lets_the_first_join_return_at_once(make_loop):
    """FAULT 19. Stop before run: nothing runs, the join returns at once, also the second."""
    loop = make_loop()
    ran: list[int] = []
    loop.post(ran.append, 1)
    assert loop.stop(timeout=LONG) is True
    assert loop.join() == 0
    assert loop.join() == 0
    assert ran == []
    loop.restart()
    loop.join(until_idle=True)


# -- FAULT 20: twice -------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_the_second_stop_and_the_second_close_return_at_once(make_loop, spawn, threads):
    """FAULT 20. Double stop and double close are no errors, and do not wait."""
    loop = make_loop()
    crew = [spawn(loop.join) for _ in range(threads)]
    wait_until(lambda: loop.joined == threads)
    assert loop.stop() is True
    assert loop.stop(timeout=0) is True
    for thread in crew:
        thread.result()
    loop.close()
    loop.close(timeout=0)
    assert loop.closed


@pytest.mark.race
@pytest.mark.parametrize("drain", [False, True])
def test_two_threads_that_stop_at_once_are_both_released(make_loop, spawn, drain):
    """FAULT 20. Both waiters return True when the handler that held them has ended."""
    loop = make_loop(slow_handler=60)
    crew = [spawn(loop.join) for _ in range(2)]
    with Gate() as gate:
        loop.post(gate)
        gate.wait_entered()
        stoppers = [spawn(lambda: loop.stop(drain=drain)) for _ in range(3)]
        wait_until(lambda: loop.joined == 1 or drain)
        gate.open()
        assert [stopper.result() for stopper in stoppers] == [True, True, True]
    for thread in crew:
        thread.result()


@pytest.mark.race
def test_a_stop_overtakes_a_drain_that_waits(make_loop, spawn):
    """FAULT 20. An immediate stop during a drain makes the drain immediate: both return."""
    loop = make_loop(handover=0, slow_handler=60)
    strand = loop.strand()
    ran: list[int] = []
    thread = spawn(loop.join)
    with Gate() as gate:
        strand.post(gate)
        strand.post(ran.append, 1)
        gate.wait_entered()
        drainer = spawn(lambda: loop.stop(drain=True))

        def draining() -> bool:
            try:
                loop.post(int)
            except mh.LoopStopped:
                return True
            return False

        wait_until(draining)
        loop.request_stop()
        gate.open()
        thread.result()
        assert isinstance(drainer.result(), bool)
    assert ran == []
    assert loop.joined == 0


@pytest.mark.race
def test_two_threads_that_close_at_once_are_both_released(make_loop, spawn, pair):
    """FAULT 20. What is owed is paid once, whoever closes."""
    loop = make_loop()
    ends: list[int] = []
    for _ in range(4):
        a, _b = pair()
        loop.add(a, mh.Events.READ, print, on_removed=lambda watch, reason: ends.append(watch.fd))
    crew = [spawn(loop.join) for _ in range(2)]
    wait_until(lambda: loop.joined == 2)
    for closer in [spawn(loop.close) for _ in range(3)]:
        closer.result()
    for thread in crew:
        thread.result()
    assert loop.closed
    assert len(ends) == 4


# -- FAULT 21 and 22: stop, close and join from a handler ------------------------------------------


@pytest.mark.parametrize("threads", [1, 4])
def test_a_stop_asked_for_in_a_handler_returns_at_once_and_every_thread_leaves(make_loop, spawn, threads):
    """FAULT 21. `request_stop` in a handler: the handler finishes, then all joined threads are out."""
    loop = make_loop()
    order: list[str] = []

    def message() -> None:
        loop.request_stop()
        order.append("asked")
        order.append("ended")

    crew = [spawn(loop.join) for _ in range(threads)]
    wait_until(lambda: loop.joined == threads)
    loop.post(message)
    for thread in crew:
        thread.result()
    assert order == ["asked", "ended"]
    assert loop.joined == 0


@pytest.mark.parametrize("call", ["stop", "close", "restart"])
@pytest.mark.parametrize("source", ["watch", "message", "timer", "on_error"])
def test_a_handler_that_would_wait_for_the_loop_gets_an_error(make_loop, joined, pair, source, call):
    """FAULT 21. close, stop and restart in a handler raise `WouldDeadlock`; the loop goes on and can be stopped."""
    caught: list[BaseException] = []
    done = threading.Event()

    def attempt(*_: object) -> None:
        try:
            getattr(loop, call)()
        except mh.WouldDeadlock as error:
            caught.append(error)
        done.set()

    loop = make_loop(on_error=attempt if source == "on_error" else None)
    a, b = pair()
    with joined(loop, 2):
        if source == "watch":
            loop.add(a, mh.Events.READ, lambda watch, events: (a.recv(1), attempt()))
            b.send(b"x")
        elif source == "message":
            loop.post(attempt)
        elif source == "timer":
            loop.call_later(0, attempt)
        else:
            loop.post(lambda: 1 / 0)
        assert done.wait(LONG), "the handler waits for itself"
        wait_all_idle(loop)
        assert len(caught) == 1
        assert caught[0].call.startswith(call)
        assert not loop.stopped
        assert not loop.closed


@pytest.mark.parametrize("other", [False, True])
def test_a_join_in_a_handler_raises_and_names_the_loop(make_loop, joined, other):
    """FAULT 22. RuntimeError, found by the thread itself and not by waiting; also for another loop (DESIGN D6)."""
    loop = make_loop(name="mill")
    second = make_loop(name="second")
    caught: list[BaseException] = []
    took: list[float] = []
    done = threading.Event()

    def message() -> None:
        for call in ((second if other else loop).join, (second if other else loop).run_ready):
            start = time.monotonic()
            try:
                call()
            except RuntimeError as error:
                caught.append(error)
            took.append(time.monotonic() - start)
        done.set()

    with joined(loop, 2):
        loop.post(message)
        assert done.wait(LONG)
    assert len(caught) == 2
    assert all("mill" in str(error) or "second" in str(error) for error in caught)
    assert min(took) < 0.001


# -- FAULT 23: calls after stop and close ----------------------------------------------------------


def test_no_call_after_close_is_dropped_in_silence(make_loop, pair):
    """FAULT 23. A defined error that names the loop, never a silent drop."""
    loop = make_loop(name="mill")
    a, _ = pair()
    watch = loop.add(a, mh.Events.READ, print)
    strand = loop.strand()
    timer = loop.call_later(60, print)
    loop.close()
    calls = {
        "join": loop.join,
        "run_ready": loop.run_ready,
        "stop": loop.stop,
        "restart": loop.restart,
        "add": lambda: loop.add(a, mh.Events.READ, print),
        "post": lambda: loop.post(print),
        "post_urgent": lambda: loop.post_urgent(print),
        "post_terminal": loop.post_terminal,
        "call_later": lambda: loop.call_later(1, print),
        "call_at": lambda: loop.call_at(1, print),
        "call_every": lambda: loop.call_every(1, print),
        "strand": loop.strand,
    }
    said: dict[str, str | None] = {}
    for name, call in calls.items():
        said[name] = None
        try:
            call()
        except mh.LoopClosed as error:
            said[name] = str(error)
    assert [name for name, text in said.items() if text is None or "mill" not in text] == []
    assert watch.removed
    assert not timer.active
    assert timer.cancel() is False
    assert watch.remove() is True
    with pytest.raises((mh.LoopClosed, mh.StrandClosed)):
        strand.post(print)
    assert (loop.name, loop.joined, loop.stopped, loop.closed) == ("mill", 0, True, True)
