"""Tasks: one thread inside at a time, foreign awaitables, fairness, and what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import queue
import socket
import sys
import threading
import types
import weakref

import pytest

import manyhands as mh
from garbage import collect
from manyhands import _core
from manyhands.errors import Cancelled
from manyhands.testing import live_objects, wait_all_tasks_blocked
from tasking import cancelled_here, on_threads, run

# ----------------------------------------------------------------------------------------------------- one thread inside


@pytest.mark.race
@on_threads
def test_a_task_is_stepped_by_one_thread_at_a_time(threads):
    """T85a. Many tasks that yield, wake each other and are cancelled: a flag of each task says who is inside."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        run(_crowd, threads=threads)
    finally:
        sys.setswitchinterval(interval)


async def _crowd():
    stepped_by = set()
    events = [mh.Event() for _ in range(40)]

    async def member(n):
        inside = None
        for turn in range(30):
            me = threading.get_ident()
            assert inside is None, "two threads inside"
            inside = me
            for _ in range(10):
                assert inside == me, "two threads inside"
            stepped_by.add(me)
            inside = None
            if turn == 10:
                events[n].set()
                await events[n - 1].wait()
            elif turn % 7 == 0:
                with mh.move_on_after(0.0001):
                    await mh.sleep(10)
            else:
                await mh.checkpoint()

    async with mh.create_task_group() as group:
        for n in range(40):
            group.start_soon(member, n)
    return stepped_by


@pytest.mark.race
@on_threads
def test_a_wait_is_decided_once_and_no_wake_is_lost(threads):
    """T84. Completions from a thread race the suspend and the cancellation: one wins, and both sides know who."""
    rounds = 300

    async def main():
        outcomes = []
        waits: queue.SimpleQueue = queue.SimpleQueue()

        def complete():
            for n in range(rounds):
                wait, scope, told = waits.get()
                if n % 3 == 0:
                    scope.cancel()
                told.append(wait.complete(n))
                told.append(wait.complete("again"))

        thread = threading.Thread(target=complete)
        thread.start()
        for n in range(rounds):
            told = []
            with mh.CancelScope() as scope:
                wait = _core.Wait()
                waits.put((wait, scope, told))
                outcomes.append(None)
                outcomes[-1] = await wait
            while len(told) < 2:
                await mh.cancel_shielded_checkpoint()
            assert told == [outcomes[n] is not None, False], n
            assert outcomes[n] in (None, n)
            assert outcomes[n] == n or scope.cancelled_caught
        thread.join()
        return outcomes

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        outcomes = run(main, threads=threads)
    finally:
        sys.setswitchinterval(interval)
    assert all(outcomes[n] == n for n in range(rounds) if n % 3)


# ------------------------------------------------------------------------------------------------------------- awaitables


@types.coroutine
def bare_yield():
    """Await as a library of another make does."""
    return (yield "something foreign")


@pytest.mark.parametrize("kind", ["a bare yield", "asyncio.sleep", "asyncio.Future"])
def test_a_foreign_awaitable_raises_typeerror_in_the_task_and_the_others_go_on(kind):
    """T85c. The task may catch it, again and again; it costs nobody else anything."""
    theirs = asyncio.new_event_loop()
    awaited = {
        "a bare yield": bare_yield,
        "asyncio.sleep": lambda: asyncio.sleep(0),
        "asyncio.Future": lambda: asyncio.Future(loop=theirs),
    }[kind]

    async def main():
        said = []

        async def foreign():
            for _ in range(3):
                with pytest.raises(TypeError, match="not manyhands' own"):
                    await awaited()
                said.append("told")
            await mh.checkpoint()

        async with mh.create_task_group() as group:
            group.start_soon(foreign)
            group.start_soon(mh.sleep, 0.001)
        return said

    assert run(main) == ["told"] * 3
    theirs.close()


def test_a_foreign_awaitable_that_nobody_expects_fails_the_program_with_its_name():
    """T85c. As any other error of a task."""

    async def main():
        await bare_yield()

    with pytest.raises(TypeError, match=r"run_job\(\)"):
        run(main)


def test_a_wait_is_of_one_task_and_of_one_use():
    """T84. Made outside of a task, awaited by another one, awaited twice: each is told."""
    with pytest.raises(RuntimeError, match="only a task can wait"):
        _core.Wait()

    async def main():
        wait = _core.Wait()

        async def other():
            with pytest.raises(RuntimeError, match="only the task that made it"):
                await wait

        async with mh.create_task_group() as group:
            group.start_soon(other)
        assert not wait.done
        assert wait.complete((1, 2))
        assert wait.done
        assert await wait == (1, 2)
        with pytest.raises(RuntimeError, match="awaited once"):
            await wait
        for value in (None, StopIteration(3), ValueError("a value"), [()]):
            wait = _core.Wait()
            assert wait.complete(value)
            assert await wait is value
        wait = _core.Wait()
        assert wait.fail(KeyError("given"))
        with pytest.raises(KeyError, match="given"):
            await wait
        first, second = _core.Wait().__await__(), _core.Wait().__await__()
        next(first)
        with pytest.raises(RuntimeError, match="one thing at a time"):
            next(second)
        first.complete()
        await mh.cancel_shielded_checkpoint()

    with contextlib.suppress(RuntimeError):
        run(main)


def test_a_wait_that_was_decided_before_it_is_awaited_returns_also_when_cancelled():
    """T84. What has come is not thrown away."""

    async def main():
        with mh.CancelScope() as scope:
            wait = _core.Wait()
            wait.complete("came")
            scope.cancel()
            value = await wait
        return value, scope.cancelled_caught

    assert run(main) == ("came", False)


@on_threads
def test_an_event_wakes_everybody_who_waits_and_whoever_comes_later(threads):
    """T85. A waiter that was cancelled is in no queue any more."""

    async def main():
        event = mh.Event()
        woken = []

        async def waiter(n):
            await event.wait()
            woken.append(n)

        async with mh.create_task_group() as group:
            for n in range(10):
                group.start_soon(waiter, n)
            with mh.CancelScope() as scope:
                async with mh.create_task_group() as doomed:
                    for n in range(10, 20):
                        doomed.start_soon(waiter, n)
                    await wait_all_tasks_blocked()
                    assert event.waiting == 20
                    scope.cancel()
            assert event.waiting == 10
            assert not event.is_set()
            event.set()
            event.set()
            assert event.is_set()
        await event.wait()
        return sorted(woken), event.waiting

    assert run(main, threads=threads) == (list(range(10)), 0)


# --------------------------------------------------------------------------------------------------------------- fairness


@on_threads
def test_a_task_that_spins_on_checkpoint_starves_nobody(threads):
    """T85d. Neither descriptors nor timers nor other tasks."""

    async def main():
        loop = mh.current_task().group.owner
        near, far = socket.socketpair()
        near.setblocking(False)
        heard, ticked, turned = mh.Event(), mh.Event(), mh.Event()
        spins = 0

        def hear(watch, events):
            watch.remove(close=True)
            heard.set()

        async def other():
            for _ in range(10):
                await mh.checkpoint()
            turned.set()

        loop.add(near, mh.Events.READ, hear)
        loop.call_later(0.01, ticked.set)
        threading.Timer(0.01, far.send, (b"x",)).start()
        with mh.fail_after(5):
            async with mh.create_task_group() as group:
                group.start_soon(other)
                while not (heard.is_set() and ticked.is_set() and turned.is_set()):
                    spins += 1
                    await mh.checkpoint()
        far.close()
        return spins > 20

    assert run(main, threads=threads)


def test_tasks_that_yield_take_turns_in_order():
    """T85d. The tail of the queue, for everybody."""

    async def main():
        turns = []

        async def member(n):
            for _ in range(3):
                turns.append(n)
                await mh.checkpoint()

        async with mh.create_task_group() as group:
            for n in range(4):
                group.start_soon(member, n)
        return turns

    assert run(main) == [0, 1, 2, 3] * 3


# ------------------------------------------------------------------------------------------------------------------ sight


@on_threads
def test_a_task_shows_what_it_is(threads):
    """T85a. Name, group, state; and the running ones can be listed."""

    async def main():
        me = mh.current_task()
        assert me.name.endswith("watched")
        assert me.state == "RUNNING"
        assert not me.done
        async with mh.create_task_group() as group:
            group.start_soon(mh.sleep_forever, name="sleeper")
            await wait_all_tasks_blocked()
            (sleeper,) = group.tasks()
            assert (sleeper.name, sleeper.state, sleeper.group) == ("sleeper", "SUSPENDED", group)
            assert repr(sleeper) == "<manyhands.Task 'sleeper' SUSPENDED>"
            assert sleeper.coroutine.cr_frame is not None
            assert set(mh.get_running_tasks()) == {me, sleeper}
            group.cancel_scope.cancel()
        assert sleeper.done
        assert (sleeper.state, sleeper.coroutine, sleeper.scope) == ("FINISHED", None, None)
        assert mh.get_running_tasks() == [me]

    run(main, threads=threads)
    for outside in (mh.current_task, mh.get_running_tasks, mh.current_time, mh.current_effective_deadline):
        with pytest.raises(RuntimeError, match=r"manyhands\.run\(\)"):
            outside()
    assert _core.running_task() is None


# ----------------------------------------------------------------------------------------------------------------- leaving


class Held:
    """Something with a weak reference."""


def test_a_cycle_through_a_tasks_frame_is_collected():
    """T99. While the program goes on."""

    async def main():
        held = Held()
        gone = weakref.ref(held)

        async def child(held):
            mine = [mh.current_task(), held]
            mine.append(mine)
            wait = _core.Wait()
            wait.complete(wait)
            mine.append(await wait)
            return mine

        async with mh.create_task_group() as group:
            handle = group.create_task(child, held)
        del held, group, handle
        collect()
        return gone() is None, live_objects()["tasks"]

    assert run(main) == (True, 1)


def test_a_finished_task_and_its_group_are_freed_without_the_collector():
    """T99. A group, its scope and its tasks hold each other only while it is entered."""

    async def main():
        for _ in range(10):
            async with mh.create_task_group() as group:
                group.start_soon(mh.sleep, 0)
            gone = weakref.ref(group)
            del group
        return live_objects()["tasks"], gone() is None

    gc.disable()
    try:
        tasks, gone = run(main)
    finally:
        gc.enable()
    assert tasks == 1
    assert gone


@on_threads
def test_a_task_that_ends_inside_of_a_group_leaves_nothing_that_crashes(threads):
    """T85a. What runs in a group that its host did not leave is cancelled; the loop holds it, and the program is told."""

    async def main():
        said = []

        async def child():
            said.append(await cancelled_here(mh.sleep_forever()))

        async def host():
            group = mh.create_task_group()
            await group.__aenter__()
            for _ in range(3):
                group.start_soon(child)

        with pytest.raises(ExceptionGroup) as caught:
            async with mh.create_task_group() as group:
                group.start_soon(host)
        assert "did not leave" in str(caught.value.exceptions[0])
        del caught, group
        collect()
        while len(said) < 3:
            await mh.checkpoint()
        return said

    assert run(main, threads=threads) == [True] * 3


def test_an_exception_of_the_cleanup_that_a_stop_has_begun_is_raised():
    """T85a. Never lost."""

    async def main():
        try:
            await mh.sleep_forever()
        except Cancelled:
            raise KeyError("cleanup") from None

    async def stopped():
        mh.current_task().group.owner.request_stop()
        await main()

    with pytest.raises(KeyError, match="cleanup"):
        run(stopped)


def test_a_fork_inside_of_a_task_leaves_the_child_without_the_loop():
    """T96. The child gets ForkedError at its next await; the parent goes on."""

    async def forks():
        child = os.fork()
        if child == 0:
            await mh.sleep(0)
            os._exit(8)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def program():
        try:
            return mh.run(forks)
        except mh.errors.ForkedError:
            os._exit(7)

    assert program() == 7
