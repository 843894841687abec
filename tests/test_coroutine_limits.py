"""What a pool of coroutines has: places, slots, storages, contexts."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import threading
import weakref

import pytest

import manyhands as mh
from coroutining import HandService
from manyhands.coroutines import (
    CoroutinePool,
    running,
    task_local,
    wait,
)
from support import LONG

# ------------------------------------------------------------------------------------------------------- growing, limits


def test_the_pool_grows_by_steps_to_its_limit_and_refuses_what_is_more(drive, form):
    """T80. grow_by=10, limit=25: 10 slots after 1 and 10 coroutines, 20 after 11, 25 after 21 and 25; the 26th is refused."""
    with drive(grow_by=10, limit=25) as it:

        def body():
            yield wait("go", 100)

        slots = []
        ids = []
        for _ in range(25):
            ids.append(it.pool.work(form(body)))
            stats = it.pool.stats()
            slots.append(stats.slots)
            assert stats.alive == len(ids)
        assert slots == [10] * 10 + [20] * 10 + [25] * 5
        with pytest.raises(mh.QueueFull) as refused:
            it.pool.work(form(body))
        assert refused.value.limit == 25
        assert it.pool.stats().started == 25

        it.settle()
        assert it.pool.notify(ids[7], "go")
        it.settle()
        assert it.pool.work(form(body)) not in ids
        it.settle()


def test_idle_slots_are_trimmed_and_reused(drive, form):
    """T80. 20 coroutines at once with idle_limit=5: 5 slots are left; initial=8 makes 8 before anything is asked for."""
    with drive(grow_by=3, limit=20, idle_limit=5) as it:

        def body():
            yield wait(1)

        for _ in range(20):
            it.pool.work(form(body))
        it.settle()
        assert it.pool.stats().slots == 20
        it.advance(1)
        assert it.pool.stats().idle == 5
        before = {id(slot) for slot in it.pool._roster._idle}
        it.pool.work(form(body))
        it.settle()
        assert it.pool.stats().idle == 4
        assert {id(slot) for slot in it.pool._roster._idle} < before
        assert it.pool.stats().started == 21
        it.advance(1)
        assert it.pool.stats().idle == 5
    with drive(initial=8, idle_limit=5) as it:
        assert it.pool.stats().idle == 8
        for _ in range(8):
            it.pool.work(it.note)
        it.settle()
        assert it.pool.stats().idle == 5


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"limit": 0}, ValueError),
        ({"grow_by": 0}, ValueError),
        ({"idle_limit": -1}, ValueError),
        ({"initial": -1}, ValueError),
        ({"initial": 11, "limit": 10}, ValueError),
        ({"limit": 1.5}, TypeError),
        ({"limit": True}, TypeError),
        ({"limit": None}, TypeError),
        ({"logger": print}, TypeError),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, error):
    """T80. Each names what was expected."""
    with pytest.raises(error):
        CoroutinePool(time_service=HandService(), **options)


def test_a_pool_needs_one_driver(loop):
    """T80. A loop or a time service: TypeError for neither, for both, and for what is none; LoopClosed for a closed loop."""
    for options in (
        {},
        {"loop": loop, "time_service": HandService()},
        {"loop": HandService()},
        {"time_service": loop},
        {"time_service": object()},
    ):
        with pytest.raises(TypeError):
            CoroutinePool(**options)
    with pytest.raises(TypeError):
        CoroutinePool(loop).work(5)
    loop.close()
    with pytest.raises(mh.LoopClosed):
        CoroutinePool(loop)


@pytest.mark.race
def test_four_threads_that_give_work_fill_the_limit_exactly(make_loop, spawn):
    """T80. 4 x 300 calls of `work` at once, limit=1000: exactly 1,000 are taken, 200 refused, all ids differ."""
    pool = CoroutinePool(make_loop(), limit=1000, grow_by=7)
    barrier = threading.Barrier(4)

    def give():
        taken = []
        barrier.wait(LONG)
        for _ in range(300):
            with contextlib.suppress(mh.QueueFull):
                taken.append(pool.work(print))
        return taken

    calls = [spawn(give) for _ in range(4)]
    ids = [task_id for call in calls for task_id in call.result()]
    assert len(ids) == len(set(ids)) == 1000
    assert pool.stats().alive == 1000


# ------------------------------------------------------------------------------------------------------------ task-local


def test_the_storage_is_empty_at_the_start_and_seen_by_no_other(drive, form):
    """T81. Two coroutines in turn in one slot, and three at once, set the same key: each sees its own, and first nothing."""
    with drive(grow_by=1, idle_limit=1) as it:

        def body(name):
            assert task_local.get("key") is None
            assert it.pool.task_local.get("key", "default") == "default"
            task_local.set("key", name)
            yield wait(1)
            it.note(task_local.get("key"))

        for name in "abc":
            it.pool.work(form(body), name)
        it.settle()
        it.advance(1)
        it.pool.work(form(body), "d")
        it.settle()
        it.advance(1)
        assert sorted(what for _, what in it.seen) == ["a", "b", "c", "d"]


def test_what_was_stored_is_let_go_when_the_coroutine_ends(drive):
    """T81. A slot that waits for its next coroutine keeps nothing of the last one alive."""
    with drive() as it:

        class Big:
            pass

        kept = []

        def body():
            big = Big()
            kept.append(weakref.ref(big))
            task_local.set("big", big)

        it.pool.work(body)
        it.settle()
        gc.collect()
        assert kept[0]() is None
        assert it.pool.stats().idle > 0


def test_outside_a_coroutine_nobody_runs_and_nothing_is_stored(drive):
    """T81. RuntimeError for `running`, `get` and `set`; also in a message of the loop beside the pool."""
    with drive() as it:
        for call in (running, it.pool.running, lambda: task_local.get("x"), lambda: task_local.set("x", 1)):
            with pytest.raises(RuntimeError, match="no pooled coroutine"):
                call()


def test_the_context_of_the_caller_is_copied(drive, form):
    """T81. A contextvar is as it was at `work`, what the coroutine sets stays set across waits, and nobody else sees it."""
    name = contextvars.ContextVar("name", default="nobody")
    with drive() as it:

        def body():
            it.note(name.get())
            name.set(name.get() * 2)
            yield wait(1)
            it.note(name.get())

        def give(value):
            name.set(value)
            it.pool.work(form(body))

        for value in ("a", "b"):
            contextvars.copy_context().run(give, value)
        it.settle()
        it.advance(1)
        assert sorted(what for _, what in it.seen) == ["a", "aa", "b", "bb"]
        assert name.get() == "nobody"
