"""A handler that blocks is named in the log, with its stack, while it still blocks."""

from __future__ import annotations

import logging
import threading

import pytest

import manyhands as mh
from gate import Gate
from manyhands.testing import wait_all_idle
from support import LONG


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
