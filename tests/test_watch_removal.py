"""Watches: what removal promises, and its final callback."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import pytest

import manyhands as mh
from descriptors import epoll_masks
from manyhands.testing import hold, wait_all_idle
from support import LONG, wait_until
from turning import BRIEF, Echo, nothing

READ, WRITE = mh.Events.READ, mh.Events.WRITE

Reason = mh.RemovalReason


def test_removing_an_idle_watch_returns_at_once_and_nothing_follows(make_loop, joined, pair):
    """T29. The descriptor becomes ready afterwards; the kernel does not know it any more."""
    loop = make_loop()
    near, far = pair()
    calls: list[int] = []
    watch = loop.add(near, READ, lambda *_: calls.append(1))
    with joined(loop):
        wait_all_idle(loop)
        assert watch.remove(timeout=0) is True
        assert epoll_masks(near.fileno()) == []
        far.send(b"x")
        wait_all_idle(loop)
    assert calls == []


def test_a_removal_waits_for_the_handler_that_is_inside(make_loop, joined, pair, spawn):
    """T29. A look says False, a wait lasts until the handler has ended, and no other run follows."""
    loop = make_loop()
    near, far = pair()
    entered, leave, returned = threading.Event(), threading.Event(), threading.Event()
    runs: list[str] = []

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        runs.append("entered")
        entered.set()
        leave.wait(LONG)
        runs.append("ended")

    def remove() -> tuple[bool, list[str]]:
        answer = watch.remove()
        seen = list(runs)
        returned.set()
        return answer, seen

    watch = loop.add(near, READ, handler)
    with joined(loop, 2):
        try:
            far.send(b"x")
            assert entered.wait(LONG)
            assert watch.remove(timeout=0) is False
            assert watch.removed
            removing = spawn(remove)
            assert not returned.wait(BRIEF)
        finally:
            leave.set()
        assert removing.result() == (True, ["entered", "ended"])
        far.send(b"x")
        wait_all_idle(loop)
    assert runs == ["entered", "ended"]


@pytest.mark.race
@pytest.mark.parametrize("point", ["poll.returned", "strand.begin"])
def test_a_watch_removed_between_its_event_and_its_handler_never_runs(make_loop, joined, pair, point):
    """T29. The event was polled, its thread is held on the way to the handler: nobody is inside."""
    loop = make_loop()
    near, far = pair()
    calls: list[int] = []
    watch = loop.add(near, READ, lambda *_: calls.append(1))
    with joined(loop):
        wait_all_idle(loop)
        with hold(point) as held:
            far.send(b"x")
            held.wait_reached()
            assert watch.remove(timeout=LONG) is True
        wait_all_idle(loop)
    assert calls == []
    assert epoll_masks(near.fileno()) == []


@pytest.mark.race
def test_a_removal_waits_for_a_handler_that_is_about_to_be_entered(make_loop, joined, pair, spawn):
    """T29. It is counted as running and held before the user's code: True may not come before it has ended."""
    loop = make_loop()
    near, far = pair()
    runs: list[str] = []
    returned = threading.Event()

    def remove() -> tuple[bool, list[str]]:
        answer = watch.remove()
        seen = list(runs)
        returned.set()
        return answer, seen

    watch = loop.add(near, READ, lambda *_: runs.append("ran"))
    with joined(loop):
        wait_all_idle(loop)
        with hold("watch.dispatch") as dispatching:
            far.send(b"x")
            dispatching.wait_reached()
            assert watch.remove(timeout=0) is False
            removing = spawn(remove)
            assert not returned.wait(BRIEF)
        assert removing.result() == (True, ["ran"])
        wait_all_idle(loop)
    assert runs == ["ran"]


@pytest.mark.race
def test_a_watch_that_fires_while_its_removal_is_on_the_way_to_the_kernel_never_runs(make_loop, joined, pair, spawn):
    """T29. The word says removed, the kernel is still armed and reports."""
    loop = make_loop()
    near, far = pair()
    calls: list[int] = []
    watch = loop.add(near, READ, lambda *_: calls.append(1))
    beside = Echo(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        with hold("remove.word") as removing_point:
            removing = spawn(watch.remove)
            removing_point.wait_reached()
            far.send(b"x")
            beside.round_trips(3)
        assert removing.result() is True
        wait_all_idle(loop)
        assert epoll_masks(near.fileno()) == []
    assert calls == []


@pytest.mark.race
def test_a_watch_removed_just_before_its_rearm_is_not_armed_again(make_loop, joined, pair, spawn):
    """T29. Its handler has ended and did not read: an armed descriptor would report at once."""
    loop = make_loop()
    near, far = pair()
    calls: list[int] = []
    watch = loop.add(near, READ, lambda *_: calls.append(1))
    with joined(loop):
        wait_all_idle(loop)
        with hold("watch.rearm") as rearming:
            far.send(b"x")
            rearming.wait_reached()
            removing = spawn(watch.remove)
            wait_until(lambda: watch.removed)
        assert removing.result() is True
        wait_all_idle(loop)
        assert epoll_masks(near.fileno()) == []
    assert calls == [1]


def test_the_final_callback_runs_once_after_the_last_handler_ended(make_loop, joined, pair):
    """T30. Those given to `add` and to each `remove` all run, each once, on a joined thread."""
    loop = make_loop(handover=0)
    near, far = pair()
    entered, leave = threading.Event(), threading.Event()
    order: queue.SimpleQueue[str] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        entered.set()
        leave.wait(LONG)
        order.put("handler ended")

    def final(name: str) -> Callable[[mh.Watch, mh.RemovalReason], None]:
        def on_removed(seen: mh.Watch, reason: mh.RemovalReason) -> None:
            assert seen is watch
            order.put(f"{name} {reason.name} {threading.current_thread() in threads}")

        return on_removed

    watch = loop.add(near, READ, handler, on_removed=final("add"))
    with joined(loop, 4) as threads:
        try:
            far.send(b"x")
            assert entered.wait(LONG)
            assert watch.remove(on_removed=final("first"), timeout=0) is False
            assert watch.remove(on_removed=final("second"), timeout=0) is False
            assert order.empty()
        finally:
            leave.set()
        assert order.get(timeout=LONG) == "handler ended"
        owed = {order.get(timeout=LONG) for _ in range(3)}
        assert owed == {"add REMOVED True", "first REMOVED True", "second REMOVED True"}
        assert watch.remove() is True
        wait_all_idle(loop)
        assert order.empty()


def test_the_final_callback_runs_under_no_lock(make_loop, joined, pair):
    """T30. It adds the same number again, removes it, posts, looks, and asks another thread to do so meanwhile."""
    loop = make_loop()
    near, _ = pair()
    done: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def on_removed(watch: mh.Watch, reason: mh.RemovalReason) -> None:
        again = loop.add(near, READ, nothing)
        helper = threading.Thread(target=lambda: (loop.dump(), loop.stats(), again.pause(0), again.remove()))
        helper.start()
        helper.join(LONG)
        loop.post(nothing)
        watch.remove()
        done.put(not helper.is_alive() and again.removed)

    watch = loop.add(near, READ, nothing)
    with joined(loop):
        watch.remove(on_removed=on_removed)
        assert done.get(timeout=LONG) is True


def test_a_removal_with_nobody_joined_returns_at_once_and_owes_its_callback(make_loop, pair):
    """T30. The next thread that serves the loop runs it."""
    loop = make_loop()
    near, _ = pair()
    ended: list[mh.RemovalReason] = []
    watch = loop.add(near, READ, nothing)
    assert watch.remove(on_removed=lambda watch, reason: ended.append(reason)) is True
    assert ended == []
    loop.run_ready()
    assert ended == [Reason.REMOVED]
    loop.run_ready()
    assert ended == [Reason.REMOVED]


def test_closing_the_loop_runs_the_final_callbacks_that_are_owed(make_loop, pair):
    """T30. Of a watch that was alive, and of one removed with nobody joined; on the closing thread."""
    loop = make_loop()
    (alive, _), (removed, _) = pair(), pair()
    ended: list[tuple[mh.Watch, mh.RemovalReason, threading.Thread]] = []

    def on_removed(watch: mh.Watch, reason: mh.RemovalReason) -> None:
        ended.append((watch, reason, threading.current_thread()))

    first = loop.add(alive, READ, nothing, on_removed=on_removed)
    second = loop.add(removed, READ, nothing, on_removed=on_removed)
    second.remove()
    loop.close()
    here = threading.current_thread()
    assert sorted(ended, key=lambda owed: owed[0] is first) == [
        (second, Reason.REMOVED, here),
        (first, Reason.LOOP_CLOSED, here),
    ]
    assert first.removed
    loop.close()
    assert len(ended) == 2


def test_a_final_callback_of_a_watch_on_a_shared_strand_keeps_its_turn(make_loop, joined, pair):
    """T30. It is an item of that strand: never beside a message of it."""
    loop = make_loop(handover=0)
    near, _ = pair()
    strand = loop.strand()
    entered, leave = threading.Event(), threading.Event()
    order: queue.SimpleQueue[str] = queue.SimpleQueue()

    def message() -> None:
        entered.set()
        leave.wait(LONG)
        order.put("message")

    watch = loop.add(near, READ, nothing, strand=strand, on_removed=lambda *_: order.put("removed"))
    assert watch.strand is strand
    beside = Echo(loop, pair())
    with joined(loop, 2):
        try:
            strand.post(message)
            assert entered.wait(LONG)
            assert watch.remove(timeout=0) is True
            beside.round_trips(10)
            assert order.empty()
        finally:
            leave.set()
        assert [order.get(timeout=LONG), order.get(timeout=LONG)] == ["message", "removed"]
        assert strand.state is mh.StrandState.ACTIVE


def test_a_watch_can_remove_itself_in_its_handler(make_loop, joined, pair):
    """T31. The call returns True at once, the handler goes on to its end, and only the final callback follows."""
    loop = make_loop()
    near, far = pair()
    order: queue.SimpleQueue[object] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        order.put(watch.remove(on_removed=lambda watch, reason: order.put(reason)))
        order.put(watch.removed)
        order.put("ended")

    loop.add(near, READ, handler)
    far.send(b"nobody reads this")
    with joined(loop, 2):
        seen = [order.get(timeout=LONG) for _ in range(4)]
        far.send(b"x")
        wait_all_idle(loop)
        assert order.empty()
    assert seen == [True, True, "ended", Reason.REMOVED]
    assert loop.get(near.fileno()) is None
