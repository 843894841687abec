"""Owners: a job belongs to a strand, of one loop or another, and a pool to nobody."""

from __future__ import annotations

import logging

import manyhands as mh
from pooling import Stoppable, Y, outcome
from support import LONG, wait_until
from turning import nothing

CALLER = mh.StopReason.CALLER
OWNER_GONE = mh.StopReason.OWNER_GONE


def meet(value: object = None) -> object:
    return mh.current_job().sync(value)


def test_two_loops_share_one_pool_and_closing_one_stops_only_its_jobs(make_pool, make_loop):
    """T75h. The pool is nobody's: the jobs of the other loop, and those of no loop, go on."""
    pool = make_pool(4)
    loops = [make_loop(), make_loop()]
    functions = [Stoppable() for _ in range(3)]
    owners = [loops[0].strand(), loops[1].strand(), None]
    jobs = [pool.enqueue(function, owner=owner) for function, owner in zip(functions, owners, strict=True)]
    for function in functions:
        function.wait_entered()
    loops[0].close()
    assert outcome(jobs[0]) == ("aborted", OWNER_GONE)
    assert [job.stop_requested for job in jobs[1:]] == [False, False]
    assert pool.enqueue(pow, 2, 3, owner=owners[1]).result(LONG) == 8
    loops[1].close()
    assert outcome(jobs[1]) == ("aborted", OWNER_GONE)
    assert jobs[2].stop() is True
    assert outcome(jobs[2]) == ("cancelled", CALLER)


def test_one_loop_has_jobs_in_two_pools(make_pool, loop, joined):
    """T75h. A strand may own jobs of several pools; closing it stops them all."""
    pools = [make_pool(1, name="one"), make_pool(1, name="two")]
    strand = loop.strand()
    with joined(loop, 1):
        answers = [
            pool.enqueue(meet, index, owner=strand, on_sync=lambda job, value: job.answer(value))
            for index, pool in enumerate(pools)
        ]
        assert [job.result(LONG) for job in answers] == [0, 1]
        functions = [Stoppable(), Stoppable()]
        jobs = [pool.enqueue(function, owner=strand) for pool, function in zip(pools, functions, strict=True)]
        for function in functions:
            function.wait_entered()
        pools[0].finish()
        assert outcome(jobs[0]) == ("aborted", mh.StopReason.POOL_FINISHING)
        assert not jobs[1].stop_requested
        strand.close()
        assert outcome(jobs[1]) == ("aborted", OWNER_GONE)


def three_meetings():
    answers = []
    for number in range(3):
        yield mh.SYNC(number)
        answers.append(mh.current_job().answered)
    return answers


def test_an_outliving_stepwise_job_goes_on_without_its_owner(make_pool, loop, joined):
    """T68. The parked sync is answered with None, and later ones at once."""
    pool = make_pool(1)
    strand = loop.strand()
    with joined(loop, 1):
        job = pool.enqueue_steps(three_meetings, owner=strand, outlive=True, on_sync=nothing)
        wait_until(lambda: pool.stats().syncing_parked == 1)
        strand.close()
        assert job.result(LONG) == [None, None, None]
    assert job.owner is None


def test_a_paused_watch_does_not_pause_its_strand(make_pool, loop, joined, pair):
    """T39a. A job that syncs with a paused owner goes on: back-pressure on a connection does not freeze its jobs."""
    with joined(loop, 1):
        watch = loop.add(pair()[0], mh.Events.READ, nothing)
        watch.pause()
        job = make_pool(1).enqueue(meet, owner=watch, on_sync=lambda job, value: job.answer("met"))
        assert job.result(LONG) == "met"
        assert watch.paused
        watch.remove()


def test_a_paused_strand_makes_a_sync_wait(make_pool, loop, joined):
    """T66. A paused strand runs nothing: the job waits, and its timeout holds."""
    pool = make_pool(1)
    strand = loop.strand()
    with joined(loop, 1):
        strand.pause()
        job = pool.enqueue(meet, owner=strand, on_sync=lambda job, value: job.answer("met"))
        wait_until(lambda: job.status is Y)
        strand.resume()
        assert job.result(LONG) == "met"


def test_the_log_is_quiet_about_what_is_ordinary(make_pool, loop, joined, caplog):
    """T61. A stop, an owner's close and a sync's answer are no news."""
    pool = make_pool(2)
    strand = loop.strand()
    willing = Stoppable()
    with caplog.at_level(logging.INFO, "manyhands"), joined(loop, 1):
        assert pool.enqueue(meet, owner=strand, on_sync=lambda job, value: job.answer()).result(LONG) is None
        job = pool.enqueue(willing, owner=strand)
        willing.wait_entered()
        strand.close()
        outcome(job)
        pool.destroy(LONG)
    assert caplog.records == []
