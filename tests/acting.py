"""Actors for tests: they do what their messages say, and remember it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import manyhands as mh
from gate import Gate


class Deliberate(Exception):
    """What a message of a test raises on purpose."""


def fail(*_args: object) -> None:
    """Raise what only a test raises."""
    raise Deliberate


class Doer(mh.Actor):
    """Calls each message that can be called, and notes what happens to it in `told`."""

    def __init__(self, loop: mh.EventLoop, **options: Any) -> None:
        super().__init__(loop, **options)
        self.told: list[object] = []
        self.inside = 0

    def process(self, message: Any) -> Any:
        self.inside += 1
        assert self.inside == 1, "two threads are inside"
        self.told.append(message)
        try:
            return message() if callable(message) else message
        finally:
            self.inside -= 1

    def on_start(self) -> None:
        self.told.append("on_start")

    def on_failure(self, error: BaseException, message: object) -> object:
        self.told.append(type(error).__name__)
        return None

    def on_stop(self) -> None:
        assert self.inside == 0, "on_stop beside process"
        self.told.append("on_stop")


class Plain(mh.Actor):
    """Calls each message; failures go where they go by default."""

    def process(self, message: Callable[[], object]) -> object:
        return message()


class Busy:
    """While entered, an actor is inside a message that ends with the block. It is the last to be entered, as a gate."""

    def __init__(self, actor: mh.Actor) -> None:
        self._actor = actor
        self.gate = Gate()

    def __enter__(self) -> Gate:
        self._actor.send(self.gate)
        self.gate.wait_entered()
        return self.gate

    def __exit__(self, *_exc: object) -> None:
        self.gate.open()


def outcome(reply: mh.Reply) -> str:
    """Name what became of a reply that is done: "answered", "cancelled", or the error's class."""
    assert reply.done()
    if reply.cancelled():
        return "cancelled"
    error = reply.exception(timeout=0)
    return "answered" if error is None else type(error).__name__


class Endings:
    """Counts how often each reply ends: its done callbacks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: dict[mh.Reply, int] = {}

    def of(self, reply: mh.Reply) -> mh.Reply:
        """Count the endings of this one."""
        with self._lock:
            self.counts[reply] = 0
        reply.add_done_callback(self._ended)
        return reply

    def _ended(self, reply: Any) -> None:
        with self._lock:
            self.counts[reply] += 1
