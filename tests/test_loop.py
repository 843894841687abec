"""The loop itself: join, stop, drain, restart, close, what `stats()` and `dump()` show, and arguments that are refused."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import signal
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


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def read_all(watch, _events) -> None:
    watch.source.recv(65536)


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
        return {thread.name for thread in threading.enumerate()} - {"mh-monitor"}

    cycle()
    before = descriptors(), threads()
    for _ in range(100):
        cycle()

    assert (descriptors(), threads()) == before
    assert loop.joined == 0


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


# ------------------------------------------------------------------------------------------------------------------ drain


def refuses_posts(loop: mh.EventLoop) -> bool:
    try:
        loop.post(nothing)
    except mh.LoopStopped:
        return True
    return False


def test_a_drain_runs_what_was_posted_once_and_refuses_the_rest(make_loop, joined, spawn):
    """T11. A hundred messages behind a slow one run exactly once; posts from outside raise LoopStopped."""
    loop = make_loop(name="brook")
    ran: list[int] = []
    with joined(loop, 2), Gate() as gate:
        loop.post(gate)
        gate.wait_entered()
        for number in range(100):
            loop.post(ran.append, number)
        stopping = spawn(lambda: loop.stop(LONG, drain=True))
        wait_until(lambda: refuses_posts(loop))
        with pytest.raises(mh.LoopStopped) as caught:
            loop.post(ran.append, 1000)
        assert caught.value.loop == "brook"
        gate.open()

        assert stopping.result() is True
    assert sorted(ran) == list(range(100))
    with pytest.raises(mh.LoopStopped):
        loop.post(nothing)
    loop.restart()
    loop.post(ran.append, -1)
    loop.join(until_idle=True)
    assert ran[-1] == -1


def test_a_drain_takes_what_its_own_handlers_post(make_loop, spawn):
    """T11. A handler that runs during the drain may post, and so may what it posted."""
    loop = make_loop()
    ran = []

    def first() -> None:
        gate()
        assert refuses_posts_from_outside()
        loop.post(second)

    def refuses_posts_from_outside() -> bool:
        return spawn(refuses_posts, loop).result()

    def second() -> None:
        ran.append("second")
        loop.post(ran.append, "third")

    serving = spawn(loop.join)
    with Gate() as gate:
        loop.post(first)
        gate.wait_entered()
        loop.request_stop(drain=True)
        gate.open()
        serving.result()
    assert loop.wait(LONG)
    assert ran == ["second", "third"]
    assert loop.stopped


def test_with_nobody_joined_the_caller_serves_the_drain(make_loop):
    """T11. `stop(drain=True)` runs what was posted on the calling thread."""
    loop = make_loop()
    ran = []
    for number in range(3):
        loop.post(lambda number=number: ran.append((number, threading.get_ident())))

    assert loop.stop(LONG, drain=True) is True
    assert sorted(ran) == [(number, threading.get_ident()) for number in range(3)]
    assert loop.joined == 0


def test_a_drain_that_runs_out_of_time_becomes_a_stop(make_loop, joined):
    """T11. A handler outlasts the drain's timeout: False, and what had not started does not start any more."""
    loop = make_loop()
    ran = []
    strand = loop.strand()
    with joined(loop), Gate() as gate:
        strand.post(gate)
        strand.post(ran.append, 1)
        gate.wait_entered()
        assert loop.stop(0.05, drain=True) is False
        gate.open()
        assert loop.wait(LONG)
    assert ran == []
    loop.restart()
    loop.join(until_idle=True)
    assert ran == [1]


def test_a_paused_strand_does_not_hold_up_a_drain(make_loop, joined):
    """T11. What a paused strand holds stays there and runs after the restart and its resume."""
    loop = make_loop()
    ran = []
    strand = loop.strand()
    with joined(loop):
        assert strand.pause(LONG)
        strand.post(ran.append, 1)
        assert loop.stop(LONG, drain=True) is True
    assert ran == []
    loop.restart()
    strand.resume()
    assert loop.join(until_idle=True) == 1
    assert ran == [1]


def test_a_drain_polls_no_more(make_loop, pair):
    """T11. Readiness that comes during the drain is not handled before the restart."""
    loop = make_loop()
    a, b = pair()
    handled = []
    loop.add(a, READ, lambda watch, _events: handled.append(watch.source.recv(10)))
    b.send(b"x")

    assert loop.stop(LONG, drain=True) is True
    assert handled == []
    loop.restart()
    loop.join(until_idle=True)
    assert handled == [b"x"]


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


# ------------------------------------------------------------------------------------------------------- ways of joining


def test_join_until_idle_returns_how_many_handlers_ran(make_loop, pair):
    """T15. Messages, a watch and a timer that was due are each counted once."""
    loop = make_loop()
    a, b = pair()
    loop.add(a, READ, read_all)
    b.send(b"x")
    for _ in range(3):
        loop.post(nothing)
    loop.call_later(0, nothing)

    assert loop.join(until_idle=True) == 5


def test_join_with_a_timeout_returns_how_many_handlers_ran(make_loop):
    """T15. A join that ends by its timeout says what it did, and not before the time is over."""
    loop = make_loop()
    for _ in range(3):
        loop.post(nothing)
    started = time.monotonic()

    assert loop.join(0.03) == 3
    assert time.monotonic() - started >= 0.03
    assert loop.joined == 0
    assert not loop.stopped


def test_run_ready_returns_how_many_handlers_ran(make_loop):
    """T15. `run_ready()` runs what was ready at entry and says how much that was."""
    loop = make_loop()
    assert loop.run_ready() == 0
    for _ in range(3):
        loop.post(nothing)

    assert loop.run_ready() == 3
    assert loop.run_ready() == 0


def test_run_ready_is_one_tick(make_loop, pair):
    """What a handler posts, and a descriptor that stays ready, wait for the next `run_ready()`."""
    loop = make_loop()
    ran = []
    a, b = pair()
    b.send(b"never read")
    loop.add(a, READ, lambda *_: ran.append("watch"))

    def again() -> None:
        ran.append("message")
        loop.post(again)

    loop.post(again)
    for tick in range(1, 4):
        assert loop.run_ready() == 2
        assert sorted(ran) == ["message"] * tick + ["watch"] * tick


def test_run_ready_runs_all_that_a_strand_held(make_loop):
    """What was ready at entry is also the fiftieth message of one strand."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[int] = []
    for number in range(50):
        strand.post(ran.append, number)

    assert loop.run_ready() == 50
    assert ran == list(range(50))


def test_run_ready_runs_a_timer_that_is_due(make_loop):
    """A timer that was due at entry is ready; one of later is not."""
    clock = testing.MockClock()
    loop = make_loop(clock=clock)
    ran = []
    loop.call_at(1.0, ran.append, "one")
    loop.call_at(2.0, ran.append, "two")
    assert loop.run_ready() == 0
    clock.advance(1.0)

    assert loop.run_ready() == 1
    assert ran == ["one"]


def test_run_ready_stops_at_max_handlers(make_loop):
    """With `max_handlers` the rest stays for the next call."""
    loop = make_loop()
    for _ in range(3):
        loop.post(nothing)

    assert loop.run_ready(max_handlers=2) == 2
    assert loop.run_ready(max_handlers=2) == 1


def test_join_leaves_after_max_handlers(make_loop):
    """`join(max_handlers=2)` runs two and leaves the rest to whoever comes next."""
    loop = make_loop()
    ran = []
    for number in range(3):
        loop.post(ran.append, number)

    assert loop.join(max_handlers=2) == 2
    assert len(ran) == 2
    assert loop.join(max_handlers=1) == 1
    assert sorted(ran) == [0, 1, 2]


@pytest.mark.race
def test_a_thread_that_leaves_after_max_handlers_leaves_the_rest_to_the_others(make_loop, spawn):
    """Ten threads take one message each: whoever leaves wakes another for what is left."""
    loop = make_loop()
    threads = [spawn(lambda: loop.join(max_handlers=1)) for _ in range(10)]
    wait_until(lambda: loop.joined == 10)
    wait_all_idle(loop)
    for _ in range(10):
        loop.post(nothing)

    assert [thread.result() for thread in threads] == [1] * 10


def test_future_timers_and_idle_watches_do_not_keep_a_loop_busy(make_loop, pair):
    """`join(until_idle=True)` does not wait for what may come later."""
    loop = make_loop()
    a, _b = pair()
    loop.add(a, READ, nothing)
    loop.call_later(3600, nothing)

    assert loop.join(until_idle=True) == 0


def test_until_idle_follows_a_chain_of_messages(make_loop):
    """Each message posts the next: the loop is idle when the last has run."""
    loop = make_loop()

    def chain(left: int) -> None:
        if left:
            loop.post(chain, left - 1)

    loop.post(chain, 9)
    assert loop.join(until_idle=True) == 10


def test_until_idle_waits_for_a_handler_on_another_thread(make_loop, joined, spawn):
    """A loop with somebody inside a handler is not idle."""
    loop = make_loop()
    released = threading.Event()
    with joined(loop), Gate() as gate:
        loop.post(gate)
        gate.wait_entered()

        def join_until_idle() -> bool:
            loop.join(until_idle=True)
            return released.is_set()

        waiting = spawn(join_until_idle)
        wait_until(lambda: loop.joined == 2)
        with pytest.raises(TimeoutError):
            wait_all_idle(loop, timeout=0.05)
        released.set()
        gate.open()
        assert waiting.result() is True


@needs_points
@pytest.mark.race
def test_a_loop_whose_poller_has_just_returned_is_not_idle(spawn, make_loop, pair):
    """`wait_all_idle` sees also what is in the interval: the poller has returned it, and it is not queued yet."""
    loop = make_loop()
    a, b = pair()
    handled = []
    loop.add(a, READ, lambda watch, _events: handled.append(watch.source.recv(10)))
    b.send(b"x")
    with hold("poll.returned") as held:
        serving = spawn(loop.join)
        held.wait_reached()
        with pytest.raises(TimeoutError):
            wait_all_idle(loop, timeout=0.1)
    wait_all_idle(loop)
    assert handled == [b"x"]
    loop.request_stop()
    assert serving.result() == 1


def test_join_with_a_timeout_of_zero_does_not_wait(make_loop, spawn):
    """`join(0)` returns at once when there is nothing to do."""
    loop = make_loop()
    loop.call_later(3600, nothing)
    assert spawn(loop.join, 0).result() == 0


def test_wait_with_nobody_joined_returns_true(make_loop):
    """Nobody is inside, so nobody is waited for."""
    loop = make_loop()
    assert loop.wait() is True
    assert loop.wait(0) is True


def test_wait_does_not_stop_the_loop(make_loop, joined, spawn):
    """`wait()` only waits: False while somebody is joined, True when all have left."""
    loop = make_loop()
    with joined(loop, 2):
        wait_until(lambda: loop.joined == 2)
        assert loop.wait(0) is False
        assert loop.wait(0.02) is False
        assert not loop.stopped
        waiting = spawn(loop.wait)
        loop.request_stop()
        assert waiting.result() is True


def test_properties_tell_the_state(make_loop):
    """`name`, `joined`, `stopped` and `closed` can be read at any time, from a handler and after the close."""
    loop = make_loop(name="kitchen")
    inside = []
    loop.post(lambda: inside.append((loop.name, loop.joined, loop.stopped, loop.closed)))
    loop.join(until_idle=True)
    assert inside == [("kitchen", 1, False, False)]
    assert (loop.name, loop.joined, loop.stopped, loop.closed) == ("kitchen", 0, False, False)
    loop.close()
    assert (loop.name, loop.joined, loop.closed) == ("kitchen", 0, True)


@pytest.mark.parametrize("name", ["name", "joined", "stopped", "closed"])
def test_properties_cannot_be_set(make_loop, name):
    """The state is the loop's own."""
    loop = make_loop()
    with pytest.raises(AttributeError):
        setattr(loop, name, 1)


# ------------------------------------------------------------------------------------------------------------------ close


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
    before = descriptors()
    loop = make_loop()
    assert descriptors() > before
    loop.close()
    assert descriptors() == before


# ------------------------------------------------------------------------------------------------------------------ sight


def test_stats_are_frozen_and_complete(make_loop):
    """`stats()` is a photograph: it has every figure and cannot be changed."""
    stats = make_loop().stats()
    assert isinstance(stats, mh.LoopStats)
    names = {field.name for field in dataclasses.fields(stats)}
    assert {"joined", "ready", "watches", "timers", "handled", "polls", "wakes", "errors", "parked"} <= names
    assert "handler_seconds" in names
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.joined = 5


def test_stats_count_what_is_there(make_loop, pair):
    """Watches, timers and what waits to be run are counted, and no longer when they are gone."""
    loop = make_loop()
    a, _b = pair()
    watch = loop.add(a, READ, nothing)
    timer = loop.call_later(3600, nothing)
    loop.post(nothing)
    stats = loop.stats()
    assert (stats.joined, stats.watches, stats.timers, stats.handled) == (0, 1, 1, 0)
    assert stats.ready >= 1

    watch.remove()
    timer.cancel()
    loop.join(until_idle=True)
    stats = loop.stats()
    assert (stats.watches, stats.timers, stats.ready) == (0, 0, 0)
    assert stats.handled >= 1
    assert stats.polls >= 1


def test_stats_count_errors(make_loop):
    """A handler that raised is counted, whatever the hook does with it."""
    loop = make_loop(on_error=nothing)
    loop.post(lambda: 1 / 0)
    loop.post(nothing)
    loop.join(until_idle=True)
    stats = loop.stats()
    assert (stats.handled, stats.errors) == (2, 1)


def test_stats_tell_joined_from_parked(make_loop, joined):
    """Of three idle threads one waits in the poller and the others are parked."""
    loop = make_loop()
    with joined(loop, 3):
        wait_until(lambda: loop.joined == 3)
        wait_all_idle(loop)
        stats = loop.stats()
        assert stats.joined == 3
        assert 2 <= stats.parked <= 3


def test_the_histogram_of_handler_times_adds_up(make_loop):
    """Upper bounds ascend to infinity; the counts add up to the handlers that ran."""
    loop = make_loop()
    for _ in range(20):
        loop.post(nothing)
    loop.join(until_idle=True)
    stats = loop.stats()
    bounds = [bound for bound, _count in stats.handler_seconds]
    assert bounds == sorted(set(bounds))
    assert bounds[-1] == math.inf
    assert sum(count for _bound, count in stats.handler_seconds) == stats.handled == 20


def test_a_long_handler_is_in_the_histogram_where_it_belongs(make_loop):
    """A handler that took 20 ms is counted above 20 ms."""
    loop = make_loop()

    def long() -> None:
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass

    loop.post(long)
    loop.join(until_idle=True)
    (bound,) = [bound for bound, count in loop.stats().handler_seconds if count]
    assert bound >= 0.02


def ring_the_bell() -> None:
    pass


def test_dump_names_threads_watches_strands_and_timers(make_loop, pair, spawn):
    """`dump()` tells a reader what there is: by the names that the user gave."""
    loop = make_loop(name="kitchen")
    a, _b = pair()
    loop.add(a, READ, nothing, name="door")
    strand = loop.strand(name="pantry")
    loop.call_later(3600, ring_the_bell)

    def cook() -> int:
        threading.current_thread().name = "cook"
        return loop.join()

    serving = spawn(cook)
    with Gate() as gate:
        strand.post(gate)
        gate.wait_entered()
        text = loop.dump()
        gate.open()
        loop.request_stop()
        serving.result()
    for word in ("kitchen", "cook", "door", "pantry", "ring_the_bell"):
        assert word in text, f"{word!r} is missing in:\n{text}"


def test_dump_says_what_a_thread_runs(make_loop, spawn):
    """A thread inside a handler is shown with that handler, and no longer when it has ended."""
    loop = make_loop()
    with Gate() as gate:

        def stir_the_soup() -> None:
            gate()

        serving = spawn(loop.join)
        loop.post(stir_the_soup)
        gate.wait_entered()
        assert "stir_the_soup" in loop.dump()
        gate.open()
        wait_all_idle(loop)
        assert "stir_the_soup" not in loop.dump()
        loop.request_stop()
        serving.result()


def test_dump_from_a_handler_shows_the_handler(make_loop):
    """`dump()` may be called on a lent thread: it takes no lock that the handler holds."""
    loop = make_loop()
    texts = []

    def look_around() -> None:
        texts.append(loop.dump())

    loop.post(look_around)
    loop.join(until_idle=True)
    assert "look_around" in texts[0]


def test_dump_of_an_idle_loop_is_text(make_loop):
    """With nothing there it still says whose dump it is."""
    assert "larder" in make_loop(name="larder").dump()


def test_repr_says_which_loop_and_its_state(make_loop):
    """A loop in a log line can be told from another one."""
    loop = make_loop(name="kitchen")
    assert "kitchen" in repr(loop)
    assert "EventLoop" in repr(loop)
    loop.close()
    assert "closed" in repr(loop)


# --------------------------------------------------------------------------------------------------------- bad arguments

NAN = math.nan
WRONG = [
    ("EventLoop(name=5)", lambda _loop: mh.EventLoop(name=5), TypeError),
    ("EventLoop(clock=object())", lambda _loop: mh.EventLoop(clock=object()), TypeError),
    ("EventLoop(on_error=5)", lambda _loop: mh.EventLoop(on_error=5), TypeError),
    ("EventLoop(poller=5)", lambda _loop: mh.EventLoop(poller=5), (TypeError, ValueError)),
    ("EventLoop(slow_handler=-1)", lambda _loop: mh.EventLoop(slow_handler=-1), ValueError),
    ("EventLoop(slow_handler='x')", lambda _loop: mh.EventLoop(slow_handler="x"), TypeError),
    ("EventLoop(handover=-1)", lambda _loop: mh.EventLoop(handover=-1), ValueError),
    ("EventLoop(handover=nan)", lambda _loop: mh.EventLoop(handover=NAN), ValueError),
    ("EventLoop('loop')", lambda _loop: mh.EventLoop("loop"), TypeError),
    ("join(-1)", lambda loop: loop.join(-1), ValueError),
    ("join(nan)", lambda loop: loop.join(NAN), ValueError),
    ("join('1')", lambda loop: loop.join("1"), TypeError),
    ("join(max_handlers=-1)", lambda loop: loop.join(0, max_handlers=-1), ValueError),
    ("join(max_handlers='1')", lambda loop: loop.join(0, max_handlers="1"), TypeError),
    ("run_ready(-1)", lambda loop: loop.run_ready(-1), ValueError),
    ("run_ready('1')", lambda loop: loop.run_ready("1"), TypeError),
    ("wait(-1)", lambda loop: loop.wait(-1), ValueError),
    ("wait('1')", lambda loop: loop.wait("1"), TypeError),
    ("stop(-1)", lambda loop: loop.stop(-1), ValueError),
    ("stop(nan)", lambda loop: loop.stop(NAN), ValueError),
    ("close(-1)", lambda loop: loop.close(-1), ValueError),
    ("close('1')", lambda loop: loop.close("1"), TypeError),
    ("post()", lambda loop: loop.post(), TypeError),
    ("post(5)", lambda loop: loop.post(5), TypeError),
    ("post_urgent(5)", lambda loop: loop.post_urgent(5), TypeError),
    ("post_terminal(5)", lambda loop: loop.post_terminal(5), TypeError),
    ("call_later(-1)", lambda loop: loop.call_later(-1, nothing), ValueError),
    ("call_later(nan)", lambda loop: loop.call_later(NAN, nothing), ValueError),
    ("call_later('1')", lambda loop: loop.call_later("1", nothing), TypeError),
    ("call_later(1, 5)", lambda loop: loop.call_later(1, 5), TypeError),
    ("call_at(nan)", lambda loop: loop.call_at(NAN, nothing), ValueError),
    ("call_at('1')", lambda loop: loop.call_at("1", nothing), TypeError),
    ("call_at(1, None)", lambda loop: loop.call_at(1, None), TypeError),
    ("call_every(-1)", lambda loop: loop.call_every(-1, nothing), ValueError),
    ("call_every(nan)", lambda loop: loop.call_every(NAN, nothing), ValueError),
    ("call_every('1')", lambda loop: loop.call_every("1", nothing), TypeError),
    ("call_every(1, 5)", lambda loop: loop.call_every(1, 5), TypeError),
    ("strand(name=5)", lambda loop: loop.strand(name=5), TypeError),
    ("strand(max_pending=-1)", lambda loop: loop.strand(max_pending=-1), ValueError),
    ("strand(max_pending='1')", lambda loop: loop.strand(max_pending="1"), TypeError),
    ("add(-1)", lambda loop: loop.add(-1, READ, nothing), (ValueError, mh.BadDescriptor)),
    ("add(True)", lambda loop: loop.add(True, READ, nothing), (TypeError, ValueError)),
    ("add('0')", lambda loop: loop.add("0", READ, nothing), TypeError),
    ("add(2**40)", lambda loop: loop.add(2**40, READ, nothing), (ValueError, OverflowError, mh.BadDescriptor)),
    ("add(handler=5)", lambda loop: loop.add(0, READ, 5), TypeError),
    ("add without a handler", lambda loop: loop.add(0, READ), TypeError),
    ("add(events=0)", lambda loop: loop.add(0, mh.Events(0), nothing), ValueError),
    ("add(events=HANGUP)", lambda loop: loop.add(0, mh.Events.HANGUP, nothing), ValueError),
    ("add(events='READ')", lambda loop: loop.add(0, "READ", nothing), TypeError),
    ("add(strand=5)", lambda loop: loop.add(0, READ, nothing, strand=5), TypeError),
    ("add(on_error=5)", lambda loop: loop.add(0, READ, nothing, on_error=5), TypeError),
    ("add(on_removed=5)", lambda loop: loop.add(0, READ, nothing, on_removed=5), TypeError),
    ("get('0')", lambda loop: loop.get("0"), TypeError),
]


@pytest.mark.parametrize(("call", "error"), [pytest.param(call, error, id=name) for name, call, error in WRONG])
def test_a_wrong_argument_is_refused_at_the_call(make_loop, call, error):
    """A wrong type or value raises at once, says something, and leaves the loop as it was."""
    loop = make_loop()
    before = loop.stats()
    with pytest.raises(error) as caught:
        call(loop)
    assert str(caught.value)
    after = loop.stats()
    assert (after.watches, after.timers, after.ready) == (before.watches, before.timers, before.ready)
    assert not loop.stopped
    assert not loop.closed
    loop.post(nothing)
    assert loop.join(until_idle=True) == 1


@pytest.mark.parametrize("seconds", [1e9, 1e12, 1e18, 1e300, math.inf])
def test_a_timeout_beyond_all_reason_is_for_ever_or_refused(make_loop, spawn, seconds):
    """A huge timeout neither overflows nor ends at once: it waits, or it is refused at the call."""
    loop = make_loop()
    waiting = spawn(loop.join, seconds)
    try:
        wait_until(lambda: loop.joined == 1, 1.0)
    except TimeoutError:
        with pytest.raises((OverflowError, ValueError)):
            waiting.result()
        return
    wait_all_idle(loop)
    assert loop.joined == 1
    assert loop.stop(seconds) is True
    assert loop.wait(seconds) is True
    assert waiting.result() == 0


def test_an_unknown_poller_is_answered_with_the_three(make_loop):
    """The error names what could have been asked for."""
    with pytest.raises(ValueError, match="kqueue") as caught:
        make_loop(poller="kqueue")
    for name in ("epoll", "poll", "select"):
        assert name in str(caught.value)


def test_the_strand_of_another_loop_is_refused(make_loop, pair):
    """A watch cannot sit on a strand that another loop serves."""
    loop, other = make_loop(), make_loop()
    a, _b = pair()
    with pytest.raises(ValueError, match="loop"):
        loop.add(a, READ, nothing, strand=other.strand())
    assert loop.stats().watches == 0
