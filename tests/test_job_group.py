"""Job groups: all have ended when the block is left, and the first error stops the others."""

from __future__ import annotations

import threading

import pytest

import manyhands as mh
from gate import Gate
from pooling import Deliberate, S, Stoppable, fail, occupied, outcome
from support import LONG, wait_until

CALLER = mh.StopReason.CALLER


def test_a_group_waits_for_all_of_its_jobs(make_pool, spawn):
    """T72. enqueue and submit alike; at the end of the block every one has ended."""
    pool = make_pool(2)
    with Gate() as gate:
        left = threading.Event()

        def use() -> list[mh.Job]:
            with pool.job_group() as group:
                jobs = [group.enqueue(gate), group.submit(pow, 2, 3), group.enqueue(pow, 2, 4, name="mine")]
            left.set()
            return jobs

        call = spawn(use)
        gate.wait_entered()
        assert not left.wait(0.02)
        gate.open()
        jobs = call.result()
    assert [outcome(job, 0) for job in jobs] == [("returned", None), ("returned", 8), ("returned", 16)]
    assert jobs[2].name == "mine"


def test_the_first_error_stops_the_siblings(make_pool):
    """T72. Queued ones never run, running ones are asked; the error is raised in a group of its own kind."""
    pool = make_pool(2)
    willing = Stoppable()
    ran = threading.Event()
    with pytest.raises(ExceptionGroup) as raised, pool.job_group() as group:
        running = group.enqueue(willing)
        willing.wait_entered()
        with Gate() as gate:
            group.enqueue(lambda: (gate(), fail()))
            gate.wait_entered()
            queued = group.enqueue(ran.set)
    assert [type(error) for error in raised.value.exceptions] == [Deliberate]
    assert outcome(running, 0) == ("cancelled", CALLER)
    assert queued.status is S or ran.is_set()


def test_every_error_is_in_the_group(make_pool):
    """T72. Those of jobs that fail while they are being stopped as well."""
    pool = make_pool(3)
    stubborn = [Stoppable(then=fail), Stoppable(then=fail)]
    with pytest.raises(ExceptionGroup) as raised, pool.job_group() as group:
        for function in stubborn:
            group.enqueue(function)
            function.wait_entered()
        group.enqueue(divmod, 1, 0)
    assert sorted(type(error).__name__ for error in raised.value.exceptions) == [
        "Deliberate",
        "Deliberate",
        "ZeroDivisionError",
    ]


def test_an_error_in_the_body_stops_the_jobs_and_is_raised_with_theirs(make_pool):
    """T72. Nobody is left behind, and nothing is lost."""
    pool = make_pool(2)
    willing, failing = Stoppable(), Stoppable(then=fail)
    with pytest.raises(ExceptionGroup) as raised, pool.job_group() as group:
        job = group.enqueue(willing)
        group.enqueue(failing)
        willing.wait_entered()
        failing.wait_entered()
        raise LookupError
    assert {type(error) for error in raised.value.exceptions} == {LookupError, Deliberate}
    assert outcome(job, 0) == ("cancelled", CALLER)


def test_a_group_without_errors_raises_nothing(make_pool):
    """T72. An empty one, and one whose jobs all end well."""
    pool = make_pool(2)
    with pool.job_group():
        pass
    with pool.job_group() as group:
        jobs = [group.enqueue(int) for _ in range(20)]
    assert [job.result(0) for job in jobs] == [0] * 20


def test_a_job_of_a_group_that_fails_for_another_reason_is_an_error(make_pool):
    """T69. Past its deadline: JobAborted is in the group, and the siblings are stopped."""
    pool = make_pool(2)
    willing = Stoppable()
    with pytest.raises(ExceptionGroup) as raised, pool.job_group() as group:
        sibling = group.enqueue(willing)
        group.enqueue(mh.sleep_blocking, 3 * LONG, deadline=mh.now() + 0.05)
    (error,) = raised.value.exceptions
    assert isinstance(error, mh.JobAborted)
    assert error.reason is mh.StopReason.DEADLINE
    assert outcome(sibling, 0) == ("cancelled", CALLER)


def test_a_group_in_a_finished_pool_refuses(make_pool):
    """T65. PoolFinished at the call, and it leaves the block: nothing hangs."""
    pool = make_pool(1)
    pool.finish()
    with pytest.raises((mh.PoolFinished, ExceptionGroup)) as raised, pool.job_group() as group:
        group.enqueue(int)
    error = raised.value
    assert isinstance(error, mh.PoolFinished) or error.subgroup(mh.PoolFinished) is not None


def test_a_group_inside_a_job_of_a_pool_with_room(make_pool):
    """T75b. A job may open a group on its own pool as long as a thread is left for the group's jobs."""
    pool = make_pool(2)

    def work() -> list[int]:
        with pool.job_group() as group:
            jobs = [group.submit(pow, 2, number) for number in range(10)]
        return [job.result(0) for job in jobs]

    assert pool.enqueue(work).result(LONG) == [2**number for number in range(10)]


def test_two_groups_of_one_pool_do_not_touch_each_other(make_pool):
    """T72. An error stops siblings, not the other group's jobs, nor the pool's."""
    pool = make_pool(3)
    willing = Stoppable()
    single = Stoppable()
    alone = pool.enqueue(single)
    single.wait_entered()
    with pool.job_group() as outer:
        job = outer.enqueue(willing)
        willing.wait_entered()
        with pytest.raises(ExceptionGroup), pool.job_group() as inner:
            inner.enqueue(fail)
        assert not job.stop_requested
        assert not alone.stop_requested
        outer.stop()
    alone.stop()
    assert outcome(alone) == ("cancelled", CALLER)


def test_a_queued_job_of_a_group_that_is_stopped_ends_the_wait(make_pool, spawn):
    """T62. The group does not wait for a thread to see that a job will never run.

    It was stopped by somebody else than the group: that is an error of it.
    """
    pool = make_pool(1)
    with occupied(pool):
        jobs: list[mh.Job] = []

        def use() -> None:
            with pool.job_group() as group:
                jobs.append(group.enqueue(int))

        call = spawn(use)
        wait_until(lambda: jobs)
        jobs[0].stop()
        with pytest.raises(ExceptionGroup) as raised:
            call.result()
    assert [type(error) for error in raised.value.exceptions] == [mh.JobCancelled]


def test_ctrl_c_while_a_group_waits_stops_its_jobs(subprocess_python):
    """T95. The main thread waits at the end of the block: the jobs are told, and KeyboardInterrupt leaves it."""
    done = subprocess_python("""
import os, signal, threading
import manyhands as mh

pool = mh.ThreadPool(2)
entered = threading.Event()

def work():
    entered.set()
    mh.sleep_blocking(60)

threading.Thread(target=lambda: (entered.wait(20), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
try:
    with pool.job_group() as group:
        job = group.enqueue(work)
except KeyboardInterrupt:
    pass
except BaseExceptionGroup as error:
    assert error.subgroup(KeyboardInterrupt), error
else:
    raise SystemExit("not interrupted")
assert job.reason is mh.StopReason.CALLER, job
assert pool.destroy(10) == []
print("ok")
""")
    assert (done.returncode, done.stdout.strip()) == (0, "ok"), done.stderr
