"""What manyhands.testing has for tests of tasks."""

from __future__ import annotations

import pytest

import manyhands as mh
from manyhands.testing import MockClock, Sequencer, wait_all_tasks_blocked
from tasking import on_threads, run, run_jumping


@on_threads
def test_all_tasks_are_blocked_when_they_have_gone_as_far_as_they_can(threads):
    """T85a. Chains of wakes are followed to their end, on however many threads; sleeping is waiting."""

    async def main():
        events = [mh.Event() for _ in range(50)]
        passed = []

        async def link(n):
            await events[n].wait()
            await mh.checkpoint()
            passed.append(n)
            if n + 1 < len(events):
                events[n + 1].set()

        async with mh.create_task_group() as group:
            group.start_soon(mh.sleep, 3600)
            for n in range(len(events)):
                group.start_soon(link, n)
            await wait_all_tasks_blocked()
            assert passed == []
            events[0].set()
            await wait_all_tasks_blocked()
            assert passed == list(range(len(events)))
            group.cancel_scope.cancel()

    run(main, threads=threads)


@on_threads
def test_several_tasks_may_wait_until_all_others_are_blocked(threads):
    """T85a. They are blocked themselves; and a clock that jumps stands until the last of them has gone on."""

    async def main():
        seen = []

        async def looks():
            await wait_all_tasks_blocked()
            seen.append(mh.current_time())

        async with mh.create_task_group() as group:
            for _ in range(3):
                group.start_soon(looks)
            group.start_soon(mh.sleep, 10)
        return seen, mh.current_time()

    assert run_jumping(main, threads=threads) == ([0.0] * 3, 10.0)


def test_a_wait_for_all_tasks_that_is_cancelled_leaves_the_clock_as_it_was():
    """T85a. And its thread ends."""
    clock = MockClock(autojump=True)

    async def main():
        async def spin():
            while True:
                await mh.checkpoint()

        async with mh.create_task_group() as group:
            group.start_soon(spin)
            with mh.CancelScope() as scope:
                group.start_soon(cancel_soon, scope)
                await wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        return scope.cancelled_caught

    async def cancel_soon(scope):
        for _ in range(100):
            await mh.checkpoint()
        scope.cancel()

    assert run(main, clock=clock)
    assert clock.autojump


@on_threads
def test_a_sequencer_puts_blocks_into_its_order(threads):
    """T85a. Whoever comes first waits for the ones before."""

    async def main():
        sequence = Sequencer()
        said = []

        async def worker(*positions):
            for position in positions:
                async with sequence(position):
                    said.append(position)
                    await mh.checkpoint()
                    said.append(position)

        async with mh.create_task_group() as group:
            group.start_soon(worker, 2, 5)
            group.start_soon(worker, 1, 4)
            group.start_soon(worker, 0, 3)
        return said

    assert run(main, threads=threads) == [n for n in range(6) for _ in range(2)]


def test_a_sequence_is_of_one_use_each_and_breaks_when_a_waiter_is_cancelled():
    """T85a. Nobody waits for a turn that never comes."""

    async def main():
        sequence = Sequencer()
        async with sequence(0):
            pass
        with pytest.raises(RuntimeError, match="used twice"):
            async with sequence(0):
                pass
        with mh.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(RuntimeError, match="is broken"):
                async with sequence(3):
                    pass
        with pytest.raises(RuntimeError, match="is broken"):
            async with sequence(1):
                pass

    run(main)
