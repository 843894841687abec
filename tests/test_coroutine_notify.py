"""Pooled coroutines that wait for an event or for a condition."""

from __future__ import annotations

import pickle
from unittest import mock

import pytest

from coroutining import HandService
from gate import Gate
from manyhands.coroutines import (
    TIMEOUT,
    CoroutinePool,
    notify,
    running,
    task_local,
    wait,
    wait_until,
)
from support import wait_until as until

# ---------------------------------------------------------------------------------------------------------------- notify


def test_a_notify_of_the_event_ends_the_wait_with_its_values(drive, form):
    """T78. True, and the tuple of values at once, not at the timeout; no value is an empty tuple."""
    with drive() as it:

        def body():
            it.note((yield wait("event", 100)))
            it.note((yield it.pool.wait(("any", 1), 100)))

        task_id = it.pool.work(form(body))
        it.settle()
        it.advance(1)
        assert it.pool.notify(task_id, "event", 0, 4455667788) is True
        it.settle()
        assert it.pool.notify(int(task_id), ("any", 1)) is True
        it.settle()
        assert it.seen == [(1, (0, 4455667788)), (1, ())]
        assert it.advance(200) == []


def test_a_notify_that_nobody_waits_for_is_false_and_has_no_effect(drive, form):
    """T78. Wrong event, no event, unknown, another pool's, finished, not begun, running, self: False, and the wait goes on."""
    with drive() as it:
        other = CoroutinePool(time_service=HandService())

        def body():
            it.note(it.pool.notify(running(), "event"), notify(running(), "event"))
            it.note((yield wait(1)))
            it.note((yield wait("event", 10)))

        ended = it.pool.work(it.note, "ended")
        task_id = it.pool.work(form(body))
        it.settle()
        assert (0, False, False) in it.seen
        assert not it.pool.notify(task_id, "event")  # waits for no event
        assert not it.pool.notify(task_id, None)
        assert not it.pool.notify(task_id, mock.ANY)
        assert it.advance(1) == [(1, 0)]
        assert not it.pool.notify(task_id, "other")
        assert not it.pool.notify(ended, "event")
        assert not it.pool.notify(12345, "event")
        assert not it.pool.notify(0, "event")
        assert not it.pool.notify(-1, "event")
        assert not other.notify(task_id, "event")
        assert not it.pool.notify(other.work(print), "event")
        other.close()
        with pytest.raises(TypeError):
            it.pool.notify("1", "event")
        assert it.advance(10) == [(11, TIMEOUT)]


def test_the_same_number_of_another_pool_is_another_coroutine(drive, form):
    """T78. Two pools, both with a coroutine 1 that waits for the same event: the id of one reaches nobody in the other."""
    with drive() as it, drive() as other:

        def body(seen):
            seen((yield wait("event", 10)))

        ours, theirs = it.pool.work(form(body), it.note), other.pool.work(form(body), other.note)
        it.settle()
        other.settle()
        assert ours == theirs == 1
        assert not it.pool.notify(theirs, "event")
        assert notify(theirs, "event", "theirs")
        assert it.pool.notify(ours, "event", "ours")
        assert (it.settle(), other.settle()) == ([(0, ("ours",))], [(0, ("theirs",))])


def test_a_notify_of_one_that_runs_or_has_not_begun_is_false(loop, joined):
    """T78. The one thread is inside a coroutine: it cannot be notified, nor can the one behind it. Early notifies are lost."""
    pool = CoroutinePool(loop)
    results = []

    async def behind():
        results.append(await wait("event", 0))

    with joined(loop), Gate() as gate:

        async def inside():
            gate()
            results.append(await wait("event", 0))

        first, second = pool.work(inside), pool.work(behind)
        gate.wait_entered()
        assert not pool.notify(first, "event", "early")
        assert not pool.notify(second, "event", "early")
        gate.open()
        until(lambda: pool.stats().alive == 0)
    assert results == [TIMEOUT, TIMEOUT]


def test_nobody_is_resumed_inside_notify(drive, form):
    """T78. What the notified coroutine does comes after the notify has returned, also from within a coroutine."""
    with drive() as it:

        def waiter():
            it.note((yield wait("event", 10)))

        waiting = it.pool.work(form(waiter))
        it.settle()
        with Gate() as gate:

            def notifier():
                it.note(it.pool.notify(waiting, "event", 1))
                it.note("after")
                return
                yield

            it.pool.work(form(notifier))
            gate.open()
        it.settle()
        if it.threads < 2:  # on several the waiter may overtake the note, not the notify
            assert [what for _, what in it.seen] == [True, "after", (1,)]
        assert sorted(map(str, (what for _, what in it.seen))) == ["(1,)", "True", "after"]


def test_the_function_notify_finds_the_pool_by_the_id(drive, form):
    """T78. From anywhere with a TaskId; a plain number only inside a coroutine, which is of the same pool."""
    with drive() as it:

        def body():
            it.note((yield wait("event", 10)))

        first, second = it.pool.work(form(body)), it.pool.work(form(body))
        it.settle()
        assert notify(first, "event", 1)
        it.settle()
        with pytest.raises(RuntimeError, match="of which pool"):
            notify(int(second), "event")
        it.pool.work(lambda: it.note(notify(int(second), "event", 2)))
        it.settle()
        assert sorted(str(what) for _, what in it.seen) == ["(1,)", "(2,)", "True"]
        assert not notify(first, "event")


def test_events_are_compared_by_equality_and_may_be_anything(drive, form):
    """T78. Lists, tuples and one that compares as it likes; one whose `==` raises raises in notify and ends no wait."""
    with drive() as it:

        class Unfriendly:
            def __eq__(self, other):
                raise LookupError

            __hash__ = None

        def body(event):
            it.note((yield wait(event, 10)))

        listed, unfriendly = it.pool.work(form(body), [1, 2]), it.pool.work(form(body), Unfriendly())
        it.settle()
        with pytest.raises(LookupError):
            it.pool.notify(unfriendly, "event")
        assert it.pool.notify(listed, [1, 2], "list")
        assert it.settle() == [(0, ("list",))]
        assert it.advance(10) == [(10, TIMEOUT)]


def test_a_late_notify_reaches_nobody(drive, form):
    """T79. 30 coroutines one after the other in one place: 30 ids, and a notify to the first never wakes a later one."""
    with drive(limit=1, grow_by=1) as it:

        def body():
            it.note((yield wait("event", 1)))

        ids = []
        for _ in range(30):
            ids.append(it.pool.work(form(body)))
            it.settle()
            assert [it.pool.notify(old, "event", "late") for old in ids[:-1]] == [False] * (len(ids) - 1)
            it.advance(1)
        assert len(set(ids)) == 30
        assert [what for _, what in it.seen] == [TIMEOUT] * 30
        assert it.pool.stats().slots == 1


def test_an_id_is_a_number_that_can_be_sent_away():
    """T79. It prints as a number, and as a number it comes out of pickle."""
    pool = CoroutinePool(time_service=HandService())
    first, second = pool.work(print), pool.work(print)
    assert (str(first), second - first) == ("1", 1)
    assert pickle.loads(pickle.dumps(second)) == 2
    pool.close()


# ------------------------------------------------------------------------------------------------------------ wait_until


def test_wait_until_ends_soon_after_the_condition_holds(drive, form):
    """T82. True from 5.004 s on: it is seen at 5.01 s, with an interval of 10 ms, and what the condition gave is the result."""
    with drive() as it:

        def body():
            it.note((yield wait_until(lambda: "yes" if it.now() >= 5.004 else "")))

        it.pool.work(form(body))
        it.settle()
        it.advance(5)
        assert it.seen == []
        it.advance(0.02, step=0.001)
        ((when, what),) = it.seen
        assert what == "yes" and 5.004 <= when <= 5.0151


def test_wait_until_asks_a_bounded_number_of_times(drive, form):
    """T82. 0.2 s by 1 ms steps, interval 10 ms, with a notify delivered at each step: at most 2 x (1 + 20) evaluations."""
    with drive() as it:
        asked = []

        def watcher():
            yield it.pool.wait_until(lambda: asked.append(it.now()) or len(asked) < 0)

        def notified():
            while True:
                yield wait("event", 100)

        it.pool.work(form(watcher))
        other = it.pool.work(form(notified))
        it.settle()
        delivered = 0
        for _ in range(200):
            delivered += it.pool.notify(other, "event")
            it.advance(0.001)
        assert delivered == 200
        assert 20 <= len(asked) <= 42


def test_wait_until_is_asked_when_a_notify_is_delivered_and_when_a_coroutine_ends(drive, form):
    """T82. With an interval of 100 s the clock need not move at all."""
    with drive() as it:
        facts = set()

        def watcher(fact):
            yield wait_until(lambda: fact in facts, interval=100)
            it.note(fact)

        def notified():
            yield wait("event", 100)
            yield wait("never", 100)

        def ends():
            facts.add("ended")
            return
            yield

        it.pool.work(form(watcher), "notified")
        other = it.pool.work(form(notified))
        it.settle()
        facts.add("notified")
        assert it.pool.notify(other, "event")
        assert it.settle() == [(0, "notified")]

        it.pool.work(form(watcher), "ended")
        it.settle()
        it.pool.work(form(ends))
        it.settle()
        assert it.seen[1:] == [(0, "ended")]


def test_a_condition_that_holds_at_once_lets_others_run_all_the_same(loop):
    """T82. A loop of true conditions, on one thread: another coroutine comes in between."""
    pool = CoroutinePool(loop)
    order = []

    async def eager():
        for number in range(100):
            await wait_until(lambda: True)
            order.append(number)

    pool.work(eager)
    pool.work(order.append, "other")
    loop.join(until_idle=True)
    assert order.index("other") < 90
    assert len(order) == 101


def test_what_a_condition_raises_is_raised_by_the_wait(drive, form):
    """T82. It can be caught there, and the coroutine goes on; the condition sees `running` and `task_local`."""
    with drive() as it:

        def condition():
            it.note(running(), task_local.get("key"))
            raise LookupError

        def body():
            task_local.set("key", 5)
            with pytest.raises(LookupError):
                yield wait_until(condition)
            it.note((yield wait(1)))

        task_id = it.pool.work(form(body))
        it.settle()
        it.advance(1)
        assert it.seen == [(0, task_id, 5), (1, 0)]
