"""The done queue: a job that ended stays until its owner reaps it; how it looks meanwhile; detached jobs."""

from __future__ import annotations

import concurrent.futures
import queue

import pytest

import manyhands as mh
from gate import Gate
from pooling import F, P, Q, R, S, occupied, outcome
from support import LONG, wait_until

CALLER = mh.StopReason.CALLER


def test_a_finished_job_stays_until_it_is_reaped(make_pool, loop):
    """T63. reap() works once; looking at the status does not reap."""
    pool = make_pool(1)
    job = pool.enqueue(int, owner=loop.strand())
    job.result(LONG)
    for _ in range(3):
        assert job.status is F
        assert [snapshot.id for snapshot in pool.jobs()] == [job.id]
    assert pool.stats().done == 1
    assert job.reap() is F
    assert pool.jobs() == []
    assert pool.stats().done == 0
    with pytest.raises(RuntimeError):
        job.reap()
    assert job.status is F
    assert job.result() == 0


def test_a_stopped_job_of_an_owner_is_reaped_as_stopped(make_pool, loop):
    """T63. One that never ran has its place in the done queue as well."""
    pool = make_pool(1)
    with occupied(pool):
        job = pool.enqueue(int, owner=loop.strand())
        with pytest.raises(RuntimeError):
            job.reap()
        assert job.status is Q
        job.stop()
        assert job.reap() is S


@pytest.mark.race
def test_a_job_that_is_seen_to_have_ended_can_be_reaped_at_once(make_pool, make_loop):
    """T73. Status and place in the done queue change in one step: whoever sees FINISHED can reap."""
    loop = make_loop()
    pool = make_pool(2)
    strand = loop.strand()
    for _ in range(200):
        job = pool.enqueue(int, owner=strand)
        while job.status is not F:
            pass
        assert job.reap() is F
    assert pool.jobs() == []


@pytest.mark.parametrize("options", [{}, {"keep": False, "owner": True}])
def test_a_job_without_a_place_in_the_done_queue_reaps_itself(make_pool, loop, options):
    """T64. Without an owner, or with keep=False; there is nothing to reap, and it is gone from jobs()."""
    pool = make_pool(1)
    cleaned: list[mh.Job] = []
    if "owner" in options:
        options = {**options, "owner": loop.strand()}
    job = pool.enqueue(int, cleanup=cleaned.append, **options)
    job.result(LONG)
    assert pool.jobs() == []
    with pytest.raises(RuntimeError):
        job.reap()
    assert cleaned == [job]


def test_keep_gives_a_job_without_an_owner_a_place(make_pool):
    """T63. keep=True: it stays until somebody reaps it."""
    pool = make_pool(1)
    job = pool.enqueue(int, keep=True)
    job.result(LONG)
    assert [snapshot.id for snapshot in pool.jobs()] == [job.id]
    assert job.reap() is F


@pytest.mark.parametrize("when", ["queued", "running", "ended"])
def test_a_detached_job_goes_on_and_reaps_itself(make_pool, loop, when):
    """T64. Its owner may close: the job is not stopped; cleanup runs once; twice detached is once."""
    pool = make_pool(1)
    strand = loop.strand()
    cleaned: list[mh.Job] = []
    with Gate() as before, Gate() as inside:
        pool.enqueue(before)
        before.wait_entered()
        job = pool.enqueue(inside, owner=strand, cleanup=cleaned.append)
        if when == "queued":
            job.detach()
        before.open()
        inside.wait_entered()
        if when == "running":
            job.detach()
            assert job.owner is None
            strand.close()
            assert not job.stop_requested
    assert outcome(job) == ("returned", None)
    if when == "ended":
        job.detach()
    job.detach()
    wait_until(lambda: pool.jobs() == [])
    with pytest.raises(RuntimeError):
        job.reap()
    pool.destroy(LONG)
    assert cleaned == [job]


def test_the_done_queue_is_bounded_and_drops_the_oldest(make_pool, loop):
    """T63. Beyond max_done the oldest goes, and is counted; it has its result all the same."""
    pool = make_pool(1, max_done=3)
    strand = loop.strand()
    jobs = [pool.enqueue(int, owner=strand) for _ in range(5)]
    concurrent.futures.wait(jobs, LONG)
    wait_until(lambda: pool.stats().dropped == 2)
    assert pool.stats().done == 3
    assert [snapshot.id for snapshot in pool.jobs()] == [job.id for job in jobs[2:]]
    with pytest.raises(RuntimeError):
        jobs[0].reap()
    assert jobs[0].result() == 0
    assert [job.reap() for job in jobs[2:]] == [F] * 3


def test_jobs_lists_every_job_oldest_first_and_by_owner(make_pool, loop, pair):
    """T74. Queued, running and done ones; a snapshot says what was when it was taken."""
    pool = make_pool(1, name="mill")
    strand = loop.strand()
    watch = loop.add(pair()[0], mh.Events.READ, print)
    done = pool.enqueue(int, owner=strand, name="done")
    done.result(LONG)
    with Gate() as gate:

        def work() -> None:
            mh.current_job().progress(3, total=7, note="sacks")
            gate()

        running = pool.enqueue(work, owner=watch, name="grind")
        gate.wait_entered()
        queued = pool.enqueue(int)
        snapshots = pool.jobs()
        assert [snapshot.id for snapshot in snapshots] == [done.id, running.id, queued.id]
        assert [snapshot.status for snapshot in snapshots] == [F, R, Q]
        assert [snapshot.name for snapshot in snapshots][:2] == ["done", "grind"]
        assert [snapshot.thread for snapshot in snapshots] == [None, "mh-mill-0", None]
        assert [snapshot.progress for snapshot in snapshots] == [None, (3, 7, "sacks"), None]
        assert [snapshot.id for snapshot in pool.jobs(owner=strand)] == [done.id]
        assert [snapshot.id for snapshot in pool.jobs(owner=watch)] == [running.id]
        assert running.owner is watch
        assert done.owner is strand
        ages = [snapshot.age for snapshot in snapshots]
        assert ages == sorted(ages, reverse=True)
        running.stop()
        assert pool.jobs()[1].status is P
        assert pool.jobs()[1].reason is CALLER
        assert snapshots[1].status is R, "a snapshot changed"


def test_a_job_has_the_name_that_it_was_given_or_one_of_its_own(make_pool):
    """T74. Without a name it is named for its function and its number."""
    pool = make_pool(1)
    job = pool.enqueue(int)
    assert job.name == f"int-{job.id}"
    assert pool.enqueue(int, name="mine").name == "mine"


def test_ids_are_never_used_twice_and_user_is_the_callers(make_pool):
    """T74. user is kept as it is; an id belongs to one job."""
    pool = make_pool(2)
    thing = object()
    jobs = [pool.enqueue(int, user=thing) for _ in range(100)]
    assert len({job.id for job in jobs}) == 100
    assert all(job.user is thing for job in jobs)
    assert pool.enqueue(int).user is None


@pytest.mark.race
@pytest.mark.parametrize("steps", [False, True], ids=["plain", "stepwise"])
def test_an_owners_end_races_the_end_of_a_job_that_outlives_it(make_pool, make_loop, steps):
    """T64. It keeps its place and can be reaped, or it has none: never a place that nobody can clear."""
    pool = make_pool(2, max_queue_depth=None, max_done=10_000)
    loop = make_loop()
    at_the_end: queue.SimpleQueue[int] = queue.SimpleQueue()

    def stepwise(number: int):
        yield mh.CHECKING_IN
        at_the_end.put(number)

    jobs = []
    for number in range(1000):
        strand = loop.strand()
        enqueue, function = (pool.enqueue_steps, stepwise) if steps else (pool.enqueue, at_the_end.put)
        jobs.append(enqueue(function, number, owner=strand, outlive=True))
        assert at_the_end.get(timeout=LONG) == number
        for _ in range(number % 100):
            pass
        strand.close()
    concurrent.futures.wait(jobs, LONG)
    wait_until(lambda: pool.stats().busy == 0)
    listed = {snapshot.id for snapshot in pool.jobs()}
    assert pool.stats().done == len(listed)
    for job in jobs:
        if job.id in listed:
            assert job.reap() is F
    assert pool.stats().done == 0
    assert pool.jobs() == []
