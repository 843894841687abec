"""The pool as an executor of concurrent.futures, and under asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import itertools
import threading

import pytest

import manyhands as mh
from gate import Gate
from pooling import Deliberate, S, Stoppable, fail, occupied, outcome
from support import LONG, wait_until

CALLER = mh.StopReason.CALLER
DEADLINE = mh.StopReason.DEADLINE


# ---------------------------------------------------------------------------------------------- concurrent.futures


def test_the_pool_is_an_executor_and_a_job_is_a_future(make_pool):
    """T72. Both by class, so that other people's code takes them."""
    pool = make_pool(1)
    assert isinstance(pool, concurrent.futures.Executor)
    assert isinstance(pool.submit(int), concurrent.futures.Future)


def test_wait_and_as_completed_work_on_jobs(make_pool):
    """T73. They look into a Future and put their own waiters there: a job has them when they are needed."""
    pool = make_pool(4)
    with Gate() as gate:
        slow = pool.submit(gate)
        failing = pool.submit(fail)
        quick = [pool.submit(pow, 2, number) for number in range(10)]
        done, pending = concurrent.futures.wait([slow, *quick], LONG, return_when=concurrent.futures.FIRST_COMPLETED)
        assert done
        assert slow in pending
        done, pending = concurrent.futures.wait([slow, failing], LONG, return_when=concurrent.futures.FIRST_EXCEPTION)
        assert (done, pending) == ({failing}, {slow})
        done, pending = concurrent.futures.wait([slow, *quick], 0.02)
        assert pending == {slow}
        seen = list(itertools.islice(concurrent.futures.as_completed([slow, *quick], LONG), 10))
        assert set(seen) == set(quick)
    assert concurrent.futures.wait([slow, failing, *quick], LONG).not_done == set()


@pytest.mark.parametrize("state", ["queued", "running"])
def test_wait_and_as_completed_see_a_job_that_is_stopped(make_pool, spawn, state):
    """T62. A stop is an end: nobody waits for ever for a job that never runs."""
    pool = make_pool(1)
    with occupied(pool) if state == "queued" else Gate():
        willing = Stoppable()
        job = pool.submit(willing)
        if state == "running":
            willing.wait_entered()
        waiting = spawn(concurrent.futures.wait, [job])
        completing = spawn(lambda: list(concurrent.futures.as_completed([job])))
        called = threading.Event()
        job.add_done_callback(lambda job: called.set())
        job.stop()
        assert waiting.result().done == {job}
        assert completing.result() == [job]
        assert called.wait(LONG)


def test_done_callbacks_run_once_in_order_and_at_once_on_a_job_that_has_ended(make_pool):
    """T71. On the job's thread; one that raises is logged and harms no other."""
    pool = make_pool(1, name="mill")
    seen: list[object] = []
    with Gate() as gate:
        job = pool.submit(gate)
        for number in range(3):
            job.add_done_callback(lambda job, number=number: seen.append((number, threading.current_thread().name)))
    job.result(LONG)
    wait_until(lambda: len(seen) == 3)
    assert seen == [(number, "mh-mill-0") for number in range(3)]
    job.add_done_callback(seen.append)
    assert seen[3] is job


@pytest.mark.race
def test_a_callback_added_at_any_moment_of_the_end_runs_once(make_pool):
    """T73. Before, during and after: never twice, never not at all."""
    pool = make_pool(2)
    for _ in range(300):
        called: list[mh.Job] = []
        job = pool.submit(int)
        job.add_done_callback(called.append)
        job.add_done_callback(called.append)
        job.result(LONG)
        wait_until(lambda called=called: len(called) == 2)


# --------------------------------------------------------------------------------------------------------------- map


@pytest.mark.parametrize("options", [{}, {"buffersize": 1}, {"buffersize": 3}, {"buffersize": 1000}, {"chunksize": 4}])
def test_map_gives_results_in_order(make_pool, options):
    """T74. Whatever is done first; several iterables end with the shortest."""
    pool = make_pool(3)
    assert list(pool.map(pow, range(30), range(25), **options)) == [number**number for number in range(25)]
    assert list(pool.map(pow, [], [], **options)) == []


def test_map_with_a_buffersize_takes_no_more_than_that_ahead(make_pool):
    """T74. The iterable may have no end: at most so many are in flight or waiting to be fetched."""
    pool = make_pool(2)
    taken = itertools.count()
    last = [0]

    def endless():
        for number in taken:
            last[0] = number
            yield number

    results = pool.map(str, endless(), buffersize=4)
    for number in range(20):
        assert next(results) == str(number)
        assert last[0] <= number + 5
    results.close()


def test_map_is_never_more_in_flight_than_the_queue_takes(make_pool):
    """T70. A full queue makes it wait instead of failing, with and without a buffersize."""
    pool = make_pool(1, max_queue_depth=2)
    assert list(pool.map(str, range(50))) == [str(number) for number in range(50)]
    assert list(pool.map(str, range(50), buffersize=20)) == [str(number) for number in range(50)]
    assert pool.stats().refused == 0


def test_map_without_a_buffersize_submits_all_before_the_first_is_asked_for(make_pool):
    """T74. concurrent.futures' meaning: they run though nobody iterates."""
    pool = make_pool(2)
    ran: list[int] = []
    pool.map(ran.append, range(20))
    pool.shutdown()
    assert sorted(ran) == list(range(20))


def test_map_raises_what_a_call_raised_where_its_result_would_be(make_pool):
    """T72. The ones before it are given."""
    results = make_pool(2).map(divmod, [1, 2, 3], [1, 0, 1])
    assert next(results) == (1, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_map_that_times_out_or_is_closed_stops_what_it_started(make_pool):
    """T61. Those that still wait in the queue never run."""
    pool = make_pool(1)
    ran: list[int] = []
    with occupied(pool):
        results = pool.map(ran.append, range(5), timeout=0.02)
        with pytest.raises(TimeoutError):
            next(results)
        wait_until(lambda: pool.stats().queued == 0)
    assert pool.submit(int).result(LONG) == 0
    assert ran == []
    closed = pool.map(lambda number: (ran.append(number), number)[1], range(5), buffersize=3)
    assert next(closed) == 0
    with occupied(pool):
        closed.close()
        wait_until(lambda: pool.stats().queued == 0)
    assert ran in ([0], [0, 1], [0, 1, 2], [0, 1, 2, 3])


@pytest.mark.parametrize("wrong", [{"buffersize": 0}, {"buffersize": -1}])
def test_map_refuses_what_makes_no_sense(make_pool, wrong):
    """T70. ValueError at the call."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        list(make_pool(1).map(str, [1], **wrong))


# ----------------------------------------------------------------------------------------------------------- asyncio


def test_a_job_can_be_awaited(make_pool):
    """T72. By asyncio.wrap_future: value and error."""
    pool = make_pool(2)

    async def main() -> None:
        assert await asyncio.wrap_future(pool.submit(pow, 2, 3)) == 8
        with pytest.raises(Deliberate):
            await asyncio.wrap_future(pool.submit(fail))

    asyncio.run(main())


@pytest.mark.parametrize("state", ["queued", "running"])
def test_cancelling_the_await_stops_the_job(make_pool, state):
    """T61. The job is asked, its thread is free, and the task is cancelled."""
    pool = make_pool(1)
    willing = Stoppable()

    async def main() -> mh.Job:
        job = pool.submit(willing)
        task = asyncio.ensure_future(asyncio.wait_for(asyncio.wrap_future(job), LONG))
        await asyncio.wait([task], timeout=0)  # it has begun to wait
        if state == "running":
            await asyncio.to_thread(willing.wait_entered)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return job

    with occupied(pool) if state == "queued" else Gate():
        job = asyncio.run(main())
        assert outcome(job) == ("cancelled", CALLER)


def test_a_job_past_its_deadline_is_not_swallowed_by_a_task_group(make_pool):
    """T75e. JobAborted reaches the TaskGroup as an error: it was not cancelled by anybody who waits."""
    pool = make_pool(2)
    after: list[str] = []

    async def main() -> None:
        async def wait_for_the_job() -> None:
            await asyncio.wrap_future(pool.enqueue(mh.sleep_blocking, 3 * LONG, deadline=mh.now() + 0.05))
            after.append("not reached")

        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_the_job())

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(main())
    (error,) = raised.value.exceptions
    assert isinstance(error, mh.JobAborted)
    assert isinstance(error, TimeoutError)
    assert error.reason is DEADLINE
    assert after == []


def test_a_job_stopped_by_its_caller_is_a_cancellation_there(make_pool):
    """T75e. The other side of it: whoever stops the job has cancelled it."""
    pool = make_pool(1)

    async def main() -> None:
        job = pool.enqueue(mh.sleep_blocking, 3 * LONG)
        future = asyncio.wrap_future(job)
        job.stop()
        with pytest.raises(asyncio.CancelledError):
            await future

    asyncio.run(main())


def test_the_executor_is_what_asyncio_insists_on(make_pool):
    """T72. set_default_executor takes it; to_thread and run_in_executor go to the pool, names and context with them."""
    pool = make_pool(2, name="mill")
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    executor = pool.executor()
    assert isinstance(executor, concurrent.futures.ThreadPoolExecutor)

    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(executor)
        variable.set("mine")
        return [
            await asyncio.to_thread(lambda: (threading.current_thread().name, variable.get())),
            await loop.run_in_executor(None, lambda: threading.current_thread().name),
            await loop.run_in_executor(pool, pow, 2, 3),
        ]

    first, second, third = asyncio.run(main())
    assert first[0].startswith("mh-mill-")
    assert first[1] == "mine"
    assert second.startswith("mh-mill-")
    assert third == 8
    assert pool.enqueue(int).result(LONG) == 0, "asyncio.run shut down the pool itself"


def test_the_executor_keeps_stop_and_bound(make_pool):
    """T70. Its futures are jobs; on a thread that runs an event loop of asyncio a full queue is an error at once."""
    pool = make_pool(1, max_queue_depth=1)
    executor = pool.executor()

    async def main() -> None:
        job = executor.submit(int)
        assert isinstance(job, mh.Job)
        with pytest.raises(mh.QueueFull):
            executor.submit(int)
        assert job.cancel() is True
        assert job.status is S

    with occupied(pool):
        asyncio.run(main())


def test_shutting_the_executor_down_waits_for_its_own_jobs_only(make_pool, spawn):
    """T65. The pool and other jobs of it go on; the executor takes nothing more."""
    pool = make_pool(2)
    executor, other = pool.executor(), pool.executor()
    with Gate() as foreign:
        running = pool.enqueue(foreign)
        foreign.wait_entered()
        with Gate() as gate:
            job = executor.submit(gate)
            gate.wait_entered()
            call = spawn(executor.shutdown)
            assert not threading.Event().wait(0.02)
            assert not call.done
        call.result()
        assert job.done()
        assert not running.done()
        with pytest.raises(RuntimeError):
            executor.submit(int)
        assert other.submit(pow, 2, 3).result(LONG) == 8
        assert pool.submit(pow, 2, 4).result(LONG) == 16
    other.shutdown()


def test_the_executor_can_cancel_its_queued_jobs(make_pool):
    """T65. shutdown(cancel_futures=True) cancels those of the executor, and not the pool's."""
    pool = make_pool(1)
    executor = pool.executor()
    with occupied(pool):
        mine = [executor.submit(int) for _ in range(3)]
        others = [pool.submit(int) for _ in range(3)]
        executor.shutdown(wait=False, cancel_futures=True)
        assert [job.cancelled() for job in mine] == [True] * 3
    assert [job.result(LONG) for job in others] == [0] * 3


def test_map_of_the_executor_goes_to_the_pool(make_pool):
    """T74. In order, on the pool's threads."""
    pool = make_pool(2, name="mill")
    with pool.executor() as executor:
        names = list(executor.map(lambda _: threading.current_thread().name, range(10)))
    assert all(name.startswith("mh-mill-") for name in names)
