"""Periodic timers: their rate, missed ticks, and what a callback may answer."""

from __future__ import annotations

import pytest

import manyhands as mh
from gate import Gate
from manyhands.testing import MockClock, wait_all_idle


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
