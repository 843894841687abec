"""Stops: each path asks a job once, with its own reason, and the job ends as it likes."""

from __future__ import annotations

import concurrent.futures
import logging
import threading

import pytest

import manyhands as mh
from gate import Gate
from pooling import Deliberate, F, P, Q, S, Stoppable, fail, occupied, outcome
from support import LONG, wait_until
from turning import BRIEF

CALLER = mh.StopReason.CALLER
DEADLINE = mh.StopReason.DEADLINE
OWNER_GONE = mh.StopReason.OWNER_GONE
POOL_FINISHING = mh.StopReason.POOL_FINISHING


# -------------------------------------------------------------------------------------------------------- every path


@pytest.mark.parametrize(
    "path", ["stop", "cancel", "owner strand", "owner watch", "owner's loop", "deadline", "finish"]
)
def test_a_running_job_is_told_once_on_every_path(make_pool, make_loop, pair, path):
    """T61. The first check-in after the stop raises JobStopped with the reason; a second stop changes nothing."""
    loop = make_loop()
    pool = make_pool(1)
    cleaned: list[mh.Job] = []
    owner = loop.add(pair()[0], mh.Events.READ, print) if path == "owner watch" else loop.strand()
    options = {"deadline": mh.now() + 0.05} if path == "deadline" else {}
    willing = Stoppable()
    job = pool.enqueue(willing, owner=owner, cleanup=cleaned.append, **options)
    if path != "deadline":
        willing.wait_entered()
    if path == "stop":
        assert job.stop() is True
    elif path == "cancel":
        assert job.cancel() is False
    elif path == "owner strand":
        owner.close()
    elif path == "owner watch":
        owner.remove()
    elif path == "owner's loop":
        loop.close()
    elif path == "finish":
        pool.finish()
    wait_until(lambda: job.stop_requested)
    job.stop()
    reason = {"deadline": DEADLINE, "finish": POOL_FINISHING, "stop": CALLER, "cancel": CALLER}.get(path, OWNER_GONE)
    assert outcome(job) == ("cancelled" if reason is CALLER else "aborted", reason)
    assert job.reason is reason
    assert willing.told in ([reason], [])
    assert willing.told or path == "deadline"
    assert job.status is S
    assert job.stop() is False
    pool.destroy(LONG)
    assert cleaned == [job]


@pytest.mark.parametrize("path", ["stop", "cancel", "owner", "deadline", "finish"])
def test_a_queued_job_that_is_stopped_never_runs_and_is_cleaned_up_once(make_pool, loop, path):
    """T62. It is STOPPED at once, though every thread is busy; its cleanup runs on a thread of the pool."""
    pool = make_pool(1, name="mill")
    ran = threading.Event()
    cleaned: list[tuple[mh.Job, mh.JobStatus, str]] = []
    strand = loop.strand()

    def cleanup(job: mh.Job) -> None:
        cleaned.append((job, job.status, threading.current_thread().name))

    with occupied(pool):
        options = {"deadline": mh.now() + 0.02} if path == "deadline" else {}
        job = pool.enqueue(ran.set, owner=strand, cleanup=cleanup, **options)
        if path == "stop":
            assert job.stop() is True
        elif path == "cancel":
            assert job.cancel() is True
            assert job.cancel() is True
        elif path == "owner":
            strand.close()
        elif path == "finish":
            pool.finish()
        else:
            wait_until(lambda: job.status is S)
        assert job.status is S
        assert job.done()
        wait_until(lambda: len(cleaned) == 1)
    reason = {"owner": OWNER_GONE, "deadline": DEADLINE, "finish": POOL_FINISHING}.get(path, CALLER)
    assert outcome(job, 0) == ("cancelled" if reason is CALLER else "aborted", reason)
    pool.destroy(LONG)
    ((cleaned_job, status, thread),) = cleaned
    assert (cleaned_job, status) == (job, S)
    assert thread.startswith("mh-mill-")
    assert not ran.is_set()


def test_the_error_of_a_stop_says_what_it_was(make_pool, loop):
    """T61. By its caller: cancelled. For another reason: failed; past a deadline also a TimeoutError."""
    pool = make_pool(1)
    strand = loop.strand()
    with occupied(pool):
        cancelled = pool.enqueue(int)
        gone = pool.enqueue(int, owner=strand)
        late = pool.enqueue(int, deadline=mh.now() - 1)
        cancelled.stop()
        strand.close()
        wait_until(late.done)
    for wait in (cancelled.result, cancelled.exception):
        with pytest.raises(mh.JobCancelled) as raised:
            wait(0)
        assert isinstance(raised.value, concurrent.futures.CancelledError)
        assert not isinstance(raised.value, TimeoutError)
    for job, is_timeout in ((gone, False), (late, True)):
        error = job.exception(0)
        assert type(error) is mh.JobAborted or isinstance(error, mh.JobAborted)
        assert isinstance(error, TimeoutError) is is_timeout
        assert not isinstance(error, concurrent.futures.CancelledError)
        assert not job.cancelled()
        with pytest.raises(mh.JobAborted):
            job.result(0)
    assert issubclass(mh.JobStopped, BaseException)
    assert not issubclass(mh.JobStopped, Exception)


# --------------------------------------------------------------------------------------------- what the job makes of it


def test_a_job_that_finishes_all_the_same_is_finished(make_pool):
    """T61. Asked to stop, it returned a value: FINISHED with it, and the reason says that it was asked."""
    pool = make_pool(1)
    with Gate() as gate:
        job = pool.enqueue(lambda: (gate(), 7)[1])
        gate.wait_entered()
        job.stop()
        assert job.status is P
        assert (job.running(), job.stop_requested) == (True, True)
    assert job.result(LONG) == 7
    assert (job.status, job.reason, job.cancelled()) == (F, CALLER, False)
    assert job.cancel() is False


def test_a_job_that_raises_while_it_is_asked_to_stop_is_finished_with_that(make_pool):
    """T72. An error in its cleaning up is not lost behind the stop."""
    pool = make_pool(1)
    failing = Stoppable(then=fail)
    job = pool.enqueue(failing)
    failing.wait_entered()
    job.stop()
    assert outcome(job) == ("raised", Deliberate)
    assert job.status is F


def deep(levels: int, look) -> object:
    return look() if levels == 0 else deep(levels - 1, look)


@pytest.mark.parametrize("call", [mh.check_in, lambda: mh.sleep_blocking(LONG), lambda: mh.current_job().check_in()])
def test_a_job_checks_in_from_any_depth(make_pool, call):
    """T61. No object is passed down: check_in() and sleep_blocking() know their job."""
    pool = make_pool(1)
    with Gate() as gate:

        def work() -> None:
            mh.check_in()
            gate()
            deep(50, call)

        job = pool.enqueue(work)
        gate.wait_entered()
        job.stop()
    assert outcome(job) == ("cancelled", CALLER)


def test_except_exception_does_not_swallow_a_stop(make_pool):
    """T61. JobStopped is no Exception; `finally` runs."""
    seen: list[str] = []
    with Gate() as gate:

        def work() -> None:
            try:
                gate()
                mh.check_in()
            except Exception:
                seen.append("swallowed")
            finally:
                seen.append("finally")

        job = make_pool(1).enqueue(work)
        gate.wait_entered()
        job.stop()
    assert outcome(job) == ("cancelled", CALLER)
    assert seen == ["finally"]


def test_a_swallowed_stop_leaves_the_job_in_peace_to_clean_up_and_comes_again_after_a_second(make_pool):
    """T61. The check-ins right after raise nothing; one a second later does."""
    pool = make_pool(1)
    told: list[float] = []
    quiet: list[int] = []
    with Gate() as gate:

        def work() -> None:
            gate()
            try:
                mh.check_in()
            except mh.JobStopped:
                told.append(mh.now())
            for _ in range(100):
                mh.check_in()
                quiet.append(1)
            while mh.now() < told[0] + LONG:
                try:
                    mh.check_in()
                except mh.JobStopped:
                    told.append(mh.now())
                    raise

        job = pool.enqueue(work)
        gate.wait_entered()
        job.stop()
    assert outcome(job) == ("cancelled", CALLER)
    assert len(quiet) == 100
    assert len(told) == 2
    assert told[1] - told[0] >= 0.9


def test_a_stop_at_any_moment_of_a_start_is_told_or_prevents_it(make_pool, spawn):
    """T62. A stop that races with the thread that takes the job: it never runs, or it is told; never neither."""
    pool = make_pool(2)
    for _ in range(300):
        willing = Stoppable()
        job = pool.enqueue(willing)
        assert job.stop() is True
        assert outcome(job) == ("cancelled", CALLER)
        assert willing.told == ([CALLER] if willing.entered.is_set() else [])


@pytest.mark.race
def test_stops_from_many_threads_tell_a_job_once(make_pool, spawn, make_loop):
    """T61. Caller, owner and pool at the same time: one reason, one JobStopped, one cleanup."""
    loop = make_loop()
    for _ in range(30):
        pool = make_pool(1)
        strand = loop.strand()
        willing = Stoppable()
        cleaned: list[mh.Job] = []
        job = pool.enqueue(willing, owner=strand, cleanup=cleaned.append)
        willing.wait_entered()
        start = threading.Barrier(3)

        def at_once(call, start=start) -> None:
            start.wait(LONG)
            call()

        calls = [spawn(at_once, call) for call in (job.stop, strand.close, pool.finish)]
        for call in calls:
            call.result()
        how, reason = outcome(job)
        assert how == ("cancelled" if reason is CALLER else "aborted")
        assert willing.told == [reason]
        pool.destroy(LONG)
        assert cleaned == [job]


# ---------------------------------------------------------------------------------------------------------- deadlines


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_deadline_stops_a_job_though_every_thread_is_busy(make_pool, loop, state):
    """T69. Nobody of the pool has to be free to see that it is late."""
    pool = make_pool(2)
    with occupied(pool, 1 if state == "running" else 2):
        willing = Stoppable()
        job = pool.enqueue(willing, deadline=mh.now() + (0.2 if state == "running" else 0.02))
        assert outcome(job) == ("aborted", DEADLINE)
        assert isinstance(job.exception(), TimeoutError)
    if state == "queued":
        assert not willing.entered.is_set()


def test_a_deadline_that_is_kept_has_no_effect(make_pool):
    """T69. The job is done before; nothing comes later."""
    pool = make_pool(1)
    jobs = [pool.enqueue(pow, 2, 3, deadline=mh.now() + LONG) for _ in range(20)]
    assert [job.result(LONG) for job in jobs] == [8] * 20
    assert {job.reason for job in jobs} == {None}


def test_deadlines_are_met_in_their_own_order(make_pool):
    """T69. A near one that is set after a far one is not kept waiting for it."""
    pool = make_pool(1)
    with occupied(pool):
        far = pool.enqueue(int, deadline=mh.now() + 3 * LONG)
        near = pool.enqueue(int, deadline=mh.now() + 0.02)
        assert outcome(near) == ("aborted", DEADLINE)
        assert far.status is Q
    assert far.result(LONG) == 0


# ------------------------------------------------------------------------------------------------------- stop warnings


def test_a_job_that_does_not_check_in_is_logged_once_with_its_stack(make_pool, caplog):
    """T61. After stop_warning seconds: its name, and where it is; then it is left alone."""
    pool = make_pool(1, name="mill", stop_warning=0.05)
    with Gate() as gate, caplog.at_level(logging.WARNING, "manyhands.pool"):

        def a_stubborn_function() -> None:
            gate()

        job = pool.enqueue(a_stubborn_function, name="stubborn")
        gate.wait_entered()
        job.stop()
        wait_until(lambda: caplog.records)
        threading.Event().wait(4 * BRIEF)
        (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "stubborn" in record.getMessage()
    assert "a_stubborn_function" in record.getMessage()


def test_a_job_that_checks_in_in_time_is_not_logged(make_pool, caplog):
    """T61. The warning is for those that do not listen."""
    pool = make_pool(1, stop_warning=0.3)
    willing = Stoppable()
    with caplog.at_level(logging.WARNING, "manyhands.pool"):
        job = pool.enqueue(willing)
        willing.wait_entered()
        job.stop()
        outcome(job)
        threading.Event().wait(0.5)
    assert caplog.records == []


# ---------------------------------------------------------------------------------------------------- clients that go


def test_a_hundred_clients_that_hang_up_leave_nobody_at_work_for_them(make_pool, make_loop, joined, pair):
    """T75a. Within 200 ms no thread works for a dead client, the queue is empty, every record says OWNER_GONE."""
    loop = make_loop()
    pool = make_pool(8, max_queue_depth=None, max_done=1000)
    jobs: list[mh.Job] = []
    peers = []
    gone = threading.Semaphore(0)

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        if watch.source.recv(1) == b"":
            watch.remove()
            gone.release()

    with joined(loop, 2):
        for _ in range(100):
            near, far = pair()
            watch = loop.add(near, mh.Events.READ, handler)
            jobs.append(pool.enqueue(mh.sleep_blocking, 30, owner=watch))
            peers.append(far)
        wait_until(lambda: pool.stats().busy == 8)
        for far in peers:
            far.close()
        for _ in peers:
            assert gone.acquire(timeout=LONG)
        closed = mh.now()
        wait_until(lambda: pool.stats().busy == 0)
        assert mh.now() - closed < 0.2 * LONG / 10
        assert pool.stats().queued == 0
    assert [job.reason for job in jobs] == [OWNER_GONE] * 100
    assert [job.status for job in jobs] == [S] * 100
    assert {snapshot.reason for snapshot in pool.jobs()} == {OWNER_GONE}
