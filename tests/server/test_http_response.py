"""The bytes of a response."""

from __future__ import annotations

import http.client
import io
from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyhands.server._response import ResponseFrame, error_response
from reading import (
    GET,
    LAST,
    read_one,
)


def answer(
    request: bytes, status: str, headers: list[tuple[str, str]], pieces: list[bytes], length: int | None = None
) -> tuple[bytes, ResponseFrame]:
    """A whole response."""
    frame = ResponseFrame(read_one(request))
    data = frame.head(status, headers, length)
    data += b"".join(frame.frame(piece) for piece in pieces if not frame.bodiless)
    return data + frame.end(), frame


class _Wire(io.BytesIO):
    """What `http.client` reads a response from; what it leaves can be read when it has closed its end."""

    def makefile(self, _mode: str) -> io.BytesIO:
        return self

    def close(self) -> None:
        """Stay open."""


def understood(data: bytes, method: str = "GET") -> tuple[int, dict[str, str], bytes, bytes]:
    """The response as another parser understands it: status, headers, body, and what is left behind it."""
    wire = _Wire(data)
    response = http.client.HTTPResponse(wire, method=method)  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, body, wire.read()


@settings(deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=5),
    st.sampled_from(["application", "server", "nobody"]),
    st.sampled_from([b"GET", b"HEAD", b"POST"]),
    st.sampled_from(["200 OK", "204 No Content", "304 Not Modified", "404", "500 Oh dear"]),
    st.booleans(),
)
def test_another_parser_reads_what_was_framed(pieces, who_knows_the_length, method, status, old):
    """http.client, on any combination; nothing is left on the wire behind a response that keeps the connection."""
    line = (
        method + b" / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" if old else method + b" / HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    body = b"".join(pieces)
    headers = [("Content-Length", str(len(body)))] if who_knows_the_length == "application" else []
    data, frame = answer(line, status, headers, pieces, len(body) if who_knows_the_length == "server" else None)
    code, found, read_body, rest = understood(data + b"NEXT", method.decode())
    assert code == int(status[:3])
    if frame.keep_alive:
        assert rest == b"NEXT"
        assert found.get("connection", "none") == ("keep-alive" if old else "none")
    else:
        assert found["connection"] == "close"
        read_body = read_body.removesuffix(b"NEXT")
    assert read_body == (b"" if method == b"HEAD" or code in (204, 304) else body)
    assert found["date"].endswith(" GMT")
    assert found["server"] == "manyhands"
    assert not (code == 204 and "content-length" in found)
    assert frame.keep_alive or (old and who_knows_the_length == "nobody")


def test_the_head_of_a_common_response_is_exactly_this():
    """Byte by byte, but for the date."""
    data, _ = answer(GET, "200 OK", [("Content-Type", "text/plain"), ("X", "\xe9")], [b"hello"], 5)
    date = understood(data)[1]["date"].encode()
    assert data == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX: \xe9\r\nServer: manyhands\r\nDate: " + date + b"\r\n"
        b"Content-Length: 5\r\n\r\nhello"
    )


def test_a_date_and_a_server_of_the_applications_replace_ours():
    """Each once."""
    found = understood(answer(GET, "200 OK", [("date", "then"), ("SERVER", "mine")], [], 0)[0])[1]
    assert (found["date"], found["server"]) == ("then", "mine")


def test_the_connection_is_closed_if_anybody_wants_it():
    """The client, the application, the server; and the client is told."""
    for request, headers, kept in (
        (GET, [], True),
        (GET, [("Connection", "Close")], False),
        (GET, [("Connection", "keep-alive"), ("Keep-Alive", "timeout=5")], True),
        (LAST, [], False),
    ):
        data, frame = answer(request, "200 OK", headers, [], 0)
        assert frame.keep_alive is kept
        assert (b"Connection: close\r\n" in data) is not kept
        assert data.lower().count(b"connection:") == (not kept)
    frame = ResponseFrame(read_one(GET), keep_alive=False)
    assert b"Connection: close\r\n" in frame.head("200 OK", [])


@pytest.mark.parametrize(
    ("given_bytes", "sent", "excess", "short"), [(3, 3, False, False), (5, 3, True, False), (2, 2, False, True)]
)
def test_a_body_that_is_not_as_long_as_announced_cannot_reach_the_next_response(given_bytes, sent, excess, short):
    """What is too much is dropped; what is too little ends the connection, since the client waits for the rest."""
    frame = ResponseFrame(read_one(GET))
    head = frame.head("200 OK", [("Content-Length", "3")])
    data = b"".join(frame.frame(b"x") for _ in range(given_bytes)) + frame.end()
    assert b"Content-Length: 3\r\n" in head
    assert (len(data), frame.excess, frame.short, frame.keep_alive) == (sent, excess, short, not short)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK\r\nX: y", []),
        ("OK", []),
        ("100 Continue", []),
        ("600 What", []),
        ("2000 OK", []),
        (200, []),
        ("200 OK", [("X", "a\r\nSet-Cookie: b")]),
        ("200 OK", [("X", "a\nb")]),
        ("200 OK", [("X", "a\rb")]),
        ("200 OK", [("X", "a\0b")]),
        ("200 OK", [("X: y\r\nZ", "a")]),
        ("200 OK", [("X Y", "a")]),
        ("200 OK", [("", "a")]),
        ("200 OK", [("X", 5)]),
        ("200 OK", [(b"X", "y")]),
        ("200 OK", [("X", "\u20ac")]),
        ("200 OK", [("Transfer-Encoding", "chunked")]),
        ("200 OK", [("upgrade", "websocket")]),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "1"), ("content-length", "1")]),
        ("200 OK", [("Content-Length", "\u0663")]),
    ],
)
def test_a_head_that_cannot_be_sent_is_refused_and_another_can_be(status, headers):
    """So that the client gets a 500 and not half a head, or two."""
    frame = ResponseFrame(read_one(GET))
    for _ in range(2):  # what is remembered of names and statuses makes no difference
        with pytest.raises((ValueError, TypeError)):
            frame.head(status, headers)
    assert frame.code == 0
    assert frame.head("500 Internal Server Error", [], 0).startswith(b"HTTP/1.1 500 ")


def test_a_response_of_the_servers_own_is_whole():
    """With the status in words; for HEAD without them."""
    data = error_response(HTTPStatus.SERVICE_UNAVAILABLE, retry_after=1)
    status, headers, body, rest = understood(data)
    assert (status, body, rest) == (503, b"503 Service Unavailable\n", b"")
    assert (headers["retry-after"], headers["connection"]) == ("1", "close")
    kept = error_response(HTTPStatus.NOT_FOUND, keep_alive=True, head_only=True)
    assert understood(kept, "HEAD")[2:] == (b"", b"")
    assert b"Connection" not in kept
