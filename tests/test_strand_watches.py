"""What becomes of the watches and timers that sit on a strand when it ends, or when they do."""

from __future__ import annotations

import pytest

import manyhands as mh
from manyhands.testing import MockClock


def test_close_removes_the_watches_of_the_strand(make_loop, pair):
    """T30. Each ends once with STRAND_CLOSED, told on a joined thread though its strand is closed."""
    loop = make_loop()
    strand = loop.strand()
    a, b = pair()
    ends: list[mh.RemovalReason] = []
    ran: list[int] = []
    watch = loop.add(
        a,
        mh.Events.READ,
        lambda watch, events: ran.append(1),
        strand=strand,
        on_removed=lambda watch, reason: ends.append(reason),
    )
    strand.close()
    b.send(b"x")
    loop.join(until_idle=True)
    assert watch.removed
    assert ends == [mh.RemovalReason.STRAND_CLOSED]
    assert ran == []
    loop.add(a, mh.Events.READ, lambda watch, events: ran.append(a.recv(1)[0]))
    loop.join(until_idle=True)
    assert ran == [ord("x")]


def test_a_timer_of_a_closed_strand_never_fires(make_loop):
    """T100. Closing a strand cancels its timers."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    strand = loop.strand()
    ran: list[int] = []
    timers = [strand.call_later(1, ran.append, 1), strand.call_at(loop.now() + 1, ran.append, 2)]
    timers.append(strand.call_every(1, ran.append, 3))
    strand.close()
    assert not any(timer.active for timer in timers)
    clock.advance(10)
    loop.join(until_idle=True)
    assert ran == []


def test_a_watch_cannot_be_added_to_a_closed_strand(make_loop, pair):
    """T52. It raises `StrandClosed` and leaves nothing registered."""
    loop = make_loop()
    a, _ = pair()
    strand = loop.strand(name="ledger")
    strand.close()
    with pytest.raises(mh.StrandClosed, match="ledger"):
        loop.add(a, mh.Events.READ, print, strand=strand)
    assert loop.get(a.fileno()) is None
    loop.add(a, mh.Events.READ, print).remove()


def test_a_watch_cannot_be_added_to_a_strand_of_another_loop(make_loop, pair):
    """T48. It raises ValueError that names the loop it was asked of, and leaves nothing registered."""
    here, there = make_loop(name="here"), make_loop(name="there")
    a, _ = pair()
    with pytest.raises(ValueError, match="here"):
        here.add(a, mh.Events.READ, print, strand=there.strand())
    assert here.get(a.fileno()) is None


def test_a_watch_of_its_own_strand_ends_that_strand_when_it_is_removed(make_loop, pair):
    """T30. Messages posted before still run, later posts raise `StrandClosed`, then `on_removed` comes."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    a, _ = pair()
    ran: list[object] = []
    watch = loop.add(a, mh.Events.READ, print)
    timer = watch.strand.call_later(1, ran.append, "timer")
    watch.strand.post(ran.append, "message")
    watch.remove(on_removed=lambda watch, reason: ran.append(reason))
    with pytest.raises(mh.StrandClosed):
        watch.strand.post(ran.append, "late")
    loop.join(until_idle=True)
    clock.advance(2)
    loop.join(until_idle=True)
    assert ran == ["message", mh.RemovalReason.REMOVED]
    assert not timer.active


def test_a_removed_watch_leaves_a_shared_strand_alone(make_loop, pair):
    """T30. A strand that was given lives on; `on_removed` runs on it, in order with its messages."""
    loop = make_loop()
    strand = loop.strand()
    a, _ = pair()
    ran: list[str] = []
    watch = loop.add(a, mh.Events.READ, print, strand=strand)
    strand.post(ran.append, "before")
    watch.remove(on_removed=lambda watch, reason: ran.append("removed"))
    strand.post(ran.append, "after")
    loop.join(until_idle=True)
    assert sorted(ran) == ["after", "before", "removed"]
    assert strand.state is mh.StrandState.ACTIVE


def test_the_last_place_in_a_full_strand_is_never_taken_by_the_library(make_loop, pair):
    """T54. The library's own completions are neither refused by a full strand nor counted."""
    loop = make_loop()
    strand = loop.strand(max_pending=1)
    a, _ = pair()
    ran: list[str] = []
    watch = loop.add(a, mh.Events.READ, print, strand=strand)
    strand.post(ran.append, "message")
    watch.remove(on_removed=lambda watch, reason: ran.append("removed"))
    loop.join(until_idle=True)
    assert sorted(ran) == ["message", "removed"]
