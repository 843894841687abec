"""Timers: when they run, in which order, and on what."""

from __future__ import annotations

import contextvars
import threading
import time

import pytest

import manyhands as mh
from gate import Gate
from manyhands.testing import MockClock, wait_all_idle
from support import LONG, wait_until

READ = mh.Events.READ


def nothing(*_args: object) -> None:
    pass


# ------------------------------------------------------------------------------------------------------------- one shot


def test_a_timer_is_never_early(served):
    """T100. A timer of one second runs when a second has passed, and not a moment before."""
    served.loop.call_later(1.0, served.note, "ran")

    assert served.advance(0.5) == []
    assert served.advance(0.25) == []
    assert served.advance(0.2499999) == []
    assert served.advance(0.0000001 + 1e-9) == [(served.clock.now(), "ran")]
    assert served.advance(10.0) == []


def test_a_timer_runs_when_the_clock_says_exactly_its_time(served):
    """T100. Due means: the time has come, not: the time has passed."""
    served.loop.call_at(1.0, served.note)
    assert served.advance(1.0) == [(1.0,)]


def test_on_the_real_clock_no_timer_is_early(make_loop):
    """T100. Two hundred timers of up to 50 ms: none runs before its time by the loop's own clock."""
    loop = make_loop()
    early = []
    timers = []

    def check(number: int) -> None:
        now = loop.now()
        if now < timers[number].when:
            early.append(timers[number].when - now)
        ran.append(number)

    ran: list[int] = []
    for number in range(200):
        timers.append(loop.call_later(number % 50 / 1000 + number / 1e7, check, number))
    assert loop.join(LONG, max_handlers=200) == 200
    assert early == []
    assert sorted(ran) == list(range(200))


@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
def test_a_timer_wakes_every_poller_in_time(make_loop, poller):
    """T100. A thread that waits in the poller wakes for a timer; not early, and not at the poller's leisure."""
    loop = make_loop(poller=poller)
    started = time.monotonic()
    loop.call_later(0.02, nothing)
    assert loop.join(LONG, max_handlers=1) == 1
    assert 0.02 <= time.monotonic() - started < LONG / 2


def test_a_timer_from_another_thread_shortens_the_wait(make_loop, joined):
    """T100. Every joined thread waits with nothing to come when a timer is set from outside."""
    loop = make_loop()
    done = threading.Event()
    with joined(loop, 2):
        wait_until(lambda: loop.joined == 2)
        loop.call_later(3600, nothing)
        wait_all_idle(loop)
        loop.call_later(0.01, done.set)
        assert done.wait(LONG)


def test_timers_of_one_deadline_run_in_the_order_they_were_set(served):
    """T100. Twenty timers for the same moment, on strands of their own and one thread: first set, first run."""
    for number in range(20):
        served.loop.call_at(5.0, served.note, number)
    assert served.advance(5.0) == [(5.0, number) for number in range(20)]


def test_timers_of_one_deadline_on_one_strand_run_in_order(make_loop, joined):
    """T100. On one strand the order holds however many threads there are."""
    clock = MockClock()
    loop = make_loop(clock=clock, handover=0)
    strand = loop.strand()
    ran: list[int] = []
    for number in range(200):
        strand.call_at(5.0, ran.append, number)
    with joined(loop, 4):
        clock.advance(5.0)
        wait_all_idle(loop)
    assert ran == list(range(200))


def test_timers_run_by_deadline_not_by_when_they_were_set(served):
    """T100. The earlier deadline first, also when all are found due together."""
    for when in (3.0, 1.0, 2.0):
        served.loop.call_at(when, served.note, when)
    assert served.advance(10.0) == [(10.0, 1.0), (10.0, 2.0), (10.0, 3.0)]


def test_a_timer_of_the_past_runs_at_once(served):
    """T100. `call_at` a moment that is over is due."""
    served.advance(10.0)
    served.loop.call_at(1.0, served.note)
    wait_all_idle(served.loop)
    assert served.ran == [(10.0,)]


def test_a_timer_far_away_is_no_overflow(make_loop):
    """A thousand years are a number like another; the loop can be served meanwhile."""
    loop = make_loop()
    timer = loop.call_later(3.2e10, nothing)
    assert timer.active
    assert loop.join(0.01) == 0
    assert loop.run_ready() == 0


def test_a_timer_gives_its_arguments(served):
    """What stands behind the callback is given to it."""
    served.loop.call_later(1.0, served.note, "a", 2)
    assert served.advance(1.0) == [(1.0, "a", 2)]


def test_when_and_active_tell_about_a_timer(served):
    """`when` is the deadline by the loop's clock; `active` says if it will still run."""
    served.advance(2.0)
    timer = served.loop.call_later(1.5, served.note)
    assert timer.when == 3.5
    assert timer.active
    served.advance(1.5)
    assert not timer.active
    assert timer.cancel() is False


def test_a_timer_callback_never_runs_inside_the_call(make_loop):
    """`call_later(0)` in a handler runs after the handler."""
    loop = make_loop()
    order = []

    def handler() -> None:
        loop.call_later(0, order.append, "timer")
        order.append("handler ended")

    loop.post(handler)
    loop.join(LONG, max_handlers=2)
    assert order == ["handler ended", "timer"]


# ------------------------------------------------------------------------------------------------------------- fairness


def test_a_timer_that_sets_itself_again_at_zero_starves_nobody(make_loop, joined, pair):
    """T100. One thread, and a timer that is always due: watches, messages and other timers are served as well."""
    loop = make_loop()
    a, b = pair()
    watched, posted, timed = threading.Event(), threading.Event(), threading.Event()

    def again() -> None:
        loop.call_later(0, again)

    def handler(watch, _events) -> None:
        watch.source.recv(10)
        watched.set()

    loop.add(a, READ, handler)
    with joined(loop):
        loop.call_later(0, again)
        wait_until(lambda: loop.stats().handled > 100)
        b.send(b"x")
        loop.post(posted.set)
        loop.call_later(0.005, timed.set)
        assert watched.wait(LONG)
        assert posted.wait(LONG)
        assert timed.wait(LONG)


def test_a_periodic_timer_that_answers_delay_zero_starves_nobody(make_loop, joined, pair):
    """T100. `mh.Delay(0)` for ever: a watch is served."""
    loop = make_loop()
    a, b = pair()
    watched = threading.Event()

    def handler(watch, _events) -> None:
        watch.source.recv(10)
        watched.set()

    loop.add(a, READ, handler)
    with joined(loop):
        loop.call_every(0.001, lambda: mh.Delay(0))
        wait_until(lambda: loop.stats().handled > 100)
        b.send(b"x")
        assert watched.wait(LONG)


# --------------------------------------------------------------------------------------------------- strands and stops


def test_a_timer_due_on_a_paused_strand_stays_pending_once(make_loop, joined):
    """A strand is paused while its timer falls due five times: one call after the resume."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    strand = loop.strand()
    ran = []
    with joined(loop):
        strand.call_every(1.0, lambda: ran.append(clock.now()))
        assert strand.pause(LONG)
        for _ in range(5):
            clock.advance(1.0)
            wait_all_idle(loop)
        assert ran == []
        strand.resume()
        wait_all_idle(loop)
        assert ran == [5.0]
        clock.advance(1.0)
        wait_all_idle(loop)
        assert ran == [5.0, 6.0]


def test_a_timer_runs_on_its_strand(make_loop, joined):
    """A strand's timer waits for the strand's message that is inside."""
    clock = MockClock()
    loop = make_loop(clock=clock, handover=0)
    strand = loop.strand()
    order = []
    other = threading.Event()
    with joined(loop, 2), Gate() as gate:
        strand.post(lambda: (gate(), order.append("message")))
        gate.wait_entered()
        strand.call_at(1.0, order.append, "timer of the strand")
        loop.call_at(1.0, other.set)
        clock.advance(1.0)
        assert other.wait(LONG), "the second thread serves a timer of another strand"
        assert order == []
        gate.open()
        wait_all_idle(loop)
    assert order == ["message", "timer of the strand"]


def test_closing_a_strand_cancels_its_timers(make_loop):
    """A timer of a closed strand is not active and never runs."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    strand = loop.strand()
    ran: list[int] = []
    timer = strand.call_later(1.0, ran.append, 1)
    strand.close()
    clock.advance(2.0)
    loop.join(until_idle=True)
    assert ran == []
    assert not timer.active
    assert loop.stats().timers == 0


def test_a_timer_that_falls_due_while_the_loop_is_stopped_runs_after_the_restart(make_loop):
    """T12. A stop loses no timer."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    ran = []
    loop.call_at(1.0, lambda: ran.append(clock.now()))
    loop.request_stop()
    clock.advance(5.0)
    assert loop.join() == 0
    assert ran == []
    loop.restart()
    assert loop.join(until_idle=True) == 1
    assert ran == [5.0]


def test_a_timer_runs_in_the_context_in_which_it_was_set(served):
    """Context variables travel with the call."""
    colour = contextvars.ContextVar("colour", default="none")
    colour_set = contextvars.copy_context()
    colour_set.run(colour.set, "red")
    colour_set.run(served.loop.call_later, 1.0, lambda: served.note(colour.get()))
    assert served.advance(1.0) == [(1.0, "red")]
