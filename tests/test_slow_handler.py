"""A handler that blocks is named in the log, with its stack, while it still blocks."""

from __future__ import annotations

import gc
import logging
import threading

import pytest

import manyhands as mh
from gate import Gate
from manyhands import _monitor, _reports
from manyhands.testing import wait_all_idle
from support import LONG, wait_until


class Records(logging.Handler):
    """Keeps what is logged and wakes whoever waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))
        self.came.set()


@pytest.fixture
def records():
    """What the logger `manyhands.loop` is given."""
    logger = logging.getLogger("manyhands.loop")
    handler = Records()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def a_function_that_blocks(gate: Gate) -> None:
    gate()


@pytest.mark.parametrize("source", ["watch", "message", "timer"])
def test_a_handler_that_blocks_is_named_with_its_stack_while_it_still_runs(make_loop, joined, pair, records, source):
    """T102. The log says which handler, on which thread, and where in it; other threads go on meanwhile."""
    loop = make_loop(name="mill", slow_handler=0.02, handover=0)
    a, b = pair()
    with joined(loop, 2) as crew, Gate() as gate:

        def handler(*_: object) -> None:
            if source == "watch":
                a.recv(1)
            a_function_that_blocks(gate)

        if source == "watch":
            loop.add(a, mh.Events.READ, handler, name="till")
            b.send(b"x")
        elif source == "message":
            loop.strand(name="till").post(handler)
        else:
            loop.strand(name="till").call_later(0, handler)
        gate.wait_entered()
        assert records.came.wait(LONG), "nothing was logged while the handler was inside"
        text = records.texts[0]
        other = threading.Event()
        loop.post(other.set)
        assert other.wait(LONG), "the other thread did not go on"
        gate.open()
        assert "a_function_that_blocks" in text
        assert any(thread.name in text for thread in crew)
        assert "mill" in text
        if source == "watch":
            assert "till" in text


def test_nothing_is_looked_up_for_a_log_that_nobody_reads(make_loop, joined, records, monkeypatch):
    """The stack of a thread that runs is not looked at for a logger that shows errors alone."""
    asked, looked = threading.Event(), threading.Event()
    monkeypatch.setattr(_monitor.logger, "isEnabledFor", lambda level: asked.set() or level > logging.WARNING)
    monkeypatch.setattr(_monitor, "what_runs", lambda *_: looked.set())
    loop = make_loop(slow_handler=0.02)
    with joined(loop, 1), Gate() as gate:
        loop.post(gate)
        assert asked.wait(LONG)
        gate.open()
    assert not looked.is_set()
    assert records.texts == []


def test_a_handler_that_blocks_is_logged_once(make_loop, joined, records):
    """T102. Once a run of a handler, however long it blocks: a log that floods is not read."""
    loop = make_loop(slow_handler=0.01)
    second = threading.Event()
    with joined(loop, 2), Gate() as gate, Gate() as later:
        loop.post(gate)
        gate.wait_entered()
        assert records.came.wait(LONG)
        records.came.clear()
        loop.post(later)
        later.wait_entered()
        assert records.came.wait(LONG), "the second handler was not logged"
        second.set()
    assert len(records.texts) == 2


def test_a_quick_handler_is_not_logged(make_loop, joined, records):
    """T102. The monitor speaks of handlers that are inside for longer than `slow_handler`, not of the time since."""
    loop = make_loop(slow_handler=5.0)
    with joined(loop, 2):
        for _ in range(100):
            loop.post(int)
        wait_all_idle(loop)
    assert records.texts == []


def test_a_thread_that_waits_is_not_a_slow_handler(make_loop, joined, records):
    """T102. Waiting in the poller is no handler, however long it takes."""
    loop = make_loop(slow_handler=0.01)
    with joined(loop, 2), Gate() as gate:
        loop.post(gate)
        gate.wait_entered()
        assert records.came.wait(LONG)
    loop.restart()
    with joined(loop, 2):
        records.texts.clear()
        records.came.clear()
        assert not records.came.wait(0.1)


@pytest.mark.parametrize("together", [False, True])
def test_a_task_that_blocks_is_named(records, together):
    """T102. By the name that it was given, wherever below the root it was started; and in the dump."""
    dumped: list[str] = []

    async def block(gate: Gate) -> None:
        await mh.sleep(0)  # not in its first step
        a_function_that_blocks(gate)

    async def watch(gate: Gate) -> None:
        loop = mh.current_task().group.owner
        gate.wait_entered()
        try:
            while not any("a_function_that_blocks" in text for text in records.texts):
                assert records.came.wait(LONG), "nothing was logged while the task was inside"
                records.came.clear()
            dumped.append(loop.dump())
        finally:
            gate.open()

    async def main() -> None:
        with Gate() as gate:
            async with mh.create_task_group() as outer:
                outer.start_soon(middle, gate)
                await mh.sleep(0)
                await watch(gate)

    async def middle(gate: Gate) -> None:
        async with mh.create_task_group(together=together) as group:
            group.start_soon(block, gate, name="crawler.fetch-3")
            group.start_soon(mh.sleep, 0, name="crawler.fetch-4")

    mh.run(main, threads=3)
    slow = [text for text in records.texts if "a_function_that_blocks" in text]
    assert len(slow) == 1
    assert "task 'crawler.fetch-3' has run for" in slow[0]
    assert "runs task 'crawler.fetch-3', " in dumped[0]


def test_a_task_that_nobody_is_found_for_is_a_task(make_loop):
    """T102. It may have ended between the look at the thread and the look for its task: then it is not another's name."""

    class Seat:
        watch = 0
        task = 1

    assert mh._sight.what_runs(make_loop(), Seat()) == "a task"  # type: ignore[arg-type]


class Cycle:
    """Ends by the collector alone."""

    def __init__(self) -> None:
        self.me = self


def test_loops_that_the_collector_ends_while_they_are_gone_through_are_forgotten():
    """Its list of loops changes at any moment: before CPython 3.12 also in the middle of `list(d.items())`."""
    monitor = _monitor._Monitor()
    monitor.ending = True  # no thread: this one does its work
    kept = Cycle()
    before = gc.get_threshold()
    gc.collect()
    try:
        gc.set_threshold(1_000_000)
        for thing in [kept, *(Cycle() for _ in range(100))]:
            monitor.add(thing)
        monitor.leave(kept)
        del thing
        gc.set_threshold(gc.get_count()[0] + 30)  # a collection after the thirtieth thing that is made from here
        monitor.forget_unserved()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert (monitor.loops, monitor.calls) == ({}, {})


def test_a_filter_of_the_log_that_raises_ends_no_deadline(make_loop, make_pool, joined, records, monkeypatch):
    """The program's own logging may fail: that is told, and every other loop, pool and report is looked after still."""
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda hooked: told.append(hooked.exc_value))
    logger = logging.getLogger("manyhands.loop")

    def refuse(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError(record.getMessage())

    logger.addFilter(refuse)
    try:
        loop = make_loop(slow_handler=0.01)
        with joined(loop, 2), Gate() as gate, Gate() as second:
            loop.post(gate)
            gate.wait_entered()
            wait_until(lambda: told)
            logger.removeFilter(refuse)
            loop.post(second)
            assert records.came.wait(LONG), "the next handler that blocks was not logged"
            assert "longer than slow_handler" in records.texts[0]
        job = make_pool(1).enqueue(mh.sleep_blocking, LONG, deadline=mh.now() + 0.01)
        with pytest.raises(mh.JobAborted):
            job.result(LONG)
    finally:
        logger.removeFilter(refuse)
    assert {type(error) for error in told} == {ZeroDivisionError}


def test_a_log_that_blocks_holds_up_no_deadline(make_loop, make_pool, joined, records):
    """The monitor runs nothing of the program's, which is why it can be relied on: its log is the program's."""
    gate = Gate()
    logger = logging.getLogger("manyhands.loop")
    stuck = logging.Handler()
    stuck.emit = lambda _: gate()
    logger.addHandler(stuck)
    try:
        loop = make_loop(slow_handler=0.01)
        with joined(loop, 2), Gate() as slow:
            loop.post(slow)
            gate.wait_entered()
            job = make_pool(1).enqueue(mh.sleep_blocking, LONG, deadline=mh.now() + 0.01)
            with pytest.raises(mh.JobAborted):
                job.result(LONG / 2)
            gate.open()
    finally:
        gate.open()
        logger.removeHandler(stuck)
    assert len(records.texts) == 1


def test_reports_that_a_log_takes_too_slowly_are_bounded_and_counted():
    """A log that hangs costs a bounded memory; what was left out is said when it goes on."""
    gate = Gate()
    texts: list[str] = []
    logger = logging.Logger("slow")  # noqa: LOG001 - nobody else has it
    handler = logging.Handler()
    handler.emit = lambda record: (gate(), texts.append(record.getMessage()))
    logger.addHandler(handler)
    reports = _reports.Reports()
    reports.warn(logger, "report %d", 0)
    gate.wait_entered()
    for number in range(1, _reports.MOST + 4):
        reports.warn(logger, "report %d", number)
    gate.open()
    reports.join(LONG)
    told = [text for text in texts if text.startswith("report")]
    assert told == [f"report {number}" for number in range(_reports.MOST + 1)]
    assert [text for text in texts if text not in told] == [
        "3 more reports like this were left out: the log took them too slowly"
    ]


def test_without_a_thread_to_be_had_a_report_is_written_at_once(monkeypatch, records):
    """As at the end of the interpreter: rather late by a log that blocks than lost."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    reports = _reports.Reports()
    for number in range(2):
        reports.warn(logging.getLogger("manyhands.loop"), "report %d", number)
        assert records.texts[-1] == f"report {number}"
    reports.join(LONG)


def test_a_monitor_whose_thread_could_not_be_started_is_started_later(monkeypatch):
    """Else no deadline of the process would ever pass."""
    start = threading.Thread.start
    failing = [RuntimeError("can't start new thread")]

    def once(thread):
        if failing:
            raise failing.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", once)
    monitor = _monitor._Monitor()
    kept = Cycle()
    with pytest.raises(RuntimeError):
        monitor.add(kept)
    assert (monitor.thread, monitor.loops, monitor.calls) == (None, {}, {})
    with monitor.lock:
        monitor.start()
        assert monitor.thread is not None
    monitor.end()
    assert monitor.thread is None


def test_a_pool_that_a_finalizer_makes_while_the_monitor_begins_is_looked_after(make_pool, monkeypatch):
    """The collector may come by while the lock is held: no deadlock, and one thread for both."""
    monitor = _monitor._Monitor()
    pools = [make_pool(1), make_pool(1)]
    start = threading.Thread.start
    begun = []

    def interrupted(thread: threading.Thread) -> None:
        begun.append(thread)
        monitor.add_pool(pools[1])
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    monitor.add_pool(pools[0])
    assert begun == [monitor.thread]
    assert {reference() for reference in monitor.pools.values()} == set(pools)
    monitor.end()
    assert monitor.thread is None
