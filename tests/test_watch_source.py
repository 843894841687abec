"""What goes with a watch: its timers, and the source if it was given away."""

from __future__ import annotations

import os
import socket
import threading

import pytest

import manyhands as mh
from descriptors import move_to
from gate import Gate
from manyhands.testing import MockClock, hold, wait_all_idle
from support import LONG, wait_until
from turning import BRIEF, nothing

READ, WRITE = mh.Events.READ, mh.Events.WRITE

Reason = mh.RemovalReason


@pytest.mark.race
def test_a_timer_of_a_watch_waits_for_its_handler(make_loop, joined, pair):
    """T33a. A timer with a strand of its own that is due at the same instant runs meanwhile on the other thread."""
    clock = MockClock()
    loop = make_loop(clock=clock, handover=0)
    near, far = pair()
    entered, leave = threading.Event(), threading.Event()
    own, beside = threading.Event(), threading.Event()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        near.recv(1)
        entered.set()
        leave.wait(LONG)

    watch = loop.add(near, READ, handler)
    watch.strand.call_later(1.0, own.set)
    loop.call_later(1.0, beside.set)
    with joined(loop, 2):
        try:
            far.send(b"x")
            assert entered.wait(LONG)
            clock.advance(2.0)
            assert beside.wait(LONG)
            assert not own.wait(BRIEF)
        finally:
            leave.set()
        assert own.wait(LONG)


def test_a_timer_of_a_watch_never_runs_after_its_removal(make_loop, joined, pair):
    """T33a. It is cancelled with the strand that was the watch's own."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    near, _ = pair()
    ticks: list[int] = []
    watch = loop.add(near, READ, nothing)
    timer = watch.strand.call_later(1.0, ticks.append, 1)
    with joined(loop):
        assert timer.active
        assert watch.remove() is True
        assert not timer.active
        clock.advance(2.0)
        wait_all_idle(loop)
    assert ticks == []
    assert loop.stats().timers == 0


@pytest.mark.race
def test_a_timer_that_is_due_behind_the_last_handler_never_runs_after_the_removal(make_loop, joined, pair, spawn):
    """T33a. It is queued on the strand while the handler that is inside keeps the removal waiting."""
    clock = MockClock()
    loop = make_loop(clock=clock, handover=0)
    near, far = pair()
    entered, leave = threading.Event(), threading.Event()
    due = threading.Event()
    ticks: list[int] = []

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        near.recv(1)
        entered.set()
        leave.wait(LONG)

    watch = loop.add(near, READ, handler)
    watch.strand.call_later(1.0, ticks.append, 1)
    loop.call_later(1.0, due.set)
    with joined(loop, 2):
        try:
            far.send(b"x")
            assert entered.wait(LONG)
            clock.advance(2.0)
            assert due.wait(LONG)
            removing = spawn(watch.remove)
            wait_until(lambda: watch.removed)
        finally:
            leave.set()
        assert removing.result() is True
        wait_all_idle(loop)
    assert ticks == []


def test_a_removal_waits_for_a_timer_of_the_watch_that_is_inside(make_loop, joined, pair, spawn):
    """T33a. A timer's callback is on the watch's strand like its handler: True may not come before it has ended."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    near, _ = pair()
    entered, leave, returned = threading.Event(), threading.Event(), threading.Event()

    def tick() -> None:
        entered.set()
        leave.wait(LONG)

    def remove() -> bool:
        answer = watch.remove()
        returned.set()
        return answer

    watch = loop.add(near, READ, nothing)
    watch.strand.call_later(1.0, tick)
    with joined(loop):
        try:
            clock.advance(1.0)
            assert entered.wait(LONG)
            assert watch.remove(timeout=0) is False
            removing = spawn(remove)
            assert not returned.wait(BRIEF)
        finally:
            leave.set()
        assert removing.result() is True


class Source:
    """Something with a number and a close() of its own, which counts."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.closed = 0

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.closed += 1
        self.sock.close()


WAYS = ["removed", "removed in its handler", "fd gone", "handler error", "strand closed", "loop closed"]

REASONS = {
    "removed": Reason.REMOVED,
    "removed in its handler": Reason.REMOVED,
    "fd gone": Reason.FD_GONE,
    "handler error": Reason.HANDLER_ERROR,
    "strand closed": Reason.STRAND_CLOSED,
    "loop closed": Reason.LOOP_CLOSED,
}


def end_watch(way: str, loop: mh.EventLoop, sockets: tuple[socket.socket, socket.socket], **options: object) -> Source:
    """Add a watch, make it end in the way named, with nobody joined, and return its source.

    Asserts that the final callback came once, with the reason that belongs to the way, after the closing.
    """
    near, far = sockets
    source = Source(near)
    ended: list[tuple[mh.RemovalReason, int]] = []

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        near.recv(1)
        if way == "removed in its handler":
            watch.remove()
            assert source.closed == 0  # this handler still uses it
        elif way == "handler error":
            raise ValueError("as the test wants it")

    strand = loop.strand()
    watch = loop.add(
        source,
        READ,
        handler,
        strand=strand,
        on_error=nothing,
        on_removed=lambda watch, reason: ended.append((reason, source.closed)),
        **options,
    )
    if way == "removed":
        watch.remove()
    elif way in {"removed in its handler", "handler error"}:
        far.send(b"x")
    elif way == "fd gone":
        near.close()
        with pytest.raises(mh.WatchRemoved):
            watch.modify(WRITE)
    elif way == "strand closed":
        strand.close()
    elif way == "loop closed":
        loop.close()
    if way != "loop closed":
        loop.run_ready()
        loop.run_ready()
    assert watch.removed
    assert ended == [(REASONS[way], source.closed)]
    return source


@pytest.mark.parametrize("way", WAYS)
def test_a_source_that_was_given_away_is_closed_by_its_own_close_however_its_watch_ends(make_loop, pair, way):
    """T33b. With `close=True`: exactly once, and before the final callback."""
    source = end_watch(way, make_loop(), pair(), close=True)
    assert source.closed == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_source_that_was_not_given_away_is_never_closed(make_loop, pair, way):
    """T33b. Without `close=True` the loop closes nothing."""
    loop = make_loop()
    source = end_watch(way, loop, pair())
    loop.close()
    assert source.closed == 0


def test_a_removal_can_ask_for_the_closing(make_loop, joined, pair):
    """T33b. `remove(close=True)` of a watch that was added without it; the handler inside keeps its descriptor."""
    loop = make_loop()
    near, far = pair()
    source = Source(near)
    entered, leave = threading.Event(), threading.Event()
    closed_inside: list[int] = []

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        entered.set()
        leave.wait(LONG)
        closed_inside.append(source.closed)

    watch = loop.add(source, READ, handler)
    with joined(loop):
        try:
            far.send(b"x")
            assert entered.wait(LONG)
            assert watch.remove(close=True, timeout=0) is False
            assert source.closed == 0
        finally:
            leave.set()
        assert watch.remove() is True
        assert closed_inside == [0]
        assert source.closed == 1


def test_a_watch_that_has_ended_already_can_still_be_asked_to_close_its_source(make_loop, pair):
    """T33b. Whoever calls `remove(close=True)` wants it closed, however the watch came to its end before; once."""
    loop = make_loop()
    source = Source(pair()[0])
    watch = loop.add(source, READ, nothing)
    watch.remove()
    assert source.closed == 0
    assert watch.remove(close=True) is True
    assert watch.remove(close=True) is True
    assert source.closed == 1


def test_a_plain_number_that_was_given_away_is_closed(make_loop, pair):
    """T33b. By os.close, when the watch is removed."""
    loop = make_loop()
    near, _ = pair()
    number = os.dup(near.fileno())
    watch = loop.add(number, READ, nothing, close=True)
    os.fstat(number)
    watch.remove()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_plain_number_that_has_a_new_owner_is_not_closed(make_loop, pair):
    """T33b. The descriptor that was given away is gone already; what has its number now belongs to somebody else."""
    loop = make_loop()
    near, _ = pair()
    other, other_peer = pair()
    number = near.detach()
    ended: list[mh.RemovalReason] = []
    received: list[bytes] = []
    old = loop.add(number, READ, nothing, close=True, on_removed=lambda watch, reason: ended.append(reason))
    with move_to(other, number) as fresh:
        new = loop.add(fresh, READ, lambda *_: received.append(fresh.recv(1)))
        loop.run_ready()
        assert ended == [Reason.FD_GONE]
        old.remove(close=True)
        other_peer.send(b"x")
        loop.run_ready()
        assert received == [b"x"]
        new.remove()


def test_the_source_of_a_watch_stays_open_while_its_timer_is_inside(make_loop, joined, pair):
    """T33a, T33b. A timer on the watch's own strand uses what the watch has: as its handler, it is waited for."""
    loop = make_loop()
    near, _ = pair()
    source = Source(near)
    watch = loop.add(source, READ, nothing, close=True)
    with joined(loop, 2), Gate() as gate:
        closed_inside: list[int] = []

        def tick() -> None:
            gate()
            closed_inside.append(source.closed)

        watch.strand.call_later(0, tick)
        gate.wait_entered()
        assert watch.remove(timeout=0) is False
        assert source.closed == 0
        gate.open()
        assert watch.remove() is True
        assert source.closed == 1
        assert closed_inside == [0]


def test_a_timer_that_removes_its_own_watch_has_its_source_closed_at_once(make_loop, pair):
    """T33b. Nobody else can be inside: an idle connection's timer may end it, and see that it has."""
    loop = make_loop()
    source = Source(pair()[0])
    watch = loop.add(source, READ, nothing, close=True)
    closed: list[int] = []
    watch.strand.call_later(0, lambda: closed.extend([watch.remove(), source.closed]))
    loop.run_ready()
    loop.run_ready()
    assert closed == [True, 1]


@pytest.mark.race
@pytest.mark.parametrize("point", ["remove.word", "strand.begin"])
def test_a_source_is_closed_beneath_a_message_of_a_shared_strand_but_not_if_it_is_removed_there(
    make_loop, joined, pair, point
):
    """T33b. A message is no handler of the watch: another thread's removal waits for the handler alone, and has closed the
    source when it returns. A removal that is posted to the strand comes before the message or after it.
    """
    loop = make_loop()
    strand = loop.strand()
    first, second = Source(pair()[0]), Source(pair()[0])
    watches = [loop.add(source, READ, nothing, strand=strand, close=True) for source in (first, second)]
    seen: list[int] = []
    with joined(loop, 3), Gate() as gate:

        def message() -> None:
            gate()
            seen.extend([first.closed, second.closed])

        with hold(point) as held:
            if point == "strand.begin":
                strand.post(message)
                strand.post(watches[1].remove)
                held.wait_reached()  # a thread has taken the strand, and is about to begin it
                assert watches[0].remove() is True
            else:
                remover = threading.Thread(target=watches[0].remove)
                remover.start()
                held.wait_reached()  # the removal has begun, and the source is open
                assert first.closed == 0
                strand.post(message)
                strand.post(watches[1].remove)
                gate.wait_entered()
                held.release()
                remover.join(LONG)
        gate.wait_entered()
        assert (first.closed, second.closed) == (1, 0)
        gate.open()
        wait_all_idle(loop)
    assert seen == [1, 0]
    assert second.closed == 1
