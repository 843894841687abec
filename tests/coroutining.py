"""Coroutine pools to test: every driver, every form of a coroutine.

A coroutine is written once, as a generator function that yields its waits. `async_form` makes an `async def` of it that
awaits them.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import manyhands as mh
from manyhands.coroutines import CoroutinePool
from manyhands.testing import MockClock, wait_all_idle
from support import LONG, wait_until


def generator_form(function: Callable[..., Generator[Any, Any, Any]]) -> Callable[..., Any]:
    return function


def async_form(function: Callable[..., Generator[Any, Any, Any]]) -> Callable[..., Any]:
    """The same, awaiting what the generator yields."""

    @functools.wraps(function)
    async def form(*args: Any) -> Any:
        inner = function(*args)
        try:
            waiting = next(inner)
            while True:
                try:
                    value = await waiting
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as error:
                    waiting = inner.throw(error)
                else:
                    waiting = inner.send(value)
        except StopIteration as end:
            return end.value

    return form


FORMS = {"generator": generator_form, "async": async_form}


class HandService:
    """A time service as somebody may write it: a heap of (when, order, interval, callback), turned by the test."""

    def __init__(self) -> None:
        self.time = 0.0
        self._heap: list[Any] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self.time

    def add_timer(self, delay: float, interval: float, callback: Callable[[], object]) -> None:
        heapq.heappush(self._heap, (self.time + delay, next(self._order), interval, callback))

    def turn(self) -> int:
        """Call what is due, until nothing is."""
        called = 0
        while self._heap and self._heap[0][0] <= self.time:
            when, _, interval, callback = heapq.heappop(self._heap)
            if callback() is not False and interval:
                heapq.heappush(self._heap, (when + interval, next(self._order), interval, callback))
            called += 1
        return called

    def turn_once(self) -> None:
        """Call what is due now, and not what it adds."""
        due = [heapq.heappop(self._heap) for _ in range(sum(entry[0] <= self.time for entry in self._heap))]
        for _, _, _, callback in due:
            callback()


class Driven:
    """A CoroutinePool, whoever drives it, and a clock that stands until the test moves it."""

    def __init__(
        self, settle: Callable[[], object], move: Callable[[float], None], now: Callable[[], float], **what: Any
    ) -> None:
        self.pool = CoroutinePool(**what)
        self.threads = 0
        self._settle = settle
        self._move = move
        self.now = now
        self.seen: list[Any] = []
        self._shown = 0

    def note(self, *what: Any) -> None:
        self.seen.append((self.now(), *what))

    def settle(self) -> list[Any]:
        """Let everything run that can; what was noted since this, or `advance`, was called last."""
        self._settle()
        before, self._shown = self._shown, len(self.seen)
        return self.seen[before:]

    def advance(self, seconds: float, step: float | None = None) -> list[Any]:
        """Move the clock, in steps, and let run at each what can; returns as `settle`."""
        for _ in range(round(seconds / step) if step else 1):
            self._move(step or seconds)
            self._settle()
        return self.settle()


DRIVERS = ["1 thread, generator", "4 threads, async", "service, generator"]
"""Who drives, and the form of the coroutines: each driver, and a loop with each form."""


@contextlib.contextmanager
def driven(driver: str, **options: Any) -> Iterator[Driven]:
    """A pool on a loop with so many joined threads, or on a hand-written time service; closed at the end."""
    if driver.startswith("service"):
        service = HandService()

        def move(seconds: float) -> None:
            service.time += seconds

        made = Driven(service.turn, move, service.now, time_service=service, **options)
        yield made
        made.pool.close()
        service.turn()
        assert made.pool.stats().alive == 0
        return
    clock = MockClock()
    loop = mh.EventLoop(clock=clock)
    threads = [threading.Thread(target=loop.join, name=f"driver-{n}") for n in range(int(driver[0]))]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: loop.joined == len(threads))
        made = Driven(lambda: wait_all_idle(loop), clock.advance, loop.now, loop=loop, **options)
        made.threads = len(threads)
        yield made
        made.pool.close()
        wait_all_idle(loop)
        assert made.pool.stats().alive == 0
    finally:
        loop.close(LONG)
        for thread in threads:
            thread.join(LONG)
