"""Cancel scopes: who is told to stop, when, and what an exit swallows."""

from __future__ import annotations

import gc
import math
import threading

import pytest

import manyhands as mh
from manyhands.errors import Cancelled
from manyhands.testing import MockClock, live_objects, wait_all_tasks_blocked
from tasking import cancelled_here, on_threads, run, run_jumping

# ----------------------------------------------------------------------------------------------------------- delivery


@on_threads
def test_cancellation_is_delivered_at_every_checkpoint_until_the_scope_is_left(threads):
    """T85a. Level-triggered: whoever swallows it gets it again, in whatever he awaits next."""

    async def main():
        told = []
        with mh.CancelScope() as scope:
            scope.cancel()
            for wait in (mh.checkpoint, mh.sleep_forever, mh.Event().wait, mh.checkpoint_if_cancelled):
                told.append(await cancelled_here(wait()))
            told.append(await cancelled_here(mh.sleep(0)))
            told.append(await cancelled_here(mh.sleep(1000)))
            async with mh.create_task_group() as group:
                group.start_soon(mh.sleep_forever)
            told.append("unreached")
        await mh.checkpoint()
        return told, scope.cancelled_caught

    assert run(main, threads=threads) == ([True] * 6, True)


def test_a_shielded_checkpoint_raises_nothing():
    """T85a. cancel_shielded_checkpoint only lets others run."""

    async def main():
        with mh.CancelScope() as scope:
            scope.cancel()
            await mh.cancel_shielded_checkpoint()
            return "went on"

    assert run(main) == "went on"


@on_threads
def test_shields_hold_until_they_are_taken_away(threads):
    """T85a. A shield keeps cancellations from outside away, not its own scope's; lowered, they come at once."""

    async def main():
        seen = []
        with mh.CancelScope() as outer:
            outer.cancel()
            with mh.CancelScope(shield=True) as shield:
                await mh.checkpoint()
                seen.append("held")
                with mh.move_on_after(0.001):
                    await mh.sleep_forever()
                seen.append("own deadline inside of the shield")

                async def lower():
                    await wait_all_tasks_blocked()
                    shield.shield = False

                async with mh.create_task_group() as group:
                    group.start_soon(lower)
                    seen.append(await cancelled_here(mh.sleep_forever()))
            await mh.checkpoint()
            seen.append("unreached")
        return seen, outer.cancelled_caught, shield.cancelled_caught

    expected = ["held", "own deadline inside of the shield", True]
    assert run(main, threads=threads) == (expected, True, False)


@on_threads
def test_deadlines_nest_and_the_nearest_wins(threads):
    """T85a. The inner scope that expires swallows its own cancellation; one of the outer scope goes through the inner."""

    async def main():
        seen = []
        with mh.move_on_after(10) as outer:
            with mh.move_on_after(1) as inner:
                await mh.sleep_forever()
            seen.append((mh.current_time(), inner.cancelled_caught, outer.cancelled_caught))
            with mh.move_on_after(100) as inner:
                await mh.sleep_forever()
            seen.append("unreached")
        seen.append((mh.current_time(), inner.cancelled_caught, outer.cancelled_caught))
        return seen

    assert run_jumping(main, threads=threads) == [(1.0, True, False), (10.0, False, True)]


def test_the_outer_of_two_scopes_that_expire_at_once_ends_both():
    """T85a. What both scopes want is the outer one's to swallow."""

    async def main():
        deadline = mh.current_time() + 1
        with mh.move_on_at(deadline) as outer:
            with mh.move_on_at(deadline) as inner:
                await mh.sleep_forever()
            await mh.sleep_forever()
        return inner.cancelled_caught, outer.cancelled_caught, mh.current_time()

    assert run_jumping(main) == (False, True, 1.0)

    async def by_hand():
        said = []
        with mh.CancelScope() as outer:
            with mh.CancelScope() as inner:
                inner.cancel()
                outer.cancel()
                await mh.checkpoint()
            said.append("went on")
        return said, inner.cancelled_caught, outer.cancelled_caught

    assert run(by_hand) == ([], False, True)


@on_threads
def test_a_scope_cancelled_from_a_thread_wakes_every_task_below(threads):
    """T85a. Nested groups, tasks in scopes of their own: one cancel reaches all of them, each once."""

    async def main():
        ended = []

        async def leaf(n):
            try:
                with mh.CancelScope():
                    await mh.sleep_forever()
            finally:
                ended.append(n)

        async def branch(n):
            async with mh.create_task_group() as group:
                for m in range(10):
                    group.start_soon(leaf, (n, m))

        with mh.CancelScope() as scope:
            async with mh.create_task_group() as group:
                for n in range(10):
                    group.start_soon(branch, n)
                await wait_all_tasks_blocked()
                threading.Thread(target=scope.cancel).start()
        return ended, scope.cancelled_caught

    ended, caught = run(main, threads=threads)
    assert caught
    assert sorted(ended) == [(n, m) for n in range(10) for m in range(10)]


def test_a_scope_does_not_reach_the_tasks_of_a_group_around_it():
    """T85a. What the host started outside of the scope goes on."""

    async def main():
        event = mh.Event()
        async with mh.create_task_group() as group:
            group.start_soon(event.wait)
            with mh.CancelScope() as scope:
                scope.cancel()
                await mh.sleep_forever()
            assert len(group.tasks()) == 1
            event.set()
        return scope.cancelled_caught, group.cancel_scope.cancel_called

    assert run(main) == (True, False)


def test_a_scope_cancelled_before_it_is_entered_begins_cancelled():
    """T85a. Nothing inside waits."""

    async def main():
        scope = mh.CancelScope()
        scope.cancel()
        with scope:
            await mh.checkpoint()
            raise AssertionError("unreached")
        return scope.cancelled_caught

    assert run(main)


def test_a_scope_cancelled_after_its_last_wait_swallows_nothing():
    """T85a. cancelled_caught says whether something was cut short, not whether somebody asked."""

    async def main():
        with mh.CancelScope() as scope:
            await mh.checkpoint()
            scope.cancel()
        return scope.cancel_called, scope.cancelled_caught

    assert run(main) == (True, False)


def test_another_error_passes_a_cancelled_scope():
    """T85a. Only Cancelled is the scope's to swallow."""

    async def main():
        with mh.CancelScope() as scope:
            scope.cancel()
            try:
                await mh.checkpoint()
            finally:
                raise KeyError("from the cleanup")

    with pytest.raises(KeyError, match="from the cleanup"):
        run(main)


def test_a_scope_takes_its_cancellations_out_of_an_exception_group():
    """T85a. What is left of the group goes on, with its own context."""

    async def main():
        with mh.CancelScope() as scope:
            scope.cancel()
            try:
                await mh.checkpoint()
            except Cancelled as cancelled:
                raise BaseExceptionGroup("both", [cancelled, ValueError("left")]) from None

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert [type(error) for error in caught.value.exceptions] == [ValueError]

    async def only():
        with mh.CancelScope() as scope:
            scope.cancel()
            raise BaseExceptionGroup("one", [Cancelled()])
        return scope.cancelled_caught

    assert run(only)


# -------------------------------------------------------------------------------------------------------- entered, left


def test_a_scope_entered_twice_raises():
    """T85a. A scope is of one use."""

    async def main():
        scope = mh.CancelScope()
        with scope, pytest.raises(RuntimeError, match="entered once"):
            scope.__enter__()
        with pytest.raises(RuntimeError, match="entered once"):
            scope.__enter__()

    run(main)


def test_a_scope_left_out_of_order_raises_and_the_others_can_be_left():
    """T85a. The error says what happened; nothing is corrupted by it."""

    async def main():
        outer, inner = mh.CancelScope(), mh.CancelScope()
        outer.__enter__()
        inner.__enter__()
        with pytest.raises(RuntimeError, match="out of order"):
            outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        outer.__exit__(None, None, None)
        with pytest.raises(RuntimeError, match="once"):
            outer.__exit__(None, None, None)

    run(main)


@on_threads
def test_a_scope_left_by_another_task_raises_and_stays_its_hosts(threads):
    """T85a. A cancel finds the host also while another task tries to leave the scope."""

    async def main():
        scope = mh.CancelScope()
        entered = mh.Event()

        async def host():
            with scope:
                entered.set()
                await mh.sleep_forever()

        async with mh.create_task_group() as group:
            group.start_soon(host)
            await entered.wait()
            with pytest.raises(RuntimeError, match="by the task that entered it"):
                scope.__exit__(None, None, None)
            await wait_all_tasks_blocked()
            scope.cancel()
        return scope.cancelled_caught

    assert run(main, threads=threads)


def test_a_task_that_ends_inside_of_a_scope_is_told():
    """T85a. It may have a deadline, or a group, that nobody would leave."""

    async def main():
        mh.CancelScope().__enter__()

    with pytest.raises(RuntimeError, match="did not leave"):
        run(main)


def test_what_a_scope_is_made_of_is_checked():
    """T85a. A deadline that is no number, a delay below zero."""

    async def main():
        for wrong in ("1", None, True):
            with pytest.raises(TypeError):
                mh.CancelScope(deadline=wrong)
        with pytest.raises(ValueError, match="nan"):
            mh.CancelScope(deadline=math.nan)
        for make in (mh.move_on_after, mh.fail_after):
            with pytest.raises(ValueError, match="0 or more"):
                make(-1)
            with make(None) as scope:
                assert scope.deadline == math.inf
        for wait in (mh.sleep(-1), mh.sleep(math.nan)):
            with pytest.raises(ValueError, match="delay"):
                await wait

    run(main)
    with pytest.raises(RuntimeError, match="inside of manyhands.run"):
        mh.move_on_after(1)
    with pytest.raises(RuntimeError, match="inside of manyhands.run"):
        mh.CancelScope().__enter__()


# ------------------------------------------------------------------------------------------------------------ deadlines


def test_a_deadline_moves_both_ways_while_the_scope_is_entered():
    """T85a. Also from a thread; only the last one counts."""

    async def main():
        with mh.move_on_after(1) as scope:
            scope.deadline += 9
            await mh.sleep(5)
            scope.deadline = math.inf
            await mh.sleep(100)
            thread = threading.Thread(target=lambda: setattr(scope, "deadline", 200.0))
            thread.start()
            thread.join()
            await mh.sleep_forever()
        assert scope.cancelled_caught
        assert mh.current_time() == 200.0
        with mh.move_on_after(100) as scope:
            scope.deadline = mh.current_time()
            await mh.checkpoint()
            raise AssertionError("unreached")
        assert mh.current_time() == 200.0

    run_jumping(main)


def test_fail_after_raises_timeouterror_for_its_deadline_and_for_nothing_else():
    """T85a. A cancel by hand is no timeout; an error goes through."""

    async def main():
        with pytest.raises(TimeoutError), mh.fail_after(1):
            await mh.sleep_forever()
        with pytest.raises(TimeoutError), mh.fail_at(mh.current_time()):
            await mh.checkpoint()
        with mh.fail_after(1) as scope:
            scope.cancel()
            await mh.checkpoint()
        assert scope.cancelled_caught
        with pytest.raises(KeyError), mh.fail_after(1):
            raise KeyError
        with mh.fail_after(1):
            await mh.sleep(0.5)

    run_jumping(main)


def test_the_effective_deadline_is_the_nearest_that_applies():
    """T85a. Shields hide what is outside; a cancelled scope is -inf."""

    async def main():
        assert mh.current_effective_deadline() == math.inf
        with mh.move_on_at(10) as outer, mh.move_on_at(20):
            assert mh.current_effective_deadline() == 10
            with mh.CancelScope(shield=True, deadline=30):
                assert mh.current_effective_deadline() == 30
            outer.cancel()
            assert mh.current_effective_deadline() == -math.inf

    run(main, clock=MockClock())


def test_a_timeout_that_is_not_used_frees_its_timer_at_once():
    """T85e. A hundred thousand timeouts set and cancelled: the loop has one timer at a time, and memory stays."""

    async def main():
        loop = mh.current_task().group.owner
        most = 0
        for n in range(100_000):
            with mh.move_on_after(3600):
                if n % 1000 == 0:
                    most = max(most, loop.stats().timers)
        return most, loop.stats().timers, live_objects()["tasks"]

    gc.disable()
    try:
        assert mh.run(main) == (1, 0, 1)
    finally:
        gc.enable()


def test_a_sleep_that_is_cancelled_frees_its_timer_at_once():
    """T85e. As many timers as tasks that still sleep."""

    async def main():
        loop = mh.current_task().group.owner
        with mh.CancelScope() as scope:
            async with mh.create_task_group() as group:
                for _ in range(1000):
                    group.start_soon(mh.sleep, 3600)
                await wait_all_tasks_blocked()
                assert loop.stats().timers == 1000
                scope.cancel()
        return loop.stats().timers

    assert run(main) == 0
