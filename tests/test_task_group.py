"""Task groups: what an exit waits for, what it raises, and how tasks are started."""

from __future__ import annotations

import contextvars
import threading

import pytest

import manyhands as mh
from manyhands.errors import Cancelled
from manyhands.testing import wait_all_tasks_blocked
from tasking import cancelled_here, fail_with, on_threads, run, run_jumping

# ---------------------------------------------------------------------------------------------------------------- exits


@on_threads
def test_a_group_waits_for_all_that_was_started_in_it(threads):
    """T85a. Also for what its tasks start in it."""

    async def main():
        ended = []

        async def child(group, depth):
            await mh.checkpoint()
            if depth:
                group.start_soon(child, group, depth - 1)
                group.start_soon(child, group, depth - 1)
            ended.append(depth)

        async with mh.create_task_group() as group:
            group.start_soon(child, group, 4)
        return sorted(ended), group.living

    assert run(main, threads=threads) == (sorted([4] + [3] * 2 + [2] * 4 + [1] * 8 + [0] * 16), 0)


@on_threads
def test_a_cancelled_group_waits_for_the_cleanup_of_its_children(threads):
    """T85a. The exit comes after the last finally, however long that awaits under its shield."""

    async def main():
        cleaned = []

        async def child(n):
            try:
                await mh.sleep_forever()
            finally:
                with mh.CancelScope(shield=True):
                    await mh.sleep(n)
                cleaned.append(n)

        async with mh.create_task_group() as group:
            for n in range(5):
                group.start_soon(child, n)
            await wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        return cleaned, mh.current_time()

    assert run_jumping(main, threads=threads) == ([0, 1, 2, 3, 4], 4.0)


@on_threads
def test_the_error_of_a_child_cancels_the_others_and_the_block(threads):
    """T85a. The group raises it, in a group, and no Cancelled with it."""

    async def main():
        others = []

        async def other():
            others.append(await cancelled_here(mh.sleep_forever()))

        try:
            async with mh.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(other)
                group.start_soon(fail_with, KeyError("child"))
                try:
                    await mh.sleep_forever()
                except Cancelled:
                    others.append("block")
                    raise
        except BaseExceptionGroup as caught:
            return caught, sorted(map(str, others))

    caught, others = run(main, threads=threads)
    assert [repr(error) for error in caught.exceptions] == ["KeyError('child')"]
    assert isinstance(caught, ExceptionGroup)
    assert caught.__context__ is None
    assert others == ["True", "True", "True", "block"]


@on_threads
def test_the_errors_of_the_block_and_of_its_children_come_together(threads):
    """T85a. One group has them all, each once; none is hidden by another."""

    async def main():
        async def stubborn(error):
            try:
                await mh.sleep_forever()
            finally:
                raise error

        async with mh.create_task_group() as group:
            group.start_soon(stubborn, KeyError("one"))
            group.start_soon(stubborn, OSError("two"))
            await wait_all_tasks_blocked()
            raise ValueError("block")

    with pytest.raises(ExceptionGroup) as caught:
        run(main, threads=threads)
    assert sorted(map(repr, caught.value.exceptions)) == ["KeyError('one')", "OSError('two')", "ValueError('block')"]


def test_the_groups_of_errors_nest_as_the_groups_do():
    """T85a. Each group wraps once, the block's own errors too."""

    async def main():
        async with mh.create_task_group(), mh.create_task_group() as inner:
            inner.start_soon(fail_with, KeyError("deep"))

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    (inner,) = caught.value.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert [repr(error) for error in inner.exceptions] == ["KeyError('deep')"]


def test_an_error_that_is_no_exception_is_reported_too():
    """T85a. SystemExit and KeyboardInterrupt of a child come in a BaseExceptionGroup."""

    async def main():
        async with mh.create_task_group() as group:
            group.start_soon(fail_with, SystemExit(3))

    with pytest.raises(BaseExceptionGroup) as caught:
        run(main)
    assert [type(error) for error in caught.value.exceptions] == [SystemExit]


@on_threads
def test_the_host_is_cancelled_while_its_children_clean_up(threads):
    """T85a. The group waits on for them; then the cancellation goes on outwards."""

    async def main():
        cleaned = []
        with mh.CancelScope() as outer:
            async with mh.create_task_group() as group:

                async def child():
                    try:
                        await mh.sleep_forever()
                    finally:
                        with mh.CancelScope(shield=True):
                            await mh.sleep(1)
                            outer.cancel()
                            await mh.sleep(1)
                        cleaned.append(mh.current_time())

                group.start_soon(child)
                await wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            await mh.checkpoint()
            cleaned.append("unreached")
        return cleaned, outer.cancelled_caught

    assert run_jumping(main, threads=threads) == ([2.0], True)


def test_a_cancelled_group_in_a_cancelled_scope_leaves_the_cancellation_to_the_scope():
    """T85a. The inner of two that are cancelled swallows nothing."""

    async def main():
        with mh.CancelScope() as outer:
            async with mh.create_task_group() as group:
                group.cancel_scope.cancel()
                outer.cancel()
                await mh.checkpoint()
        return group.cancel_scope.cancelled_caught, outer.cancelled_caught

    assert run(main) == (False, True)


@on_threads
def test_a_scope_knows_that_a_task_below_was_cut_short_also_if_its_host_was_not(threads):
    """T85a. The last child ends before the host waits: the group hands the cancellation on all the same."""

    async def main():
        caught = []
        for cancel_outer in (True, False):
            with mh.CancelScope() as outer:
                async with mh.create_task_group() as group:
                    group.start_soon(mh.sleep_forever)
                    await wait_all_tasks_blocked()
                    (child,) = group.tasks()
                    (outer if cancel_outer else group.cancel_scope).cancel()
                    while not child.done:
                        await mh.cancel_shielded_checkpoint()
            caught.append((group.cancel_scope.cancelled_caught, outer.cancelled_caught))
        return caught

    assert run(main, threads=threads) == [(False, True), (True, False)]


def test_an_error_during_an_outer_cancellation_is_raised_in_its_place():
    """T85a. The cleanup's error is more than the cancellation that it came in."""

    async def main():
        async def stubborn():
            try:
                await mh.sleep_forever()
            finally:
                raise KeyError("cleanup")

        with mh.CancelScope() as outer:
            async with mh.create_task_group() as group:
                group.start_soon(stubborn)
                await wait_all_tasks_blocked()
                outer.cancel()
                await mh.sleep_forever()

    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        run(main)


def test_a_group_without_tasks_lets_others_run():
    """T85d. Its exit is a schedule point, and no cancel point: nothing was cut short."""

    async def main():
        turns = []

        async def other():
            for _ in range(3):
                turns.append("other")
                await mh.checkpoint()

        async with mh.create_task_group() as group:
            group.start_soon(other)
            for _ in range(3):
                turns.append("host")
                async with mh.create_task_group():
                    pass
        with mh.CancelScope() as scope:
            scope.cancel()
            async with mh.create_task_group():
                pass
        return turns, scope.cancelled_caught

    assert run(main) == (["host", "other"] * 3, False)


def test_a_group_takes_tasks_only_while_it_is_entered():
    """T85a. Before and after, a task would run that nobody waits for."""

    async def main():
        group = mh.create_task_group()
        with pytest.raises(RuntimeError, match="not entered yet"):
            group.start_soon(mh.checkpoint_if_cancelled)
        async with group:
            pass
        for start in (group.start_soon, group.create_task):
            with pytest.raises(RuntimeError, match="has ended"):
                start(mh.sleep, 1)
        coroutine = mh.sleep(1)
        with pytest.raises(RuntimeError, match="has ended"):
            group.create_task(coroutine)
        with pytest.raises(RuntimeError, match="entered once"):
            await group.__aenter__()

    run(main)
    with pytest.raises(RuntimeError, match="inside of manyhands.run"):
        mh.create_task_group()


def test_what_is_no_coroutine_is_refused():
    """T85c. At the call, with what came."""

    async def main():
        async with mh.create_task_group() as group:
            with pytest.raises(TypeError, match="async def"):
                group.start_soon(lambda: 3)
            with pytest.raises(TypeError, match="async def"):
                group.start_soon(mh.checkpoint)
            assert group.living == 0

    run(main)


@on_threads
def test_tasks_can_be_started_from_a_thread(threads):
    """T85a. Until the group has ended; a thread that comes too late is told."""

    async def main():
        ran = []

        async def child():
            ran.append(1)

        async with mh.create_task_group() as group:
            thread = threading.Thread(target=lambda: [group.start_soon(child) for _ in range(50)])
            thread.start()
            while thread.is_alive():
                await mh.checkpoint()
        return len(ran)

    assert run(main, threads=threads) == 50


@on_threads
def test_a_group_that_is_kept_together_never_runs_two_of_its_tasks_at_once(threads):
    """T85a. Counted: an increment in two steps with a switch between them loses nothing."""

    async def main():
        inside = most = counted = 0

        async def child():
            nonlocal inside, most, counted
            for _ in range(50):
                inside += 1
                most = max(most, inside)
                seen = counted
                for _ in range(20):
                    pass
                counted = seen + 1
                inside -= 1
                await mh.checkpoint()

        async with mh.create_task_group(together=True) as group:
            for _ in range(20):
                group.start_soon(child)
        return most, counted

    assert run(main, threads=threads) == (1, 1000)


# -------------------------------------------------------------------------------------------------------------- context

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@on_threads
def test_a_task_has_a_copy_of_its_starters_context(threads):
    """T85a. What the parent sets after the start it does not see, and the parent does not see what it sets."""

    async def main():
        seen = []

        async def child(name):
            seen.append(VARIABLE.get())
            VARIABLE.set(name)
            await mh.checkpoint()
            seen.append(VARIABLE.get())

        VARIABLE.set("parent")
        async with mh.create_task_group() as group:
            group.start_soon(child, "one")
            VARIABLE.set("parent, later")
            await wait_all_tasks_blocked()
            group.start_soon(child, "two")
        return seen, VARIABLE.get()

    assert run(main, threads=threads) == (["parent", "one", "parent, later", "two"], "parent, later")
    assert VARIABLE.get() == "unset"
