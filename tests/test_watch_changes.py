"""Watches: what is added, modified, or read in part, at whatever moment."""

from __future__ import annotations

import contextlib
import queue
import threading

import pytest

import manyhands as mh
from descriptors import epoll_masks
from manyhands.testing import hold, wait_all_idle
from support import LONG
from turning import Echo, nothing

READ, WRITE = mh.Events.READ, mh.Events.WRITE

Reason = mh.RemovalReason


def test_adding_a_registered_descriptor_raises_and_the_first_watch_goes_on(make_loop, joined, pair):
    """T20. The error carries the number and the watch that has it."""
    loop = make_loop()
    near, far = pair()
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    first = loop.add(near, READ, lambda watch, events: calls.put(near.recv(1)), name="first")
    with pytest.raises(mh.WatchExists) as caught:
        loop.add(near.fileno(), WRITE, nothing)
    assert caught.value.fd == near.fileno()
    assert caught.value.watch is first
    assert str(near.fileno()) in str(caught.value)
    assert loop.get(near.fileno()) is first
    assert loop.stats().watches == 1
    with joined(loop):
        for _ in range(2):
            far.send(b"x")
            assert calls.get(timeout=LONG) == b"x"
    del caught


def test_modifying_a_removed_watch_raises_and_removing_it_again_does_not(make_loop, pair):
    """T21. The second removal has nothing to do and says that nobody is inside."""
    loop = make_loop()
    near, _ = pair()
    ended: queue.SimpleQueue[tuple[mh.Watch, mh.RemovalReason]] = queue.SimpleQueue()
    watch = loop.add(near, READ, nothing)
    assert watch.remove() is True
    with pytest.raises(mh.WatchRemoved) as caught:
        watch.modify(WRITE)
    assert caught.value.fd == near.fileno()
    assert caught.value.reason is Reason.REMOVED
    assert watch.remove(on_removed=lambda *owed: ended.put(owed)) is True
    loop.run_ready()
    assert ended.get(timeout=LONG) == (watch, Reason.REMOVED)
    assert ended.empty()


@pytest.mark.parametrize("call", ["pause", "resume"])
def test_pausing_a_removed_watch_is_harmless_or_says_so(make_loop, pair, call):
    """T21. Neither brings it back into the kernel."""
    loop = make_loop()
    near, far = pair()
    calls: list[int] = []
    watch = loop.add(near, READ, lambda *_: calls.append(1))
    watch.remove()
    far.send(b"x")
    with contextlib.suppress(mh.WatchRemoved):
        getattr(watch, call)()
    loop.run_ready()
    assert calls == []
    assert epoll_masks(near.fileno()) == []


@pytest.mark.parametrize("events", [mh.Events(0), mh.Events.HANGUP, mh.Events.HANGUP | mh.Events.ERROR])
def test_a_mask_that_asks_for_nothing_is_refused(make_loop, pair, events):
    """T21. It would be a pause that a hang-up breaks; the error names the call that is meant."""
    loop = make_loop()
    near, _ = pair()
    with pytest.raises(ValueError, match="pause"):
        loop.add(near, events, nothing)
    watch = loop.add(near, READ, nothing)
    with pytest.raises(ValueError, match="pause"):
        watch.modify(events)
    assert watch.events == READ


def test_a_watch_added_in_a_handler_is_served(make_loop, joined, pair):
    """T22. By the only thread, which was inside the handler that added it."""
    loop = make_loop()
    first, first_peer = pair()
    second, second_peer = pair()
    second_peer.send(b"x")
    served = threading.Event()

    def serve(watch: mh.Watch, events: mh.Events) -> None:
        second.recv(1)
        served.set()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        first.recv(1)
        loop.add(second, READ, serve)

    loop.add(first, READ, handler)
    with joined(loop):
        first_peer.send(b"x")
        assert served.wait(LONG)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_watch_added_while_every_thread_waits_is_served_at_once(make_loop, joined, pair, threads):
    """T22. From a thread that is not joined; nothing else happens that could wake the loop."""
    loop = make_loop()
    near, far = pair()
    far.send(b"x")
    served = threading.Event()

    def serve(watch: mh.Watch, events: mh.Events) -> None:
        near.recv(1)
        served.set()

    with joined(loop, threads):
        wait_all_idle(loop)
        loop.add(near, READ, serve)
        assert served.wait(LONG)


@pytest.mark.race
def test_a_watch_that_fires_before_its_entry_is_complete_is_served(make_loop, joined, pair, spawn):
    """T22. Its event comes while `add` is held between the kernel and the table."""
    loop = make_loop()
    near, far = pair()
    far.send(b"x")
    seen: queue.SimpleQueue[mh.Watch] = queue.SimpleQueue()

    def serve(watch: mh.Watch, events: mh.Events) -> None:
        near.recv(1)
        seen.put(watch)

    with joined(loop):
        beside = Echo(loop, pair())
        wait_all_idle(loop)
        with hold("add.registered") as registered:
            adding = spawn(loop.add, near, READ, serve)
            registered.wait_reached()
            beside.round_trips()
        watch = adding.result()
        assert seen.get(timeout=LONG) is watch
        wait_all_idle(loop)
        assert seen.empty()


def test_a_mask_modified_while_the_handler_runs_counts_when_it_ends(make_loop, joined, pair):
    """T23. The handler does not read what made it run; with WRITE alone only WRITE is reported."""
    loop = make_loop()
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
            assert watch.events == WRITE
        finally:
            leave.set()
        assert calls.get(timeout=LONG) == WRITE


@pytest.mark.race
def test_a_mask_modified_just_before_the_rearm_is_not_lost(make_loop, joined, pair):
    """T23. The handler has ended and its thread is held before it re-arms."""
    loop = make_loop()
    near, far = pair()
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        if events & WRITE:
            watch.remove()

    watch = loop.add(near, READ, handler)
    with joined(loop):
        wait_all_idle(loop)
        with hold("watch.rearm") as rearming:
            far.send(b"x")
            rearming.wait_reached()
            watch.modify(WRITE)
        assert calls.get(timeout=LONG) == READ
        assert calls.get(timeout=LONG) == WRITE


def test_a_mask_modified_in_its_own_handler_counts_when_it_ends(make_loop, joined, pair):
    """T23. The usual case: what was read is to be answered when the peer takes it."""
    loop = make_loop()
    near, far = pair()
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        if events & READ:
            near.recv(1)
            watch.modify(WRITE)
        else:
            watch.modify(READ)

    loop.add(near, READ, handler)
    with joined(loop):
        for _ in range(2):
            far.send(b"x")
            assert calls.get(timeout=LONG) == READ
            assert calls.get(timeout=LONG) == WRITE


def test_a_handler_that_reads_a_part_is_called_again(make_loop, joined, pair):
    """T24. Nothing new arrives: what is left is reason enough."""
    loop = make_loop()
    near, far = pair()
    parts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    loop.add(near, READ, lambda watch, events: parts.put(near.recv(2)))
    far.send(b"abcdef")
    with joined(loop):
        assert [parts.get(timeout=LONG) for _ in range(3)] == [b"ab", b"cd", b"ef"]
        wait_all_idle(loop)
        assert parts.empty()
