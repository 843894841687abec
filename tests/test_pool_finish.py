"""How a pool ends: finish, destroy, shutdown, the with block."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time

import pytest

import manyhands as mh
from gate import Gate
from pooling import Deliberate, F, S, Stoppable, occupied, outcome
from support import LONG, wait_until

POOL_FINISHING = mh.StopReason.POOL_FINISHING


@pytest.mark.parametrize("queued", range(4))
@pytest.mark.parametrize("done", range(4))
def test_finish_stops_the_queued_asks_the_running_and_leaves_the_done(make_pool, loop, queued, done):
    """T65. k queued are STOPPED and cleaned up, m done can still be reaped; it returns while a job still runs."""
    pool = make_pool(1)
    strand = loop.strand()
    cleaned: list[int] = []
    ended = [pool.enqueue(int, owner=strand) for _ in range(done)]
    concurrent.futures.wait(ended, LONG)
    with occupied(pool) as (running,):
        waiting = [pool.enqueue(fail_to_run, cleanup=lambda job: cleaned.append(job.id)) for _ in range(queued)]
        pool.finish()
        assert [job.status for job in waiting] == [S] * queued
        assert [outcome(job, 0) for job in waiting] == [("aborted", POOL_FINISHING)] * queued
        assert (running.stop_requested, running.reason) == (True, POOL_FINISHING)
        with pytest.raises(mh.PoolFinished) as refused:
            pool.enqueue(int)
        assert refused.value.pool == "pool"
        assert isinstance(refused.value, RuntimeError)
        with pytest.raises(RuntimeError):
            pool.submit(int)
    assert outcome(running) == ("returned", None)
    assert [job.reap() for job in ended] == [F] * done
    assert pool.destroy(LONG) == []
    assert sorted(cleaned) == [job.id for job in waiting]
    assert pool.finished


def fail_to_run() -> None:
    raise AssertionError("a queued job ran after finish()")


def test_finish_twice_is_harmless(make_pool):
    """T65. And so is destroy() twice, from whatever thread."""
    pool = make_pool(1)
    pool.enqueue(int).result(LONG)
    pool.finish()
    pool.finish()
    assert pool.destroy(LONG) == []
    assert pool.destroy(LONG) == []
    pool.shutdown()


def test_destroy_says_who_is_left_and_returns(make_pool, caplog):
    """T65. A job that never checks in is given back as a snapshot, and logged with its name and its stack."""
    pool = make_pool(2, name="mill")
    with Gate() as gate, caplog.at_level(logging.WARNING, "manyhands.pool"):

        def a_stubborn_function() -> None:
            gate()

        stubborn = pool.enqueue(a_stubborn_function, name="stubborn")
        willing = Stoppable()
        other = pool.enqueue(willing)
        gate.wait_entered()
        willing.wait_entered()
        started = time.monotonic()
        (left,) = pool.destroy(timeout=0.05)
        assert time.monotonic() - started < LONG / 2
        assert (left.id, left.name, left.status, left.reason) == (
            stubborn.id,
            "stubborn",
            mh.JobStatus.STOPPING,
            POOL_FINISHING,
        )
        assert left.thread.startswith("mh-mill-")
        assert outcome(other) == ("aborted", POOL_FINISHING)
        assert "stubborn" in caplog.text
        assert "a_stubborn_function" in caplog.text
    assert pool.destroy(LONG) == []


@pytest.mark.parametrize("call", ["destroy", "shutdown"])
def test_a_lent_thread_must_not_wait_for_a_pool(make_pool, loop, joined, call):
    """T75b. destroy() and shutdown() in a job, of this pool or another, and in a handler: WouldDeadlock, not a hang."""
    pool, other = make_pool(1), make_pool(1)
    seen = [
        type(job.exception(LONG)) for job in (pool.enqueue(getattr(pool, call)), other.enqueue(getattr(pool, call)))
    ]
    with joined(loop, 1):
        came = threading.Event()

        def handler() -> None:
            try:
                getattr(pool, call)()
            except mh.WouldDeadlock as error:
                seen.append(type(error))
            came.set()

        loop.post(handler)
        assert came.wait(LONG)
    assert seen == [mh.WouldDeadlock] * 3


def test_shutdown_without_waiting_is_allowed_in_a_job(make_pool):
    """T71. It only says that nothing more is taken; what is queued still runs."""
    pool = make_pool(1)
    with occupied(pool):
        closing = pool.enqueue(pool.shutdown, False)
        last = pool.enqueue(pow, 2, 3)
    assert outcome(closing) == ("returned", None)
    assert last.result(LONG) == 8
    with pytest.raises(RuntimeError):
        pool.submit(int)


def test_shutdown_lets_the_queued_run(make_pool, spawn):
    """T65. concurrent.futures' meaning: what was submitted is done first."""
    pool = make_pool(1)
    with occupied(pool):
        jobs = [pool.submit(pow, 2, number) for number in range(5)]
        call = spawn(pool.shutdown)
        wait_until(lambda: pool.finished)
        assert not call.done
    call.result()
    assert [job.result(0) for job in jobs] == [1, 2, 4, 8, 16]


def test_shutdown_can_cancel_what_is_queued(make_pool):
    """T65. cancel_futures=True: queued jobs are cancelled, the running one ends by itself, unasked."""
    pool = make_pool(1)
    with occupied(pool) as (running,):
        jobs = [pool.submit(int) for _ in range(5)]
        pool.shutdown(wait=False, cancel_futures=True)
        assert [job.cancelled() for job in jobs] == [True] * 5
        assert not running.stop_requested
    assert outcome(running) == ("returned", None)


def test_the_with_block_waits_for_its_jobs_even_if_the_body_raises(make_pool):
    """T65. As with any executor of concurrent.futures."""
    with pytest.raises(LookupError), make_pool(2) as pool:
        jobs = [pool.enqueue(pow, 2, number) for number in range(10)]
        raise LookupError
    assert [job.result(0) for job in jobs] == [2**number for number in range(10)]
    assert pool.finished


@pytest.mark.parametrize("kind", ["pool", "executor"])
def test_a_with_block_inside_a_job_ends_the_pool_and_says_that_it_cannot_wait(make_pool, kind):
    """T65. A lent thread must not wait; the pool takes no more all the same, and what it has taken still runs."""
    inner: list[mh.ThreadPool] = []
    jobs: list[concurrent.futures.Future] = []

    def work() -> None:
        inner.append(mh.ThreadPool(1, name="inner"))
        used = inner[0] if kind == "pool" else inner[0].executor()
        with occupied(inner[0]), used:
            jobs.append(used.submit(pow, 2, 3))

    assert outcome(make_pool(1).enqueue(work)) == ("raised", mh.WouldDeadlock)
    assert inner[0].finished is (kind == "pool")
    assert jobs[0].result(LONG) == 8
    assert inner[0].destroy(LONG) == []


@pytest.mark.parametrize("error", [Deliberate, SystemExit])
def test_a_with_block_inside_a_job_raises_what_its_body_raised(make_pool, error):
    """T65. The pool is ended, and the error of the body is not hidden behind the one about the waiting."""
    inner: list[mh.ThreadPool] = []

    def work() -> None:
        with mh.ThreadPool(1, name="inner") as pool:
            inner.append(pool)
            raise error

    assert outcome(make_pool(1).enqueue(work)) == ("raised", error)
    with pytest.raises(mh.PoolFinished):
        inner[0].enqueue(int)


def test_a_job_that_is_stopped_inside_its_own_pools_with_block_is_stopped(make_pool):
    """T61, T65. JobStopped goes through the end of the block, and the inner jobs are told too."""
    told: list[mh.StopReason] = []
    pool = make_pool(1)
    stoppable = Stoppable(lambda stopped: told.append(stopped.reason))
    inner: list[mh.ThreadPool] = []

    def work() -> None:
        with mh.ThreadPool(1, name="inner") as other:
            inner.append(other)
            other.enqueue(stoppable)
            mh.sleep_blocking(3 * LONG)

    job = pool.enqueue(work)
    stoppable.wait_entered()
    job.stop()
    assert outcome(job) == ("cancelled", mh.StopReason.CALLER)
    assert inner[0].destroy(LONG) == []
    assert told == [mh.StopReason.POOL_FINISHING]
