"""A job in place that is stopped, and one whose thread leaves before it has begun it."""

from __future__ import annotations

import threading

import pytest

import manyhands as mh
from gate import Gate
from pooling import S, Stoppable, outcome
from support import LONG, wait_until

CALLER = mh.StopReason.CALLER
LOOP_STOPPING = mh.StopReason.LOOP_STOPPING


def test_a_stop_of_the_loop_asks_the_job_and_waits_for_it(make_pool, loop, joined, ask, spawn):
    """T75f. request_stop() asks with LOOP_STOPPING; stop() returns when the job has ended."""
    willing = Stoppable()
    with joined(loop, 2):
        job = ask(make_pool(1), willing)
        willing.wait_entered()
        assert loop.stop(LONG) is True
        assert job.done()
    assert outcome(job) == ("aborted", LOOP_STOPPING)
    assert willing.told == [LOOP_STOPPING]


def test_a_stop_of_the_loop_waits_for_a_job_that_does_not_check_in(make_pool, loop, joined, ask):
    """T75f. stop(timeout) says False while it runs, as with a handler; the job's result is what it returned."""
    with joined(loop, 2), Gate() as gate:
        job = ask(make_pool(1), gate)
        gate.wait_entered()
        assert loop.stop(0.02) is False
        assert (job.stop_requested, job.reason) == (True, LOOP_STOPPING)
        gate.open()
        assert loop.stop(LONG) is True
    assert outcome(job) == ("returned", None)


def test_a_stop_between_the_handler_and_the_job(make_pool, loop, joined, ask):
    """T75f. The handler asks, then stops the loop: the job is asked before or after its start, or never runs; it ends."""
    pool = make_pool(1)
    jobs: list[mh.Job] = []
    with joined(loop, 2):

        def handler() -> None:
            jobs.append(pool.enqueue(mh.sleep_blocking, 3 * LONG, in_place=True))
            loop.request_stop()

        loop.post(handler)
        wait_until(lambda: jobs)
        assert outcome(jobs[0])[1] in (LOOP_STOPPING, None)
    assert loop.stop(LONG)


@pytest.mark.parametrize("who", ["caller", "owner", "deadline", "pool"])
def test_it_is_stopped_as_any_job(make_pool, loop, joined, ask, who):
    """T75f. Same states, same stops, cleanup once."""
    pool = make_pool(1)
    strand = loop.strand()
    willing = Stoppable()
    cleaned: list[mh.Job] = []
    with joined(loop, 2):
        options = {"deadline": mh.now() + 0.1} if who == "deadline" else {}
        job = ask(pool, willing, owner=strand, cleanup=cleaned.append, **options)
        if who != "deadline":
            willing.wait_entered()
            {"caller": job.stop, "owner": strand.close, "pool": pool.finish}[who]()
        how, reason = outcome(job)
    assert how == ("cancelled" if who == "caller" else "aborted")
    assert (
        reason
        is {
            "caller": CALLER,
            "owner": mh.StopReason.OWNER_GONE,
            "deadline": mh.StopReason.DEADLINE,
            "pool": mh.StopReason.POOL_FINISHING,
        }[who]
    )
    assert job.status is S
    pool.destroy(LONG)
    assert cleaned == [job]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("others", ["none", "one that waits"])
def test_a_handler_that_leaves_join_leaves_its_job_to_the_pool(make_pool, loop, spawn, error, others):
    """T75f. What ends the thread is no reason to end the job: the pool's own thread runs it, in its turn."""
    pool = make_pool(1)
    crew = [spawn(loop.join) for _ in range(3)]
    wait_until(lambda: loop.joined == 3)
    jobs: list[mh.Job] = []
    order: list[str] = []

    def begin(name: str) -> threading.Thread:
        order.append(name)
        return threading.current_thread()

    def handler() -> None:
        jobs.append(pool.enqueue(begin, "in place", in_place=True))
        if others != "none":
            jobs.append(pool.enqueue(begin, "later"))
        raise error

    loop.post(handler)
    wait_until(lambda: len(jobs) == (1 if others == "none" else 2))
    threads = [job.result(LONG) for job in jobs]
    loop.request_stop()
    raised = 0
    for call in crew:
        try:
            call.result()
        except error:
            raised += 1
    assert raised == 1
    assert not {call.thread for call in crew} & set(threads)
    assert [job.reason for job in jobs] == [None] * len(jobs)
    assert order == ["in place", "later"][: len(jobs)]
    wait_until(lambda: pool.stats().busy == 0)


def test_a_job_in_place_that_is_stopped_before_it_begins_gives_its_slot_back(make_pool, loop, joined, ask):
    """T62, T75f. At once, and also if it has left the pool's table when its thread comes for it."""
    pool = make_pool(1, slow_share=1.0)
    cleaned = threading.Event()
    busy: list[int] = []

    def handler() -> None:
        job = pool.enqueue(int, in_place=True, slow=True, cleanup=lambda job: cleaned.set())
        job.stop()
        busy.append(pool.stats().busy)
        assert cleaned.wait(LONG)
        wait_until(lambda: not pool.jobs())

    with joined(loop, 2):
        loop.post(handler)
        wait_until(lambda: busy)
        ask(pool, int, slow=True).result(LONG)
    assert busy == [0]
    wait_until(lambda: pool.stats().busy == 0)
