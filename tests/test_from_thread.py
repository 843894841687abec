"""From a job back to the loop: run, run_sync, check_cancelled."""

from __future__ import annotations

import threading

import pytest

import manyhands as mh
from between import on_threads, run, until
from manyhands import from_thread
from manyhands.errors import Cancelled
from support import LONG


@pytest.fixture
def pool(make_pool):
    """A pool of two threads."""
    return make_pool(2)


@on_threads
def test_a_job_has_async_and_plain_functions_run_by_the_task_that_waits_for_it(pool, threads):
    """T85f. On a thread of the loop; any number of them, one after the other."""

    async def main():
        task, loop_threads = mh.current_task(), set()

        async def double(n):
            await mh.checkpoint()
            assert mh.current_task() is task
            loop_threads.add(threading.current_thread())
            return n * 2

        def plain(n):
            assert mh.current_task() is task
            loop_threads.add(threading.current_thread())
            return n + 1

        def function():
            assert from_thread.run(double, 4) == 8
            assert from_thread.run_sync(plain, 4) == 5
            from_thread.check_cancelled()
            return sum(from_thread.run(double, n) for n in range(50)), threading.current_thread()

        total, thread = await mh.run_job(function, pool=pool)
        assert total == 2450
        assert thread not in loop_threads

    run(main, threads=threads)


def test_an_error_of_the_call_is_the_jobs(pool):
    """T85f. The task goes on; the job may catch it."""

    async def fail():
        raise KeyError("async")

    def fail_sync():
        raise KeyError("sync")

    def function():
        with pytest.raises(KeyError, match="async"):
            from_thread.run(fail)
        from_thread.run_sync(fail_sync)

    async def main():
        with pytest.raises(KeyError, match="sync"):
            await mh.run_job(function, pool=pool)

    run(main)


@pytest.mark.race
@on_threads
def test_cancelling_the_scope_cancels_the_call_and_stops_the_job(pool, threads):
    """T85f. The job hears JobStopped when the call has ended, cleanup and all."""
    seen = []

    async def main():
        entered = mh.Event()

        async def sleeps():
            entered.set()
            try:
                await mh.sleep_forever()
            finally:
                with mh.CancelScope(shield=True):
                    await mh.checkpoint()
                seen.append("cleaned up")

        def function():
            try:
                from_thread.run(sleeps)
            except mh.JobStopped as error:
                seen.append(error.reason)
                raise

        async with mh.create_task_group() as group:

            async def work():
                await mh.run_job(function, pool=pool)

            group.start_soon(work)
            await entered.wait()
            group.cancel_scope.cancel()
        assert seen == ["cleaned up", mh.StopReason.CALLER]
        assert pool.stats().stopped == 1

    run(main, threads=threads)


@pytest.mark.race
@on_threads
def test_a_stop_of_the_job_cancels_the_call_and_not_the_task(pool, threads):
    """T61. By its deadline, for one: the wait for the call ends when the call has."""
    seen = []

    async def main():
        async def sleeps():
            try:
                await mh.sleep_forever()
            except Cancelled:
                seen.append("cancelled")
                raise

        def function():
            try:
                from_thread.run(sleeps)
            except mh.JobStopped as error:
                seen.append(error.reason)
                raise

        with mh.CancelScope() as scope:
            with pytest.raises(mh.JobAborted):
                await mh.run_job(function, pool=pool, deadline=mh.now() + 0.02)
            await mh.checkpoint()
        assert not scope.cancelled_caught
        assert seen == ["cancelled", mh.StopReason.DEADLINE]

    run(main, threads=threads)


def test_a_call_of_a_job_that_is_to_stop_does_not_begin(pool):
    """T61. Also the second time, when check_in() has said so already."""
    begun = threading.Event()
    ran = []

    async def note():
        ran.append(1)
        await mh.checkpoint()
        ran.append(2)

    def function():
        begun.set()
        with pytest.raises(mh.JobStopped):
            mh.sleep_blocking(LONG)
        for _ in range(2):
            with pytest.raises(mh.JobStopped):
                from_thread.run(note)
        with pytest.raises(mh.JobStopped):
            from_thread.check_cancelled()

    async def main():
        async with mh.create_task_group() as group:

            async def work():
                await mh.run_job(function, pool=pool)

            group.start_soon(work)
            await until(begun.is_set)
            group.cancel_scope.cancel()
        assert 2 not in ran

    run(main)


@on_threads
def test_check_cancelled_sees_the_scope_before_the_task_does(pool, threads):
    """T85f. The flag of the scope is enough: the task need not have run."""
    reached, go_on = threading.Event(), threading.Event()

    async def main():
        def function():
            from_thread.check_cancelled()
            reached.set()
            assert go_on.wait(LONG)
            from_thread.check_cancelled()

        with mh.CancelScope() as scope:
            async with mh.create_task_group() as group:

                async def work():
                    await mh.run_job(function, pool=pool)

                group.start_soon(work)
                await until(reached.is_set)
                scope.cancel()
                go_on.set()
        assert scope.cancelled_caught
        assert pool.stats().stopped == 1

    run(main, threads=threads)


def test_a_cleanup_may_call_the_loop_with_a_shield(pool):
    """T85f. The task serves its job until that has ended, also when it is to stop itself."""
    begun = threading.Event()
    said = []

    async def tidy():
        with mh.CancelScope(shield=True):
            await mh.checkpoint()
            said.append("tidy")

    def function():
        begun.set()
        try:
            mh.sleep_blocking(LONG)
        finally:
            from_thread.run_sync(said.append, "plain")

    async def main():
        async with mh.create_task_group() as group:

            async def work():
                await mh.run_job(function, pool=pool)

            group.start_soon(work)
            await until(begun.is_set)
            group.cancel_scope.cancel()
        assert said == ["plain"]

    run(main)


@pytest.mark.parametrize("call", ["run", "run_sync", "check_cancelled"])
def test_elsewhere_it_says_what_to_do(pool, call):
    """T6. On a thread without a job, and in a job that no task waits for."""
    args = () if call == "check_cancelled" else (print,)
    with pytest.raises(
        RuntimeError, match=rf"from_thread\.{call}\(\) is for what run_job\(\) runs.*no job.*start_soon"
    ):
        getattr(from_thread, call)(*args)
    with pytest.raises(RuntimeError, match="no task waits for"):
        pool.submit(getattr(from_thread, call), *args).result(LONG)


def test_what_is_no_function_is_refused(pool):
    """T85c."""

    async def main():
        with pytest.raises(TypeError, match="takes a function and its arguments"):
            await mh.run_job(from_thread.run, 7, pool=pool)

    run(main)
