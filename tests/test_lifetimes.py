"""What is no longer used goes away: threads, descriptors, and every object, cycles included."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator

import pytest

import manyhands as mh
from manyhands.testing import MockClock, live_objects, wait_all_idle
from support import LONG, wait_until


class Payload:
    """Something of the user's with a weak reference, callable as a handler, a message, a timer or a final callback."""

    def __init__(self, *held: object) -> None:
        self.held = list(held)
        self.itself = self

    def __call__(self, *_: object) -> None:
        assert self.itself is self, "cleared by the collector while it was still in use"


class Fragile(Payload):
    """A message that notes its number, or that the collector has cleared it or an argument."""

    def __init__(self, ran: list[int], cleared: list[BaseException], number: int) -> None:
        super().__init__()
        self.ran = ran
        self.cleared = cleared
        self.number = number

    def __call__(self, *args: object) -> None:
        cleared = self.cleared
        try:
            super().__call__()
            for arg in args:
                assert arg.itself is arg
            self.ran.append(self.number)
        except BaseException as error:
            cleared.append(error)


class Garbage:
    """A cycle that calls something when it is collected. (3.13t never frees a class: a local one would keep its loop.)"""

    def __init__(self, call: Callable[..., object], *args: object) -> None:
        self.cycle: object = self
        self.call = call
        self.args = args

    def __del__(self) -> None:
        self.call(*self.args)

    def __call__(self, *_: object) -> None: ...


def descriptors() -> set[tuple[str, str]]:
    """Every open descriptor of the process and what it is open on."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        try:
            found.add((entry, os.readlink(f"/proc/self/fd/{entry}")))
        except FileNotFoundError:
            continue  # the listing's own
    return found


def own_threads() -> set[threading.Thread]:
    """Every thread but the library's one monitor, which ends by itself when no loop is left."""
    return {thread for thread in threading.enumerate() if thread.name != "mh-monitor"}


def collect() -> None:
    """Twice: finalizers of the first pass may free what only the second can find."""
    gc.collect()
    gc.collect()


@contextlib.contextmanager
def resource_warnings() -> Iterator[list[str]]:
    """Collect the texts of ResourceWarnings, without the objects that they are about."""
    texts: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, category, *_, **__: texts.append(f"{category.__name__}: {message}")
        yield texts
    assert all(text.startswith("ResourceWarning") for text in texts)


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


# -- nothing is left ----------------------------------------------------------------------------


def test_a_removed_watch_frees_what_it_held(make_loop, pair):
    """T99. Its handler, its source and its final callbacks are free once the last callback has run."""
    loop = make_loop()
    a, _ = pair()
    handler, on_removed, on_error = Payload(), Payload(), Payload()
    held = [weakref.ref(thing) for thing in (handler, on_removed, on_error)]
    watch = loop.add(a, mh.Events.READ, handler, on_removed=on_removed, on_error=on_error)
    handler.held.append(watch)
    del handler, on_removed, on_error
    watch.remove()
    loop.join(until_idle=True)
    del watch
    collect()
    assert [ref() for ref in held] == [None, None, None]


def test_a_watch_keeps_its_source_until_it_ends(make_loop):
    """T99. `watch.source` is kept alive by the watch, and by nothing after it."""
    loop = make_loop()
    a, b = socket.socketpair()
    a.setblocking(False)
    ref = weakref.ref(a)
    watch = loop.add(a, mh.Events.READ, print, close=True)
    del a
    collect()
    assert ref() is watch.source
    watch.remove()
    loop.join(until_idle=True)
    del watch
    collect()
    assert ref() is None
    b.close()


def test_a_cancelled_timer_frees_its_callback_at_once(make_loop):
    """T99. Cancelling drops the references, long before the deadline, though somebody keeps the timer."""
    loop = make_loop()
    callback, argument = Payload(), Payload()
    callback.itself = argument.itself = None
    held = [weakref.ref(callback), weakref.ref(argument)]
    timer = loop.call_later(3600, callback, argument)
    del callback, argument
    assert timer.cancel()
    collect()
    assert [ref() for ref in held] == [None, None]
    assert not timer.active


def test_a_message_that_ran_is_free(make_loop):
    """T99. The callback and its arguments are dropped when the message has run, with the loop and strand alive."""
    loop = make_loop()
    strand = loop.strand()
    held = []
    for post in (loop.post, loop.post_urgent, strand.post, strand.post_urgent):
        callback, argument = Payload(), Payload()
        held += [weakref.ref(callback), weakref.ref(argument)]
        post(callback, argument)
    del callback, argument
    loop.join(until_idle=True)
    collect()
    assert [ref() for ref in held] == [None] * 8


@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
def test_close_gives_the_descriptors_back(poller):
    """T99. A closed loop has no descriptor any more, though somebody still holds the object."""
    collect()
    before = descriptors()
    loop = mh.EventLoop(poller=poller)
    assert descriptors() > before
    loop.close()
    assert descriptors() == before
    assert loop.closed


def test_a_hundred_loops_leave_no_descriptor_and_no_thread():
    """T99. Made, served by two threads, closed, a hundred times: the process is as it was."""
    mh.EventLoop().close()  # what is made once, on first use, is no leak
    collect()
    before, threads_before, live_before = descriptors(), own_threads(), live_objects()
    for _ in range(100):
        loop = mh.EventLoop()
        a, b = socket.socketpair()
        loop.add(a, mh.Events.READ, print, close=True)
        crew = [threading.Thread(target=loop.join) for _ in range(2)]
        for thread in crew:
            thread.start()
        wait_until(lambda loop=loop: loop.joined == 2)
        loop.close()
        for thread in crew:
            thread.join(LONG)
        b.close()
    del loop, a, b
    collect()
    assert {what for _, what in descriptors()} <= {what for _, what in before}
    assert len(descriptors()) == len(before)
    assert own_threads() == threads_before
    wait_until(lambda: live_objects() == live_before)  # the monitor may be looking at the last of them


def knot(loop: mh.EventLoop, kind: str, sock: socket.socket) -> Payload:
    """Tie the loop into a cycle through something of the user's, and return that."""
    payload = Payload(loop)
    if kind == "handler -> loop":
        loop.add(sock, mh.Events.READ, payload)
    elif kind == "watch -> handler -> watch":
        payload.held.append(loop.add(sock, mh.Events.READ, payload))
    elif kind == "timer -> loop":
        payload.held.append(loop.call_later(3600, payload, payload))
    elif kind == "message -> loop":
        loop.post(payload, payload)
    elif kind == "message -> strand":
        strand = loop.strand()
        payload.held.append(strand)
        strand.post(payload, payload)
    elif kind == "paused strand":
        strand = loop.strand()
        strand.pause()
        payload.held.append(strand)
        loop.add(sock, mh.Events.READ, payload, strand=strand)
        strand.post_terminal(payload, payload)
    elif kind == "on_removed -> watch":
        payload.held.append(loop.add(sock, mh.Events.READ, print, on_removed=payload, on_error=payload))
    elif kind == "on_error -> loop":
        loop.__dict__["knot"] = payload
    else:
        raise AssertionError(kind)
    return payload


KNOTS = [
    "handler -> loop",
    "watch -> handler -> watch",
    "timer -> loop",
    "message -> loop",
    "message -> strand",
    "paused strand",
    "on_removed -> watch",
    "on_error -> loop",
]


@pytest.mark.parametrize("kind", KNOTS)
def test_a_closed_loop_in_a_cycle_is_collected(kind, caplog):
    """FAULT 24. 0 of 50 alive after close and one `gc.collect()`; T99: cycles included."""
    before, live_before = descriptors(), live_objects()
    held = []
    for _ in range(50):
        a, b = socket.socketpair()
        loop = mh.EventLoop()
        payload = knot(loop, kind, a)
        held += [weakref.ref(loop), weakref.ref(payload)]
        loop.close()
        a.close()
        b.close()
    del loop, payload, a, b
    gc.collect()
    assert [ref() for ref in held if ref() is not None] == []
    assert live_objects() == live_before
    assert descriptors() == before


@pytest.mark.parametrize("kind", KNOTS)
def test_a_loop_that_nobody_closed_is_collected_and_says_so_once(kind):
    """FAULT 24. Without close: unreachable means collected, its descriptors closed, one ResourceWarning."""
    collect()
    before, live_before = descriptors(), live_objects()
    a, b = socket.socketpair()
    loop = mh.EventLoop(name="forgotten")
    payload = knot(loop, kind, a)
    held = [weakref.ref(loop), weakref.ref(payload)]
    with resource_warnings() as warned:
        del loop, payload
        collect()
        collect()
    a.close()
    b.close()
    assert [ref() for ref in held] == [None, None]
    assert len(warned) == 1
    assert "forgotten" in warned[0]
    assert "close" in warned[0]
    assert descriptors() == before
    assert live_objects() == live_before


def test_a_loop_that_nobody_closed_and_no_cycle_holds_goes_at_once():
    """FAULT 24. Without a cycle the last reference is enough."""
    collect()
    before = descriptors()
    loop = mh.EventLoop(name="forgotten")
    ref = weakref.ref(loop)
    with resource_warnings() as warned:
        gc.disable()
        try:
            del loop
            wait_until(lambda: ref() is None)
        finally:
            gc.enable()
    assert len(warned) == 1
    assert descriptors() == before


def test_a_forgotten_watch_with_close_closes_its_descriptor():
    """FAULT 24. The loop that is collected closes what it was told to close, and nothing else."""
    collect()
    keep, keep_peer = socket.socketpair()
    a, b = socket.socketpair()
    b.settimeout(LONG)
    loop = mh.EventLoop()
    loop.add(a.detach(), mh.Events.READ, print, close=True)
    loop.add(keep, mh.Events.READ, print)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del loop
        collect()
    assert b.recv(1) == b""
    keep_peer.send(b"x")
    assert keep.recv(1) == b"x"
    for sock in (b, keep, keep_peer):
        sock.close()


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


def test_live_objects_counts_what_is_alive(make_loop, pair):
    """T99. The counters that every test ends with do count: a watch, a strand and a timer are seen, then gone."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    before = live_objects()
    a, _ = pair()
    watch = loop.add(a, mh.Events.READ, print)
    strand = loop.strand()
    timer = loop.call_later(1, print)
    during = live_objects()
    assert sum(during.values()) >= sum(before.values()) + 3
    watch.remove()
    strand.close()
    timer.cancel()
    loop.join(until_idle=True)
    del watch, strand, timer
    collect()
    wait_until(lambda: live_objects() == before)
