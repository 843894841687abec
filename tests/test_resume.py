"""Resume: what a paused watch has not forgotten, and what else may happen to it meanwhile."""

from __future__ import annotations

import contextlib
import os
import queue

import pytest

import manyhands as mh
from descriptors import is_armed
from manyhands.testing import hold, wait_all_idle
from readers import HeldReader
from support import LONG, wait_until
from turning import BRIEF

READ, WRITE = mh.Events.READ, mh.Events.WRITE


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
    reader = HeldReader(loop, pair())
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

    beside = HeldReader(loop, pair())
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
    reader = HeldReader(loop, pair())
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
    reader = HeldReader(loop, pair())
    with joined(loop):
        assert reader.watch.pause() is True
        assert reader.watch.pause() is True
        reader.watch.resume()
        assert not reader.watch.paused
        reader.round_trips()


def test_resuming_an_active_watch_changes_nothing(make_loop, joined, pair):
    """T42. Not while it is idle, and not while its handler runs."""
    loop = make_loop(handover=0)
    reader = HeldReader(loop, pair())
    beside = HeldReader(loop, pair())
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
    reader = HeldReader(loop, pair())
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
    reader = HeldReader(loop, pair())
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
    reader = HeldReader(loop, pair())
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
    reader = HeldReader(loop, pair())
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
    reader = HeldReader(loop, pair())
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
    reader = HeldReader(loop, pair())
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
    reader = HeldReader(loop, pair())
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
    reader = HeldReader(loop, pair())
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
    reader = HeldReader(loop, pair())
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
    reader = HeldReader(loop, pair())
    with pytest.raises((ValueError, TypeError)):
        reader.watch.pause(timeout)
    assert not reader.watch.paused
