"""CoroutinePool: the scene of the example, work and its errors, waits."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import math
import re

import pytest

import manyhands as mh
from commands import EXAMPLES
from coroutining import HandService
from gate import Gate
from manyhands.coroutines import (
    TIMEOUT,
    CoroutinePool,
    TaskId,
    running,
    wait,
    wait_until,
)
from manyhands.testing import MockClock
from support import LONG
from support import wait_until as until

# ------------------------------------------------------------------------------------------------------------- the scene

LINES = {
    "thread 1": [("started", 2), ("wait 1", 4), ("wait 2", 7), ("end", 9)],
    "thread 2": [("started", 2), ("wait 1", 3), ("end", 6)],
    "thread 3": [("started", 0), ("wait 1", 1), ("end", 4)],
    "thread 4": [("started", 0), ("end", 9)],
}


@pytest.mark.parametrize("threads", [1, 4])
def test_the_scene_of_the_example_plays_as_it_is_written(threads, joined):
    """T82. Four coroutines, 17 lines: each coroutine's in its order and within 50 ms of its second; notify's values at 9."""
    spec = importlib.util.spec_from_file_location("pooled_coroutines", EXAMPLES / "pooled_coroutines.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    loop = mh.EventLoop(clock=MockClock(autojump=True))
    told: list[tuple[float, str]] = []
    pool = example.play(loop, lambda *parts: told.append((loop.now(), " ".join(map(str, parts)))))
    with joined(loop, threads):
        until(lambda: loop.stopped)
        assert loop.wait(LONG)
    assert pool.stats().alive == 0
    loop.close()

    assert len(told) == 17
    for name, expected in LINES.items():
        lines = [(when, line.removeprefix(name).split("\t")) for when, line in told if line.startswith(f"{name} ")]
        assert [what.strip() for _, (what, _) in lines] == [what for what, _ in expected]
        for (when, (_, shown)), (_, due) in zip(lines, expected, strict=True):
            assert due <= when < due + 0.05
            assert float(shown.split()[0]) == pytest.approx(when, abs=0.001)
    others = [(round(when), re.split(r"[\t=]", line)[0]) for when, line in told if not line.startswith("thread ")]
    assert others == [(0, "start"), (2, "on timer 1"), *[other for other in others if other[0] == 9]]
    assert sorted(what for when, what in others if when == 9) == ["0 4455667788", "notify thread id", "set cond true"]
    order = [line.split("\t")[0] for _, line in told]
    assert order.index("0 4455667788") < order.index("thread 1 end")
    assert order.index("set cond true") < order.index("thread 4 end")


# ------------------------------------------------------------------------------------------------------- work and errors


def test_work_runs_the_function_later_and_never_in_the_call(drive, form):
    """T76. `work` gives an id at once; the function runs with its arguments when the driver turns."""
    with drive() as it, Gate() as gate:

        def body(a, b):
            it.note(a, b, running())
            return
            yield

        if it.threads == 1:
            it.pool.work(gate)
        task_id = it.pool.work(form(body), 1, "two")
        assert isinstance(task_id, TaskId)
        assert it.threads == 4 or it.seen == []
        gate.open()
        it.settle()
        assert it.seen == [(0, 1, "two", task_id)]


def test_a_plain_function_is_a_coroutine_that_never_waits(drive):
    """T76. It runs, its result is dropped, and its place is free again."""
    with drive(limit=1) as it:
        for number in range(3):
            it.pool.work(it.note, number)
            it.settle()
        assert [entry[1] for entry in it.seen] == [0, 1, 2]
        assert it.pool.stats().started == 3


@pytest.mark.parametrize("when", ["at once", "after a wait"])
def test_an_error_is_logged_once_and_the_pool_goes_on(drive, form, logged, when):
    """T76. One record with the traceback, the id and the name; with limit=1 the next coroutine finds the place free."""

    def failing():
        if when == "after a wait":
            yield wait(1)
        raise ZeroDivisionError("deliberate")
        yield

    with drive(limit=1) as it:
        task_id = it.pool.work(form(failing))
        it.settle()
        it.advance(1)
        (record,) = [record for record in logged.records if record.name == "manyhands.coroutines"]
        assert record.exc_info[0] is ZeroDivisionError
        assert f"coroutine {task_id} " in record.getMessage() and "failing" in record.getMessage()
        assert it.pool.stats().alive == 0

        it.pool.work(it.note, "next")
        it.settle()
        assert it.seen == [(1, "next")]


def test_errors_go_to_the_logger_that_was_given(drive, logged):
    """T76. `logger=`: a Logger of the program's own."""
    with drive(logger=logging.getLogger("of.the.program")) as it:
        it.pool.work(lambda: 1 / 0)
        it.settle()
        assert [record.name for record in logged.records] == ["of.the.program"]


def test_ctrl_c_in_a_coroutine_leaves_the_join_and_the_pool_is_whole(loop):
    """T76. KeyboardInterrupt is raised by `join()`; the coroutine has ended, the next one runs."""
    pool = CoroutinePool(loop, limit=1)

    def interrupted():
        raise KeyboardInterrupt

    pool.work(interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.join(until_idle=True)
    ran = []
    pool.work(ran.append, 1)
    loop.join(until_idle=True)
    assert ran == [1]


@pytest.mark.parametrize("request_", [lambda: wait(1), lambda: wait_until(lambda: False)], ids=["wait", "wait_until"])
def test_a_time_service_that_fails_costs_the_coroutine_that_asked(logged, request_):
    """T76. Nobody would ever wake it: its cleanup runs, the failure is logged, its place is free."""

    class Failing(HandService):
        def add_timer(self, delay, interval, callback):
            if delay:
                raise OSError("no timers left")
            super().add_timer(delay, interval, callback)

    service, cleaned = Failing(), []
    pool = CoroutinePool(time_service=service, limit=1)

    async def body():
        try:
            await request_()
        finally:
            cleaned.append(running())

    task_id = pool.work(body)
    service.turn()
    assert cleaned == [task_id]
    assert [record.exc_info[0] for record in logged.records] == [OSError]
    pool.work(cleaned.append, "next")
    service.turn()
    assert cleaned[1:] == ["next"]


def test_a_stop_iteration_of_a_plain_function_is_an_error(drive, logged):
    """T76. It is not taken for the end of a coroutine."""
    with drive() as it:
        it.pool.work(next, iter(()))
        it.settle()
        assert [record.exc_info[0] for record in logged.records] == [StopIteration]


async def _yields():
    yield 1


@pytest.mark.parametrize("function", [None, _yields], ids=["an awaitable", "an async generator"])
def test_a_function_that_gives_back_what_cannot_be_stepped_is_an_error(drive, logged, function):
    """T76. TypeError in the log, with the name of the function: not silence."""

    class Soon:
        def __await__(self):
            yield

    with drive() as it:
        it.pool.work(function or Soon)
        it.settle()
        (record,) = logged.records
        assert record.exc_info[0] is TypeError
        assert (function or Soon).__qualname__ in str(record.exc_info[1])


# ----------------------------------------------------------------------------------------------------------------- waits


def test_a_wait_of_an_interval_gives_0_and_is_never_early(drive, form):
    """T77. `wait(2)`: nothing at 1.999 s, 0 at 2.0 s; `wait(0)` lets others run and gives 0."""
    with drive() as it:

        def body():
            it.note((yield wait(2)))
            it.note((yield wait(0)))

        it.pool.work(form(body))
        it.settle()
        assert it.advance(1.999) == []
        assert it.advance(0.001)[0] == (2.0, 0)
        it.advance(0.001)
        assert [value for _, value in it.seen] == [0, 0]


def test_a_wait_for_an_event_that_does_not_come_gives_timeout(drive, form):
    """T77. `wait("event", 3)` gives TIMEOUT at 3 s, and not before."""
    with drive() as it:

        def body():
            it.note((yield wait("event", 3)))

        it.pool.work(form(body))
        it.settle()
        assert it.advance(2.999) == []
        assert it.advance(0.001) == [(3.0, TIMEOUT)]


def test_a_wait_for_an_event_without_end_waits_until_it_is_notified(drive, form):
    """T77. An interval of None (or infinity) sets no timer: a year later it still waits."""
    with drive() as it:

        def body(interval):
            it.note((yield wait("event", interval)))

        ids = [it.pool.work(form(body), interval) for interval in (None, math.inf)]
        it.settle()
        assert it.advance(365 * 86400.0) == []
        assert [it.pool.notify(task_id, "event") for task_id in ids] == [True, True]
        assert [value for _, value in it.settle()] == [(), ()]


@pytest.mark.parametrize("arguments", [("event",), (None,), (True,), (), ([1],), ("event", "soon"), ("event", False)])
def test_a_wait_whose_interval_is_no_number_is_refused_at_the_call(arguments):
    """T77. TypeError; one argument is always the interval."""
    with pytest.raises(TypeError):
        wait(*arguments)


def test_a_wait_below_zero_and_a_condition_that_makes_no_sense_are_refused():
    """T77. ValueError for a negative interval or none of a number; TypeError for a condition that cannot be called."""
    for refused in (-1, -0.001, math.nan):
        with pytest.raises(ValueError, match="0 or more"):
            wait(refused)
        with pytest.raises(ValueError, match="0 or more"):
            wait("event", refused)
    with pytest.raises(ValueError, match="above 0"):
        wait_until(bool, interval=0)
    with pytest.raises(TypeError):
        wait_until(True)


def test_a_wait_that_was_forgotten_warns():
    """T77. `wait(1)` without await or yield does nothing, and says so when it is dropped."""
    with pytest.warns(RuntimeWarning, match=r"wait\(1.0\) was neither awaited nor yielded"):
        wait(1)


def test_one_request_can_be_waited_for_again_and_again(drive, form):
    """T77. A request is a description: three waits of one second are three seconds."""
    with drive() as it:

        def body():
            second = it.pool.wait(1)
            for _ in range(3):
                it.note((yield second))

        it.pool.work(form(body))
        it.settle()
        it.advance(4, step=0.5)
        assert it.seen == [(1, 0), (2, 0), (3, 0)]


def test_yield_from_means_the_same_as_yield(drive):
    """T77. In a generator both forms give the result of the wait."""
    with drive() as it:

        def body():
            it.note((yield from wait(1)))
            it.note((yield from wait("event", 1)))

        it.pool.work(body)
        it.settle()
        it.advance(2, step=1)
        assert it.seen == [(1, 0), (2, TIMEOUT)]


@pytest.mark.parametrize("wrong", [5, None, "text", object()], ids=repr)
def test_a_wrong_yield_raises_in_the_coroutine_and_the_pool_goes_on(drive, wrong):
    """T85c. TypeError at the yield; it can be caught there, and the next wait works."""
    with drive() as it:

        def body():
            for _ in range(3):
                with pytest.raises(TypeError, match="can only wait for"):
                    yield wrong
            it.note((yield wait(1)))

        it.pool.work(body)
        it.settle()
        assert it.advance(1) == [(1, 0)]


def test_a_foreign_awaitable_raises_in_the_coroutine_and_the_pool_goes_on(drive, logged):
    """T85c. `await asyncio.sleep(0)` and a Future of asyncio: TypeError at the await; not caught, it is logged."""
    with drive() as it:
        loop = asyncio.new_event_loop()
        future = loop.create_future()

        async def body():
            for foreign in (asyncio.sleep(0), future):
                with pytest.raises(TypeError, match="can only wait for"):
                    await foreign
            it.note(await wait(1))
            await asyncio.sleep(0)

        it.pool.work(body)
        it.settle()
        assert it.advance(1) == [(1, 0)]
        it.settle()
        assert [record.exc_info[0] for record in logged.records] == [TypeError]
        loop.close()


def test_one_that_yields_nonsense_for_ever_does_not_hold_the_thread(loop, joined):
    """T85c. It catches the TypeError and does it again, 1,000 times; others run in between, on one thread."""
    pool = CoroutinePool(loop)
    order = []

    def stubborn():
        for number in range(1000):
            order.append(number)
            with contextlib.suppress(TypeError):
                yield number

    pool.work(stubborn)
    pool.work(order.append, "other")
    with joined(loop):
        until(lambda: pool.stats().alive == 0)
    assert order.index("other") < 900
