"""Pause and resume of a strand: everything on it waits, and goes on where it was."""

from __future__ import annotations

import queue
import threading

import pytest

import manyhands as mh
from descriptors import is_armed
from manyhands.testing import MockClock, hold, wait_all_idle
from slow_message import SlowMessage
from support import LONG, wait_until
from turning import Echo


def test_a_paused_strand_starts_nothing_and_goes_on_where_it_was(make_loop):
    """T36. Pause stops everything on the strand: messages, urgent ones too, wait and keep their order."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[str] = []
    strand.post(ran.append, "first")
    assert strand.pause() is True
    assert strand.state is mh.StrandState.PAUSED
    strand.post(ran.append, "second")
    strand.post_urgent(ran.append, "urgent")
    assert loop.join(until_idle=True) == 0
    assert ran == []
    strand.resume()
    assert strand.state is mh.StrandState.ACTIVE
    loop.join(until_idle=True)
    assert ran == ["urgent", "first", "second"]


@pytest.mark.race
def test_after_pause_returned_true_no_message_runs_and_none_starts(make_loop, joined, spawn):
    """T36. Seen from outside, with three threads at work: 50 rounds of pause while posts go on."""
    loop = make_loop(handover=0)
    strand = loop.strand()
    inside: list[int] = []
    ran: list[int] = []
    enough = threading.Event()

    def message(number: int) -> None:
        inside.append(number)
        ran.append(number)
        inside.clear()

    def keep_posting() -> int:
        number = 0
        while not enough.is_set():
            strand.post(message, number)
            number += 1
            if strand.pending > 1000:
                enough.wait(0.001)
        return number

    with joined(loop, 3):
        poster = spawn(keep_posting)
        for _ in range(50):
            assert strand.pause() is True
            seen = len(ran)
            assert inside == []
            other = threading.Event()
            loop.post(other.set)
            assert other.wait(LONG)
            assert len(ran) == seen
            strand.resume()
        enough.set()
        posted = poster.result()
        wait_all_idle(loop)
    assert ran == list(range(posted))


@pytest.mark.race
def test_pause_races_a_strand_that_was_popped_and_nothing_of_it_runs(make_loop, joined):
    """T36. A thread has taken the strand off the queue and is not inside yet: pause wins, and returns at once."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[int] = []
    with hold("strand.begin") as held, joined(loop):
        strand.post(ran.append, 1)
        held.wait_reached()
        assert strand.pause(timeout=LONG) is True
        held.release()
        wait_all_idle(loop)
        assert ran == []
        strand.resume()
        wait_all_idle(loop)
    assert ran == [1]


@pytest.mark.race
def test_pause_from_outside_waits_for_the_message_that_runs(make_loop, joined, spawn):
    """T36. True means that nobody is inside any more."""
    loop = make_loop()
    strand = loop.strand()
    gate = SlowMessage()

    def pause() -> tuple[bool, bool]:
        return strand.pause(), gate.ended.is_set()

    with joined(loop):
        strand.post(gate)
        gate.wait_entered()
        pauser = spawn(pause)
        wait_until(lambda: strand.state is mh.StrandState.PAUSED)
        gate.open()
        assert pauser.result() == (True, True)
        strand.resume()


def test_pause_with_a_time_limit_returns_false_while_a_message_is_stuck(make_loop, joined):
    """T46. The strand is paused for what comes next all the same."""
    loop = make_loop(handover=0)
    strand = loop.strand()
    gate = SlowMessage()
    ran: list[int] = []
    with joined(loop, 2):
        strand.post(gate)
        strand.post(ran.append, 1)
        gate.wait_entered()
        assert strand.pause(timeout=0.01) is False
        gate.open()
        wait_all_idle(loop)
        assert gate.ended.is_set()
        assert ran == []
        strand.resume()
        wait_all_idle(loop)
    assert ran == [1]


def test_a_message_may_pause_its_own_strand(make_loop):
    """T38. It returns True at once; this message ends; no other starts."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[object] = []

    def first() -> None:
        ran.append(strand.pause())
        ran.append("first ended")

    strand.post(first)
    strand.post(ran.append, "second")
    loop.join(until_idle=True)
    assert ran == [True, "first ended"]
    strand.resume()
    loop.join(until_idle=True)
    assert ran == [True, "first ended", "second"]


@pytest.mark.race
def test_on_a_lent_thread_pause_of_a_busy_strand_returns_false_and_does_not_wait(make_loop, joined):
    """T39. A handler never waits for another handler: False says that somebody is still inside."""
    loop = make_loop(handover=0)
    busy, other = loop.strand(), loop.strand()
    gate = SlowMessage()
    answer: list[bool] = []
    answered = threading.Event()

    def ask() -> None:
        answer.append(busy.pause())
        answered.set()

    with joined(loop, 2):
        busy.post(gate)
        gate.wait_entered()
        other.post(ask)
        assert answered.wait(LONG), "pause() waited on a lent thread"
        gate.open()
        wait_all_idle(loop)
    assert answer == [False]
    assert busy.state is mh.StrandState.PAUSED


@pytest.mark.race
def test_two_messages_that_pause_each_others_strands_do_not_deadlock(make_loop, joined):
    """T39. The message of A pauses B while the message of B pauses A."""
    loop = make_loop(handover=0)
    strands = [loop.strand(), loop.strand()]
    meeting = threading.Barrier(2)
    ended = [threading.Event(), threading.Event()]

    def pause_other(mine: int) -> None:
        meeting.wait(LONG)
        strands[1 - mine].pause()
        ended[mine].set()

    with joined(loop, 2):
        for mine in (0, 1):
            strands[mine].post(pause_other, mine)
        assert all(event.wait(LONG) for event in ended)


def test_pause_of_a_strand_is_a_flag(make_loop):
    """T42. Twice paused and once resumed is active; resume of an active strand is harmless."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[int] = []
    strand.resume()
    strand.pause()
    strand.pause()
    strand.post(ran.append, 1)
    strand.resume()
    loop.join(until_idle=True)
    assert ran == [1]


@pytest.mark.race
def test_resume_while_a_pause_still_waits_lets_both_return(make_loop, joined, spawn):
    """T44. The pause returns when its message has ended, and the strand is active."""
    loop = make_loop()
    strand = loop.strand()
    gate = SlowMessage()
    ran = threading.Event()
    with joined(loop):
        strand.post(gate)
        gate.wait_entered()
        pauser = spawn(strand.pause)
        wait_until(lambda: strand.state is mh.StrandState.PAUSED)
        strand.resume()
        strand.post(ran.set)
        gate.open()
        pauser.result()
        assert ran.wait(LONG)


def test_a_paused_strand_is_still_bounded(make_loop):
    """T54. Posts to a paused strand queue up to `max_pending` and are refused beyond."""
    loop = make_loop()
    strand = loop.strand(max_pending=2)
    ran: list[int] = []
    strand.pause()
    strand.post(ran.append, 1)
    strand.post(ran.append, 2)
    with pytest.raises(mh.QueueFull):
        strand.post(ran.append, 3)
    strand.resume()
    loop.join(until_idle=True)
    assert ran == [1, 2]


def test_readiness_of_a_paused_strand_is_delivered_once_after_resume(make_loop, pair):
    """T40. What came while the strand was paused is one pending bit, delivered without new traffic."""
    loop = make_loop()
    strand = loop.strand()
    a, b = pair()
    received: list[bytes] = []
    loop.add(a, mh.Events.READ, lambda watch, events: received.append(a.recv(100)), strand=strand)
    strand.pause()
    b.send(b"one ")
    loop.join(until_idle=True)
    b.send(b"two")
    loop.join(until_idle=True)
    assert received == []
    strand.resume()
    loop.join(until_idle=True)
    assert received == [b"one two"]


def test_a_readable_watch_of_a_paused_strand_does_not_keep_the_loop_busy(make_loop, joined, pair):
    """T40, T41. Its readiness waits in the strand, and the kernel is silent meanwhile; nothing is lost."""
    loop = make_loop()
    strand = loop.strand()
    a, b = pair()
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    loop.add(a, mh.Events.READ, lambda *_: received.put(a.recv(100)), strand=strand)
    beside = Echo(loop, pair())
    with joined(loop):
        strand.pause()
        b.send(b"x")
        beside.round_trips()
        before = loop.stats().polls
        beside.round_trips(100)
        assert loop.stats().polls - before <= 400
        wait_all_idle(loop)
        assert not is_armed(a.fileno())
        assert received.empty()
        strand.resume()
        assert received.get(timeout=LONG) == b"x"
        b.send(b"y")
        assert received.get(timeout=LONG) == b"y"


def test_timers_of_a_paused_strand_stay_due_and_run_once_after_resume(make_loop):
    """T100. A timer that falls due while its strand is paused is pending once, also a periodic one."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    strand = loop.strand()
    ran: list[str] = []
    strand.call_later(1, ran.append, "once")
    strand.call_every(1, ran.append, "tick")
    strand.pause()
    clock.advance(5.5)
    loop.join(until_idle=True)
    assert ran == []
    strand.resume()
    loop.join(until_idle=True)
    assert sorted(ran) == ["once", "tick"]
    clock.advance(0.5)
    loop.join(until_idle=True)
    assert sorted(ran) == ["once", "tick", "tick"]


def test_a_drain_does_not_wait_for_a_paused_strand(make_loop):
    """T11. A drain ends when no strand that is not paused has an item; the paused one keeps its messages."""
    loop = make_loop()
    paused, active = loop.strand(), loop.strand()
    ran: list[str] = []
    paused.pause()
    paused.post(ran.append, "paused")
    active.post(ran.append, "active")
    assert loop.stop(timeout=LONG, drain=True) is True
    assert ran == ["active"]
    assert paused.pending == 1
    loop.restart()
    paused.resume()
    loop.join(until_idle=True)
    assert ran == ["active", "paused"]


@pytest.mark.parametrize("bad", [-1, float("nan"), "soon"])
def test_a_senseless_time_limit_is_refused(make_loop, bad):
    """T46. A negative or senseless timeout raises at the call, and nothing has been paused."""
    loop = make_loop()
    strand = loop.strand()
    with pytest.raises((TypeError, ValueError), match="timeout"):
        strand.pause(timeout=bad)
    assert strand.state is mh.StrandState.ACTIVE
