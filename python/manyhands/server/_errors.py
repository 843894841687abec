"""What the server raises: in a view, and from `serve()`."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from http import HTTPStatus

from manyhands.errors import ManyhandsError

__all__ = ["HandshakeRefused", "NoApplication", "WebSocketClosed", "WorkerFailed", "how_it_ended"]


class HandshakeRefused(ManyhandsError):
    """A request cannot become a WebSocket. The client has been told.

    Attributes:
        status: The response's.
        headers: Those that the status asks for.
    """

    def __init__(self, status: HTTPStatus, reason: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"no WebSocket: {reason}")
        self.status = status
        self.headers = dict(headers)


class WebSocketClosed(ManyhandsError):
    """A WebSocket conversation is over.

    Attributes:
        code: 1000 for a normal end, 1001 if the page was left, 1006 if the connection was lost: RFC 6455, 7.4.1.
        reason: What the side that ended it said.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the WebSocket was closed with {code}{f' ({reason})' if reason else ''}")
        self.code = code
        self.reason = reason


class NoApplication(ManyhandsError):
    """What was named, as in `module:app`, cannot be served. The text is a sentence that says why, and what to do.

    Its `__cause__` is what the import or the factory raised, if it was that.
    """


class WorkerFailed(ManyhandsError):
    """One of the first workers ended before it served; it has said why on standard error. The others were ended.

    Attributes:
        status: Its exit status; negative for a signal.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"a worker ended before it served, {how_it_ended(status)}")
        self.status = status


def how_it_ended(status: int) -> str:
    """Say how a process ended, by its status as `subprocess` has it."""
    if status >= 0:
        return f"with status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"
