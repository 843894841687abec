"""Requests read from bytes, in pieces."""

from __future__ import annotations

import pytest

from manyhands.server._environ import base_environ, environ_of
from manyhands.server._limits import Limits
from manyhands.server._request import Refused, Request, RequestReader

LIMITS = Limits()

GET = b"GET /hello?who=you HTTP/1.1\r\nHost: example\r\n\r\n"
POST = b"POST /form HTTP/1.1\r\nHost: example\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello"
CHUNKED = (
    b"POST /up HTTP/1.1\r\nHost: example\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"6\r\nhel\r\n\r\r\n3;why=not\r\n\nlo\r\n0\r\nDigest: none\r\nX: y\r\n\r\n"
)
UPGRADE = (
    b"POST /h2 HTTP/1.1\r\nHost: example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 7\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\nhalf\r\n\r"
)
UPGRADE_CHUNKED = (
    b"PUT /h2 HTTP/1.1\r\nHost: example\r\nConnection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4\r\nbody\r\n0\r\n\r\n"
)
WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\nHost: example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nEmpty:\r\nBlank: \t\r\n\r\n"
)
OLD = b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
LAST = b"DELETE /bye HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n"
GOOD = {
    "one after the other": GET + POST + GET,
    "chunked": CHUNKED + GET,
    "blank lines in between": b"\r\n\r\n" + POST + b"\r\n" + GET + b"\r\n\r\n",
    "an upgrade with a body": UPGRADE + GET,
    "an upgrade with a chunked body": UPGRADE_CHUNKED + GET,
    "an upgrade without a body": WEBSOCKET + GET,
    "old, then last": OLD + LAST + b"this is nothing",
}

Seen = list[tuple[object, ...]]


def seen(request: Request) -> tuple[object, ...]:
    """Everything of a request, to compare."""
    return (
        request.method,
        request.target,
        request.headers,
        request.host,
        body_of(request),
        request.chunked,
        request.http_10,
        request.keep_alive,
    )


def body_of(request: Request) -> bytes:
    """Its body, wherever it is."""
    if request.file is None:
        assert request.length == len(request.body)
        return request.body
    with request.file as file:
        body = file.read()
    assert (request.body, request.length) == (b"", len(body))
    return body


def agree_on_plain(data: bytes, limits: Limits = LIMITS) -> bool:
    """Whether these bytes are taken as a plain request; then the reader of all requests makes the same of them."""
    base, remote = base_environ("here", 8000), ("10.0.0.1", 5)
    reader = RequestReader(limits)
    plain = reader.take_plain(data, base, remote)
    if plain is not None:
        reader.receive(data)
        request = reader.next_request()
        assert request is not None
        assert reader.next_request() is None
        assert reader.idle
        assert not reader.over
        for name in ("method", "target", "headers", "name", "length", "chunked", "http_10", "keep_alive"):
            assert getattr(plain, name) == getattr(request, name)
        assert body_of(request) == b""
        environ, found = environ_of(base, request, remote), plain.take_environ()
        assert found.pop("wsgi.input").read() == environ.pop("wsgi.input").read() == b""
        assert found == environ
    reader.close()
    return plain is not None


def read(*pieces: bytes, limits: Limits = LIMITS) -> Seen:
    """Feed the pieces one by one; each request, and what it was refused with, in order."""
    agree_on_plain(b"".join(pieces), limits)
    reader = RequestReader(limits)
    found: Seen = []
    try:
        for piece in pieces:
            reader.receive(piece)
            while (request := reader.next_request()) is not None:
                found.append(seen(request))
    except Refused as refused:
        found.append((refused.status,))
    reader.close()
    return found


def read_one(data: bytes, limits: Limits = LIMITS) -> Request:
    """The one request in these bytes."""
    reader = RequestReader(limits)
    reader.receive(data)
    request = reader.next_request()
    assert request is not None
    assert reader.next_request() is None
    reader.close()
    return request


def refusal(data: bytes, limits: Limits = LIMITS) -> Refused:
    """What these bytes, which are no good request, are refused with."""
    assert not agree_on_plain(data, limits)
    reader = RequestReader(limits)
    reader.receive(data)
    with pytest.raises(Refused) as caught:
        while reader.next_request() is not None:
            pass
    assert reader.over
    reader.close()
    return caught.value


# Requests.
