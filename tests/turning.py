"""What shows that a loop turns, or does not, beside the thing under test."""

from __future__ import annotations

import queue
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import manyhands as mh
from manyhands.testing import Hold, hold
from support import LONG

BRIEF = 0.05
"""Seconds that something which must not happen is given to happen all the same."""


def nothing(*_: object) -> None:
    """Do nothing: a message that only makes a thread go round, or a handler that must not matter."""


class Echo:
    """A watch beside the one under test: a round trip through it shows that the loop turns."""

    def __init__(self, loop: mh.EventLoop, sockets: tuple[socket.socket, socket.socket]) -> None:
        self._near, self._far = sockets
        self._served: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        loop.add(self._near, mh.Events.READ, self._serve)

    def _serve(self, watch: mh.Watch, events: mh.Events) -> None:
        self._served.put(self._near.recv(1))

    def round_trips(self, count: int = 1) -> None:
        """Send a byte and wait until it was served, `count` times."""
        for _ in range(count):
            self._far.send(b"x")
            self._served.get(timeout=LONG)


@contextmanager
def batch_in_hand(loop: mh.EventLoop, make_ready: Callable[[], object]) -> Iterator[Hold]:
    """Hold the loop's only thread in the interval, with everything that `make_ready()` made ready in its hands."""
    with hold("poll.enter") as entering:
        loop.post(nothing)
        entering.wait_reached()
        make_ready()
        with hold("poll.returned") as returned:
            entering.release()
            returned.wait_reached()
            yield returned
