"""The end of a pool of coroutines, of its coroutines and of its loop."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

import manyhands as mh
from coroutining import FORMS
from manyhands.coroutines import (
    CoroutinePool,
    running,
    wait,
    wait_until,
)
from manyhands.testing import wait_all_idle
from support import LONG
from support import wait_until as until


def test_close_runs_the_cleanup_of_each_and_refuses_work(drive, form):
    """T80. Waits for a time, an event, a condition: GeneratorExit in each, on its strand, with its id; then PoolFinished."""
    with drive() as it:

        def body(request):
            try:
                yield request
            finally:
                it.note(running())

        requests = [wait(100), wait("event", None), wait_until(lambda: False)]
        ids = [it.pool.work(form(body), request) for request in requests]
        it.settle()
        it.pool.close()
        it.pool.close()
        assert it.pool.closed
        with pytest.raises(mh.PoolFinished):
            it.pool.work(it.note)
        it.settle()
        assert sorted(what for _, what in it.seen) == sorted(ids)
        assert [it.pool.notify(task_id, "event") for task_id in ids] == [False] * 3
        assert it.pool.stats().alive == it.pool.stats().slots == 0
        assert it.advance(200) == []


def test_what_had_not_begun_never_does(loop):
    """T80. Given and closed before anybody turned the loop: the function does not run, its arguments are let go."""
    pool = CoroutinePool(loop)

    class Argument:
        pass

    argument = Argument()
    known = weakref.ref(argument)
    ran = []
    pool.work(ran.append, argument)
    del argument
    pool.close()
    loop.join(until_idle=True)
    gc.collect()
    assert ran == []
    assert known() is None


def test_a_coroutine_may_close_its_own_pool(drive, form):
    """T80. It runs on to its next wait, where it is closed."""
    with drive() as it:

        def body():
            it.pool.close()
            it.note("after")
            try:
                yield wait(1)
            except GeneratorExit:
                it.note("closed")
                raise

        it.pool.work(form(body))
        it.settle()
        assert it.seen == [(0, "after"), (0, "closed")]


def test_a_cleanup_that_waits_or_raises_is_logged(drive, logged):
    """T80. RuntimeError (it ignored GeneratorExit) and what was raised, one record each; both have ended."""
    second = wait(1)
    second.take()  # or it would say that nobody waits for it, which is so
    with drive() as it:

        def waits():
            try:
                yield wait(1)
            finally:
                yield second

        def raises():
            try:
                yield wait(1)
            finally:
                raise LookupError

        it.pool.work(waits)
        it.pool.work(raises)
        it.settle()
        it.pool.close()
        it.settle()
        assert {record.exc_info[0] for record in logged.records} == {RuntimeError, LookupError}
        assert it.pool.stats().alive == 0
        logged.clear()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_closing_the_loop_closes_the_coroutines(make_loop, form):
    """T80. Cleanup runs on the closing thread, once; what comes after is refused with LoopClosed or is False."""
    loop = make_loop()
    pool = CoroutinePool(loop)
    cleaned = []

    def body():
        try:
            yield wait("event", 100)
        finally:
            cleaned.append(threading.get_ident())

    task_id = pool.work(form(body))
    loop.run_ready()
    begun_never = pool.work(form(body))
    loop.close()
    assert cleaned == [threading.get_ident()]
    assert pool.closed
    assert not pool.notify(task_id, "event")
    assert not pool.notify(begun_never, "event")
    with pytest.raises(mh.PoolFinished):
        pool.work(print)
    pool.close()


def test_a_loop_that_is_closed_after_the_pool_was_finishes_what_nobody_ran(make_loop):
    """T80. `pool.close()` with nobody joined, then `loop.close()`: the cleanup runs there."""
    loop = make_loop()
    pool = CoroutinePool(loop)
    cleaned = []

    async def body():
        try:
            await wait(100)
        finally:
            cleaned.append(1)

    pool.work(body)
    loop.run_ready()
    pool.close()
    assert cleaned == []
    loop.close()
    assert cleaned == [1]


def test_a_pool_that_nobody_has_is_collected(make_loop):
    """T80. With coroutines that wait for ever: both go, the loop forgets the pool, the cleanup runs."""
    loop = make_loop()
    pool = CoroutinePool(loop)
    cleaned = []

    async def body():
        try:
            await wait("event", None)
        finally:
            cleaned.append(1)

    pool.work(body)
    loop.run_ready()
    known = weakref.ref(pool)
    before = len(loop._ends)
    del pool
    until(lambda: gc.collect() is not None and known() is None and cleaned)
    assert cleaned == [1]
    assert len(loop._ends) == before - 1


@pytest.mark.race
def test_work_races_close_and_every_coroutine_ends(make_loop, joined, spawn):
    """T80. 30 rounds, two threads give work while a third closes: what was taken has ended, what was not was refused."""
    loop = make_loop()
    with joined(loop, 2):
        for _ in range(30):
            pool = CoroutinePool(loop)
            barrier = threading.Barrier(3)

            async def body():
                await wait("event", None)

            def give(pool=pool, barrier=barrier, body=body):
                barrier.wait(LONG)
                taken = 0
                try:
                    for _ in range(50):
                        pool.work(body)
                        taken += 1
                except mh.PoolFinished:
                    pass
                return taken

            def end(pool=pool, barrier=barrier):
                barrier.wait(LONG)
                pool.close()

            calls = [spawn(give), spawn(give), spawn(end)]
            taken = sum(call.result() for call in calls[:2])
            calls[2].result()
            until(lambda pool=pool: pool.stats().alive == 0)
            assert pool.stats().started >= taken
    wait_all_idle(loop)


def test_a_million_timeouts_that_are_notified_leave_nothing(loop_at):
    """T80. 2,000 waits of 1,000 s, each notified: no timer is left, and the pool has what it had."""
    loop, _ = loop_at
    pool = CoroutinePool(loop)

    async def body():
        for _ in range(2000):
            await wait("event", 1000)

    task_id = pool.work(body)
    while loop.run_ready():
        pool.notify(task_id, "event")
    assert pool.stats().alive == 0
    assert loop.stats().timers == 0
