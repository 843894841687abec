"""Draining a loop: what was posted runs, the rest is refused."""

from __future__ import annotations

import threading

import pytest

import manyhands as mh
from gate import Gate
from support import LONG, wait_until

READ = mh.Events.READ


def nothing(*_args: object) -> None:
    pass


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
