"""What a job calls back may do anything: raise, exit, stop its job, start another; the thread and the books survive."""

from __future__ import annotations

import logging
import threading

import pytest

import manyhands as mh
from gate import Gate
from pooling import Deliberate, F, R, S, adds_up, occupied, outcome
from support import LONG, wait_until
from turning import nothing

CALLER = mh.StopReason.CALLER


@pytest.fixture
def quiet():
    """Keep the log of the pool from holding frames, and those jobs."""
    logger = logging.getLogger("manyhands.pool")
    logger.disabled = True
    yield
    logger.disabled = False


@pytest.mark.parametrize("error", [Deliberate, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["cleanup", "done callback", "on_start", "on_end"])
def test_whatever_a_callback_raises_the_thread_goes_on(quiet, make_pool, where, error):
    """T72. Also what is no Exception: the pool's only thread runs the next job, and the numbers add up."""

    def raises(*_: object) -> None:
        raise error

    pool = make_pool(1, **({where: raises} if where.startswith("on_") else {}))
    with Gate() as gate:
        job = pool.enqueue(gate, cleanup=raises if where == "cleanup" else None)
        gate.wait_entered() if where != "on_start" else None
        if where == "done callback":
            job.add_done_callback(raises)
    assert outcome(job)[0] in ("returned", "raised")
    assert outcome(pool.enqueue(pow, 2, 3))[0] in ("returned", "raised")
    wait_until(lambda: pool.stats().busy == 0)
    assert adds_up(pool.stats())
    assert pool.stats().finished == 2


@pytest.mark.parametrize("error", [Deliberate, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["cleanup", "done callback", "on_end", "on_stop"])
def test_whatever_a_callback_raises_on_the_errand_thread_the_next_is_called(quiet, make_pool, where, error):
    """T72. Callbacks of jobs that never ran, and on_stop, have threads of their own; these live on too."""

    def raises(*_: object) -> None:
        raise error

    pool = make_pool(2, **({where: raises} if where == "on_end" else {}))
    broken = threading.Event()
    with occupied(pool, 1), Gate() as gate:
        if where == "on_stop":
            entered = threading.Event()

            def work() -> None:
                with mh.current_job().on_stop(raises):
                    entered.set()
                    mh.sleep_blocking(3 * LONG)

            job = pool.enqueue(work)
            assert entered.wait(LONG)
        else:
            pool.enqueue(gate)
            gate.wait_entered()
            job = pool.enqueue(int, cleanup=raises if where == "cleanup" else None)
            if where == "done callback":
                job.add_done_callback(raises)
        job.stop()
        assert outcome(job) == ("cancelled", CALLER)
        gate.open()
        with occupied(pool, 1):
            for _ in range(10):
                other = pool.enqueue(int, cleanup=lambda job: broken.set())
                other.stop()
                assert broken.wait(LONG)
                broken.clear()


def test_an_error_in_on_submit_does_not_undo_the_submit(quiet, make_pool):
    """T72. The job was taken: it runs, and its caller gets it."""

    def raises(job: mh.Job) -> None:
        raise Deliberate

    assert make_pool(1, on_submit=raises).enqueue(pow, 2, 3).result(LONG) == 8


def test_a_job_may_stop_itself(make_pool):
    """T61. Its next check-in raises, as if somebody else had asked."""

    def work() -> None:
        assert mh.current_job().stop() is True
        assert mh.current_job().stop_requested
        mh.check_in()

    job = make_pool(1).enqueue(work)
    assert outcome(job) == ("cancelled", CALLER)


def test_a_job_may_stop_its_siblings_and_start_others(make_pool):
    """T71. Everything of the pool but waiting for it may be used inside a job."""
    pool = make_pool(2)
    with Gate() as gate:

        def work() -> list[int]:
            gate()
            queued = [pool.enqueue(int) for _ in range(5)]
            # The other thread may have been through them already.
            assert all(job.stop() or job.done() for job in queued[:2])
            return [job.result(LONG) for job in queued[2:]]

        job = pool.enqueue(work)
        gate.wait_entered()
        assert pool.stats().busy == 1
    assert job.result(LONG) == [0, 0, 0]


def test_a_job_run_in_a_jobs_thread_gives_the_thread_back(make_pool):
    """T70. when_full="run_here" inside a job: current_job is the inner one, and then the outer one again."""
    pool = make_pool(1, max_queue_depth=0, when_full="run_here")

    def outer() -> list[object]:
        before = mh.current_job()
        inner = pool.enqueue(mh.current_job)
        return [inner.result(0) is inner, mh.current_job() is before, before.status]

    assert pool.enqueue(outer).result(LONG) == [True, True, R]


def test_a_stop_of_the_outer_job_reaches_the_check_in_after_the_inner(make_pool):
    """T61. The inner job, run in the outer one's thread, is not told of the outer one's stop."""
    pool = make_pool(1, max_queue_depth=0, when_full="run_here")
    inner: list[mh.Job] = []
    with Gate() as gate:

        def outer() -> None:
            gate()
            inner.append(pool.enqueue(mh.check_in))
            mh.check_in()

        job = pool.enqueue(outer)
        gate.wait_entered()
        job.stop()
    assert outcome(job) == ("cancelled", CALLER)
    assert inner[0].status is F


def test_a_cleanup_that_enqueues_in_a_finished_pool_is_refused_and_the_end_goes_on(quiet, make_pool):
    """T65. PoolFinished inside the cleanup is an error of the cleanup; the pool ends."""
    pool = make_pool(1)
    refused: list[type[BaseException]] = []

    def cleanup(job: mh.Job) -> None:
        try:
            pool.enqueue(int)
        except RuntimeError as error:
            refused.append(type(error))

    with occupied(pool):
        jobs = [pool.enqueue(int, cleanup=cleanup) for _ in range(3)]
        pool.finish()
        assert [job.status for job in jobs] == [S] * 3
    assert pool.destroy(LONG) == []
    assert refused == [mh.PoolFinished] * 3


@pytest.mark.parametrize("wrong", [2**70, -(2**70)])
def test_a_priority_beyond_all_measure_is_taken_or_refused_at_the_call(make_pool, wrong):
    """T74. It never becomes another number in silence."""
    pool = make_pool(1)
    order: list[str] = []
    with occupied(pool):
        first = pool.enqueue(order.append, "ordinary")
        try:
            second = pool.enqueue(order.append, "extreme", priority=wrong)
        except (OverflowError, ValueError):
            return
    outcome(first)
    outcome(second)
    assert order == (["extreme", "ordinary"] if wrong > 0 else ["ordinary", "extreme"])


def test_a_deadline_that_never_comes(make_pool):
    """T69. Infinity is no deadline."""
    assert make_pool(1).enqueue(pow, 2, 3, deadline=float("inf")).result(LONG) == 8


def test_the_own_lane_of_the_library_is_not_starved(make_pool):
    """T75. What the library itself needs a thread for gets one, though user jobs fill the pool and its queue."""
    pool = make_pool(1, max_queue_depth=0)
    with occupied(pool):
        with pytest.raises(mh.QueueFull):
            pool.enqueue(nothing)
        assert pool._own_lane().submit(pow, 2, 3).result(LONG) == 8
