"""What a loop shows of itself: `stats()`, `dump()`, `repr`."""

from __future__ import annotations

import dataclasses
import math
import threading
import time

import pytest

import manyhands as mh
from gate import Gate
from manyhands.testing import wait_all_idle
from support import wait_until

READ = mh.Events.READ


def nothing(*_args: object) -> None:
    pass


def test_stats_are_frozen_and_complete(make_loop):
    """`stats()` is a photograph: it has every figure and cannot be changed."""
    stats = make_loop().stats()
    assert isinstance(stats, mh.LoopStats)
    names = {field.name for field in dataclasses.fields(stats)}
    assert {"joined", "ready", "watches", "timers", "handled", "polls", "wakes", "errors", "parked"} <= names
    assert "handler_seconds" in names
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.joined = 5


def test_stats_count_what_is_there(make_loop, pair):
    """Watches, timers and what waits to be run are counted, and no longer when they are gone."""
    loop = make_loop()
    a, _b = pair()
    watch = loop.add(a, READ, nothing)
    timer = loop.call_later(3600, nothing)
    loop.post(nothing)
    stats = loop.stats()
    assert (stats.joined, stats.watches, stats.timers, stats.handled) == (0, 1, 1, 0)
    assert stats.ready >= 1

    watch.remove()
    timer.cancel()
    loop.join(until_idle=True)
    stats = loop.stats()
    assert (stats.watches, stats.timers, stats.ready) == (0, 0, 0)
    assert stats.handled >= 1
    assert stats.polls >= 1


def test_stats_count_errors(make_loop):
    """A handler that raised is counted, whatever the hook does with it."""
    loop = make_loop(on_error=nothing)
    loop.post(lambda: 1 / 0)
    loop.post(nothing)
    loop.join(until_idle=True)
    stats = loop.stats()
    assert (stats.handled, stats.errors) == (2, 1)


def test_stats_tell_joined_from_parked(make_loop, joined):
    """Of three idle threads one waits in the poller and the others are parked."""
    loop = make_loop()
    with joined(loop, 3):
        wait_until(lambda: loop.joined == 3)
        wait_all_idle(loop)
        stats = loop.stats()
        assert stats.joined == 3
        assert 2 <= stats.parked <= 3


def test_the_histogram_of_handler_times_adds_up(make_loop):
    """Upper bounds ascend to infinity; the counts add up to the handlers that ran."""
    loop = make_loop()
    for _ in range(20):
        loop.post(nothing)
    loop.join(until_idle=True)
    stats = loop.stats()
    bounds = [bound for bound, _count in stats.handler_seconds]
    assert bounds == sorted(set(bounds))
    assert bounds[-1] == math.inf
    assert sum(count for _bound, count in stats.handler_seconds) == stats.handled == 20


def test_a_long_handler_is_in_the_histogram_where_it_belongs(make_loop):
    """A handler that took 20 ms is counted above 20 ms."""
    loop = make_loop()

    def long() -> None:
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass

    loop.post(long)
    loop.join(until_idle=True)
    (bound,) = [bound for bound, count in loop.stats().handler_seconds if count]
    assert bound >= 0.02


def ring_the_bell() -> None:
    pass


def test_dump_names_threads_watches_strands_and_timers(make_loop, pair, spawn):
    """`dump()` tells a reader what there is: by the names that the user gave."""
    loop = make_loop(name="kitchen")
    a, _b = pair()
    loop.add(a, READ, nothing, name="door")
    strand = loop.strand(name="pantry")
    loop.call_later(3600, ring_the_bell)

    def cook() -> int:
        threading.current_thread().name = "cook"
        return loop.join()

    serving = spawn(cook)
    with Gate() as gate:
        strand.post(gate)
        gate.wait_entered()
        text = loop.dump()
        gate.open()
        loop.request_stop()
        serving.result()
    for word in ("kitchen", "cook", "door", "pantry", "ring_the_bell"):
        assert word in text, f"{word!r} is missing in:\n{text}"


def test_dump_says_what_a_thread_runs(make_loop, spawn):
    """A thread inside a handler is shown with that handler, and no longer when it has ended."""
    loop = make_loop()
    with Gate() as gate:

        def stir_the_soup() -> None:
            gate()

        serving = spawn(loop.join)
        loop.post(stir_the_soup)
        gate.wait_entered()
        assert "stir_the_soup" in loop.dump()
        gate.open()
        wait_all_idle(loop)
        assert "stir_the_soup" not in loop.dump()
        loop.request_stop()
        serving.result()


def test_dump_from_a_handler_shows_the_handler(make_loop):
    """`dump()` may be called on a lent thread: it takes no lock that the handler holds."""
    loop = make_loop()
    texts = []

    def look_around() -> None:
        texts.append(loop.dump())

    loop.post(look_around)
    loop.join(until_idle=True)
    assert "look_around" in texts[0]


def test_dump_of_an_idle_loop_is_text(make_loop):
    """With nothing there it still says whose dump it is."""
    assert "larder" in make_loop(name="larder").dump()


def test_repr_says_which_loop_and_its_state(make_loop):
    """A loop in a log line can be told from another one."""
    loop = make_loop(name="kitchen")
    assert "kitchen" in repr(loop)
    assert "EventLoop" in repr(loop)
    loop.close()
    assert "closed" in repr(loop)
