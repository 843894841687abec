"""The sync: a job and its owner meet; what ends it, and what does not."""

from __future__ import annotations

import contextlib
import contextvars
import threading

import pytest

import manyhands as mh
from gate import Gate
from pooling import Deliberate, F, P, R, S, Y, fail, outcome
from support import LONG, wait_until
from turning import nothing

CALLER = mh.StopReason.CALLER
OWNER_GONE = mh.StopReason.OWNER_GONE
SYNC_FAILED = mh.StopReason.SYNC_FAILED
SYNC_TIMEOUT = mh.StopReason.SYNC_TIMEOUT


def meet(value: object = None, **options: object) -> object:
    return mh.current_job().sync(value, **options)


# ------------------------------------------------------------------------------------------------------- the meeting


def test_a_sync_gives_a_value_and_gets_an_answer(make_pool, loop, joined):
    """T66. on_sync(job, value) runs on the owner's strand, on a joined thread; sync() returns what answer() gave."""
    pool = make_pool(1)
    seen: list[object] = []

    def on_sync(job: mh.Job, value: int) -> None:
        seen.append((job.status, value, threading.current_thread(), mh.current_job()))
        job.answer(value * 2)

    with joined(loop, 1) as (thread,):
        job = pool.enqueue(lambda: [meet(number) for number in range(3)], owner=loop.strand(), on_sync=on_sync)
        assert job.result(LONG) == [0, 2, 4]
    assert seen == [(Y, number, thread, None) for number in range(3)]


@pytest.mark.race
def test_a_job_and_its_owners_callback_never_run_at_the_same_time(make_pool, make_loop, joined):
    """T66. The answer is given early in on_sync; the job goes on after on_sync has returned, and not before."""
    loop = make_loop()
    pool = make_pool(4)
    overlaps: list[str] = []

    def start() -> mh.Job:
        state = {"in on_sync": False}

        def on_sync(job: mh.Job, value: object) -> None:
            state["in on_sync"] = True
            job.answer()
            for _ in range(200):
                if job.status not in (Y, P):
                    overlaps.append(job.status.name)
            state["in on_sync"] = False

        def work() -> None:
            for _ in range(25):
                meet()
                if state["in on_sync"]:
                    overlaps.append("on_sync had not returned")

        return pool.enqueue(work, owner=loop.strand(), on_sync=on_sync)

    with joined(loop, 2):
        for job in [start() for _ in range(8)]:
            assert outcome(job) == ("returned", None)
    assert overlaps == []


def test_on_sync_is_in_order_with_what_the_strand_does(make_pool, loop, joined):
    """T66. The strand is the owner's: while a message of it runs, on_sync waits."""
    pool = make_pool(1)
    strand = loop.strand()
    order: list[str] = []
    with joined(loop, 2), Gate() as gate:
        strand.post(gate)
        strand.post(order.append, "message")
        gate.wait_entered()
        job = pool.enqueue(meet, owner=strand, on_sync=lambda job, value: (order.append("on_sync"), job.answer("met")))
        wait_until(lambda: job.status is Y)
        assert order == []
        gate.open()
        assert job.result(LONG) == "met"
    assert order == ["message", "on_sync"]


def test_on_sync_runs_in_the_context_of_the_enqueue(make_pool, loop, joined):
    """T75c. Not in the job's copy, nor in the loop's."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    def work() -> str:
        variable.set("set by the job")
        return meet()

    with joined(loop, 1):
        variable.set("the submitter's")
        job = make_pool(1).enqueue(work, owner=loop.strand(), on_sync=lambda job, value: job.answer(variable.get()))
        variable.set("later")
        assert job.result(LONG) == "the submitter's"


def test_an_answer_may_come_later_and_from_any_thread(make_pool, loop, joined):
    """T66. on_sync returns without one; the job waits on, until somebody answers."""
    asked: list[mh.Job] = []
    with joined(loop, 1):
        job = make_pool(1).enqueue(meet, owner=loop.strand(), on_sync=lambda job, value: asked.append(job))
        wait_until(lambda: asked)
        assert job.status is Y
        assert job.running()
        job.answer({"from": "the test"})
        assert job.result(LONG) == {"from": "the test"}


def test_a_sync_when_writable_waits_for_its_owner_to_be(make_pool, loop, joined, pair):
    """T66. on_sync comes only when the owner's descriptor can be written to: how a slow client is written to."""
    near, far = pair()
    sent = 0
    try:
        while True:
            sent += near.send(bytes(65536))
    except BlockingIOError:
        pass
    called = threading.Event()

    def on_sync(job: mh.Job, value: bytes) -> None:
        called.set()
        job.answer(near.send(value))

    with joined(loop, 1):
        watch = loop.add(near, mh.Events.READ, nothing)
        job = make_pool(1).enqueue(lambda: meet(b"x", when_writable=True), owner=watch, on_sync=on_sync)
        wait_until(lambda: job.status is Y)
        assert not called.wait(0.05)
        while sent > 0:
            sent -= len(far.recv(min(sent, 65536)))
        assert job.result(LONG) == 1
        assert far.recv(10) == b"x"
        watch.remove()


def test_nothing_watches_the_owner_for_a_job_that_was_stopped_before_it_could_be_written_to(
    make_pool, loop, joined, pair
):
    """T66. The owner's descriptor is watched once more for such a sync, and not beyond the job's end."""
    near, _far = pair()
    with contextlib.suppress(BlockingIOError):
        while True:
            near.send(bytes(65536))
    with joined(loop, 1):
        watch = loop.add(near, mh.Events.READ, nothing)
        job = make_pool(1).enqueue(lambda: meet(when_writable=True), owner=watch, on_sync=nothing)
        wait_until(lambda: loop.stats().watches == 2)
        job.stop()
        assert outcome(job) == ("cancelled", mh.StopReason.CALLER)
        wait_until(lambda: loop.stats().watches == 1)
        watch.remove()


# ------------------------------------------------------------------------------------------------------ wrong answers


def test_a_second_answer_is_refused_and_releases_nothing(make_pool, loop, joined):
    """T67. The first counts; another raises, in on_sync and after it, and is not kept for the next sync."""
    refused: list[str] = []

    def on_sync(job: mh.Job, value: int) -> None:
        job.answer(value)
        try:
            job.answer("again")
        except RuntimeError as error:
            refused.append(str(error))

    with joined(loop, 1), Gate() as gate:

        def work() -> list[object]:
            first = meet(1)
            gate()
            return [first, meet(2)]

        job = make_pool(1).enqueue(work, owner=loop.strand(), on_sync=on_sync)
        gate.wait_entered()
        assert job.status is R
        with pytest.raises(RuntimeError):
            job.answer("between")
        gate.open()
        assert job.result(LONG) == [1, 2]
    assert len(refused) == 2


@pytest.mark.race
def test_answers_from_many_threads_release_one_sync_once(make_pool, make_loop, joined, spawn):
    """T67. Of several answers exactly one is taken, each time."""
    loop = make_loop()
    asked = threading.Semaphore(0)
    with joined(loop, 1):
        given: list[int] = []
        start, end = threading.Barrier(3), threading.Barrier(4)

        def meet_again_when_both_have_answered() -> object:
            answer = meet()
            end.wait(LONG)
            return answer

        job = make_pool(1).enqueue(
            lambda: [meet_again_when_both_have_answered() for _ in range(50)],
            owner=loop.strand(),
            on_sync=lambda job, value: asked.release(),
        )

        def answer(name: int) -> None:
            for turn in range(50):
                start.wait(LONG)
                try:
                    job.answer((name, turn))
                    given.append(name)
                except RuntimeError:
                    pass
                end.wait(LONG)

        threads = [spawn(answer, name) for name in range(2)]
        for turn in range(50):
            assert asked.acquire(timeout=LONG)
            start.wait(LONG)
            end.wait(LONG)
            assert len(given) == turn + 1
        for thread in threads:
            thread.result()
        assert [turn for _, turn in job.result(LONG)] == list(range(50))


# --------------------------------------------------------------------------------------------------- how it may fail


def test_a_sync_that_nobody_answers_in_time_stops_the_job(make_pool, loop, joined):
    """T69. With its own reason, also a TimeoutError for the waiter; a late answer is refused."""
    told: list[mh.StopReason] = []

    def work() -> None:
        try:
            meet(timeout=0.02)
        except mh.JobStopped as stopped:
            told.append(stopped.reason)
            raise

    with joined(loop, 1):
        job = make_pool(1).enqueue(work, owner=loop.strand(), on_sync=nothing)
        assert outcome(job) == ("aborted", SYNC_TIMEOUT)
        assert isinstance(job.exception(), TimeoutError)
        with pytest.raises(RuntimeError):
            job.answer()
    assert told == [SYNC_TIMEOUT]


def test_a_sync_timeout_is_seen_though_every_thread_is_busy(make_pool, loop, joined):
    """T69. The pool's threads sync, and the loop's only thread is inside a handler: the job is stopped all the same."""
    pool = make_pool(2)
    with joined(loop, 1), Gate() as gate:
        loop.post(gate)
        gate.wait_entered()
        jobs = [pool.enqueue(lambda: meet(timeout=0.02), owner=loop.strand(), on_sync=nothing) for _ in range(2)]
        assert [outcome(job) for job in jobs] == [("aborted", SYNC_TIMEOUT)] * 2


def test_an_error_in_on_sync_stops_the_job_and_is_reported(make_pool, make_loop, joined):
    """T66. The loop's on_error is told, with source "on_sync"; the job is stopped with SYNC_FAILED; the loop lives."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)
    with joined(loop, 1):
        job = make_pool(1).enqueue(meet, owner=loop.strand(), on_sync=fail)
        assert outcome(job) == ("aborted", SYNC_FAILED)
        came = threading.Event()
        loop.post(came.set)
        assert came.wait(LONG)
    (report,) = reports
    assert report.source == "on_sync"
    assert isinstance(report.error, Deliberate)


def test_on_sync_that_answers_and_then_raises(make_pool, make_loop, joined):
    """T66. The job goes on or is stopped with SYNC_FAILED, once; the error is reported; nothing hangs."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)

    def on_sync(job: mh.Job, value: object) -> None:
        job.answer("met")
        fail()

    with joined(loop, 1):
        job = make_pool(1).enqueue(meet, owner=loop.strand(), on_sync=on_sync)
        assert outcome(job) in [("returned", "met"), ("aborted", SYNC_FAILED)]
        wait_until(lambda: reports)
    assert len(reports) == 1


@pytest.mark.parametrize("who", ["caller", "owner", "deadline", "pool"])
def test_whoever_stops_a_syncing_job_frees_its_thread_at_once(make_pool, loop, joined, who):
    """T68. Nobody answers, and nobody has to: the pool's only thread runs the next job."""
    pool = make_pool(1)
    strand = loop.strand()
    told: list[mh.StopReason] = []

    def work() -> None:
        try:
            meet()
        except mh.JobStopped as stopped:
            told.append(stopped.reason)
            raise

    with joined(loop, 1):
        options = {"deadline": mh.now() + 0.1} if who == "deadline" else {}
        job = pool.enqueue(work, owner=strand, on_sync=nothing, **options)
        if who != "deadline":
            wait_until(lambda: job.status is Y)
        if who == "caller":
            assert job.stop() is True
        elif who == "owner":
            strand.close()
        elif who == "pool":
            pool.finish()
        how, reason = outcome(job)
        assert job.status is S
        if who != "pool":
            assert pool.enqueue(int).result(LONG) == 0
        with pytest.raises(RuntimeError):
            job.answer()
    expected = {"caller": CALLER, "owner": OWNER_GONE, "deadline": mh.StopReason.DEADLINE}
    assert reason is expected.get(who, mh.StopReason.POOL_FINISHING)
    assert how == ("cancelled" if who == "caller" else "aborted")
    assert told == [reason] or (who == "deadline" and told == [])


def test_a_stop_while_on_sync_runs_waits_for_it(make_pool, loop, joined):
    """T66. The two never run at the same time: the job gets its JobStopped after on_sync has returned."""
    pool = make_pool(1)
    order: list[str] = []
    with joined(loop, 1), Gate() as gate:

        def on_sync(job: mh.Job, value: object) -> None:
            gate()
            order.append("on_sync returns")

        def work() -> None:
            try:
                meet()
            finally:
                order.append("the job goes on")

        job = pool.enqueue(work, owner=loop.strand(), on_sync=on_sync)
        gate.wait_entered()
        job.stop()
        assert job.status is P
        assert order == []
        gate.open()
        assert outcome(job) == ("cancelled", CALLER)
    assert order == ["on_sync returns", "the job goes on"]


def test_an_outliving_job_goes_on_without_its_owner(make_pool, loop, joined):
    """T68. The sync returns None, and so do later ones; nobody is asked; FINISHED."""
    pool = make_pool(1)
    strand = loop.strand()
    asked: list[object] = []
    with joined(loop, 1), Gate() as gate:

        def work() -> list[object]:
            first = meet("first")
            gate()
            return [first, meet("second"), mh.current_job().owner]

        job = pool.enqueue(work, owner=strand, outlive=True, on_sync=lambda job, value: asked.append(value))
        wait_until(lambda: asked)
        strand.close()
        gate.wait_entered()
        assert (job.status, job.stop_requested, job.owner) == (R, False, None)
        gate.open()
        assert job.result(LONG) == [None, None, None]
    assert asked == ["first"]
    assert job.status is F
    with pytest.raises(RuntimeError):
        job.reap()
