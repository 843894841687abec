"""Watches: hang-ups and errors that are always reported, and what cannot be watched at all."""

from __future__ import annotations

import os
import queue
import socket
import tempfile

import pytest

import manyhands as mh
from descriptors import epoll_masks
from manyhands.testing import wait_all_idle
from support import LONG
from turning import nothing

READ, WRITE = mh.Events.READ, mh.Events.WRITE
Reason = mh.RemovalReason


def test_a_hang_up_reaches_a_watch_that_asked_for_read_alone(make_loop, joined):
    """T32. A pipe whose writer closed."""
    loop = make_loop()
    reader, writer = os.pipe()
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        watch.remove()

    try:
        loop.add(reader, READ, handler)
        with joined(loop):
            wait_all_idle(loop)
            os.close(writer)
            assert calls.get(timeout=LONG) & mh.Events.HANGUP
    finally:
        os.close(reader)


def test_an_error_reaches_a_watch_that_asked_for_read_alone(make_loop, joined):
    """T32. The writing end of a pipe whose reader closed: it is never readable."""
    loop = make_loop()
    reader, writer = os.pipe()
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        watch.remove()

    try:
        loop.add(writer, READ, handler)
        with joined(loop):
            wait_all_idle(loop)
            os.close(reader)
            events = calls.get(timeout=LONG)
            assert events & mh.Events.ERROR
            assert not events & READ
    finally:
        os.close(writer)


def test_a_half_close_of_the_peer_is_read_and_no_hang_up(make_loop, joined, pair):
    """T32. The peer only stopped sending: the end of what it sends is read as b"", writing goes on."""
    loop = make_loop()
    near, far = pair()
    calls: queue.SimpleQueue[tuple[mh.Events, bytes]] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put((events, near.recv(1)))
        watch.remove()

    loop.add(near, READ, handler)
    with joined(loop):
        far.shutdown(socket.SHUT_WR)
        assert calls.get(timeout=LONG) == (READ, b"")
    assert near.send(b"x") == 1


def test_a_regular_file_cannot_be_watched(make_loop, pair):
    """T33. The error is an OSError with its number, and the number is free for a descriptor that can."""
    loop = make_loop()
    near, _ = pair()
    number, path = tempfile.mkstemp()
    os.unlink(path)
    try:
        with pytest.raises(mh.NotPollable) as caught:
            loop.add(number, READ, nothing)
        assert isinstance(caught.value, OSError)
        assert caught.value.fd == number
        assert caught.value.errno is not None
        assert loop.get(number) is None
        assert loop.stats().watches == 0
        assert epoll_masks(number) == []
        os.dup2(near.fileno(), number)
        loop.add(number, READ, nothing).remove()
    finally:
        os.close(number)
    del caught


def test_a_number_that_is_not_open_cannot_be_watched(make_loop, pair):
    """T33. Distinct from a file that is open and cannot be waited for."""
    loop = make_loop()
    near, _ = pair()
    number = os.dup(near.fileno())
    os.close(number)
    with pytest.raises(mh.BadDescriptor) as caught:
        loop.add(number, READ, nothing)
    assert not isinstance(caught.value, mh.NotPollable)
    assert isinstance(caught.value, OSError)
    assert caught.value.fd == number
    assert loop.get(number) is None
    assert loop.stats().watches == 0


def test_a_closed_socket_cannot_be_watched(make_loop, pair):
    """T33. Its number is -1, which never reaches a system call."""
    loop = make_loop()
    near, _ = pair()
    near.close()
    with pytest.raises((mh.BadDescriptor, ValueError), match=r"-1|closed"):
        loop.add(near, READ, nothing)
    assert loop.stats().watches == 0


@pytest.mark.parametrize("number", [-1, -(2**31), 2**31, 2**63])
def test_a_number_that_no_descriptor_can_have_is_refused(make_loop, number):
    """T33. Before it reaches a system call."""
    loop = make_loop()
    with pytest.raises((mh.BadDescriptor, ValueError, OverflowError)):
        loop.add(number, READ, nothing)
    assert loop.stats().watches == 0


@pytest.mark.parametrize("thing", ["3", 1.5, None, True, object()])
def test_what_is_no_descriptor_is_refused(make_loop, thing):
    """T33. A bool is no number here, and what has no fileno() is no source."""
    loop = make_loop()
    with pytest.raises((TypeError, ValueError)):
        loop.add(thing, READ, nothing)
    assert loop.stats().watches == 0


def test_a_handler_that_cannot_be_called_is_refused(make_loop, pair):
    """T33. At the call, and nothing stays registered."""
    loop = make_loop()
    near, _ = pair()
    with pytest.raises(TypeError):
        loop.add(near, READ, "handler")
    assert epoll_masks(near.fileno()) == []
    assert loop.get(near.fileno()) is None
