"""Timers and the clocks that they follow."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tokenize
import weakref
from pathlib import Path

import pytest

import manyhands as mh
from gate import Gate
from manyhands.testing import MockClock, wait_all_idle
from support import LONG, wait_until

READ = mh.Events.READ
ROOT = Path(__file__).resolve().parent.parent


def nothing(*_args: object) -> None:
    pass


class Served:
    """A loop on a MockClock with one thread in it, and what ran when."""

    def __init__(self, loop: mh.EventLoop, clock: MockClock) -> None:
        self.loop = loop
        self.clock = clock
        self.ran: list = []

    def advance(self, seconds: float) -> list:
        """What runs because the clock moves on by so much."""
        before = len(self.ran)
        self.clock.advance(seconds)
        wait_all_idle(self.loop)
        return self.ran[before:]

    def note(self, *args: object) -> None:
        self.ran.append((self.clock.now(), *args))


@pytest.fixture
def served(make_loop, joined):
    clock = MockClock()
    loop = make_loop(clock=clock)
    with joined(loop):
        wait_until(lambda: loop.joined == 1)
        yield Served(loop, clock)


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


# --------------------------------------------------------------------------------------------------------------- cancel


def test_a_cancelled_timer_never_fires(served):
    """T100. `cancel()` says True once; the timer is not active and does not run."""
    timer = served.loop.call_later(1.0, served.note)
    assert timer.cancel() is True
    assert timer.cancel() is False
    assert not timer.active
    assert served.advance(10.0) == []


def test_a_timer_that_is_due_but_has_not_started_can_be_cancelled(make_loop):
    """T100. The first of two due timers cancels the second."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    ran = []
    loop.call_at(1.0, lambda: ran.append(second.cancel()))
    second = loop.call_at(1.0, ran.append, "second")
    clock.advance(1.0)
    loop.join(until_idle=True)
    assert ran == [True]


@pytest.mark.race
def test_cancel_races_the_deadline_and_tells_the_truth(make_loop, joined):
    """T100. Two thousand timers are cancelled as they fall due: True means it never runs, False that it ran, once."""
    loop = make_loop(handover=0)
    ran: list[int] = []
    answers = {}
    with joined(loop, 3):
        for number in range(2000):
            timer = loop.call_later((number % 7) * 1e-5, ran.append, number)
            answers[number] = timer.cancel()
        wait_all_idle(loop)
    assert len(ran) == len(set(ran))
    assert set(ran) == {number for number, cancelled in answers.items() if not cancelled}


def test_a_periodic_timer_can_cancel_itself(served):
    """T100. `cancel()` in its own callback ends it."""
    ran = served.ran

    def tick() -> None:
        served.note()
        timer.cancel()

    timer = served.loop.call_every(1.0, tick)
    served.advance(1.0)
    assert not timer.active
    served.advance(5.0)
    assert ran == [(1.0,)]


class Heavy:
    """A callback that can be seen to be gone."""

    def __call__(self, *_args: object) -> None:
        pass


def test_cancel_frees_the_callback_at_once(make_loop):
    """FAULT 27. The callback and its arguments are gone when `cancel()` returns, an hour before the deadline."""
    loop = make_loop()
    callback, argument = Heavy(), Heavy()
    gone = weakref.ref(callback), weakref.ref(argument)
    timer = loop.call_later(3600, callback, argument)
    del callback, argument
    assert gone[0]() is not None

    timer.cancel()
    assert [ref() for ref in gone] == [None, None]


def test_a_timer_that_has_run_frees_its_callback(make_loop):
    """What has run is held by nobody, though the Timer is."""
    loop = make_loop()
    callback = Heavy()
    gone = weakref.ref(callback)
    timer = loop.call_later(0, callback)
    del callback
    loop.join(until_idle=True)
    wait_until(lambda: gone() is None)
    assert not timer.active


def test_a_timer_that_nobody_keeps_runs_all_the_same(served):
    """Dropping the Timer does not cancel it."""
    served.loop.call_later(1.0, served.note)
    gc.collect()
    assert served.advance(1.0) == [(1.0,)]


def test_a_loop_that_is_closed_frees_its_timers(make_loop):
    """FAULT 24. A closed loop holds no callback."""
    loop = make_loop()
    callback = Heavy()
    gone = weakref.ref(callback)
    timer = loop.call_later(3600, callback)
    del callback
    loop.close()
    wait_until(lambda: gone() is None)
    assert not timer.active


CANCEL_200K = """
import resource, sys, time, tracemalloc
import manyhands as mh

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def callback():
    pass

loop = mh.EventLoop()
for _ in range(2000):
    loop.call_later(3600, callback).cancel()
if {traced}:
    tracemalloc.start()
    traced = tracemalloc.get_traced_memory()[0]
resident = rss()
started = time.monotonic()
for number in range(200_000):
    loop.call_later(3600 + number % 100, callback).cancel()
seconds = time.monotonic() - started
growth = tracemalloc.get_traced_memory()[0] - traced if {traced} else rss() - resident
assert growth < 4 << 20, f"grew by {{growth}} bytes"
assert {traced} or seconds < 5, f"took {{seconds}} s"
assert loop.stats().timers == 0
loop.close()
"""


@pytest.mark.fault
@pytest.mark.parametrize("traced", [False, True], ids=["resident", "tracemalloc"])
def test_two_hundred_thousand_timers_set_and_cancelled_leave_nothing(subprocess_python, traced):
    """FAULT 27. Less than 4 MiB more after 200,000 timers that were set and cancelled, native or Python memory."""
    done = subprocess_python(CANCEL_200K.format(traced=traced), timeout=120)
    assert done.returncode == 0, done.stderr


CANCEL_ALL = """
import resource
import manyhands as mh

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def callback():
    pass

loop = mh.EventLoop()
def round():
    timers = [loop.call_later(3600 + number % 100, callback) for number in range(100_000)]
    assert loop.stats().timers == 100_000
    for timer in timers[::2]:
        timer.cancel()
    for timer in timers[1::2]:
        timer.cancel()
    assert loop.stats().timers == 0

round()
round()
resident = rss()
for _ in range(4):
    round()
growth = rss() - resident
assert growth < 4 << 20, f"grew by {growth} bytes"
loop.close()
"""


@pytest.mark.fault
def test_timers_cancelled_in_a_crowd_leave_nothing(subprocess_python):
    """FAULT 27. 100,000 timers at once, all cancelled, again and again: what the first rounds took is enough."""
    done = subprocess_python(CANCEL_ALL, timeout=120)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------------------- periodic


def test_call_every_keeps_its_rate(served):
    """T100. One second, three seconds, one call at each, the first after one interval."""
    timer = served.loop.call_every(1.0, served.note)
    assert served.advance(0.5) == []
    assert timer.when == 1.0
    assert served.advance(0.5) == [(1.0,)]
    assert timer.when == 2.0
    assert timer.active
    assert served.advance(1.0) == [(2.0,)]
    assert served.advance(1.0) == [(3.0,)]


def test_call_every_does_not_drift(served):
    """T100. A tick that is handled late does not move those behind it."""
    served.loop.call_every(1.0, served.note)
    assert served.advance(1.25) == [(1.25,)]
    assert served.advance(0.5) == []
    assert served.advance(0.25) == [(2.0,)]


def test_missed_ticks_collapse(served):
    """T100. Ten intervals pass at once: one call, and the next one at the rate as it was."""
    served.loop.call_every(1.0, served.note)
    assert served.advance(10.5) == [(10.5,)]
    assert served.advance(0.25) == []
    assert served.advance(0.25) == [(11.0,)]


def test_ticks_missed_while_the_callback_runs_collapse(make_loop, joined):
    """T100. A callback longer than the interval is not called again for each tick that it missed, nor beside itself."""
    clock = MockClock()
    loop = make_loop(clock=clock, handover=0)
    inside = []
    ran = []
    with joined(loop, 2), Gate() as gate:

        def tick() -> None:
            assert not inside, "two ticks at once"
            inside.append(True)
            ran.append(clock.now())
            if len(ran) == 1:
                gate()
            inside.pop()

        loop.call_every(1.0, tick)
        clock.advance(1.0)
        gate.wait_entered()
        for _ in range(5):
            clock.advance(1.0)
        gate.open()
        wait_all_idle(loop)
        assert ran in ([1.0], [1.0, 6.0])
        clock.advance(1.0)
        wait_all_idle(loop)
        assert ran[-1] == 7.0
        assert len(ran) <= 3


def test_a_callback_that_returns_stop_ends_its_timer(served):
    """`mh.STOP` ends it: not active, no further call."""

    def tick() -> object:
        served.note()
        return mh.STOP if len(served.ran) == 2 else None

    timer = served.loop.call_every(1.0, tick)
    served.advance(1.0)
    served.advance(1.0)
    assert not timer.active
    served.advance(5.0)
    assert served.ran == [(1.0,), (2.0,)]
    assert served.loop.stats().timers == 0


def test_a_callback_that_returns_a_delay_sets_the_next_gap_once(served):
    """`mh.Delay(0.25)`: the next call comes after a quarter of a second, the one behind it after the interval."""

    def tick() -> object:
        served.note()
        return mh.Delay(0.25) if len(served.ran) == 1 else None

    timer = served.loop.call_every(1.0, tick)
    assert served.advance(1.0) == [(1.0,)]
    assert timer.when == 1.25
    assert served.advance(0.25) == [(1.25,)]
    assert timer.when == 2.25
    assert served.advance(0.75) == []
    assert served.advance(0.25) == [(2.25,)]


def test_a_delay_longer_than_the_interval_is_one_gap(served):
    """A back-off: nothing in between."""

    def tick() -> object:
        served.note()
        return mh.Delay(5) if len(served.ran) == 1 else None

    served.loop.call_every(1.0, tick)
    served.advance(1.0)
    assert served.advance(4.5) == []
    assert served.advance(0.5) == [(6.0,)]


@pytest.mark.parametrize(("seconds", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_a_delay_that_is_none_is_refused(seconds, error):
    """At the place where it is made."""
    with pytest.raises(error):
        mh.Delay(seconds)


def test_other_answers_of_a_one_shot_timer_mean_nothing(served):
    """A callback of `call_later` may return what it likes."""
    served.loop.call_later(1.0, lambda: served.note() or "anything")
    assert served.advance(5.0) == [(5.0,)]


def test_a_timer_that_raises_ends(make_loop, joined):
    """T92. The error goes to the hook with the timer in it; the timer ends."""
    clock = MockClock()
    reports: list = []
    loop = make_loop(clock=clock, on_error=reports.append)

    def raises() -> None:
        raise ZeroDivisionError

    with joined(loop):
        timer = loop.call_every(1.0, raises)
        for _ in range(3):
            clock.advance(1.0)
            wait_all_idle(loop)
    (report,) = reports
    assert report.source == "timer"
    assert report.timer == timer
    assert report.handler is raises
    assert isinstance(report.error, ZeroDivisionError)
    assert not timer.active


def test_a_timer_that_raises_is_kept_if_the_hook_says_so(make_loop, joined):
    """T92. `mh.KEEP` keeps a periodic timer going."""
    clock = MockClock()
    reports: list = []
    loop = make_loop(clock=clock, on_error=lambda report: (reports.append(report), mh.KEEP)[1])
    with joined(loop):
        timer = loop.call_every(1.0, lambda: 1 / 0)
        for _ in range(3):
            clock.advance(1.0)
            wait_all_idle(loop)
        assert len(reports) == 3
        assert timer.active


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


# --------------------------------------------------------------------------------------------------------------- clocks


def test_now_is_the_monotonic_clock(make_loop):
    """`loop.now()` is comparable with `time.monotonic()`."""
    loop = make_loop()
    before = time.monotonic()
    now = loop.now()
    assert before <= now <= time.monotonic()
    assert isinstance(now, float)


def test_now_of_a_mock_clock_is_what_it_says(make_loop):
    """A loop with a clock asks that one, and timers follow it."""
    clock = MockClock(100.0)
    loop = make_loop(clock=clock)
    assert clock.now() == 100.0
    assert loop.now() == 100.0
    clock.advance(2.5)
    assert loop.now() == 102.5
    assert loop.call_later(1, nothing).when == 103.5


@pytest.mark.parametrize(("seconds", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_a_mock_clock_does_not_go_back(seconds, error):
    """It is monotonic: advance() takes a number >= 0."""
    clock = MockClock(5.0)
    with pytest.raises(error):
        clock.advance(seconds)
    assert clock.now() == 5.0


def test_one_mock_clock_wakes_every_loop_that_uses_it(make_loop, joined):
    """`advance()` is seen by all loops of the clock."""
    clock = MockClock()
    loops = [make_loop(clock=clock) for _ in range(3)]
    ran = [threading.Event() for _ in loops]
    with contextlib.ExitStack() as stack:
        for loop, event in zip(loops, ran, strict=True):
            stack.enter_context(joined(loop))
            loop.call_later(1.0, event.set)
        wait_until(lambda: all(loop.joined == 1 for loop in loops))
        wait_all_idle(*loops)
        clock.advance(1.0)
        assert all(event.wait(LONG) for event in ran)


def test_autojump_jumps_from_timer_to_timer(make_loop):
    """When every joined thread waits the clock goes to the next timer: hours pass in no time."""
    clock = MockClock(autojump=True)
    loop = make_loop(clock=clock)
    ran = []
    for hours in (3, 1, 2):
        loop.call_later(hours * 3600.0, lambda: ran.append(clock.now()))
    loop.call_later(4 * 3600.0, loop.request_stop)
    started = time.monotonic()

    assert loop.join() == 4
    assert ran == [3600.0, 7200.0, 10800.0]
    assert clock.now() == 4 * 3600.0
    assert time.monotonic() - started < LONG


def test_autojump_serves_a_periodic_timer(make_loop):
    """A hundred ticks of a minute."""
    clock = MockClock(autojump=True)
    loop = make_loop(clock=clock)
    ticks = []

    def tick() -> object:
        ticks.append(clock.now())
        if len(ticks) == 100:
            loop.request_stop()
        return None

    loop.call_every(60.0, tick)
    loop.join()
    assert ticks == [60.0 * number for number in range(1, 101)]


def test_autojump_waits_for_a_thread_inside_a_handler(make_loop, joined):
    """Somebody is busy, so no time passes; when the handler has ended it does."""
    clock = MockClock(autojump=True)
    loop = make_loop(clock=clock, handover=0)
    ran = threading.Event()
    with joined(loop, 2), Gate() as gate:
        wait_until(lambda: loop.joined == 2)
        loop.post(gate)
        gate.wait_entered()
        loop.call_later(10.0, ran.set)
        other = threading.Event()
        loop.post(other.set)
        assert other.wait(LONG)
        with pytest.raises(TimeoutError):
            wait_all_idle(loop, timeout=0.05)
        assert clock.now() == 0.0
        gate.open()
        assert ran.wait(LONG)
        assert clock.now() == 10.0


def test_autojump_waits_for_what_is_ready_in_the_kernel(make_loop, pair):
    """A descriptor that is readable is handled at the time that it is, not after the next timer."""
    clock = MockClock(autojump=True)
    loop = make_loop(clock=clock)
    a, b = pair()
    when = []

    def handler(watch, _events) -> None:
        watch.source.recv(10)
        when.append(("watch", clock.now()))

    loop.add(a, READ, handler)
    b.send(b"x")
    loop.call_later(10.0, lambda: when.append(("timer", clock.now())))
    assert loop.join(max_handlers=2) == 2
    assert when == [("watch", 0.0), ("timer", 10.0)]


def test_autojump_of_two_loops_waits_for_both(make_loop, joined):
    """The clock of two loops jumps when the threads of both wait."""
    clock = MockClock(autojump=True)
    one, two = make_loop(clock=clock), make_loop(clock=clock)
    ran = threading.Event()
    with joined(one), joined(two), Gate() as gate:
        two.post(gate)
        gate.wait_entered()
        one.call_later(5.0, ran.set)
        with pytest.raises(TimeoutError):
            wait_all_idle(two, timeout=0.05)
        assert clock.now() == 0.0
        gate.open()
        assert ran.wait(LONG)


# ----------------------------------------------------------------------------------------------------------- clock jumps

WALL_CLOCK = re.compile(
    r"SystemTime|UNIX_EPOCH|CLOCK_REALTIME|ClockId::Realtime|clock_gettime_realtime|gettimeofday"
    r"|\btime\.time(_ns)?\b|from time import .*\btime\b|datetime\.now|\butcnow\b"
)


def code_of(path: Path) -> list[str]:
    """The lines of a file without what is comment, docstring or other text."""
    lines = path.read_text().splitlines()
    if path.suffix != ".py":
        return [line.partition("//")[0] for line in lines]
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                (first, start), (last, end) = token.start, token.end
                for row in range(first, last + 1):
                    line = lines[row - 1]
                    left, right = start if row == first else 0, end if row == last else len(line)
                    lines[row - 1] = line[:left] + " " * (right - left) + line[right:]
    return lines


def wall_clocks(path: Path) -> list[int]:
    """The numbers of the lines that ask the wall clock."""
    return [number for number, line in enumerate(code_of(path), 1) if WALL_CLOCK.search(line)]


def test_no_timing_code_asks_the_wall_clock():
    """FAULT 13. Neither the core nor the seam nor the Python layer looks at a clock that somebody can set."""
    files = [
        *ROOT.glob("crates/core/src/**/*.rs"),
        *ROOT.glob("crates/py/src/**/*.rs"),
        *ROOT.glob("python/manyhands/**/*.py"),
    ]
    assert len(files) > 5, "the sources are not where this test looks for them"
    assert [f"{path.relative_to(ROOT)}:{number}" for path in files for number in wall_clocks(path)] == []


def test_the_gate_against_the_wall_clock_can_close(tmp_path):
    """FAULT 13. The pattern finds what it is meant to find, and not the monotonic clock."""
    rust = tmp_path / "clock.rs"
    rust.write_text("let now = SystemTime::now(); // SystemTime\n// SystemTime\nlet then = Instant::now();\n")
    python = tmp_path / "clock.py"
    python.write_text(
        '"""time.time()"""\nnow = time.time()\nthen = time.monotonic()  # time.time()\nfrom time import time\n'
    )
    assert wall_clocks(rust) == [1]
    assert wall_clocks(python) == [2, 4]


JUMPING_CLOCK = r"""
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long offset;
void jump(long seconds) { offset = seconds; }
int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += offset;
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec spec;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &spec);
    now->tv_sec = spec.tv_sec;
    now->tv_usec = spec.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *out) {
    struct timespec spec;
    clock_gettime(CLOCK_REALTIME, &spec);
    if (out) *out = spec.tv_sec;
    return spec.tv_sec;
}
"""

JUMP = """
import ctypes, threading, time
import manyhands as mh

jump = ctypes.CDLL(None).jump
loop = mh.EventLoop()
for day in (86400, -86400):
    wall, started = time.time(), time.monotonic()
    loop.call_later(0.05, loop.request_stop)
    loop.post(jump, day)
    loop.join()
    took = time.monotonic() - started
    assert abs(time.time() - wall) > 80000, "the wall clock did not jump"
    assert 0.05 <= took < 5, took
    jump(0)
    loop.restart()
loop.close()
"""


@pytest.mark.fault
def test_a_jump_of_the_wall_clock_moves_no_timer(subprocess_python, tmp_path):
    """FAULT 13. The wall clock jumps by a day, forward and back, under a timer of 50 ms."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, library = tmp_path / "jump.c", tmp_path / "jump.so"
    source.write_text(JUMPING_CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    done = subprocess_python(JUMP, env={**os.environ, "LD_PRELOAD": str(library)})
    assert done.returncode == 0, done.stderr


SUSPENDED = """
import sys, time
import manyhands as mh

loop = mh.EventLoop()
ticks = []

def tick():
    ticks.append(time.monotonic())
    if len(ticks) == 3:
        print("ready", flush=True)
    gaps = [later - earlier for earlier, later in zip(ticks, ticks[1:])]
    late = [number for number, gap in enumerate(gaps, 1) if gap > 0.8]
    if late and len(ticks) > late[0] + 3:
        # The tick that comes with the waking, and one of the old rate that may stand close behind it.
        assert ticks[late[0] + 2] - ticks[late[0]] >= 0.025, ticks
        loop.request_stop()

loop.call_every(0.05, tick)
assert loop.join(25)
assert loop.stopped, "no gap was seen"
loop.close()
print("collapsed")
"""


@pytest.mark.fault
def test_a_suspended_process_fires_a_periodic_timer_once():
    """FAULT 13. After SIGSTOP for twenty intervals and SIGCONT the timer runs once, and then at its rate."""
    with subprocess.Popen(
        [sys.executable, "-c", SUSPENDED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGSTOP)
            threading.Event().wait(1.0)
            process.send_signal(signal.SIGCONT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "collapsed\n"), err
