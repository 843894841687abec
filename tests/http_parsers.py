"""Three readers of HTTP/1.1 requests, asked for the same: what they found in some bytes, and whether they refused the rest."""

from __future__ import annotations

import h11
import httptools

from manyhands.server._limits import Limits
from manyhands.server._request import Refused, RequestReader
from reading import agree_on_plain, body_of

REFUSED = "refused"

Found = list[tuple[bytes, bytes, bytes] | str]
"""(method, target, body) of each whole request, in order; then REFUSED, if what follows is none."""


def ours(data: bytes) -> Found:
    """As the server reads it."""
    agree_on_plain(data)
    reader = RequestReader(Limits())
    found: Found = []
    reader.receive(data)
    try:
        while (request := reader.next_request()) is not None:
            found.append((request.method.encode(), request.target, body_of(request)))
    except Refused:
        found.append(REFUSED)
    reader.close()
    return found


def by_h11(data: bytes) -> Found:
    """As h11 reads it, answering each request."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    found: Found = []
    head: h11.Request | None = None
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                found.append((head.method, head.target, body))
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                if connection.our_state is h11.SWITCHED_PROTOCOL:  # CONNECT
                    return found
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return found
                connection.start_next_cycle()
            else:  # it needs more, or another protocol was asked for
                return found
    except h11.RemoteProtocolError:
        found.append(REFUSED)
        return found


class _Seen:
    """What httptools alone calls."""

    def __init__(self) -> None:
        self.found: Found = []
        self.target = self.body = b""
        self.parser: httptools.HttpRequestParser | None = None

    def on_message_begin(self) -> None:
        self.target = self.body = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        assert self.parser is not None
        self.found.append((self.parser.get_method(), self.target, self.body))


def by_httptools(data: bytes) -> Found:
    """As httptools reads it, without what the server adds."""
    seen = _Seen()
    seen.parser = httptools.HttpRequestParser(seen)
    try:
        seen.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        seen.found.append(REFUSED)
    seen.parser = None
    return seen.found
