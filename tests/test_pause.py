"""Pause: what a paused watch does not do, and on which threads a pause waits."""

from __future__ import annotations

import queue
import threading

import pytest

import manyhands as mh
from descriptors import is_armed
from manyhands.testing import MockClock, hold, wait_all_idle
from readers import HeldReader
from support import LONG
from turning import BRIEF

READ, WRITE = mh.Events.READ, mh.Events.WRITE


# ------------------------------------------------------------------ what True means


def test_a_paused_watch_is_not_served_until_it_is_resumed(make_loop, joined, pair):
    """T36. Data comes while it is paused; the kernel is not even asked."""
    loop = make_loop()
    reader = HeldReader(loop, pair())
    with joined(loop, 2):
        reader.round_trips()
        assert reader.watch.pause() is True
        assert reader.watch.paused
        assert not is_armed(reader.watch.fd)
        reader.far.send(b"y")
        wait_all_idle(loop)
        assert reader.runs.empty()
        reader.watch.resume()
        assert not reader.watch.paused
        assert reader.runs.get(timeout=LONG) == b"y"
        reader.round_trips()


def test_a_pause_waits_for_the_handler_that_is_inside(make_loop, joined, pair, spawn):
    """T36. A look says False, a wait lasts until the handler has ended, and what is left to read stays unread."""
    loop = make_loop()
    reader = HeldReader(loop, pair())
    returned = threading.Event()

    def pause() -> tuple[bool, int]:
        answer = reader.watch.pause()
        ended = reader.ended
        returned.set()
        return answer, ended

    with joined(loop, 2):
        try:
            reader.enter()
            reader.far.send(b"y")
            assert reader.watch.pause(timeout=0) is False
            pausing = spawn(pause)
            assert not returned.wait(BRIEF)
        finally:
            reader.leave.set()
        assert pausing.result() == (True, 1)
        assert reader.runs.get(timeout=LONG) == b"x"
        wait_all_idle(loop)
        assert reader.runs.empty()
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"y"


@pytest.mark.race
@pytest.mark.parametrize("point", ["poll.returned", "strand.begin"])
def test_a_watch_paused_between_its_event_and_its_handler_does_not_start(make_loop, joined, pair, point):
    """T36. Its event was polled and its thread is on the way to the handler: nobody is inside, so the answer is True.

    The event is not lost: it is delivered after `resume()`.
    """
    loop = make_loop()
    reader = HeldReader(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        with hold(point) as held:
            reader.far.send(b"x")
            held.wait_reached()
            assert reader.watch.pause(timeout=LONG) is True
        wait_all_idle(loop)
        assert reader.runs.empty()
        assert not is_armed(reader.watch.fd)
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"x"
        wait_all_idle(loop)
        assert reader.runs.empty()


@pytest.mark.race
def test_a_pause_waits_for_a_handler_that_is_about_to_be_entered(make_loop, joined, pair, spawn):
    """T36. It is counted as running and held before the user's code: True may not come before it has ended."""
    loop = make_loop()
    reader = HeldReader(loop, pair())
    returned = threading.Event()

    def pause() -> tuple[bool, int]:
        answer = reader.watch.pause()
        ended = reader.ended
        returned.set()
        return answer, ended

    with joined(loop):
        wait_all_idle(loop)
        with hold("watch.dispatch") as dispatching:
            reader.far.send(b"x")
            dispatching.wait_reached()
            assert reader.watch.pause(timeout=0) is False
            pausing = spawn(pause)
            assert not returned.wait(BRIEF)
        assert pausing.result() == (True, 1)


@pytest.mark.race
def test_a_watch_that_fires_while_its_pause_is_on_the_way_to_the_kernel_does_not_start(make_loop, joined, pair, spawn):
    """T36. The word says paused, the kernel is still armed and reports; the event is kept for the resume."""
    loop = make_loop()
    reader = HeldReader(loop, pair())
    beside = HeldReader(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        with hold("pause.word") as pausing_point:
            pausing = spawn(reader.watch.pause)
            pausing_point.wait_reached()
            reader.far.send(b"x")
            beside.round_trips(3)
            assert reader.runs.empty()
        assert pausing.result() is True
        wait_all_idle(loop)
        assert reader.runs.empty()
        assert not is_armed(reader.watch.fd)
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"x"


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_an_idle_descriptor_pauses_at_once(make_loop, joined, pair, threads):
    """T37. A look is enough: there is nothing to wait for, with nobody joined too."""
    loop = make_loop()
    reader = HeldReader(loop, pair())
    with joined(loop, threads):
        if threads:
            wait_all_idle(loop)
        assert reader.watch.pause(timeout=0) is True
        assert not is_armed(reader.watch.fd)


# ------------------------------------------------------------------ pause on a lent thread


def test_a_watch_can_pause_itself_in_its_handler(make_loop, joined, pair):
    """T38. True at once; this run goes on to its end; no other starts though there is more to read."""
    loop = make_loop()
    near, far = pair()
    order: queue.SimpleQueue[object] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        order.put(near.recv(1))
        order.put(watch.pause())
        order.put("ended")

    watch = loop.add(near, READ, handler)
    far.send(b"ab")
    with joined(loop, 4):
        assert [order.get(timeout=LONG) for _ in range(3)] == [b"a", True, "ended"]
        wait_all_idle(loop)
        assert order.empty()
        assert not is_armed(watch.fd)
        watch.resume()
        assert [order.get(timeout=LONG) for _ in range(3)] == [b"b", True, "ended"]


def test_a_watch_that_pauses_and_resumes_itself_in_its_handler_goes_on(make_loop, joined, pair):
    """T38. The flag is what counts when the handler ends."""
    loop = make_loop()
    near, far = pair()
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        watch.pause()
        runs.put(near.recv(1))
        watch.resume()

    loop.add(near, READ, handler)
    with joined(loop, 2):
        for byte in (b"a", b"b", b"c"):
            far.send(byte)
            assert runs.get(timeout=LONG) == byte


@pytest.mark.parametrize("loops", [1, 2])
def test_two_handlers_that_pause_each_other_do_not_wait_for_each_other(make_loop, joined, pair, loops):
    """T39. Both are inside when both pause: each is told that the other still is, and both are paused afterwards."""
    first = make_loop(handover=0)
    second = first if loops == 1 else make_loop(handover=0)
    sockets = [pair(), pair()]
    watches: list[mh.Watch] = []
    inside, paused = threading.Barrier(2), threading.Barrier(2)
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        inside.wait(LONG)
        answers.put(watches[1 - watches.index(watch)].pause())
        paused.wait(LONG)
        watch.source.recv(1)

    watches += [loop.add(near, READ, handler) for loop, (near, _) in zip((first, second), sockets, strict=True)]
    with joined(first, 2), joined(second, 2):
        for _, far in sockets:
            far.send(b"x")
        assert [answers.get(timeout=LONG), answers.get(timeout=LONG)] == [False, False]
        wait_all_idle(first, second)
        assert [watch.paused for watch in watches] == [True, True]
        for _, far in sockets:
            far.send(b"x")
        wait_all_idle(first, second)
        assert answers.empty()
        assert not any(is_armed(watch.fd) for watch in watches)


def test_a_handler_that_pauses_an_idle_watch_is_told_that_nobody_is_inside(make_loop, joined, pair):
    """T39. On a lent thread too the answer is True where there is nothing to wait for."""
    loop = make_loop()
    idle = HeldReader(loop, pair())
    near, far = pair()
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        near.recv(1)
        answers.put(idle.watch.pause())

    loop.add(near, READ, handler)
    with joined(loop):
        far.send(b"x")
        assert answers.get(timeout=LONG) is True
        idle.far.send(b"x")
        wait_all_idle(loop)
        assert idle.runs.empty()


def test_the_strand_of_a_paused_watch_goes_on(make_loop, joined, pair):
    """T39a. Its messages and timers run while its events wait, in its own strand and in one that it shares."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    shared = loop.strand()
    near, far = pair()
    runs: queue.SimpleQueue[str] = queue.SimpleQueue()
    own = HeldReader(loop, pair())
    other = loop.add(near, READ, lambda *_: runs.put("handler"), strand=shared)
    with joined(loop):
        for watch, peer in ((own.watch, own.far), (other, far)):
            assert watch.pause() is True
            peer.send(b"x")
            watch.strand.post(runs.put, "message")
            assert runs.get(timeout=LONG) == "message"
            watch.strand.post_urgent(runs.put, "urgent")
            assert runs.get(timeout=LONG) == "urgent"
            watch.strand.call_later(1.0, runs.put, "timer")
            clock.advance(1.0)
            assert runs.get(timeout=LONG) == "timer"
            assert watch.strand.state is mh.StrandState.ACTIVE
        wait_all_idle(loop)
        assert runs.empty()
        assert own.runs.empty()


def test_a_paused_watch_does_not_pause_its_neighbour_on_the_strand(make_loop, joined, pair):
    """T39a. Two watches on one strand: one is paused, the other is served."""
    loop = make_loop()
    shared = loop.strand()
    (paused, paused_peer), (active, active_peer) = pair(), pair()
    runs: queue.SimpleQueue[int] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        watch.source.recv(1)
        runs.put(watch.fd)

    first = loop.add(paused, READ, handler, strand=shared)
    second = loop.add(active, READ, handler, strand=shared)
    with joined(loop):
        first.pause()
        paused_peer.send(b"x")
        active_peer.send(b"x")
        assert runs.get(timeout=LONG) == second.fd
        wait_all_idle(loop)
        assert runs.empty()
        first.resume()
        assert runs.get(timeout=LONG) == first.fd
