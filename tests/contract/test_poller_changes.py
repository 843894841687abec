"""The contract of the pollers: a thread that waits hears of every change."""

from __future__ import annotations

import queue
import threading

import pytest

import manyhands as mh
from manyhands.testing import hold, wait_all_idle
from readers import Reader
from support import LONG

pytestmark = pytest.mark.whole

READ, WRITE, PRIORITY = mh.Events.READ, mh.Events.WRITE, mh.Events.PRIORITY

Reason = mh.RemovalReason


@pytest.mark.parametrize("threads", [1, 3])
def test_a_descriptor_added_while_every_thread_waits_is_served(make_loop, joined, pair, poller, threads):
    """T22. By a thread that is not joined; nothing else wakes the loop."""
    loop = make_loop(poller=poller)
    near, far = pair()
    far.send(b"x")
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with joined(loop, threads):
        wait_all_idle(loop)
        loop.add(near, READ, lambda *_: runs.put(near.recv(1)))
        assert runs.get(timeout=LONG) == b"x"


def test_a_mask_modified_while_every_thread_waits_counts_at_once(make_loop, joined, pair, poller):
    """T23. From READ with nothing to read to WRITE with room."""
    loop = make_loop(poller=poller)
    near, _ = pair()
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        watch.modify(READ)

    watch = loop.add(near, READ, handler)
    with joined(loop):
        wait_all_idle(loop)
        watch.modify(WRITE)
        assert calls.get(timeout=LONG) == WRITE
        wait_all_idle(loop)
        assert calls.empty()


def test_a_mask_modified_while_the_handler_runs_counts_when_it_ends(make_loop, joined, pair, poller):
    """T23. What made it run is still there, and is not asked for any more."""
    loop = make_loop(poller=poller)
    near, far = pair()
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()
    leave = threading.Event()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        if events & WRITE:
            watch.remove()
        leave.wait(LONG)

    watch = loop.add(near, READ, handler)
    with joined(loop):
        try:
            far.send(b"x")
            assert calls.get(timeout=LONG) == READ
            watch.modify(WRITE)
        finally:
            leave.set()
        assert calls.get(timeout=LONG) == WRITE


def test_a_paused_watch_is_served_after_its_resume(make_loop, joined, pair, poller):
    """T40. What came meanwhile is delivered once; the resume wakes a thread that waits."""
    loop = make_loop(poller=poller)
    reader = Reader(loop, pair())
    with joined(loop):
        reader.round_trips()
        wait_all_idle(loop)
        assert reader.watch.pause() is True
        reader.far.send(b"y")
        wait_all_idle(loop)
        assert reader.runs.empty()
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"y"
        wait_all_idle(loop)
        assert reader.runs.empty()
        reader.round_trips()


@pytest.mark.race
def test_a_watch_paused_while_its_event_is_in_hand_does_not_start(make_loop, joined, pair, poller):
    """T36. In the interval between the poller's return and the look-up."""
    loop = make_loop(poller=poller)
    reader = Reader(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        with hold("poll.returned") as returned:
            reader.far.send(b"x")
            returned.wait_reached()
            assert reader.watch.pause(timeout=LONG) is True
        wait_all_idle(loop)
        assert reader.runs.empty()
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"x"


def test_a_paused_watch_whose_peer_closes_costs_nothing(make_loop, joined, pair, poller):
    """T41. The loop goes on waiting, and the end is seen after the resume."""
    loop = make_loop(poller=poller)
    near, far = pair()
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(near.recv(1))
        watch.remove()

    watch = loop.add(near, READ, handler)
    beside = Reader(loop, pair())
    with joined(loop):
        watch.pause()
        far.close()
        beside.round_trips()
        before = loop.stats().polls
        beside.round_trips(100)
        assert loop.stats().polls - before <= 500
        assert calls.empty()
        watch.resume()
        assert calls.get(timeout=LONG) == b""


def test_a_removed_watch_is_not_served_and_its_descriptor_can_be_added_again(make_loop, joined, pair, poller):
    """T29. While a thread waits in the poller with the old set of descriptors."""
    loop = make_loop(poller=poller)
    sockets = pair()
    first = Reader(loop, sockets)
    with joined(loop):
        first.round_trips()
        wait_all_idle(loop)
        assert first.watch.remove() is True
        assert first.ended.get(timeout=LONG) is Reason.REMOVED
        first.far.send(b"y")
        wait_all_idle(loop)
        assert first.runs.empty()
        second = Reader(loop, sockets)
        assert second.runs.get(timeout=LONG) == b"y"
        second.round_trips()
        assert first.runs.empty()
        assert first.ended.empty()


@pytest.mark.race
def test_a_watch_removed_while_its_event_is_in_hand_never_runs(make_loop, joined, pair, poller):
    """T29. In the interval between the poller's return and the look-up."""
    loop = make_loop(poller=poller)
    reader = Reader(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        with hold("poll.returned") as returned:
            reader.far.send(b"x")
            returned.wait_reached()
            assert reader.watch.remove(timeout=LONG) is True
        wait_all_idle(loop)
        assert reader.runs.empty()
