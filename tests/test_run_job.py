"""run_job: a blocking call that is awaited, and that stops when its task is to stop."""

from __future__ import annotations

import contextvars
import signal
import threading
import weakref

import pytest

import manyhands as mh
from between import on_threads, run, until
from gate import Gate
from manyhands import blocking
from manyhands.errors import Cancelled
from streaming import until_waiting
from support import LONG, wait_collected


class Blocked:
    """A function that blocks until the test lets it go, or it is told to stop; it notes what it saw."""

    def __init__(self, *, stoppable: bool = True) -> None:
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.stoppable = stoppable
        self.seen: list[object] = []

    def __call__(self) -> str:
        self.job = mh.current_job()
        self.begun.set()
        try:
            if self.stoppable:
                blocking.wait(self.gate)
            else:
                assert self.gate.wait(LONG)
        except mh.JobStopped as error:
            self.seen.append(error.reason)
            raise
        self.seen.append("went on")
        return "value"


@pytest.fixture
def pool(make_pool):
    """A pool of two threads."""
    return make_pool(2)


@on_threads
def test_a_job_is_awaited_and_gives_what_its_function_returns(pool, threads):
    """T85f. On a thread of the pool, in a copy of the task's context, under the name that was given."""
    variable = contextvars.ContextVar("variable", default="none")

    def function(a, b):
        job = mh.current_job()
        seen = (a + b, variable.get(), job.name, threading.current_thread().name)
        variable.set("changed")
        return seen

    async def main():
        variable.set("the task's")
        value, context, name, thread = await mh.run_job(function, 1, 2, pool=pool, name="sum")
        assert (value, context, name) == (3, "the task's", "sum")
        assert thread.startswith("mh-pool")
        assert variable.get() == "the task's"

    run(main, threads=threads)


@on_threads
def test_what_the_function_raises_passes_as_it_is(pool, threads):
    """T85f."""

    async def main():
        with pytest.raises(KeyError, match="mine") as caught:
            await mh.run_job({}.__getitem__, "mine", pool=pool)
        assert caught.value.__context__ is None

    run(main, threads=threads)


@pytest.mark.race
@on_threads
def test_cancelling_a_scope_that_waits_for_a_job_stops_the_job(pool, threads):
    """T85f. Only when it has ended is the scope left."""
    function = Blocked()

    async def main():
        with mh.CancelScope() as scope:
            async with mh.create_task_group() as group:
                group.start_soon(work)
                await until(function.begun.is_set)
                scope.cancel()
        assert scope.cancelled_caught
        assert function.seen == [mh.StopReason.CALLER]
        assert pool.stats().stopped == 1

    async def work():
        await mh.run_job(function, pool=pool)

    run(main, threads=threads)


@on_threads
def test_a_cancelled_task_waits_for_a_job_that_does_not_check_in(pool, threads):
    """T85f. Its value is lost, the cancellation passes, and nothing runs on after the scope."""
    function = Blocked(stoppable=False)

    async def main():
        said = []

        async def work():
            try:
                await mh.run_job(function, pool=pool)
            except Cancelled:
                said.append("cancelled")
                raise

        async with mh.create_task_group() as group:
            group.start_soon(work)
            await until(function.begun.is_set)
            group.cancel_scope.cancel()
            with mh.CancelScope(shield=True):
                await until(lambda: pool.jobs() and pool.jobs()[0].status is mh.JobStatus.STOPPING)
                assert said == []
                function.gate.set()
        assert said == ["cancelled"]
        assert function.seen == ["went on"]

    run(main, threads=threads)


def test_an_error_of_a_job_that_was_told_to_stop_is_not_lost(pool):
    """T85f. It passes instead of the cancellation."""
    begun = threading.Event()

    def function():
        begun.set()
        try:
            mh.sleep_blocking(LONG)
        except mh.JobStopped:
            raise KeyError("in cleanup") from None

    async def main():
        with mh.CancelScope() as scope:
            async with mh.create_task_group() as group:

                async def work():
                    await mh.run_job(function, pool=pool)

                group.start_soon(work)
                await until(begun.is_set)
                scope.cancel()

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert [repr(error) for error in caught.value.exceptions] == ["KeyError('in cleanup')"]
    del caught


@on_threads
def test_a_queued_job_of_a_cancelled_task_never_runs(make_pool, threads):
    """T85f. T62."""
    pool = make_pool(1)
    ran = []

    async def main():
        with Gate() as gate:
            pool.submit(gate)
            gate.wait_entered()
            with mh.CancelScope() as scope:
                async with mh.create_task_group() as group:

                    async def work():
                        await mh.run_job(ran.append, 1, pool=pool)

                    group.start_soon(work)
                    await until(lambda: pool.stats().queued == 1)
                    scope.cancel()
            assert scope.cancelled_caught
            assert pool.stats().queued == 0

    run(main, threads=threads)
    assert ran == []


def test_a_task_that_is_to_stop_already_starts_no_job(pool):
    """T85f."""

    async def main():
        with mh.CancelScope() as scope:
            scope.cancel()
            await mh.run_job(int, pool=pool)
        assert scope.cancelled_caught
        assert pool.stats().submitted == 0

    run(main)


@pytest.mark.race
@on_threads
@pytest.mark.parametrize("first", ["ended", "cancelled"])
def test_the_end_of_a_job_and_a_cancellation_at_the_same_instant_have_one_outcome(pool, first, threads):
    """T84. T85f. Ended first: the value. Cancelled first: the job is stopped, and its value is lost."""

    async def main():
        outcome = []

        async def work():
            with scope:
                outcome.append(await mh.run_job(function, pool=pool))

        scope, function = mh.CancelScope(), Blocked(stoppable=False)
        async with mh.create_task_group() as group:
            handle = group.create_task(work())
            await until(function.begun.is_set)
            await until_waiting(handle)  # with several threads the job may have begun before
            if first == "cancelled":
                scope.cancel()
                function.gate.set()
            else:
                # The job's end is in the task's wait before the cancellation is: this task holds the only thread.
                function.gate.set()
                _wait_for_the_end(pool)
                scope.cancel()
        assert outcome == (["value"] if first == "ended" else [])
        assert scope.cancelled_caught is (first == "cancelled")

    run(main, threads=threads)


def _wait_for_the_end(pool):
    # A job that comes after it on the same threads is concluded after it, and a callback after its own.
    both = threading.Barrier(3)
    jobs = [pool.submit(both.wait, LONG) for _ in range(2)]
    both.wait(LONG)
    for job in jobs:
        job.result(LONG)


def test_a_job_past_its_deadline_raises_job_aborted_and_is_no_cancellation(pool):
    """T75e. It is a TimeoutError, and the task's scopes are as they were."""

    async def main():
        with mh.CancelScope() as scope:
            with pytest.raises(mh.JobAborted) as caught:
                await mh.run_job(mh.sleep_blocking, LONG, pool=pool, deadline=mh.now() + 0.01)
            await mh.checkpoint()
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.reason is mh.StopReason.DEADLINE
        assert not scope.cancelled_caught

    run(main)


def test_a_job_that_somebody_else_stops_is_no_cancellation_of_the_task(pool):
    """T85f. Its caller's stop is JobCancelled, its pool's end JobAborted."""

    async def main():
        async def stopped_by(how, error):
            function = Blocked()

            async def stop():
                await until(function.begun.is_set)
                how(function)

            async with mh.create_task_group() as group:
                group.start_soon(stop)
                with pytest.raises(error):
                    await mh.run_job(function, pool=pool)

        await stopped_by(lambda function: function.job.stop(), mh.JobCancelled)
        await stopped_by(lambda function: pool.finish(), mh.JobAborted)
        with pytest.raises(mh.PoolFinished):
            await mh.run_job(int, pool=pool)

    run(main)


@on_threads
def test_tasks_wait_in_line_for_room_in_a_full_queue_and_hold_no_thread(make_pool, threads):
    """T70. Nobody gets QueueFull; the jobs run in the order in which the tasks came, and other tasks go on meanwhile."""
    pool = make_pool(1, max_queue_depth=1)
    order = []

    async def main():
        with Gate() as gate:
            async with mh.create_task_group() as group:

                async def work(n):
                    await mh.run_job(gate if n == 0 else order.append, n, pool=pool)

                for n in range(12):
                    group.start_soon(work, n)
                    await until(lambda n=n: pool.stats().running + pool.stats().queued + _in_line(pool) == n + 1)
                assert pool.stats().running + pool.stats().queued == 2
                gate.open()
        assert order == list(range(1, 12))

    run(main, threads=threads)


def _in_line(pool):
    room = pool.__dict__.get("room")
    return 0 if room is None else room.turn.waiting + (1 - room.turn.free)


def test_a_task_that_waits_for_room_is_cancelled_and_out_of_the_line(make_pool):
    """T85. Its job was never enqueued."""
    pool = make_pool(1, max_queue_depth=0)
    ran = []

    async def main():
        with Gate() as gate:
            pool.submit(gate)
            gate.wait_entered()
            with mh.CancelScope() as scope:
                async with mh.create_task_group() as group:
                    for n in range(3):

                        async def work(n=n):
                            await mh.run_job(ran.append, n, pool=pool)

                        group.start_soon(work)
                        await until(lambda n=n: _in_line(pool) == n + 1)
                    scope.cancel()
            assert _in_line(pool) == 0
            assert pool.stats().submitted == 1

    run(main)
    assert ran == []


def test_room_that_jobs_of_others_leave_is_found(make_pool):
    """T70. Nobody tells of their end, so the first in line looks."""
    pool = make_pool(1, max_queue_depth=0)

    async def main():
        with Gate() as gate:
            pool.submit(gate)
            gate.wait_entered()
            async with mh.create_task_group() as group:

                async def work():
                    assert await mh.run_job(int, "7", pool=pool) == 7

                group.start_soon(work)
                await until(lambda: _in_line(pool) == 1)
                gate.open()

    run(main)


def test_the_pool_is_the_one_given_or_the_loops_or_the_default(make_pool):
    """T75h."""
    pool = make_pool(1, name="given")

    async def main():
        def name():
            return threading.current_thread().name

        assert (await mh.run_job(name, pool=pool)).startswith("mh-given")
        assert (await mh.run_job(name)).startswith("mh-default")
        loop = mh.current_task().group.owner
        loop._pool = pool
        assert (await mh.run_job(name)).startswith("mh-given")

    try:
        run(main)
    finally:
        mh.default_pool().destroy(LONG)
        mh.set_default_pool(None)


def test_nothing_is_left_of_a_job_that_was_awaited(pool):
    """T99. Its value, its error and its arguments live no longer than whoever has them."""

    class Thing:
        pass

    async def main():
        def give(thing):
            return thing

        def fail(thing):
            raise KeyError(thing)

        seen = []
        for function in (give, fail):
            thing = Thing()
            seen.append(weakref.ref(thing))
            try:
                result = await mh.run_job(function, thing, pool=pool)
                assert result is thing
                del result
            except KeyError:
                pass
            del thing
        return seen

    seen = run(main)
    wait_collected(*seen)


@pytest.mark.usefixtures("on_main")
def test_signals_are_received_by_a_task_on_the_main_thread():
    """T94. While the block runs; then the handler of before is back."""

    async def main():
        before = signal.getsignal(signal.SIGUSR1)
        with mh.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGUSR2)
            received = [await anext(signals), await anext(signals)]
        assert received == [signal.SIGUSR1, signal.SIGUSR2]
        assert signal.getsignal(signal.SIGUSR1) == before
        with pytest.raises(ValueError, match="not a valid Signals"):
            mh.open_signal_receiver(12345)

    run(main)


def test_signals_are_for_the_main_thread(spawn):
    """T94. Elsewhere it is refused, and nothing is left behind."""

    async def main():
        with pytest.raises(ValueError, match="main thread"), mh.open_signal_receiver(signal.SIGUSR1):
            pass

    spawn(run, main).result()
