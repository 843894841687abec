"""Watches: stale events, and descriptor numbers that change hands."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading

import pytest

import manyhands as mh
from descriptors import is_armed, move_to
from manyhands.testing import hold, wait_all_idle
from support import LONG
from turning import Echo, batch_in_hand, nothing

READ, WRITE = mh.Events.READ, mh.Events.WRITE
Reason = mh.RemovalReason


def test_a_watch_removed_by_another_handler_of_its_batch_does_not_run(make_loop, pair):
    """T25. Both are ready in one tick; whichever runs first removes the other."""
    loop = make_loop()
    sockets = [pair(), pair()]
    watches: list[mh.Watch] = []
    ran: list[mh.Watch] = []

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        watch.source.recv(1)
        ran.append(watch)
        other = watches[1 - watches.index(watch)]
        assert other.remove() is True

    watches += [loop.add(near, READ, handler) for near, _ in sockets]
    for _, far in sockets:
        far.send(b"x")
    loop.run_ready()
    loop.run_ready()
    assert len(ran) == 1
    assert [watch.removed for watch in watches] == [watch not in ran for watch in watches]


@pytest.mark.race
def test_a_watch_removed_while_its_event_is_in_hand_does_not_run(make_loop, joined, pair):
    """T25. From outside, in the interval between the poller's return and the look-up; the rest of the batch runs."""
    loop = make_loop()
    kept, kept_peer = pair()
    lost, lost_peer = pair()
    ran: queue.SimpleQueue[int] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        watch.source.recv(1)
        ran.put(watch.fd)

    loop.add(kept, READ, handler)
    watch = loop.add(lost, READ, handler)

    def make_ready() -> None:
        kept_peer.send(b"x")
        lost_peer.send(b"x")

    with joined(loop):
        with batch_in_hand(loop, make_ready):
            assert watch.remove() is True
        assert ran.get(timeout=LONG) == kept.fileno()
        wait_all_idle(loop)
        assert ran.empty()


def test_an_old_event_never_reaches_the_new_owner_of_the_number_within_a_batch(make_loop, pair):
    """T26. Whichever runs first removes and closes the other, and adds a quiet socket under its number."""
    loop = make_loop()
    sockets = [pair(), pair()]
    quiet, quiet_peer = pair()
    watches: list[mh.Watch] = []
    fresh: list[socket.socket] = []
    ran: list[mh.Watch] = []
    received: list[bytes] = []

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        watch.source.recv(1)
        ran.append(watch)
        old = watches[1 - watches.index(watch)]
        number = old.fd
        assert old.remove() is True
        os.close(old.source.detach())
        fresh.append(move_to(quiet, number))
        loop.add(fresh[0], READ, lambda watch, events: received.append(fresh[0].recv(10)))

    watches += [loop.add(near, READ, handler) for near, _ in sockets]
    try:
        for _, far in sockets:
            far.send(b"x")
        loop.run_ready()
        loop.run_ready()
        assert len(ran) == 1
        assert received == []
        quiet_peer.send(b"new")
        loop.run_ready()
        assert received == [b"new"]
    finally:
        loop.close()
        for sock in fresh:
            sock.close()


@pytest.mark.race
def test_an_event_in_hand_never_reaches_the_new_owner_of_the_number(make_loop, joined, pair):
    """T26. The descriptor is closed and its number taken by another watch in the interval, without a removal."""
    loop = make_loop()
    old_socket, old_peer = pair()
    new_socket, new_peer = pair()
    number = old_socket.fileno()
    calls: queue.SimpleQueue[str] = queue.SimpleQueue()
    ended: queue.SimpleQueue[mh.RemovalReason] = queue.SimpleQueue()
    old = loop.add(
        old_socket,
        READ,
        lambda *_: calls.put("old"),
        on_removed=lambda watch, reason: ended.put(reason),
    )
    with joined(loop):
        wait_all_idle(loop)
        with batch_in_hand(loop, lambda: old_peer.send(b"x")):
            os.close(old_socket.detach())
            fresh = move_to(new_socket, number)
            new = loop.add(fresh, READ, lambda *_: calls.put(fresh.recv(10).decode()))
            assert loop.get(number) is new
            assert old.removed
        assert ended.get(timeout=LONG) is Reason.FD_GONE
        wait_all_idle(loop)
        assert calls.empty()
        new_peer.send(b"new")
        assert calls.get(timeout=LONG) == "new"
        new.remove()
        fresh.close()


@pytest.mark.race
@pytest.mark.parametrize("threads", [1, 4])
def test_a_rearm_leaves_the_new_owner_of_the_number_alone(make_loop, joined, pair, threads):
    """T26a. The handler closes its descriptor, this thread adds the reused number, then the handler ends.

    The old watch is told that its descriptor is gone, and removing it leaves the new one registered.
    """
    loop = make_loop(handover=0)
    old_socket, old_peer = pair()
    new_socket, new_peer = pair()
    number = old_socket.fileno()
    closed, added = threading.Event(), threading.Event()
    ended: queue.SimpleQueue[tuple[mh.Watch, mh.RemovalReason]] = queue.SimpleQueue()
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def close_own(watch: mh.Watch, events: mh.Events) -> None:
        os.close(old_socket.detach())
        closed.set()
        added.wait(LONG)

    old = loop.add(old_socket, READ, close_own, on_removed=lambda *owed: ended.put(owed))
    with joined(loop, threads):
        try:
            old_peer.send(b"x")
            assert closed.wait(LONG)
            fresh = move_to(new_socket, number)
            new = loop.add(fresh, READ, lambda *_: received.put(fresh.recv(1)))
            assert old.removed
            assert ended.empty()
        finally:
            added.set()
        assert ended.get(timeout=LONG) == (old, Reason.FD_GONE)
        wait_all_idle(loop)
        assert is_armed(number)
        new_peer.send(b"1")
        assert received.get(timeout=LONG) == b"1"
        assert old.remove() is True
        assert is_armed(number)
        for byte in (b"2", b"3"):
            new_peer.send(byte)
            assert received.get(timeout=LONG) == byte
        assert loop.get(number) is new
        assert ended.empty()
        assert new.remove() is True
        fresh.close()


@pytest.mark.race
def test_a_number_reused_just_before_the_rearm_belongs_to_the_new_watch(make_loop, joined, pair):
    """T26a. The old handler has ended; its thread is held before the re-arm while the number changes hands."""
    loop = make_loop()
    old_socket, old_peer = pair()
    new_socket, new_peer = pair()
    number = old_socket.fileno()
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    ended: queue.SimpleQueue[mh.RemovalReason] = queue.SimpleQueue()
    loop.add(
        old_socket,
        READ,
        lambda *_: old_socket.recv(1),
        on_removed=lambda watch, reason: ended.put(reason),
    )
    with joined(loop):
        wait_all_idle(loop)
        with hold("watch.rearm") as rearming:
            old_peer.send(b"x")
            rearming.wait_reached()
            os.close(old_socket.detach())
            fresh = move_to(new_socket, number)
            new = loop.add(fresh, READ, lambda *_: received.put(fresh.recv(1)))
        assert ended.get(timeout=LONG) is Reason.FD_GONE
        new_peer.send(b"1")
        assert received.get(timeout=LONG) == b"1"
        new.remove()
        fresh.close()


@pytest.mark.parametrize("threads", [0, 1])
def test_a_watch_removed_after_its_descriptor_was_closed_frees_the_number(make_loop, joined, pair, threads):
    """T27. No exception, one final callback, and the number can be watched again."""
    loop = make_loop()
    near, _ = pair()
    other, other_peer = pair()
    number = near.fileno()
    ended: queue.SimpleQueue[mh.RemovalReason] = queue.SimpleQueue()
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with joined(loop, threads):
        watch = loop.add(near, READ, nothing)
        near.close()
        assert watch.remove(on_removed=lambda watch, reason: ended.put(reason)) is True
        assert loop.get(number) is None
        fresh = move_to(other, number)
        new = loop.add(fresh, READ, lambda *_: received.put(fresh.recv(1)))
        other_peer.send(b"x")
        if threads == 0:
            loop.run_ready()
        assert received.get(timeout=LONG) == b"x"
        assert ended.get(timeout=LONG) in {Reason.REMOVED, Reason.FD_GONE}
        new.remove()
        fresh.close()


def test_a_descriptor_closed_while_a_duplicate_lives_does_not_spin(make_loop, joined, pair):
    """T28. The kernel goes on reporting the duplicate under the closed number; its watch ends, and nothing turns.

    How soon it ends is how often the loop asks the kernel whether it still knows the number: at every 16th handler.
    """
    loop = make_loop()
    near, far = pair()
    duplicate = near.dup()
    calls: list[mh.Events] = []
    ended: queue.SimpleQueue[mh.RemovalReason] = queue.SimpleQueue()
    loop.add(
        near,
        READ,
        lambda watch, events: calls.append(events),
        on_removed=lambda watch, reason: ended.put(reason),
    )
    beside = Echo(loop, pair())
    with joined(loop), duplicate:
        wait_all_idle(loop)
        near.close()
        far.send(b"nobody reads this")
        assert ended.get(timeout=LONG) is Reason.FD_GONE
        beside.round_trips()
        before = loop.stats().polls
        beside.round_trips(100)
        assert loop.stats().polls - before <= 400
        assert len(calls) <= 16
        assert ended.empty()


@pytest.mark.parametrize("threads", [1, 4])
def test_a_removed_watch_whose_descriptor_was_closed_while_a_duplicate_lives_does_not_spin(
    make_loop, joined, pair, threads
):
    """T27, T28. Nothing can take its registration out of the kernel; the loop leaves it behind, and loses no other."""
    loop = make_loop()
    near, far = pair()
    duplicate = near.dup()
    calls: list[mh.Events] = []
    watch = loop.add(near, READ, lambda watch, events: calls.append(events))
    paused, paused_far = pair()
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    silent = loop.add(paused, READ, lambda *_: received.put(paused.recv(9)))
    silent.pause()
    beside = Echo(loop, pair())
    with duplicate:
        near.close()
        assert watch.remove() is True
        far.send(b"nobody reads this")
        paused_far.send(b"kept")
        with joined(loop, threads):
            beside.round_trips(10)
            before = loop.stats().polls
            beside.round_trips(100)
            assert loop.stats().polls - before <= 400
            wait_all_idle(loop)
            assert not is_armed(silent.fd)
            silent.resume()
            assert received.get(timeout=LONG) == b"kept"
            beside.round_trips()
            late, late_far = pair()
            loop.add(late, READ, lambda *_: received.put(late.recv(9)))
            late_far.send(b"late")
            assert received.get(timeout=LONG) == b"late"
        assert calls == []


def test_a_signal_is_still_heard_after_the_loop_left_a_dead_registration_behind(make_loop, pair):
    """T28, T93. What the main thread's signals come through is registered anew with the rest."""
    loop = make_loop()
    near, far = pair()
    loop.on_signal(signal.SIGUSR1, lambda *_: loop.request_stop())
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(loop.stats().polls)
        if len(ticks) == 20:
            os.kill(os.getpid(), signal.SIGUSR1)

    with near.dup():
        watch = loop.add(near, READ, nothing)
        near.close()
        watch.remove()
        far.send(b"x")
        loop.call_every(0.001, tick)
        loop.join(timeout=LONG)
    assert len(ticks) >= 20
    assert loop.stats().polls < 400


def test_a_thread_that_joins_beside_a_running_handler_does_not_spin(make_loop, joined, pair, spawn):
    """T17a, T24. The handler has left something unread; only its end lets the kernel say so again."""
    loop = make_loop()
    slow, slow_far = pair()
    inside, leave = threading.Event(), threading.Event()
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        inside.set()
        assert leave.wait(LONG)
        received.put(slow.recv(1))

    loop.add(slow, READ, handler)
    beside = Echo(loop, pair())
    with joined(loop):
        try:
            slow_far.send(b"xy")
            assert inside.wait(LONG)
            second = spawn(loop.join)
            beside.round_trips()
            before = loop.stats().polls
            beside.round_trips(100)
            assert loop.stats().polls - before <= 400
        finally:
            leave.set()
        assert received.get(timeout=LONG) == b"x"
        assert received.get(timeout=LONG) == b"y"
    second.result()
