"""Tasks that say when they are ready, and tasks with a handle to their result."""

from __future__ import annotations

import threading

import pytest

import manyhands as mh
from manyhands.errors import TaskCancelled
from manyhands.testing import wait_all_tasks_blocked
from tasking import fail_with, on_threads, run, run_jumping

# --------------------------------------------------------------------------------------------------------------- start


@on_threads
def test_start_returns_what_the_task_says_it_started_with(threads):
    """T85a. The task goes on in the group."""

    async def main():
        ended = []

        async def server(port, *, task_status):
            await mh.checkpoint()
            task_status.started(port + 1)
            await mh.checkpoint()
            ended.append(port)

        async with mh.create_task_group() as group:
            first = await group.start(server, 10)
            second = await group.start(server, 20, name="second")
        return first, second, ended

    assert run(main, threads=threads) == (11, 21, [10, 20])


def test_start_of_a_task_that_never_says_so_raises():
    """T85a. It has ended, and whoever waits for it must not wait for ever."""

    async def main():
        async def silent(*, task_status):
            await mh.checkpoint()

        async with mh.create_task_group() as group:
            with pytest.raises(RuntimeError, match="without calling"):
                await group.start(silent)

    run(main)


def test_an_error_before_started_is_raised_by_start_and_not_by_the_group():
    """T85a. After it the error is the group's."""

    async def main():
        async def broken(after, *, task_status):
            await mh.checkpoint()
            if after:
                task_status.started()
            raise KeyError(after)

        async with mh.create_task_group() as group:
            with pytest.raises(KeyError):
                await group.start(broken, False)
        with pytest.raises(ExceptionGroup):
            async with mh.create_task_group() as group:
                await group.start(broken, True)

    run(main)


def test_started_is_called_once():
    """T85a. A second call is a mistake of the task."""

    async def main():
        async def twice(*, task_status):
            task_status.started()
            with pytest.raises(RuntimeError, match="called once"):
                task_status.started()

        async with mh.create_task_group() as group:
            await group.start(twice)

    run(main)


@on_threads
def test_a_cancelled_start_cancels_the_task_and_waits_for_its_cleanup(threads):
    """T85a. The group lives on without it."""

    async def main():
        cleaned = []

        async def slow(*, task_status):
            try:
                await mh.sleep_forever()
            finally:
                with mh.CancelScope(shield=True):
                    await mh.sleep(1)
                    task_status.started("too late")
                cleaned.append(mh.current_time())

        async with mh.create_task_group() as group:
            with mh.move_on_after(1) as scope:
                await group.start(slow)
            assert cleaned == [2.0]
            assert group.living == 0
            assert not group.cancel_scope.cancel_called
        return scope.cancelled_caught

    assert run_jumping(main, threads=threads)


@on_threads
def test_a_start_in_a_group_that_is_cancelled_meanwhile_tells_a_caller_outside_by_an_error(threads):
    """T85a. The caller was not cancelled: it must not get a Cancelled that no scope of its own swallows."""

    async def main():
        async def slow(*, task_status):
            await mh.sleep_forever()

        async def outsider(group, seen):
            try:
                await group.start(slow)
            except RuntimeError as error:
                seen.append(str(error))

        seen = []
        async with mh.create_task_group() as outer, mh.create_task_group() as group:
            outer.start_soon(outsider, group, seen)
            await wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        return seen

    (said,) = run(main, threads=threads)
    assert "without calling" in said


@on_threads
def test_a_start_whose_caller_and_task_are_cancelled_together_is_cancelled(threads):
    """T85a. No error is made of it."""

    async def main():
        async def slow(*, task_status):
            await mh.sleep_forever()

        with mh.CancelScope() as scope:
            async with mh.create_task_group() as group:
                threading.Timer(0.001, scope.cancel).start()
                await group.start(slow)
        return scope.cancelled_caught

    for _ in range(5):
        assert run(main, threads=threads)


def test_a_start_whose_task_has_ended_when_both_are_cancelled_is_cancelled():
    """T85a. The task was the faster one, and its caller must not take that for an error."""

    async def main():
        async def silent(*, task_status):
            await mh.checkpoint()

        async def cancel(scope):
            # In the queue between the end of the other and whoever waits for it.
            await mh.checkpoint()
            await mh.checkpoint()
            scope.cancel()

        async with mh.create_task_group() as outer:
            with mh.CancelScope() as scope:
                async with mh.create_task_group() as group:
                    outer.start_soon(cancel, scope)
                    await group.start(silent)
            return scope.cancelled_caught

    assert run(main)


# -------------------------------------------------------------------------------------------------------------- handles


@on_threads
def test_a_handle_gives_the_result_to_any_number_of_tasks(threads):
    """T85a. Before it has ended there is none."""

    async def main():
        async def answer(value):
            await mh.checkpoint()
            return value

        async with mh.create_task_group() as group:
            handle = group.create_task(answer, 42, name="answer")
            with pytest.raises(RuntimeError, match="has not ended"):
                handle.result()
            other = group.create_task(answer(43))
            both = await handle, await handle, await other
        assert handle.done()
        assert handle.exception() is None
        return both, handle.name, other.name.rpartition(".")[2]

    assert run(main, threads=1) == ((42, 42, 43), "answer", "answer")


@on_threads
def test_a_handles_cancel_ends_its_task_alone(threads):
    """T85a. Whoever awaits it gets TaskCancelled, which is an ordinary exception."""

    async def main():
        async with mh.create_task_group() as group:
            handle = group.create_task(mh.sleep_forever, name="one")
            other = group.create_task(mh.sleep, 0)
            await wait_all_tasks_blocked()
            handle.cancel()
            with pytest.raises(TaskCancelled, match="'one'"):
                await handle
            await other
            assert isinstance(handle.exception(), TaskCancelled)
            assert not group.cancel_scope.cancel_called

    run(main, threads=threads)


def test_a_handle_of_a_cancelled_group_says_that_its_task_was_cancelled():
    """T85a. exception() never gives a Cancelled away."""

    async def main():
        async with mh.create_task_group() as group:
            handle = group.create_task(mh.sleep_forever)
            await wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert isinstance(handle.exception(), TaskCancelled)
        with pytest.raises(TaskCancelled):
            handle.result()

    run(main)


def test_a_handles_error_is_the_groups_too():
    """T85a. Exceptions are always reported, whether somebody awaits the handle or not."""

    async def main():
        async with mh.create_task_group() as group:
            group.create_task(fail_with, KeyError("one"))

    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        run(main)
