"""The small public types: what handlers get, and what they may answer."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from manyhands import _core

if TYPE_CHECKING:
    from manyhands._loop import EventLoop

__all__ = ["KEEP", "STOP", "Answer", "Delay", "ErrorReport", "Events", "Message", "RemovalReason", "StrandState"]


class Events(enum.IntFlag):
    """What a descriptor is ready for. A watch asks for READ, WRITE, PRIORITY; HANGUP and ERROR are always reported.

    READ: bytes, a connection to accept, or the end of the stream (a read gives `b""`).
    WRITE: bytes can be written without blocking.
    PRIORITY: something exceptional, e.g. TCP urgent data.
    HANGUP: both directions are over (`EPOLLHUP`). With `poller="select"` it is reported as READ.
    ERROR: the descriptor has an error pending (`EPOLLERR`).
    """

    READ = 1
    WRITE = 2
    PRIORITY = 4
    HANGUP = 8
    ERROR = 16


class StrandState(enum.Enum):
    """What a strand does: takes and runs, takes only, runs out, or has ended."""

    ACTIVE = "active"
    PAUSED = "paused"
    CLOSING = "closing"
    CLOSED = "closed"


class RemovalReason(enum.Enum):
    """Why a watch ended: what `on_removed(watch, reason)` gets.

    REMOVED: `remove()` was called.
    FD_GONE: the descriptor was closed behind the loop's back.
    HANDLER_ERROR: its handler raised, and no `on_error` kept it.
    STRAND_CLOSED: its strand ended.
    LOOP_CLOSED: the loop was closed.
    """

    REMOVED = "removed"
    FD_GONE = "fd gone"
    HANDLER_ERROR = "handler error"
    STRAND_CLOSED = "strand closed"
    LOOP_CLOSED = "loop closed"


class Answer(enum.Enum):
    """What a callback may return to change what happens next: see `STOP` and `KEEP`."""

    STOP = "stop"
    KEEP = "keep"


STOP: Final[Literal[Answer.STOP]] = Answer.STOP
"""Returned by the callback of `call_every`: no further tick. By `Actor.on_failure`: the actor is stopped."""

KEEP: Final[Literal[Answer.KEEP]] = Answer.KEEP
"""Returned by `on_error`: the watch or timer whose callback raised goes on."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Returned by the callback of `call_every`: the next tick comes in so many seconds, 0 or more, once."""

    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < float("inf"):
            raise ValueError(f"seconds must be a number, 0 or more, and got {self.seconds!r}")


@dataclass(frozen=True, slots=True)
class Message:
    """A message that did not run: what `Strand.close()` gives back. `callback(*args)` would run it."""

    callback: Callable[..., object]
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """A callback raised: what `on_error(report)` gets.

    Attributes:
        loop: Where.
        source: "watch", "timer", "message", "terminal", "on_removed", "on_closed", "operation", "signal", or "close" (the
            source's own `close()` raised).
        watch: With source "watch" and "close".
        strand: The watch's strand; for others the strand that it was posted to or set on, or the operation's, if it was.
        timer: With source "timer": a handle that is equal to the one that was made when it was set.
        events: With source "watch".
        handler: What was called.
        error: What it raised.
    """

    loop: EventLoop
    source: str
    watch: _core.Watch | None
    strand: _core.Strand | None
    timer: _core.Timer | None
    events: Events | None
    handler: Callable[..., object]
    error: BaseException
