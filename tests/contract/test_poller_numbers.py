"""The contract of the pollers: numbers that change hands, and descriptors that are refused.

Where they differ, the difference stands in a test of its own: `select` reports a hang-up as READ and refuses numbers from
FD_SETSIZE on; what is closed behind the loop's back is noticed by `poll` and `select` at once and by `epoll` at the next use.
"""

from __future__ import annotations

import os
import queue
import socket
import tempfile

import pytest

import manyhands as mh
from descriptors import move_to, need_descriptors
from manyhands.testing import hold, wait_all_idle
from readers import POLLERS, Reader, first_events
from support import LONG

pytestmark = pytest.mark.whole

READ, WRITE, PRIORITY = mh.Events.READ, mh.Events.WRITE, mh.Events.PRIORITY

Reason = mh.RemovalReason

FD_SETSIZE = 1024


# ------------------------------------------------------------------ numbers that change hands


def test_a_number_that_was_removed_closed_and_reused_is_served(make_loop, joined, pair, poller):
    """T26. While a thread waits in the poller with the old descriptor in its set."""
    loop = make_loop(poller=poller)
    old = Reader(loop, pair())
    new_socket, far = pair()
    number = old.watch.fd
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with joined(loop):
        old.round_trips()
        wait_all_idle(loop)
        assert old.watch.remove() is True
        os.close(old.near.detach())
        with move_to(new_socket, number) as fresh:
            new = loop.add(fresh, READ, lambda *_: runs.put(fresh.recv(1)))
            for byte in (b"1", b"2"):
                far.send(byte)
                assert runs.get(timeout=LONG) == byte
            assert new.remove() is True
        assert old.runs.empty()


def test_a_number_that_was_closed_behind_the_loop_and_reused_is_served(make_loop, joined, pair, poller):
    """T26a. The add displaces the old watch, which is told that its descriptor is gone."""
    loop = make_loop(poller=poller)
    old = Reader(loop, pair())
    new_socket, far = pair()
    number = old.watch.fd
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with joined(loop):
        old.round_trips()
        wait_all_idle(loop)
        old.near.detach()
        with move_to(new_socket, number) as fresh:
            new = loop.add(fresh, READ, lambda *_: runs.put(fresh.recv(1)))
            assert loop.get(number) is new
            assert old.ended.get(timeout=LONG) is Reason.FD_GONE
            for byte in (b"1", b"2"):
                far.send(byte)
                assert runs.get(timeout=LONG) == byte
            assert old.watch.remove() is True
            far.send(b"3")
            assert runs.get(timeout=LONG) == b"3"
            assert new.remove() is True
        assert old.runs.empty()
        assert old.ended.empty()


@pytest.mark.race
def test_a_number_that_changes_hands_while_its_event_is_in_hand_is_not_mistaken(make_loop, joined, pair, poller):
    """T26. The old descriptor's event never reaches the new watch, nor the old one any more."""
    loop = make_loop(poller=poller)
    old = Reader(loop, pair())
    new_socket, far = pair()
    number = old.watch.fd
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with joined(loop):
        wait_all_idle(loop)
        with hold("poll.returned") as returned:
            old.far.send(b"x")
            returned.wait_reached()
            old.near.detach()
            fresh = move_to(new_socket, number)
            new = loop.add(fresh, READ, lambda *_: runs.put(fresh.recv(1)))
        assert old.ended.get(timeout=LONG) is Reason.FD_GONE
        wait_all_idle(loop)
        assert runs.empty()
        assert old.runs.empty()
        far.send(b"1")
        assert runs.get(timeout=LONG) == b"1"
        assert new.remove() is True
        fresh.close()


def test_a_descriptor_closed_behind_the_loop_harms_nobody_else(make_loop, joined, pair, poller):
    """T27. The others are served, nothing spins, and its watch ends once, at the latest when it is used."""
    loop = make_loop(poller=poller)
    gone = Reader(loop, pair())
    beside = Reader(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        gone.near.close()
        beside.round_trips()
        if poller == "epoll":
            with pytest.raises(mh.WatchRemoved):
                gone.watch.modify(WRITE)
        before = loop.stats().polls
        beside.round_trips(50)
        assert loop.stats().polls - before <= 250
        assert gone.ended.get(timeout=LONG) is Reason.FD_GONE
        assert gone.watch.removed
        assert gone.watch.remove() is True
        wait_all_idle(loop)
        assert gone.ended.empty()
        assert loop.get(gone.watch.fd) is None


# ------------------------------------------------------------------ hang-ups and refusals


def test_a_hang_up_is_reported_without_being_asked_for(make_loop, joined, poller):
    """T32. A pipe whose writer closed: HANGUP from epoll and poll; select knows only that a read would not block."""
    reader, writer = os.pipe()
    try:
        loop = make_loop(poller=poller)
        events = first_events(loop, joined, reader, READ, lambda: os.close(writer))
        assert events == (READ if poller == "select" else mh.Events.HANGUP)
        loop.close()
    finally:
        os.close(reader)


def test_the_end_of_a_stream_is_read(make_loop, joined, pair, poller):
    """T32. The peer's half-close is READ with b"" for every poller."""
    near, far = pair()
    events = first_events(make_loop(poller=poller), joined, near, READ, lambda: far.shutdown(socket.SHUT_WR))
    assert events == READ
    assert near.recv(1) == b""


def test_a_regular_file_is_refused(make_loop, poller):
    """T33. Also where the system call would call it ready for ever."""
    loop = make_loop(poller=poller)
    with tempfile.TemporaryFile() as file:
        with pytest.raises(mh.NotPollable) as caught:
            loop.add(file, READ, lambda *_: None)
        assert caught.value.fd == file.fileno()
        assert loop.get(file.fileno()) is None
        assert loop.stats().watches == 0


def test_a_number_that_is_not_open_is_refused(make_loop, pair, poller):
    """T33. At the call, not by the thread that waits next."""
    loop = make_loop(poller=poller)
    near, _ = pair()
    number = os.dup(near.fileno())
    os.close(number)
    with pytest.raises(mh.BadDescriptor) as caught:
        loop.add(number, READ, lambda *_: None)
    assert caught.value.fd == number
    assert loop.stats().watches == 0


def test_a_second_watch_on_a_descriptor_is_refused(make_loop, joined, pair, poller):
    """T20. The first goes on working."""
    loop = make_loop(poller=poller)
    reader = Reader(loop, pair())
    with pytest.raises(mh.WatchExists) as caught:
        loop.add(reader.near, WRITE, lambda *_: None)
    assert caught.value.watch is reader.watch
    with joined(loop):
        reader.round_trips(2)
    del caught


def test_select_refuses_numbers_that_its_sets_cannot_hold(make_loop, joined, pair):
    """T33. FD_SETSIZE is 1024: the last number below it is served, the first above it refused."""
    need_descriptors(FD_SETSIZE)
    loop = make_loop(poller="select")
    (low, low_peer), (high, _) = pair(), pair()
    numbers = set(map(int, os.listdir("/proc/self/fd")))
    assert not numbers & {FD_SETSIZE - 1, FD_SETSIZE}
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with move_to(low, FD_SETSIZE - 1) as last, move_to(high, FD_SETSIZE) as beyond:
        with pytest.raises((mh.NotPollable, ValueError), match=r"1024|FD_SETSIZE"):
            loop.add(beyond, READ, lambda *_: None)
        assert loop.stats().watches == 0
        watch = loop.add(last, READ, lambda *_: runs.put(last.recv(1)))
        with joined(loop):
            low_peer.send(b"x")
            assert runs.get(timeout=LONG) == b"x"
        watch.remove()


@pytest.mark.parametrize("poller", ["epoll", "poll"])
def test_the_other_pollers_take_numbers_beyond_what_select_can_hold(make_loop, joined, pair, poller):
    """T33. The refusal is of select alone."""
    need_descriptors(FD_SETSIZE)
    loop = make_loop(poller=poller)
    near, far = pair()
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with move_to(near, FD_SETSIZE) as beyond:
        watch = loop.add(beyond, READ, lambda *_: runs.put(beyond.recv(1)))
        with joined(loop):
            far.send(b"x")
            assert runs.get(timeout=LONG) == b"x"
        watch.remove()


@pytest.mark.parametrize("poller", ["kqueue", "", None, 1])
def test_an_unknown_poller_is_refused_by_naming_the_known_ones(poller):
    """T33. ValueError for a wrong name, TypeError for what is no name."""
    with pytest.raises((ValueError, TypeError)) as caught:
        mh.EventLoop(poller=poller)
    if isinstance(poller, str):
        assert isinstance(caught.value, ValueError)
        assert all(name in str(caught.value) for name in POLLERS)
