"""Timers that are cancelled: they never run, and leave nothing."""

from __future__ import annotations

import gc
import weakref

import pytest

from manyhands.testing import MockClock, wait_all_idle
from support import wait_until


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
