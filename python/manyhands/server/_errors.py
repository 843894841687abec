"""What the server raises in a view."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from manyhands.errors import ManyhandsError

__all__ = ["HandshakeRefused", "WebSocketClosed"]


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
