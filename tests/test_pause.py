"""Pause and resume: what a paused watch does not do, and what it has not forgotten afterwards."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading

import pytest

import manyhands as mh
from descriptors import is_armed
from manyhands.testing import MockClock, hold, wait_all_idle
from support import LONG, wait_until
from turning import BRIEF

READ, WRITE = mh.Events.READ, mh.Events.WRITE


class Reader:
    """A watch that reads one byte a run, and can be made to stay inside."""

    def __init__(self, loop: mh.EventLoop, sockets: tuple[socket.socket, socket.socket]) -> None:
        self.near, self.far = sockets
        self.runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.leave.set()
        self.ended = 0
        self.watch = loop.add(self.near, READ, self._handle)

    def _handle(self, watch: mh.Watch, events: mh.Events) -> None:
        self.entered.set()
        self.leave.wait(LONG)
        self.runs.put(self.near.recv(1))
        self.ended += 1

    def enter(self) -> None:
        """Make one run begin that does not end before `leave` is set."""
        self.leave.clear()
        self.entered.clear()
        self.far.send(b"x")
        assert self.entered.wait(LONG)

    def round_trips(self, count: int = 1) -> None:
        for _ in range(count):
            self.far.send(b"x")
            self.runs.get(timeout=LONG)


# ------------------------------------------------------------------ what True means


def test_a_paused_watch_is_not_served_until_it_is_resumed(make_loop, joined, pair):
    """T36. Data comes while it is paused; the kernel is not even asked."""
    loop = make_loop()
    reader = Reader(loop, pair())
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
    reader = Reader(loop, pair())
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
    reader = Reader(loop, pair())
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
    reader = Reader(loop, pair())
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
    reader = Reader(loop, pair())
    beside = Reader(loop, pair())
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
    reader = Reader(loop, pair())
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
    idle = Reader(loop, pair())
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
    own = Reader(loop, pair())
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


# ------------------------------------------------------------------ what waits for the resume


def test_data_that_came_while_paused_is_delivered_once(make_loop, joined, pair):
    """T40. Nothing new arrives after the resume, and one run reads it all."""
    loop = make_loop()
    near, far = pair()
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    watch = loop.add(near, READ, lambda *_: runs.put(near.recv(100)))
    with joined(loop, 2):
        watch.pause()
        far.send(b"one ")
        far.send(b"two")
        wait_all_idle(loop)
        assert runs.empty()
        watch.resume()
        assert runs.get(timeout=LONG) == b"one two"
        wait_all_idle(loop)
        assert runs.empty()


@pytest.mark.race
def test_data_that_was_in_hand_when_its_watch_was_paused_and_resumed_is_delivered_once(make_loop, joined, pair):
    """T40. The event was polled before the pause and is looked up after the resume."""
    loop = make_loop()
    reader = Reader(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        with hold("poll.returned") as returned:
            reader.far.send(b"x")
            returned.wait_reached()
            reader.watch.pause()
            reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"x"
        wait_all_idle(loop)
        assert reader.runs.empty()
        reader.round_trips(3)


def test_a_paused_watch_whose_peer_closes_costs_nothing_and_hears_of_it_after_the_resume(make_loop, joined, pair):
    """T41. The kernel reports a hang-up whatever the mask: a paused descriptor must not be in it."""
    loop = make_loop()
    near, far = os.pipe()
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        watch.remove()

    beside = Reader(loop, pair())
    try:
        watch = loop.add(near, READ, handler)
        with joined(loop):
            watch.pause()
            os.close(far)
            assert not is_armed(near)
            beside.round_trips()
            before = loop.stats().polls
            beside.round_trips(100)
            assert loop.stats().polls - before <= 400
            assert calls.empty()
            watch.resume()
            assert calls.get(timeout=LONG) & mh.Events.HANGUP
    finally:
        os.close(near)


def test_a_watch_paused_before_anybody_joined_is_paused(make_loop, joined, pair):
    """T40. The flag does not need a thread."""
    loop = make_loop()
    reader = Reader(loop, pair())
    reader.far.send(b"x")
    assert reader.watch.pause() is True
    with joined(loop, 2):
        wait_all_idle(loop)
        assert reader.runs.empty()
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"x"


# ------------------------------------------------------------------ a flag, and what else may happen to a paused watch


def test_twice_paused_and_once_resumed_is_active(make_loop, joined, pair):
    """T42. It is a flag, no count."""
    loop = make_loop()
    reader = Reader(loop, pair())
    with joined(loop):
        assert reader.watch.pause() is True
        assert reader.watch.pause() is True
        reader.watch.resume()
        assert not reader.watch.paused
        reader.round_trips()


def test_resuming_an_active_watch_changes_nothing(make_loop, joined, pair):
    """T42. Not while it is idle, and not while its handler runs."""
    loop = make_loop(handover=0)
    reader = Reader(loop, pair())
    beside = Reader(loop, pair())
    with joined(loop, 2):
        reader.watch.resume()
        reader.round_trips()
        try:
            reader.enter()
            reader.far.send(b"y")
            reader.entered.clear()
            reader.watch.resume()
            beside.round_trips(10)
            assert not reader.entered.is_set()
        finally:
            reader.leave.set()
        assert [reader.runs.get(timeout=LONG), reader.runs.get(timeout=LONG)] == [b"x", b"y"]


def test_a_paused_watch_can_be_removed(make_loop, joined, pair):
    """T43. The final callback comes as for any other, and a resume afterwards wakes nothing."""
    loop = make_loop()
    near, far = pair()
    ended: queue.SimpleQueue[mh.RemovalReason] = queue.SimpleQueue()
    calls: list[int] = []
    watch = loop.add(near, READ, lambda *_: calls.append(1), on_removed=lambda watch, reason: ended.put(reason))
    with joined(loop):
        watch.pause()
        far.send(b"x")
        assert watch.remove() is True
        assert ended.get(timeout=LONG) is mh.RemovalReason.REMOVED
        with contextlib.suppress(mh.WatchRemoved):
            watch.resume()
        wait_all_idle(loop)
        assert not is_armed(near.fileno())
    assert calls == []


def test_a_mask_modified_while_paused_counts_at_the_resume(make_loop, joined, pair):
    """T43. The modification alone does not wake the watch, though what it asks for is there."""
    loop = make_loop()
    near, far = pair()
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        watch.remove()

    watch = loop.add(near, READ, handler)
    with joined(loop):
        watch.pause()
        far.send(b"x")
        watch.modify(WRITE)
        assert watch.events == WRITE
        assert watch.paused
        wait_all_idle(loop)
        assert calls.empty()
        assert not is_armed(near.fileno())
        watch.resume()
        assert calls.get(timeout=LONG) == WRITE


def test_a_paused_watch_is_still_paused_after_a_restart(make_loop, joined, pair):
    """T43. Stop and restart do not touch the flag, nor what came meanwhile."""
    loop = make_loop()
    reader = Reader(loop, pair())
    with joined(loop, 2):
        reader.watch.pause()
        assert loop.stop(LONG) is True
    loop.restart()
    reader.far.send(b"x")
    with joined(loop, 2):
        wait_all_idle(loop)
        assert reader.watch.paused
        assert reader.runs.empty()
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"x"


def test_an_event_that_a_stop_kept_back_does_not_reach_a_watch_paused_meanwhile(make_loop, joined, pair):
    """T43. It was ready when the loop stopped, and is paused when the loop is restarted."""
    loop = make_loop()
    reader = Reader(loop, pair())
    loop.request_stop()
    reader.far.send(b"x")
    loop.restart()
    assert reader.watch.pause() is True
    with joined(loop):
        wait_all_idle(loop)
        assert reader.runs.empty()
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"x"


def test_a_resume_from_another_thread_lets_the_waiting_pause_return(make_loop, joined, pair, spawn):
    """T44. The pause still waits for the handler when the watch is resumed; nothing is wedged afterwards."""
    loop = make_loop()
    reader = Reader(loop, pair())
    with joined(loop, 2):
        try:
            reader.enter()
            pausing = spawn(reader.watch.pause)
            wait_until(lambda: reader.watch.paused)
            reader.watch.resume()
            assert not reader.watch.paused
        finally:
            reader.leave.set()
        assert pausing.result() in {True, False}
        assert reader.runs.get(timeout=LONG) == b"x"
        reader.round_trips(3)
        assert reader.watch.pause() is True


def test_several_pauses_that_wait_all_return(make_loop, joined, pair, spawn):
    """T44. Each from a thread of its own; one handler's end releases them all."""
    loop = make_loop()
    reader = Reader(loop, pair())
    with joined(loop):
        try:
            reader.enter()
            pausing = [spawn(reader.watch.pause) for _ in range(4)]
            wait_until(lambda: reader.watch.paused)
        finally:
            reader.leave.set()
        assert [waiting.result() for waiting in pausing] == [True] * 4


@pytest.mark.race
def test_a_watch_paused_just_before_its_rearm_is_not_armed(make_loop, joined, pair, spawn):
    """T45. Its handler has ended and its thread is held before the kernel; there is more to read."""
    loop = make_loop()
    reader = Reader(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        with hold("watch.rearm") as rearming:
            reader.far.send(b"xy")
            rearming.wait_reached()
            pausing = spawn(reader.watch.pause)
            wait_until(lambda: reader.watch.paused)
        assert pausing.result() is True
        assert not is_armed(reader.watch.fd)
        assert reader.runs.get(timeout=LONG) == b"x"
        wait_all_idle(loop)
        assert reader.runs.empty()
        assert not is_armed(reader.watch.fd)
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"y"


@pytest.mark.race
def test_a_rearm_that_overtakes_a_pause_on_its_way_to_the_kernel_leaves_nothing_armed(make_loop, joined, pair, spawn):
    """T45. The pause is held after its word, the handler ends and its thread goes through the re-arm meanwhile."""
    loop = make_loop()
    reader = Reader(loop, pair())
    with joined(loop):
        try:
            reader.enter()
            with hold("pause.word") as pausing_point:
                pausing = spawn(reader.watch.pause)
                pausing_point.wait_reached()
                reader.leave.set()
                assert reader.runs.get(timeout=LONG) == b"x"
                wait_all_idle(loop)
        finally:
            reader.leave.set()
        assert pausing.result() is True
        assert not is_armed(reader.watch.fd)
        reader.watch.resume()
        reader.round_trips(3)


@pytest.mark.race
def test_a_resume_that_overtakes_a_pause_on_its_way_to_the_kernel_leaves_the_watch_served(
    make_loop, joined, pair, spawn
):
    """T45. The pause's late step in the kernel must not disarm what the resume has armed."""
    loop = make_loop()
    reader = Reader(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        with hold("pause.word") as pausing_point:
            pausing = spawn(reader.watch.pause)
            pausing_point.wait_reached()
            resuming = spawn(reader.watch.resume)
            wait_until(lambda: not reader.watch.paused)
        pausing.result()
        resuming.result()
        reader.round_trips(3)


@pytest.mark.race
@pytest.mark.parametrize("rearming", ["modify", "pause and resume"])
def test_a_pause_disarms_what_was_armed_while_an_event_was_in_hand(make_loop, joined, pair, rearming):
    """T45. The kernel reported and disarmed; the watch is armed anew before the report is looked up, then paused."""
    loop = make_loop()
    reader = Reader(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        with hold("strand.begin") as beginning:
            with hold("poll.returned") as returned:
                reader.far.send(b"x")
                returned.wait_reached()
                if rearming == "modify":
                    reader.watch.modify(READ)
                else:
                    reader.watch.pause()
                    reader.watch.resume()
            beginning.wait_reached()
            assert reader.watch.pause() is True
            assert not is_armed(reader.watch.fd)
        wait_all_idle(loop)
        assert reader.runs.empty()
        assert not is_armed(reader.watch.fd)
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"x"


def test_a_pause_that_gives_up_waiting_holds_for_what_comes(make_loop, joined, pair):
    """T46. The handler does not end in time: False; when it ends at last, nothing follows it."""
    loop = make_loop()
    reader = Reader(loop, pair())
    with joined(loop, 2):
        try:
            reader.enter()
            reader.far.send(b"y")
            assert reader.watch.pause(timeout=BRIEF) is False
            assert reader.watch.paused
        finally:
            reader.leave.set()
        assert reader.runs.get(timeout=LONG) == b"x"
        wait_all_idle(loop)
        assert reader.runs.empty()
        assert not is_armed(reader.watch.fd)
        assert reader.watch.pause(timeout=0) is True
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"y"


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_a_timeout_that_is_no_time_is_refused(make_loop, pair, timeout):
    """T46. At the call, and the watch stays active."""
    loop = make_loop()
    reader = Reader(loop, pair())
    with pytest.raises((ValueError, TypeError)):
        reader.watch.pause(timeout)
    assert not reader.watch.paused
