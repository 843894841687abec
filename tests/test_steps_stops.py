"""Stepwise jobs that are told to stop: between steps, in a sync, before the first."""

from __future__ import annotations

import threading

import pytest

import manyhands as mh
from pooling import Deliberate, F, P, S, Y, occupied, outcome
from support import LONG, wait_until
from turning import nothing

CALLER = mh.StopReason.CALLER


def test_a_stop_is_sent_in_answer_to_a_sync(make_pool, loop, joined):
    """T66a. A job parked in a sync that is stopped gets STOPPING there, on a thread of the pool."""
    pool = make_pool(1, name="mill")
    sent: list[object] = []

    def steps():
        sent.append((yield mh.SYNC("x")))
        sent.append(threading.current_thread().name)
        return mh.STOPPED

    with joined(loop, 1):
        job = pool.enqueue_steps(steps, owner=loop.strand(), on_sync=nothing)
        wait_until(lambda: job.status is Y)
        job.stop()
        assert outcome(job) == ("cancelled", CALLER)
    assert sent == [mh.STOPPING, "mh-mill-0"]


def test_a_value_returned_after_the_stop_is_the_result(make_pool):
    """T66a. It was done all the same: FINISHED."""
    entered = threading.Event()

    def steps():
        while (yield mh.CHECKING_IN) is not mh.STOPPING:
            entered.set()
        return "done"

    job = make_pool(1).enqueue_steps(steps)
    assert entered.wait(LONG)
    job.stop()
    assert outcome(job) == ("returned", "done")
    assert job.status is F


def test_stopped_returned_by_a_job_that_nobody_asked_is_an_error(make_pool):
    """T60. It can't say so itself: FINISHED with RuntimeError."""

    def steps():
        yield mh.CHECKING_IN
        return mh.STOPPED

    job = make_pool(1).enqueue_steps(steps)
    assert outcome(job) == ("raised", RuntimeError)
    assert job.status is F


@pytest.mark.parametrize("who", ["caller", "owner", "deadline", "pool", "timeout", "on_sync raises"])
def test_a_parked_one_is_told_why(make_pool, make_loop, joined, who):
    """T61. Each path sends STOPPING once, with its reason on the job; cleanup runs once."""
    loop = make_loop(on_error=nothing)
    pool = make_pool(1)
    strand = loop.strand()
    cleaned: list[mh.Job] = []
    sent: list[object] = []

    def steps():
        word = yield mh.SYNC(timeout=0.02) if who == "timeout" else mh.SYNC()
        sent.append(word)
        return mh.STOPPED

    def on_sync(job: mh.Job, value: object) -> None:
        if who == "on_sync raises":
            raise Deliberate

    options = {"deadline": mh.now() + 0.1} if who == "deadline" else {}
    with joined(loop, 1):
        job = pool.enqueue_steps(steps, owner=strand, on_sync=on_sync, cleanup=cleaned.append, **options)
        if who in ("caller", "owner", "pool"):
            wait_until(lambda: pool.stats().syncing_parked == 1)
            {"caller": job.stop, "owner": strand.close, "pool": pool.finish}[who]()
        how, reason = outcome(job)
    reasons = {
        "caller": CALLER,
        "owner": mh.StopReason.OWNER_GONE,
        "deadline": mh.StopReason.DEADLINE,
        "pool": mh.StopReason.POOL_FINISHING,
        "timeout": mh.StopReason.SYNC_TIMEOUT,
        "on_sync raises": mh.StopReason.SYNC_FAILED,
    }
    assert reason is reasons[who]
    assert how == ("cancelled" if who == "caller" else "aborted")
    assert sent == [mh.STOPPING]
    pool.destroy(LONG)
    assert cleaned == [job]


def test_one_that_is_stopped_while_it_waits_for_a_thread_again(make_pool, loop, joined):
    """T61. Answered, queued to go on, then stopped: the next step gets STOPPING, and its answer is not lost."""
    pool = make_pool(1)
    sent: list[object] = []

    def steps():
        sent.append((yield mh.SYNC()))
        sent.append((yield mh.CHECKING_IN))
        return "done"

    with joined(loop, 1):
        job = pool.enqueue_steps(steps, owner=loop.strand(), on_sync=nothing)
        wait_until(lambda: pool.stats().syncing_parked == 1)
        with occupied(pool):
            job.answer("met")
            job.stop()
            assert job.status is P
    assert outcome(job) == ("returned", "done")
    assert sent.count(mh.STOPPING) == 1


def test_a_queued_one_that_is_stopped_never_makes_a_step(make_pool):
    """T62. Its generator is not even made, or is closed unstarted."""
    pool = make_pool(1)
    made: list[int] = []

    def steps():
        made.append(1)
        yield mh.CHECKING_IN

    with occupied(pool):
        job = pool.enqueue_steps(steps)
        job.stop()
        assert job.status is S
    pool.destroy(LONG)
    assert made == []
