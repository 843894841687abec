"""The stepwise form: a generator that checks in and syncs by yielding, and holds no thread between its steps."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref

import pytest

import manyhands as mh
from gate import Gate
from manyhands._running import go_on_by_steps
from pooling import Deliberate, F, R, S, Y, occupied, outcome
from support import LONG, wait_until
from turning import nothing

CALLER = mh.StopReason.CALLER


def countdown(n: int):
    answers = []
    while n:
        n -= 1
        if (yield mh.SYNC(n)) is mh.STOPPING:
            return mh.STOPPED
        answers.append(mh.current_job().answered)
    return answers


def test_a_countdown_syncs_at_each_step(make_pool, loop, joined):
    """T66a. SYNC(value) calls on_sync; RUNNING is sent back, and the answer is in job.answered."""
    seen: list[tuple[int, mh.JobStatus]] = []

    def on_sync(job: mh.Job, value: int) -> None:
        seen.append((value, job.status))
        job.answer(value * 10)

    with joined(loop, 1):
        job = make_pool(1).enqueue_steps(countdown, 3, owner=loop.strand(), on_sync=on_sync)
        assert job.result(LONG) == [20, 10, 0]
    assert seen == [(2, Y), (1, Y), (0, Y)]
    assert job.status is F


def test_the_last_four_words_are_statuses():
    """T66a. RUNNING, STOPPING, STOPPED and FINISHED are the members of JobStatus."""
    assert [mh.RUNNING, mh.STOPPING, mh.STOPPED, mh.FINISHED] == [
        mh.JobStatus.RUNNING,
        mh.JobStatus.STOPPING,
        mh.JobStatus.STOPPED,
        mh.JobStatus.FINISHED,
    ]


def test_checking_in_is_answered_with_running_until_the_stop(make_pool):
    """T66a. STOPPING is sent exactly once; further yields get RUNNING; `return STOPPED` is STOPPED."""
    sent: list[object] = []
    entered = threading.Event()

    def steps():
        while (word := (yield mh.CHECKING_IN)) is not mh.STOPPING:
            assert word is mh.RUNNING
            entered.set()
        sent.append(word)
        for _ in range(5):
            sent.append((yield mh.CHECKING_IN))
        return mh.STOPPED

    job = make_pool(1).enqueue_steps(steps)
    assert entered.wait(LONG)
    assert job.stop() is True
    assert outcome(job) == ("cancelled", CALLER)
    assert sent == [mh.STOPPING] + [mh.RUNNING] * 5
    assert job.status is S


@pytest.mark.parametrize("wrong", [None, 7, "SYNC", mh.JobStatus.FINISHED, mh.JobStatus.STOPPED])
def test_another_yield_is_an_error_of_the_job(make_pool, wrong):
    """T66a. FINISHED with TypeError, and the generator is closed, so that its `finally` has run."""
    closed = threading.Event()

    def steps():
        try:
            yield mh.CHECKING_IN
            yield wrong
        finally:
            closed.set()

    job = make_pool(1).enqueue_steps(steps)
    assert outcome(job) == ("raised", TypeError)
    assert closed.is_set()


@pytest.mark.parametrize("steps_before", [0, 1, 3])
def test_an_error_in_a_step_ends_the_job_with_it(make_pool, steps_before):
    """T72. From whichever step; the thread lives."""

    def steps():
        for _ in range(steps_before):
            yield mh.CHECKING_IN
        raise Deliberate

    pool = make_pool(1)
    cleaned: list[mh.Job] = []
    job = pool.enqueue_steps(steps, cleanup=cleaned.append)
    assert outcome(job) == ("raised", Deliberate)
    assert pool.enqueue(int).result(LONG) == 0
    assert cleaned == [job]


def test_a_hundred_that_wait_in_a_sync_hold_no_thread(make_pool, loop, joined):
    """T66a. On a pool of two threads a 101st job runs; then all are answered and finish."""
    pool = make_pool(2, max_queue_depth=None)
    asked: list[mh.Job] = []
    with joined(loop, 1):
        jobs = [
            pool.enqueue_steps(countdown, 1, owner=loop.strand(), on_sync=lambda job, value: asked.append(job))
            for _ in range(100)
        ]
        wait_until(lambda: len(asked) == 100)
        wait_until(lambda: pool.stats().busy == 0)
        stats = pool.stats()
        assert (stats.syncing_parked, stats.syncing_held) == (100, 0)
        assert pool.enqueue(pow, 2, 3).result(LONG) == 8
        for job in asked:
            job.answer(job.id)
        assert [job.result(LONG) for job in jobs] == [[job.id] for job in jobs]


def test_a_sync_below_a_frame_holds_its_thread_and_says_so(make_pool, loop, joined):
    """T66a. The plain sync of a plain job counts as held."""
    pool = make_pool(2)
    with joined(loop, 1):
        job = pool.enqueue(lambda: mh.current_job().sync(), owner=loop.strand(), on_sync=nothing)
        wait_until(lambda: job.status is Y)
        assert (pool.stats().syncing_held, pool.stats().syncing_parked) == (1, 0)
        job.answer()
        job.result(LONG)


def test_one_that_is_continued_comes_before_new_jobs(make_pool, loop, joined):
    """T66a. It has been let in already: it goes on before anything that waits in the queue, whatever its priority."""
    pool = make_pool(1)
    order: list[str] = []

    def steps():
        yield mh.SYNC()
        order.append("continued")

    with joined(loop, 1):
        parked = pool.enqueue_steps(steps, owner=loop.strand(), on_sync=nothing)
        wait_until(lambda: pool.stats().syncing_parked == 1)
        with occupied(pool):
            new = pool.enqueue(order.append, "new", priority=100)
            parked.answer()
        new.result(LONG)
        parked.result(LONG)
    assert order == ["continued", "new"]


def test_a_parked_one_can_be_continued_though_the_queue_is_full(make_pool, loop, joined):
    """T66a. The bound is for new jobs; an answer is never refused."""
    pool = make_pool(1, max_queue_depth=1)
    with joined(loop, 1):
        parked = pool.enqueue_steps(countdown, 1, owner=loop.strand(), on_sync=nothing)
        wait_until(lambda: pool.stats().syncing_parked == 1)
        with occupied(pool):
            pool.enqueue(int)
            with pytest.raises(mh.QueueFull):
                pool.enqueue(int)
            parked.answer("met")
        assert parked.result(LONG) == ["met"]


@pytest.mark.parametrize("threads", [1, 4])
def test_every_step_runs_in_one_context_on_whichever_thread(make_pool, loop, joined, threads):
    """T75c. What a step sets the next one sees, on another thread too; after the job nobody does."""
    pool = make_pool(threads)
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=-1)
    variable.set(7)

    def steps():
        seen = [variable.get()]
        for number in range(10):
            variable.set(number)
            yield mh.SYNC()
            seen.append(variable.get())
            assert mh.current_job() is mine[0]
        return seen

    with joined(loop, 1):
        mine: list[mh.Job] = []
        with occupied(pool, threads):
            mine.append(pool.enqueue_steps(steps, owner=loop.strand(), on_sync=lambda job, value: job.answer()))
        assert mine[0].result(LONG) == [7, *range(10)]
    assert pool.enqueue(contextvars.Context().run, variable.get).result(LONG) == -1
    assert variable.get() == 7


@pytest.mark.race
def test_steps_of_one_job_never_run_on_two_threads_at_once(make_pool, make_loop, joined):
    """T66a. An answer that comes while the generator is still being left waits for it: two inside one crash CPython."""
    loop = make_loop()
    pool = make_pool(4)

    def steps():
        inside = 0
        for _ in range(100):
            inside += 1
            assert inside == 1
            inside -= 1
            yield mh.SYNC()
        return "whole"

    with joined(loop, 2):
        jobs = [
            pool.enqueue_steps(steps, owner=loop.strand(), on_sync=lambda job, value: job.answer()) for _ in range(8)
        ]
        assert [outcome(job) for job in jobs] == [("returned", "whole")] * 8


def test_check_in_works_inside_a_step(make_pool):
    """T61. A long step may call what checks in below it; JobStopped there ends the job, and its STOPPING is spent."""
    with Gate() as gate:

        def steps():
            yield mh.CHECKING_IN
            gate()
            mh.check_in()
            yield mh.CHECKING_IN

        job = make_pool(1).enqueue_steps(steps)
        gate.wait_entered()
        job.stop()
    assert outcome(job) == ("cancelled", CALLER)
    assert job.status is S


def test_the_generator_goes_with_its_job(make_pool, loop, joined):
    """T99. A parked job whose pool is destroyed, and one that has ended, keep nothing alive."""

    class Thing:
        pass

    def steps(thing: Thing):
        yield mh.SYNC()
        return thing is None

    def answer(job: mh.Job, value: object) -> None:
        job.answer()

    thing = Thing()
    alive = weakref.ref(thing)
    pool = make_pool(1)
    with joined(loop, 1):
        job = pool.enqueue_steps(steps, thing, owner=loop.strand(), keep=False, on_sync=answer)
        assert job.result(LONG) is False
    del thing, job

    def gone() -> bool:
        gc.collect()
        return alive() is None

    wait_until(gone)


def test_a_stepwise_job_that_runs_long_gives_others_their_turn(make_pool):
    """T66a. Between steps it holds no thread: on one thread, a job that only checks in starves no other."""
    pool = make_pool(1)
    over = threading.Event()

    def steps():
        while not over.is_set():
            yield mh.CHECKING_IN
        return "over"

    job = pool.enqueue_steps(steps)
    wait_until(lambda: job.status is R)
    try:
        assert pool.enqueue(pow, 2, 3).result(LONG) == 8
    finally:
        over.set()
    assert job.result(LONG) == "over"


def test_a_plain_function_may_go_on_by_steps(make_pool, loop, joined):
    """T66a. It holds its thread in the syncs of its plain part and gives it back in those of its steps; one job, one value."""
    places: list[tuple[int, int]] = []
    pool = make_pool(1)

    def on_sync(job: mh.Job, value: object) -> None:
        stats = pool.stats()
        places.append((stats.syncing_held, stats.syncing_parked))
        job.answer(value)

    def rest(first: object):
        if (yield mh.CHECKING_IN) is mh.STOPPING:
            return mh.STOPPED
        yield mh.SYNC(2)
        return [first, mh.current_job().answered]

    def work() -> object:
        job = mh.current_job()
        return go_on_by_steps(job, rest(job.sync(1)))

    with joined(loop, 1):
        job = pool.enqueue(work, owner=loop.strand(), on_sync=on_sync)
        assert job.result(LONG) == [1, 2]
    assert places == [(1, 0), (0, 1)]


def test_what_goes_on_by_steps_and_is_stopped_without_a_thread_is_told(make_pool, loop, joined):
    """T66a. As any stepwise job: STOPPING is sent, on a thread of the pool, and the generator ends."""
    told: list[object] = []

    def rest():
        told.append((yield mh.SYNC()))
        raise mh.JobStopped(mh.current_job().reason)

    pool = make_pool(1)
    with joined(loop, 1):
        job = pool.enqueue(lambda: go_on_by_steps(mh.current_job(), rest()), owner=loop.strand(), on_sync=nothing)
        wait_until(lambda: pool.stats().syncing_parked == 1)
        assert job.stop() is True
        assert outcome(job) == ("cancelled", CALLER)
    assert told == [mh.STOPPING]


def test_what_never_has_to_wait_ends_as_a_plain_call(make_pool):
    """T66a. Checking in with nobody waiting keeps the thread; what it raises is the job's."""

    def rest(count: int):
        for _ in range(count):
            assert (yield mh.CHECKING_IN) is mh.RUNNING
        return 1 // (count - 3)

    pool = make_pool(1)
    assert pool.enqueue(lambda: go_on_by_steps(mh.current_job(), rest(4))).result(LONG) == 1
    with pytest.raises(ZeroDivisionError):
        pool.enqueue(lambda: go_on_by_steps(mh.current_job(), rest(3))).result(LONG)
