"""What is no longer used goes away: threads, descriptors, and every object, cycles included."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
import warnings
import weakref
from collections.abc import Iterator

import pytest

import manyhands as mh
from garbage import Payload, collect
from manyhands.testing import MockClock, live_objects
from support import LONG, OWN_THREADS, wait_until


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
    """Every thread but the library's monitor and what writes its reports, which end by themselves when no loop is left."""
    return {thread for thread in threading.enumerate() if thread.name not in OWN_THREADS}


@contextlib.contextmanager
def resource_warnings() -> Iterator[list[str]]:
    """Collect the texts of ResourceWarnings, without the objects that they are about."""
    texts: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, category, *_, **__: texts.append(f"{category.__name__}: {message}")
        yield texts
    assert all(text.startswith("ResourceWarning") for text in texts)


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
