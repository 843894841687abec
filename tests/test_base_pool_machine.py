"""BasePool against a plain model: anything at any moment, in any order.

A coroutine has a script: what it waits for, one after the other, and how it ends. The model is who waits for what until
when, and who is ready, in order; so it knows whom the next `check_timeout` runs, with what, and when the one after is due.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import manyhands as mh
from coroutining import FORMS
from manyhands.coroutines import TIMEOUT, BasePool, running

EVENTS = ["a", "b", 5]
LIMIT = 4

waits = st.tuples(st.sampled_from(EVENTS), st.none() | st.integers(0, 5))
scripts = st.tuples(st.lists(waits, max_size=4), st.sampled_from(["return", "raise"]))


MUTE = logging.getLogger("test_base_pool_machine.mute")
MUTE.disabled = True


class Modelled:
    """What a coroutine should do: a list, and where it is in it."""

    def __init__(self, script: tuple[list[tuple[Any, int | None]], str]) -> None:
        self.waits = deque(script[0])
        self.waiting: tuple[Any, int | None] | None = None
        self.deadline: tuple[float, int] | None = None
        self.resume: Any = "start"


class BasePoolMachine(RuleBasedStateMachine):
    """Work, notify, time that passes, checks, close, in any order, against a few lists."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0
        self.pool = BasePool(now=lambda: self.time, limit=LIMIT, grow_by=2, idle_limit=2, logger=MUTE)
        self.seen: list[tuple[int, Any]] = []
        self.ids: list[int] = []
        self.alive: dict[int, Modelled] = {}
        self.ready: list[int] = []
        self.order = 0
        self.closed = False
        self.cleaned: list[int] = []

    def body(self, script):
        me = running()
        self.seen.append((me, "start"))
        try:
            for event, timeout in script[0]:
                self.seen.append((me, (yield self.pool.wait(event, timeout))))
        except GeneratorExit:
            self.cleaned.append(me)
            raise
        if script[1] == "raise":
            raise ValueError

    @rule(script=scripts, form=st.sampled_from(list(FORMS.values())))
    def work(self, script, form):
        if self.closed or len(self.alive) == LIMIT:
            with pytest.raises(mh.PoolFinished if self.closed else mh.QueueFull):
                self.pool.work(form(self.body), script)
            return
        task_id = self.pool.work(form(self.body), script)
        assert task_id not in self.ids
        self.ids.append(task_id)
        self.alive[task_id] = Modelled(script)
        self.ready.append(task_id)

    @rule(data=st.data(), event=st.sampled_from(EVENTS), values=st.lists(st.integers(), max_size=2))
    def notify(self, data, event, values):
        task_id = data.draw(st.sampled_from([*self.ids, 10**6]))
        modelled = self.alive.get(task_id)
        expected = modelled is not None and modelled.waiting is not None and modelled.waiting[0] == event
        assert self.pool.notify(task_id, event, *values) == expected
        if modelled is not None and expected:
            modelled.waiting = modelled.deadline = None
            modelled.resume = tuple(values)
            self.ready.append(task_id)

    @rule(seconds=st.integers(0, 6))
    def advance(self, seconds):
        self.time += seconds

    @rule()
    def check(self):
        due = [(one.deadline, key) for key, one in self.alive.items() if one.deadline and one.deadline[0] <= self.time]
        for _, key in sorted(due):
            self.alive[key].waiting = self.alive[key].deadline = None
            self.alive[key].resume = TIMEOUT
            self.ready.append(key)
        run, self.ready = self.ready, []
        before = len(self.seen)
        deadline, ran = self.pool.check_timeout()
        assert ran == len(run)
        assert self.seen[before:] == [(key, self.alive[key].resume) for key in run]
        for key in run:
            modelled = self.alive[key]
            if not modelled.waits:
                del self.alive[key]
                continue
            _, timeout = modelled.waiting = modelled.waits.popleft()
            self.order += 1
            modelled.deadline = None if timeout is None else (self.time + timeout, self.order)
        assert deadline == min((one.deadline[0] for one in self.alive.values() if one.deadline), default=None)

    @rule(sure=st.integers(0, 9))
    def close(self, sure):
        if sure:
            return
        begun = [key for key, one in self.alive.items() if one.resume != "start" or one.waiting is not None]
        self.cleaned.clear()
        self.pool.close()
        assert sorted(self.cleaned) == sorted([] if self.closed else begun)
        self.alive.clear()
        self.ready.clear()
        self.closed = True

    @invariant()
    def numbers_add_up(self):
        stats = self.pool.stats()
        assert stats.alive == len(self.alive)
        assert self.closed or stats.started == len(self.ids)
        assert stats.slots == stats.alive + stats.idle <= LIMIT
        assert stats.idle <= 2

    def teardown(self):
        self.pool.close()
        assert self.pool.stats().alive == 0


def test_any_order_of_steps_agrees_with_the_model():
    """T78. Work, notify, time, checks, closes: 30 histories of 30 steps; what each coroutine sees is what the lists say."""
    run_state_machine_as_test(
        BasePoolMachine,
        settings=settings(
            max_examples=30, stateful_step_count=30, deadline=None, database=None, derandomize=True, print_blob=False
        ),
    )
