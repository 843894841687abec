"""Watches that read one byte a run, the first events of one, and the pollers that may tell it."""

from __future__ import annotations

import queue
import socket
import threading

import manyhands as mh
from manyhands.testing import wait_all_idle
from support import LONG

READ = mh.Events.READ

POLLERS = ("epoll", "poll", "select")


class Reader:
    """A watch that reads one byte a run."""

    def __init__(self, loop: mh.EventLoop, sockets: tuple[socket.socket, socket.socket]) -> None:
        self.near, self.far = sockets
        self.runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.ended: queue.SimpleQueue[mh.RemovalReason] = queue.SimpleQueue()
        self.watch = loop.add(
            self.near,
            READ,
            lambda watch, events: self.runs.put(self.near.recv(1)),
            on_removed=lambda watch, reason: self.ended.put(reason),
        )

    def round_trips(self, count: int = 1) -> None:
        for _ in range(count):
            self.far.send(b"x")
            self.runs.get(timeout=LONG)


class HeldReader:
    """A watch that reads one byte a run, and can be made to stay inside."""

    def __init__(self, loop: mh.EventLoop, sockets: tuple[socket.socket, socket.socket]) -> None:
        self.near, self.far = sockets
        self.runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.leave.set()
        self.ended = 0
        self.watch = loop.add(self.near, READ, self._handle)

    def _handle(self, watch: mh.Watch, events: mh.Events) -> None:
        self.entered.set()
        self.leave.wait(LONG)
        self.runs.put(self.near.recv(1))
        self.ended += 1

    def enter(self) -> None:
        """Make one run begin that does not end before `leave` is set."""
        self.leave.clear()
        self.entered.clear()
        self.far.send(b"x")
        assert self.entered.wait(LONG)

    def round_trips(self, count: int = 1) -> None:
        for _ in range(count):
            self.far.send(b"x")
            self.runs.get(timeout=LONG)


def first_events(loop, joined, descriptor, mask, make_ready) -> mh.Events:
    """Watch `descriptor`, make it ready while a thread waits, and return the first events that its handler gets."""
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        watch.remove()

    loop.add(descriptor, mask, handler)
    with joined(loop):
        wait_all_idle(loop)
        make_ready()
        return calls.get(timeout=LONG)
