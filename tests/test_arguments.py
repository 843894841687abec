"""Arguments that are refused at the call."""

from __future__ import annotations

import math

import pytest

import manyhands as mh
from manyhands.testing import wait_all_idle
from support import wait_until

READ = mh.Events.READ


def nothing(*_args: object) -> None:
    pass


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
