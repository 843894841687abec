"""Pooled coroutines, and several who want the same at one moment."""

from __future__ import annotations

import gc
import threading

import pytest

import manyhands as mh
from coroutining import HandService
from gate import Gate
from manyhands.coroutines import (
    TIMEOUT,
    CoroutinePool,
    running,
    wait,
)
from support import LONG
from support import wait_until as until


@pytest.mark.parametrize("first", ["timeout", "notify"])
def test_of_timeout_and_notify_at_one_instant_exactly_one_wins(loop_at, first):
    """T84. Both are there before the coroutine runs: who came first wins, the other has no effect, it is resumed once."""
    loop, clock = loop_at
    pool = CoroutinePool(loop)
    seen = []

    def body():
        seen.append((yield wait("event", 5)))
        seen.append((yield wait("event", 5)))

    task_id = pool.work(body)
    loop.run_ready()
    if first == "notify":
        assert pool.notify(task_id, "event", "notified")
        assert not pool.notify(task_id, "event", "again")
        clock.advance(5)
        expected = ("notified",)
    else:
        clock.advance(5)
        loop.run_ready()
        expected = TIMEOUT
    while loop.run_ready():
        pass
    assert seen == [expected]
    assert pool.notify(task_id, "event", "second")
    while loop.run_ready():
        pass
    assert seen == [expected, ("second",)]


def test_a_timer_that_is_due_loses_against_a_notify_that_came_before_it_ran(loop_at):
    """T84. The clock has passed the deadline, nobody has turned the loop, the notify says True: its values are the result."""
    loop, clock = loop_at
    pool = CoroutinePool(loop)
    seen = []

    async def body():
        seen.append(await wait("event", 5))
        seen.append(await wait("event", 5))

    task_id = pool.work(body)
    loop.run_ready()
    clock.advance(5)
    assert pool.notify(task_id, "event", 1)
    while loop.run_ready():
        pass
    assert seen == [(1,)]


def test_a_notify_held_while_the_timeout_wins_is_false(drive, form):
    """T84. It has seen the wait, is held in the comparison of the events, and comes too late: False, nothing is delivered."""
    with drive() as it, Gate() as gate:

        class Slow:
            def __eq__(self, other):
                gate()
                return True

            __hash__ = None

        def body():
            it.note((yield wait(Slow(), 5)))
            it.note((yield wait(Slow(), 5)))

        task_id = it.pool.work(form(body))
        it.settle()
        answers = []
        notifier = threading.Thread(target=lambda: answers.append(it.pool.notify(task_id, "event", "late")))
        notifier.start()
        gate.wait_entered()
        it.advance(5)
        gate.open()
        notifier.join(LONG)
        it.advance(5)
        assert answers == [False]
        assert it.seen == [(5, TIMEOUT), (10, TIMEOUT)]


def test_work_that_meets_close_on_its_way_is_refused():
    """T84. The pool is closed between the first look of `work` and the place in the books: refused, nothing is left."""
    service = HandService()
    pool = CoroutinePool(time_service=service)
    make = pool._roster._make_queue
    ran = []

    def closed_meanwhile():
        pool.close()
        return make()

    def body():
        ran.append(1)
        yield wait(1)

    pool._roster._make_queue = closed_meanwhile
    with pytest.raises(mh.PoolFinished):
        pool.work(body)
    assert pool.stats().alive == 0
    service.turn()
    assert ran == []


def test_a_service_with_two_threads_does_not_reach_a_coroutine_that_runs(spawn, logged):
    """T84. One thread is in a step, the pool is closed, another serves: nothing is there for it; the first one closes it."""
    service, seen = HandService(), []
    pool = CoroutinePool(time_service=service)
    with Gate() as gate:

        def body():
            gate()
            try:
                yield wait(1)
            finally:
                seen.append(threading.get_ident())

        pool.work(body)
        serving = spawn(service.turn)
        gate.wait_entered()
        pool.close()
        assert service.turn() == 0
        assert seen == []
        gate.open()
        serving.result()
    assert seen == [serving.thread.ident]
    assert logged.records == []


def test_a_service_that_calls_too_early_ends_no_wait_early():
    """T77. It is a millisecond early each time: the wait of 1 s ends at 1 s."""

    class Early(HandService):
        def add_timer(self, delay, interval, callback):
            super().add_timer(max(0.0, delay - 0.001), interval, callback)

    service, seen = Early(), []
    pool = CoroutinePool(time_service=service)

    async def body():
        await wait(1)
        seen.append(service.now())

    pool.work(body)
    for time in (0.0, 0.999, 0.9995, 1.0):
        service.time = time
        for _ in range(3):
            service.turn_once()
    assert seen == [1.0]


def test_a_notify_held_while_the_pool_is_closed_is_false(drive, form):
    """T84. It has seen the wait and is held in the comparison of the events while the coroutine is closed: False."""
    with drive() as it, Gate() as gate:

        class Slow:
            def __eq__(self, other):
                gate()
                return True

            __hash__ = None

        def body():
            yield wait(Slow(), 5)

        task_id = it.pool.work(form(body))
        it.settle()
        answers = []
        notifier = threading.Thread(target=lambda: answers.append(it.pool.notify(task_id, "event", "late")))
        notifier.start()
        gate.wait_entered()
        it.pool.close()
        it.settle()
        gate.open()
        notifier.join(LONG)
        assert answers == [False]


@pytest.mark.race
@pytest.mark.parametrize("threads", [1, 4])
def test_notifies_from_many_threads_are_delivered_once_each_and_nobody_is_inside_twice(
    make_loop, joined, spawn, threads
):
    """T84. 3 notifiers and timeouts of 0 and 1 ms against 8 coroutines: as many deliveries as True; never two steps at once."""
    loop = make_loop()
    pool = CoroutinePool(loop)
    delivered = [0] * 8
    broken = []
    over = threading.Event()

    async def body(number):
        inside = [True]
        for round_ in range(10**9):
            if not inside.pop():
                broken.append(number)
            inside.append(True)
            got = await wait("event", 0.001 * (round_ % 2))
            if got is not TIMEOUT:
                delivered[number] += 1
                if got == ("end",):
                    return

    with joined(loop, threads):
        ids = [pool.work(body, number) for number in range(8)]

        def notifier():
            said = [0] * 8
            while not over.is_set():
                for number, task_id in enumerate(ids):
                    said[number] += pool.notify(task_id, "event", number)
            return said

        calls = [spawn(notifier) for _ in range(3)]
        until(lambda: min(delivered) >= 5)
        over.set()
        said = [sum(column) for column in zip(*(call.result() for call in calls), strict=True)]
        for number, task_id in enumerate(ids):
            until(lambda task_id=task_id: pool.notify(task_id, "event", "end"))
            said[number] += 1
        until(lambda: pool.stats().alive == 0)
    assert said == delivered
    assert broken == []


@pytest.mark.race
def test_a_service_that_calls_from_many_threads_steps_a_coroutine_on_one_at_a_time(spawn):
    """T84. Four threads take calls from one queue: 20 coroutines of 50 waits each, none is stepped by two."""
    import queue

    calls = queue.SimpleQueue()

    class Service:
        def now(self):
            return 0.0

        def add_timer(self, delay, interval, callback):
            calls.put(callback)

    pool = CoroutinePool(time_service=Service())
    steps = []

    def serve():
        while (call := calls.get(timeout=LONG)) is not None:
            call()

    def body():
        for _ in range(50):
            yield wait(0)
        steps.append(running())

    threads = [spawn(serve) for _ in range(4)]
    for _ in range(20):
        pool.work(body)
    until(lambda: len(steps) == 20)
    for _ in threads:
        calls.put(None)
    for thread in threads:
        thread.result()
    assert len(set(steps)) == 20


class Last:
    """Garbage that only a collection finds. Not a class of the test: 3.13t keeps those, and what they refer to."""

    def __init__(self, call):
        self.me = self
        self.call = call

    def __del__(self):
        self.call()


def test_a_notify_in_a_finalizer_inside_a_coroutine_does_no_harm(drive, form):
    """T78. A collection in the middle of a step runs `__del__`, which notifies and gives work: no deadlock, both arrive."""
    with drive() as it:

        def at_the_end():
            it.note(it.pool.notify(waiting, "event", "from the end"))
            it.pool.work(it.note, "work")

        def waiter():
            it.note((yield wait("event", 10)))

        def collector():
            Last(at_the_end)
            gc.collect()
            return
            yield

        waiting = it.pool.work(form(waiter))
        it.settle()
        it.pool.work(form(collector))
        it.settle()
        assert sorted(str(what) for _, what in it.seen) == ["('from the end',)", "True", "work"]


def test_a_notify_to_a_drained_loop_is_delivered_after_the_restart(loop_at):
    """T78. True is a promise: the loop takes no message until `restart()`, then the values come. Work is refused."""
    loop, _ = loop_at
    pool = CoroutinePool(loop)
    seen = []

    async def body():
        seen.append(await wait("event", 5))

    task_id = pool.work(body)
    loop.run_ready()
    loop.stop(drain=True)
    with pytest.raises(mh.LoopStopped):
        pool.work(body)
    assert pool.notify(task_id, "event", 1)
    loop.restart()
    while loop.run_ready():
        pass
    assert seen == [(1,)]
    assert pool.stats().alive == 0
