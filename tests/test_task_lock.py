"""Locks, semaphores, limiters, conditions: what stands between tasks, on one thread and on four."""

from __future__ import annotations

import gc
import math
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import manyhands as mh
from between import MOMENTS, SUBJECTS, on_threads, play, run, until
from manyhands import _core
from manyhands.errors import Cancelled, WouldBlock
from support import LONG

# ---------------------------------------------------------------------------------------------------------- cancellation


@pytest.mark.race
@on_threads
@pytest.mark.parametrize("name", SUBJECTS, ids=lambda name: name)
def test_a_task_that_is_cancelled_where_it_waits_leaves_no_trace(name, threads):
    """T85. Whoever was decided for first has what it waited for; whoever was cancelled first has nothing, and is in no line."""

    async def main():
        for moment, story in MOMENTS.items():
            taken = await play(SUBJECTS[name](), story)
            assert taken is (moment == "decided, then cancelled"), moment

    run(main, threads=threads)


@pytest.mark.race
@on_threads
def test_a_release_that_meets_a_cancelled_waiter_goes_to_the_next(threads):
    """T85. The permit is never lost: the one behind gets it, in the same step."""

    async def main():
        semaphore = mh.Semaphore(0)
        scope = mh.CancelScope()
        got = []

        async def first():
            with scope:
                await semaphore.acquire()
                got.append("first")

        async def second():
            await semaphore.acquire()
            got.append("second")

        async with mh.create_task_group() as group:
            for n, function in enumerate((first, second)):
                group.start_soon(function)
                await until(lambda n=n: semaphore.statistics().tasks_waiting == n + 1)
            scope.cancel()
            semaphore.release()
        assert got == ["second"]
        assert (semaphore.value, semaphore.statistics().tasks_waiting) == (0, 0)

    run(main, threads=threads)


@pytest.mark.race
def test_permits_are_neither_lost_nor_doubled_under_four_threads():
    """T85. Many tasks take, give and are cancelled at random moments; in the end every permit is free again."""

    async def main():
        permits, inside, most = _core.Permits(3, 3), 0, 0
        guard = threading.Lock()

        async def member(n):
            nonlocal inside, most
            for turn in range(60):
                with mh.CancelScope() as scope:
                    if (n + turn) % 3 == 0:
                        group.start_soon(cancel, scope)
                    await permits.acquire()
                    try:
                        with guard:
                            inside += 1
                            most = max(most, inside)
                        await mh.checkpoint()
                    finally:
                        with guard:
                            inside -= 1
                        assert permits.release()

        async def cancel(scope):
            scope.cancel()

        async with mh.create_task_group() as group:
            for n in range(12):
                group.start_soon(member, n)
        assert most <= 3
        assert (permits.free, permits.waiting) == (3, 0)

    run(main, threads=4)


OPS = st.lists(
    st.one_of(
        st.just(("wait", 0)),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
        st.tuples(st.just("release"), st.integers(1, 3)),
        st.just(("try", 0)),
        st.just(("fewer", 1)),
        st.just(("settle", 0)),
    ),
    max_size=25,
)


@settings(
    max_examples=int(os.environ.get("MANYHANDS_MACHINE_STEPS", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(ops=OPS, free=st.integers(0, 2))
def test_permits_do_what_a_plain_list_would(ops, free):
    """T85. Any history of waits, cancellations, releases and reductions, against a model of a few lines."""

    async def main():
        permits = _core.Permits(free)
        model_free, line, expected = free, [], []
        scopes, outcomes = [], []

        async def waiter(n):
            with scopes[n]:
                try:
                    await permits.acquire()
                except Cancelled:
                    outcomes[n] = "cancelled"
                    raise
                outcomes[n] = "given"

        async def settle():
            for _ in range(3):
                await mh.checkpoint()

        def hand_out():
            nonlocal model_free
            while model_free > 0 and line:
                expected[line.pop(0)] = "given"
                model_free -= 1

        async with mh.create_task_group() as group:
            for op, n in ops:
                match op:
                    case "wait":
                        await settle()
                        scopes.append(mh.CancelScope())
                        outcomes.append("waits")
                        expected.append("waits")
                        line.append(len(scopes) - 1)
                        hand_out()
                        group.start_soon(waiter, len(scopes) - 1)
                        await settle()
                    case "cancel" if scopes:
                        n %= len(scopes)  # noqa: PLW2901 - whichever there is
                        scopes[n].cancel()
                        if n in line:
                            line.remove(n)
                            expected[n] = "cancelled"
                    case "release":
                        permits.release(n)
                        model_free += n
                        hand_out()
                    case "try":
                        assert permits.acquire_nowait() is (model_free > 0)
                        model_free -= model_free > 0
                    case "fewer":
                        permits.add(-1)
                        model_free -= 1
                    case "settle":
                        await settle()
                        assert outcomes == expected
                        assert permits.waiting == len(line)
                assert permits.free == model_free
            await settle()
            assert outcomes == expected
            group.cancel_scope.cancel()
        assert permits.waiting == 0
        assert permits.free == model_free

    run(main)


# ------------------------------------------------------------------------------------------------------------------ Lock


@on_threads
def test_a_lock_goes_to_those_who_wait_in_the_order_in_which_they_came(threads):
    """T83."""

    async def main():
        lock, order = mh.Lock(), []

        async def member(n):
            async with lock:
                order.append(n)

        async with mh.create_task_group() as group, lock:
            for n in range(20):
                group.start_soon(member, n)
                await until(lambda n=n: lock.statistics().tasks_waiting == n + 1)
        assert order == list(range(20))

    run(main, threads=threads)


@on_threads
def test_a_released_lock_is_the_first_waiters_and_nobody_can_slip_in(threads):
    """T83. Handed over at the release, before the waiter runs."""

    async def main():
        lock, order = mh.Lock(), []

        async def member():
            async with lock:
                order.append("member")

        async with mh.create_task_group() as group:
            await lock.acquire()
            group.start_soon(member)
            await until(lambda: lock.statistics().tasks_waiting)
            lock.release()
            try:
                lock.acquire_nowait()
            except WouldBlock:
                order.append("refused")
            else:
                # On several threads the other may have come and gone.
                assert order == ["member"]
                lock.release()
        assert "member" in order
        if threads == 1:
            assert order == ["refused", "member"]

    run(main, threads=threads)


@on_threads
def test_only_one_task_is_inside_a_lock(threads):
    """T83. Also where the tasks run in parallel, and with a switch of tasks inside."""

    async def main():
        lock, inside, turns = mh.Lock(), [], 0

        async def member():
            nonlocal turns
            for _ in range(50):
                async with lock:
                    assert inside == []
                    inside.append(1)
                    await mh.checkpoint()
                    turns += 1
                    inside.pop()

        async with mh.create_task_group() as group:
            for _ in range(8):
                group.start_soon(member)
        assert turns == 400

    run(main, threads=threads)


@on_threads
def test_an_error_of_the_owner_releases_the_lock(threads):
    """T83."""

    async def main():
        lock = mh.Lock()
        with pytest.raises(KeyError):
            async with lock:
                raise KeyError
        assert not lock.locked()
        with mh.move_on_after(0):
            async with lock:
                await mh.checkpoint()
        assert not lock.locked()

    run(main, threads=threads)


def test_a_release_by_another_task_raises_and_says_who_has_the_lock():
    """T83. Also by the task that has released it already, and of a lock that nobody has."""

    async def main():
        lock = mh.Lock()
        with pytest.raises(RuntimeError, match="nobody has it"):
            lock.release()

        async def thief():
            with pytest.raises(RuntimeError, match="task 'owner' has it"):
                lock.release()
            assert lock.statistics().locked

        async def owner():
            async with lock:
                assert lock.statistics().owner is mh.current_task()
                async with mh.create_task_group() as inner:
                    inner.start_soon(thief)

        async with mh.create_task_group() as group:
            group.start_soon(owner, name="owner")

    run(main)


def test_an_owner_that_acquires_its_lock_again_is_told_so():
    """T83. It would wait for itself."""

    async def main():
        lock = mh.Lock()
        async with lock:
            with pytest.raises(RuntimeError, match="has this lock already"):
                await lock.acquire()
            with pytest.raises(RuntimeError, match="has this lock already"):
                lock.acquire_nowait()
            assert repr(lock) == "<manyhands.Lock locked, 0 waiting>"
        assert repr(lock) == "<manyhands.Lock free, 0 waiting>"

    run(main)


def test_a_free_lock_lets_others_run_after_a_while():
    """T85d. What succeeds at once spends the task's budget: a task that only takes and gives a lock starves nobody."""

    async def main():
        lock, semaphore, turns, others = mh.Lock(), mh.Semaphore(1), 0, 0

        async def other():
            nonlocal others
            while turns < 300:
                others += 1
                await mh.checkpoint()

        async with mh.create_task_group() as group:
            group.start_soon(other)
            for _ in range(300):
                async with lock, semaphore:
                    turns += 1
        assert others >= 5

    run(main)


def test_an_acquire_of_a_task_that_is_to_stop_raises_and_takes_nothing():
    """T85. As trio does: also if it could be had at once, for the lock and for what it would have let through."""

    async def main():
        lock, semaphore = mh.Lock(), mh.Semaphore(1)
        with mh.CancelScope() as scope:
            scope.cancel()
            for taking in (lock.acquire, semaphore.acquire):
                with pytest.raises(Cancelled):
                    await taking()
        assert (lock.locked(), semaphore.value) == (False, 1)

    run(main)


def test_what_is_awaited_twice_or_outside_of_a_task_says_so():
    """T85c."""

    async def main():
        awaitable = mh.Semaphore(5).acquire()
        await awaitable
        with pytest.raises(RuntimeError, match="awaited once"):
            await awaitable

    run(main)
    with pytest.raises(RuntimeError, match="only a task can wait"):
        next(mh.Semaphore(1).acquire().__await__())
    with pytest.raises(RuntimeError, match="inside of manyhands.run"):
        mh.Lock().acquire_nowait()


# ------------------------------------------------------------------------------------------------------------- Semaphore


@on_threads
def test_a_semaphore_lets_so_many_in_at_a_time(threads):
    """T83. And in order."""

    async def main():
        semaphore, inside, most = mh.Semaphore(2), 0, 0
        guard = threading.Lock()

        async def member():
            nonlocal inside, most
            async with semaphore:
                with guard:
                    inside += 1
                    most = max(most, inside)
                await until(lambda: most >= 2)
                with guard:
                    inside -= 1

        async with mh.create_task_group() as group:
            for _ in range(20):
                group.start_soon(member)
        assert most == 2
        assert semaphore.value == 2

    run(main, threads=threads)


def test_a_semaphore_is_released_by_any_thread_and_by_a_finalizer():
    """T97. No lock of Python's is taken, and the task that waits is woken out of the poller."""

    class Releases:
        def __init__(self, semaphore):
            self.semaphore = semaphore
            self.me = self

        def __del__(self):
            self.semaphore.release()

    async def main():
        semaphore = mh.Semaphore(0)
        thread = threading.Thread(target=semaphore.release)
        thread.start()
        await semaphore.acquire()
        thread.join()
        Releases(semaphore)
        assert semaphore.value == 0
        gc.collect()
        await semaphore.acquire()

    run(main)


def test_a_semaphore_is_never_above_its_maximum():
    """T83. A release too much is an error, and changes nothing."""

    async def main():
        semaphore = mh.Semaphore(1, max_value=2)
        semaphore.release()
        with pytest.raises(ValueError, match="max_value is 2"):
            semaphore.release()
        assert (semaphore.value, semaphore.max_value) == (2, 2)
        semaphore.acquire_nowait()
        semaphore.acquire_nowait()
        with pytest.raises(WouldBlock):
            semaphore.acquire_nowait()
        assert repr(semaphore) == "<manyhands.Semaphore value=0, 0 waiting>"

    run(main)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: mh.Semaphore(-1), ValueError),
        (lambda: mh.Semaphore(1.0), TypeError),
        (lambda: mh.Semaphore(2, max_value=1), ValueError),
        (lambda: mh.Semaphore(True), TypeError),
        (lambda: mh.CapacityLimiter(-1), ValueError),
        (lambda: mh.CapacityLimiter(1.5), TypeError),
        (lambda: setattr(mh.CapacityLimiter(1), "total_tokens", "2"), TypeError),
        (lambda: _core.Permits(-1), ValueError),
        (lambda: _core.Permits(2, 1), ValueError),
    ],
)
def test_a_number_that_cannot_be_is_refused(make, error):
    """T83."""
    with pytest.raises(error, match="must be"):
        make()


# ------------------------------------------------------------------------------------------------------- CapacityLimiter


@on_threads
def test_more_tokens_let_those_who_wait_go_on_in_order_and_fewer_are_taken_back_as_they_come(threads):
    """T83."""

    async def main():
        limiter, got = mh.CapacityLimiter(1), []
        limiter.acquire_on_behalf_of_nowait("director")

        async def member(n):
            await limiter.acquire_on_behalf_of(n)
            got.append(n)

        async with mh.create_task_group() as group:
            for n in range(3):
                group.start_soon(member, n)
                await until(lambda n=n: limiter.statistics().tasks_waiting == n + 1)
            limiter.total_tokens = 3
            await until(lambda: len(got) == 2)
            assert sorted(got) == [0, 1]
            limiter.total_tokens = 1
            assert (limiter.available_tokens, limiter.borrowed_tokens) == (-2, 3)
            limiter.release_on_behalf_of("director")
            limiter.release_on_behalf_of(0)
            assert limiter.statistics() == mh.CapacityLimiterStatistics(1, 1, (1,), 1)
            limiter.release_on_behalf_of(1)
        assert got[-1] == 2
        assert limiter.statistics() == mh.CapacityLimiterStatistics(1, 1, (2,), 0)
        limiter.total_tokens = math.inf
        assert limiter.available_tokens == math.inf
        limiter.total_tokens = 2
        assert limiter.available_tokens == 1

    run(main, threads=threads)


def test_a_borrower_has_one_token_and_gives_back_what_it_has():
    """T83."""

    async def main():
        limiter = mh.CapacityLimiter(2)
        async with limiter:
            assert limiter.statistics().borrowers == (mh.current_task(),)
            with pytest.raises(RuntimeError, match="has one of this limiter's tokens"):
                await limiter.acquire()
            with pytest.raises(RuntimeError, match="has one of this limiter's tokens"):
                limiter.acquire_nowait()
            limiter.acquire_on_behalf_of_nowait("another")
            with pytest.raises(WouldBlock):
                limiter.acquire_on_behalf_of_nowait("a third")
        with pytest.raises(RuntimeError, match="has none"):
            limiter.release()
        assert limiter.statistics().borrowers == ("another",)
        assert repr(limiter) == "<manyhands.CapacityLimiter 1 of 2 out, 0 waiting>"

    run(main)


# ------------------------------------------------------------------------------------------------------------- Condition


async def _waiters(group, condition, n):
    """Have `n` tasks wait; the list of those who were notified grows."""
    got = []

    async def member(number):
        async with condition:
            await condition.wait()
            assert condition._lock.statistics().owner is mh.current_task()
            got.append(number)

    for number in range(n):
        group.start_soon(member, number)
        await until(lambda number=number: condition.statistics().tasks_waiting == number + 1)
    return got


@on_threads
def test_a_notification_is_for_so_many_in_order(threads):
    """T83."""

    async def main():
        condition = mh.Condition()
        async with mh.create_task_group() as group:
            got = await _waiters(group, condition, 5)
            async with condition:
                condition.notify(2)
                assert condition.statistics().lock_statistics.owner is mh.current_task()
            await until(lambda: len(got) == 2)
            # With several threads they are free to overtake each other on the way to the lock.
            assert (got if threads == 1 else sorted(got)) == [0, 1]
            async with condition:
                condition.notify_all()
        assert (got if threads == 1 else sorted(got)) == [0, 1, 2, 3, 4]
        assert condition.statistics() == mh.ConditionStatistics(0, mh.LockStatistics(False, None, 0))

    run(main, threads=threads)


@pytest.mark.race
@on_threads
def test_a_notification_passes_by_a_waiter_that_was_cancelled(threads):
    """T85. It is the next one's."""

    async def main():
        condition, scope = mh.Condition(), mh.CancelScope()

        async def cancelled():
            with scope:
                async with condition:
                    await condition.wait()

        async with mh.create_task_group() as group:
            group.start_soon(cancelled)
            await until(lambda: condition.statistics().tasks_waiting)
            got = []

            async def member():
                async with condition:
                    await condition.wait()
                    got.append("member")

            group.start_soon(member)
            await until(lambda: condition.statistics().tasks_waiting == 2)
            async with condition:
                scope.cancel()
                condition.notify()
        assert got == ["member"]

    run(main, threads=threads)


def test_a_cancelled_waiter_of_a_condition_has_the_lock_when_it_sees_that():
    """T85. However long it takes to get it back."""

    async def main():
        condition, said = mh.Condition(), []

        async def member():
            async with condition:
                try:
                    await condition.wait()
                except Cancelled:
                    said.append(condition._lock.statistics().owner is mh.current_task())
                    raise

        async with mh.create_task_group() as group:
            group.start_soon(member)
            await until(lambda: condition.statistics().tasks_waiting)
            async with condition:
                group.cancel_scope.cancel()
                with mh.CancelScope(shield=True):
                    await until(lambda: condition._lock.statistics().tasks_waiting == 1)
                assert said == []
        assert said == [True]

    run(main)


@on_threads
def test_wait_for_waits_until_it_holds(threads):
    """T83. It is looked at under the lock, once at first and once after each notification."""

    async def main():
        condition, queue, got = mh.Condition(), [], []

        async def member():
            async with condition:
                await condition.wait_for(lambda: queue)
                got.append(queue.pop(0))

        async with mh.create_task_group() as group:
            group.start_soon(member)
            await until(lambda: condition.statistics().tasks_waiting)
            async with condition:
                condition.notify()
            await until(lambda: condition.statistics().tasks_waiting)
            async with condition:
                queue.append("item")
                condition.notify()
            async with condition:
                assert await condition.wait_for(lambda: 7) == 7
        assert got == ["item"]

    run(main, threads=threads)


def test_a_condition_is_for_the_task_that_has_its_lock():
    """T83."""

    async def main():
        condition = mh.Condition(mh.Lock())
        for call in (condition.notify, condition.notify_all):
            with pytest.raises(RuntimeError, match="for the task that has the condition's lock"):
                call()
        with pytest.raises(RuntimeError, match="for the task that has the condition's lock"):
            await condition.wait()
        with pytest.raises(RuntimeError, match="for the task that has the condition's lock"):
            await condition.wait_for(lambda: True)
        condition.acquire_nowait()
        assert condition.locked()
        assert repr(condition) == "<manyhands.Condition 0 waiting, of <manyhands.Lock locked, 0 waiting>>"
        condition.release()
        await condition.acquire()
        condition.release()

    run(main)


def test_a_task_is_woken_by_a_release_on_a_thread_that_is_no_tasks():
    """T51. The release of another thread reaches a loop that waits in its poller."""

    async def main():
        semaphore, ready = mh.Semaphore(0), threading.Event()

        def release():
            assert ready.wait(LONG)
            semaphore.release()

        thread = threading.Thread(target=release)
        thread.start()
        ready.set()
        await semaphore.acquire()
        thread.join()

    run(main)
