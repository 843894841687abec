"""One job: how it ends, whom it calls, its context, and its side of a Future."""

from __future__ import annotations

import concurrent.futures
import contextvars
import gc
import logging
import threading
import weakref

import pytest

import manyhands as mh
from gate import Gate
from pooling import Deliberate, F, R, S, Stoppable, fail, occupied, outcome
from support import LONG, wait_until

CALLER = mh.StopReason.CALLER


# ----------------------------------------------------------------------------------------------------------- its end


def test_a_job_gives_back_what_its_function_returned(make_pool):
    """T72. FINISHED with the value; a real Future."""
    pool = make_pool(1)
    job = pool.enqueue(pow, 2, 8)
    assert isinstance(job, concurrent.futures.Future)
    assert isinstance(job, mh.Job)
    assert job.result(LONG) == 256
    assert job.exception() is None
    assert (job.status, job.reason, job.stop_requested) == (F, None, False)
    assert (job.done(), job.running(), job.cancelled()) == (True, False, False)


@pytest.mark.parametrize(
    "error",
    [Deliberate, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, concurrent.futures.CancelledError],
)
def test_an_exception_ends_a_job_finished_with_it_and_the_thread_lives(make_pool, error):
    """T72. Whatever it is, also those that are no Exception; the same thread runs the next job."""
    pool = make_pool(1)

    def work() -> None:
        names.append(threading.current_thread())
        raise error

    names: list[threading.Thread] = []
    job = pool.enqueue(work)
    try:
        assert type(job.exception(LONG)) is error
    except concurrent.futures.CancelledError:
        pytest.fail("an error of the job's own was taken for a cancellation")
    assert job.status is F
    assert not job.cancelled()
    assert pool.enqueue(threading.current_thread).result(LONG) is names[0]


def test_an_exception_keeps_its_traceback(make_pool):
    """T72. The frames of the job are in what result() raises."""
    with pytest.raises(Deliberate) as raised:
        make_pool(1).enqueue(fail).result(LONG)
    assert "fail" in [entry.name for entry in raised.traceback]


def test_an_exception_in_cleanup_is_reported_and_changes_nothing(make_pool, caplog):
    """T72. The job has its result, the log has the error, the thread lives."""
    pool = make_pool(1)
    with caplog.at_level(logging.ERROR, "manyhands.pool"):
        job = pool.enqueue(pow, 2, 3, cleanup=fail, name="mine")
        assert job.result(LONG) == 8
        assert pool.enqueue(pow, 2, 4).result(LONG) == 16
        wait_until(lambda: "Deliberate" in caplog.text)
    assert "mine" in caplog.text
    assert job.status is F
    caplog.clear()  # its records hold the frames, and those the job


def test_job_stopped_raised_by_a_job_that_nobody_asked_is_an_error_of_the_job(make_pool):
    """T60. It can't give itself a stop: FINISHED with a RuntimeError."""

    def work() -> None:
        raise mh.JobStopped(CALLER)

    job = make_pool(1).enqueue(work)
    assert outcome(job) == ("raised", RuntimeError)
    assert job.status is F


def test_cleanup_comes_after_the_function_and_before_the_end_is_seen(make_pool):
    """T72. The order at the end of a started job: function, cleanup, status, waiters, done callbacks."""
    order: list[str] = []
    with Gate() as gate:

        def work() -> None:
            gate()
            order.append("function")

        def cleanup(job: mh.Job) -> None:
            order.append(f"cleanup {job.status.name} {job.done()}")

        job = make_pool(1).enqueue(work, cleanup=cleanup)
        gate.wait_entered()
        job.add_done_callback(lambda job: order.append(f"callback {job.status.name} {job.done()}"))
    job.result(LONG)
    wait_until(lambda: len(order) == 3)
    assert order == ["function", "cleanup RUNNING False", "callback FINISHED True"]


def test_on_done_runs_on_the_owners_strand_in_the_context_of_the_enqueue(make_pool, loop, joined):
    """T71. Posted to the owner, after the end is visible; exactly once, for a job that ran and for one that never did."""
    pool = make_pool(1)
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    strand = loop.strand()
    seen: list[object] = []
    inside: list[threading.Thread] = []

    def on_done(job: mh.Job) -> None:
        seen.append((job.status, job.done(), variable.get()))
        inside.append(threading.current_thread())

    with joined(loop, 1) as threads:
        with occupied(pool):
            variable.set("mine")
            queued = pool.enqueue(int, owner=strand, on_done=on_done)
            variable.set("other")
            queued.stop()
            wait_until(lambda: len(seen) == 1)
        pool.enqueue(int, owner=strand, on_done=on_done).result(LONG)
        wait_until(lambda: len(seen) == 2)
    assert seen == [(S, True, "mine"), (F, True, "other")]
    assert inside == threads * 2


@pytest.mark.parametrize("where", ["cleanup", "on_done", "on_sync", "done callback", "on_stop", "on_end"])
def test_callbacks_may_call_the_pool(make_pool, loop, joined, where):
    """T71. From whichever callback: enqueue, stop, jobs, stats, dump, reap: no deadlock, all of it works."""
    strand = loop.strand()
    done = threading.Event()
    seen: list[object] = []

    def use(job: mh.Job, *_: object) -> None:
        if not seen:
            seen.append(pool)
            other = pool.enqueue(int)
            seen.extend([pool.jobs(), pool.stats(), pool.dump(), other.stop(), job.stop()])
            if job.status in (F, S) and where != "on_end":
                seen.append(job.reap())
            done.set()

    def on_sync(job: mh.Job, value: object) -> None:
        if where == "on_sync":
            use(job)  # it stops the job: there is nobody to answer

    def work() -> None:
        job = mh.current_job()
        if where == "on_sync":
            job.sync()
        elif where == "on_stop":
            with job.on_stop(lambda: use(job)):
                job.stop()
                assert done.wait(LONG)

    pool = make_pool(2, on_end=use if where == "on_end" else None)
    with joined(loop, 1):
        job = pool.enqueue(
            work,
            owner=strand,
            on_sync=on_sync,
            cleanup=use if where == "cleanup" else None,
            on_done=use if where == "on_done" else None,
        )
        if where == "done callback":
            job.add_done_callback(use)
        assert done.wait(LONG), pool.dump()
        wait_until(job.done)


# ------------------------------------------------------------------------------------------------------------ context


def test_a_job_sees_the_context_of_its_submitter_and_nothing_after_it_does(make_pool):
    """T75c. A copy of the submitter's context; what the job sets in it nobody else sees."""
    pool = make_pool(1)
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    def work() -> str:
        before = variable.get()
        variable.set("set by the job")
        return before

    variable.set("first")
    first = pool.enqueue(work)
    variable.set("second")
    second = pool.submit(work)
    assert (first.result(LONG), second.result(LONG)) == ("first", "second")
    assert variable.get() == "second"
    in_nothing = contextvars.Context().run(pool.enqueue, work)
    assert in_nothing.result(LONG) == "none"


def test_the_context_of_a_job_is_dropped_with_the_job(make_pool):
    """T75c. A thread that has run a job keeps nothing of its context."""
    pool = make_pool(1)

    class Thing:
        pass

    variable: contextvars.ContextVar[Thing] = contextvars.ContextVar("variable")
    thing = Thing()
    alive = weakref.ref(thing)
    context = contextvars.copy_context()
    context.run(variable.set, thing)
    context.run(pool.enqueue, int).result(LONG)
    del context, thing
    pool.enqueue(int).result(LONG)

    def gone() -> bool:
        gc.collect()
        return alive() is None

    wait_until(gone)


def test_a_thread_keeps_nothing_of_its_last_job(make_pool):
    """T99. Function, arguments and result can be collected while the thread waits for more."""
    pool = make_pool(1)

    class Thing:
        def method(self, other: Thing) -> Thing:
            return Thing()

    thing, argument = Thing(), Thing()
    job = pool.enqueue(thing.method, argument)
    alive = [weakref.ref(thing), weakref.ref(argument), weakref.ref(job.result(LONG))]
    del job, thing, argument

    def gone() -> bool:
        gc.collect()
        return [reference() for reference in alive] == [None] * 3

    wait_until(gone)


def test_current_job_is_the_threads_own(make_pool):
    """T75c. None outside a job; not a context variable, so a copied context does not carry it."""
    pool = make_pool(1)

    def work() -> tuple[mh.Job | None, mh.Job | None]:
        elsewhere: list[mh.Job | None] = []
        thread = threading.Thread(target=lambda: elsewhere.append(mh.current_job()))
        thread.start()
        thread.join()
        return mh.current_job(), elsewhere[0]

    job = pool.enqueue(work)
    assert job.result(LONG) == (job, None)
    assert mh.current_job() is None


# --------------------------------------------------------------------------------------------------------- its future


def test_the_state_of_the_future_follows_the_status(make_pool):
    """T60. Queued is pending; running and stopping are running; the end is done."""
    pool = make_pool(1)
    willing = Stoppable()
    with occupied(pool) as (first,):
        assert (first.running(), first.done()) == (True, False)
        job = pool.enqueue(willing)
        assert (job.running(), job.done(), job.cancelled()) == (False, False, False)
    willing.wait_entered()
    assert (job.running(), job.done()) == (True, False)
    job.stop()
    assert outcome(job) == ("cancelled", CALLER)
    assert (job.running(), job.done(), job.cancelled()) == (False, True, True)


def test_a_result_that_is_waited_for_too_long_is_a_timeout(make_pool):
    """T72. TimeoutError of the waiter; the job goes on."""
    pool = make_pool(1)
    with occupied(pool) as (job,):
        for wait in (job.result, job.exception):
            with pytest.raises(TimeoutError):
                wait(0.01)
        assert job.status is R
    assert outcome(job) == ("returned", None)


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("call", ["set_result", "set_exception", "set_running_or_notify_cancel"])
def test_nobody_else_can_set_the_end_of_a_job(make_pool, call, ended):
    """T60. InvalidStateError; nothing changes."""
    pool = make_pool(1)
    arguments = {"set_result": (1,), "set_exception": (Deliberate(),)}.get(call, ())
    with occupied(pool) as (running,):
        job = running if not ended else pool.enqueue(int, keep=False)
        if ended:
            job.stop()
        with pytest.raises(concurrent.futures.InvalidStateError):
            getattr(job, call)(*arguments)
        assert job.status is (S if ended else R)
    assert outcome(running) == ("returned", None)


def test_progress_is_made_numbers_where_it_is_told(make_pool):
    """Whoever shows it later calls nothing of the program's."""

    class Share:
        def __float__(self) -> float:
            shares.append(threading.current_thread().name)
            return 0.5

    shares: list[str] = []

    def work() -> None:
        job = mh.current_job()
        job.progress(Share(), Share(), "half")
        (shown,) = pool.jobs()
        assert shown.progress == (0.5, 0.5, "half")
        assert [type(said) for said in shown.progress[:2]] == [float, float]

    pool = make_pool(1, name="shares")
    pool.enqueue(work).result(LONG)
    assert len(shares) == 2
