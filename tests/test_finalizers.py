"""Finalizers and the collector may come at any moment, on any thread, and may use the loop."""

from __future__ import annotations

import gc
import socket
import threading
import warnings
import weakref

import pytest

import manyhands as mh
from garbage import Fragile, Garbage, Payload, collect
from manyhands.testing import wait_all_idle
from support import LONG, wait_until

# -- what finalizers may call -------------------------------------------------------------------


@pytest.mark.race
@pytest.mark.parametrize("threads", [1, 4])
def test_finalizers_may_stop_remove_and_post_during_a_collection_inside_a_handler(make_loop, joined, pair, threads):
    """T97. stop, remove, post from `__del__` during garbage collection inside a handler: no deadlock."""
    loop = make_loop(handover=0)
    strand = loop.strand()
    a, b = pair()
    ran: list[str] = []
    calls: list[str] = []
    watches = [loop.add(pair()[0], mh.Events.READ, print, strand=strand if n % 2 else None) for n in range(20)]

    def finalize(watch: mh.Watch) -> None:
        loop.post(ran.append, "loop")
        loop.post_urgent(ran.append, "urgent")
        strand.post(ran.append, "strand")
        loop.call_later(0, ran.append, "timer").cancel()
        watch.pause()
        watch.remove()
        calls.append("finalized")

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        a.recv(1)
        for other in watches:
            Garbage(finalize, other)
        gc.collect()
        ran.append("handler")

    loop.add(a, mh.Events.READ, handler, strand=strand)
    with joined(loop, threads):
        b.send(b"x")
        wait_until(lambda: ran.count("strand") == 20)
        wait_all_idle(loop)
    assert len(calls) == 20
    assert (ran.count("loop"), ran.count("urgent"), ran.count("handler")) == (20, 20, 1)
    assert all(watch.removed for watch in watches)


def test_a_finalizer_may_stop_the_loop_it_is_collected_in(make_loop, spawn):
    """T97. `request_stop` from `__del__`: the handler ends, every thread leaves."""
    loop = make_loop(handover=0)
    ended = threading.Event()

    def message() -> None:
        Garbage(loop.request_stop)
        gc.collect()
        ended.set()

    crew = [spawn(loop.join) for _ in range(3)]
    wait_until(lambda: loop.joined == 3)
    loop.post(message)
    for thread in crew:
        thread.result()
    assert ended.is_set()
    assert loop.joined == 0


@pytest.mark.race
def test_finalizers_that_come_at_any_moment_do_not_deadlock(make_loop, joined, spawn):
    """T97. The collector runs as often as it can while four threads post, set timers, add and remove; each
    collection finds garbage whose `__del__` uses the same loop.
    """
    loop = make_loop(handover=0)
    strand = loop.strand()
    ran: list[int] = []
    finalized: list[int] = []

    def finalize(number: int) -> None:
        strand.post(ran.append, number)
        finalized.append(number)

    def work(first: int) -> None:
        for number in range(first, first + 200):
            Garbage(finalize, number)
            loop.post(Garbage, finalize, -1 - number)
            loop.call_later(0, int).cancel()
            a, b = socket.socketpair()
            a.setblocking(False)
            watch = loop.add(a, mh.Events.READ, print)
            watch.modify(mh.Events.WRITE)
            watch.remove()
            a.close()
            b.close()

    threshold = gc.get_threshold()
    gc.set_threshold(2, 2, 2)
    try:
        with joined(loop, 2):
            for worker in [spawn(work, first) for first in range(0, 800, 200)]:
                worker.result()
            wait_all_idle(loop)
            collect()
            wait_all_idle(loop)
    finally:
        gc.set_threshold(*threshold)
    assert sorted(ran) == sorted(finalized)
    assert sorted(ran) == list(range(-800, 800))


# -- what the collector may clear --------------------------------------------------------------


def test_finalizers_of_a_loop_that_is_collected_may_use_another_loop(make_loop, joined):
    """FAULT 24. No finalizer runs user code under a lock: what dies with the loop posts to a second one."""
    second = make_loop()
    told = threading.Event()

    first = mh.EventLoop()
    garbage = Garbage(second.post, told.set)
    garbage.cycle = first
    first.post(garbage)
    first.call_later(3600, garbage)
    with joined(second), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del first, garbage
        collect()
        wait_until(told.is_set)


def test_a_loop_is_not_collected_while_a_thread_serves_it(joined, make_loop):
    """FAULT 24. A joined thread is a reference: only the loop's own threads know it, and it serves on."""
    ran = threading.Event()
    loop = make_loop()
    ref = weakref.ref(loop)
    with joined(loop):
        collect()
        ref().call_later(0.001, ran.set)
        assert ran.wait(LONG)


@pytest.mark.race
@pytest.mark.parametrize("threads", [1, 4])
def test_a_collector_that_never_pauses_clears_nothing_that_is_live(make_loop, joined, spawn, threads):
    """T99a. `gc.collect()` without pause on one thread while four post and set timers: no live callback is cleared."""
    loop = make_loop(handover=0)
    strand = loop.strand()
    enough = threading.Event()
    ran: list[int] = []
    reports: list[BaseException] = []

    collections: list[int] = []

    def keep_collecting() -> None:
        # A breath between two collections: on free-threaded CPython 3.13 the next one would stop the world again before
        # any other thread has come back from the last.
        while not enough.wait(1e-5):
            collections.append(gc.collect())

    def work(first: int) -> None:
        for number in range(first, first + 200, 4):
            strand.post(Fragile(ran, reports, number), Payload())
            loop.post(Fragile(ran, reports, number + 1), Payload())
            loop.call_later(0, Fragile(ran, reports, number + 2), Payload())
            strand.call_later(0.0005, Fragile(ran, reports, number + 3), Payload())
            if number % 100 == 0:
                done = len(collections)
                wait_until(lambda done=done: len(collections) > done)

    collector = spawn(keep_collecting)
    with joined(loop, threads):
        for worker in [spawn(work, first) for first in range(0, 800, 200)]:
            worker.result(timeout=60)
        wait_until(lambda: len(ran) + len(reports) == 800, timeout=60)
        enough.set()
        collector.result()
    assert reports == []
    assert sorted(ran) == list(range(800))
    assert len(collections) >= 2
