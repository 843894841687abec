"""Requests that are refused, and with what."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from manyhands.server._environ import base_environ
from manyhands.server._limits import Limits
from manyhands.server._request import Refused, RequestReader
from reading import (
    GET,
    LIMITS,
    POST,
    UPGRADE,
    read,
    read_one,
    refusal,
)

HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"


CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


BAD = {
    # Two ways to say where a request ends. RFC 9112, 6.1 and 6.3.
    "both lengths": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way round": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths that differ": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
    "two lengths that agree": HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "a list of lengths": HEAD + b"Content-Length: 1, 1\r\n\r\nx",
    "a length with a sign": HEAD + b"Content-Length: +1\r\n\r\nx",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\nx",
    "a length in hexadecimal": HEAD + b"Content-Length: 0x1\r\n\r\nx",
    "a length with an underscore": HEAD + b"Content-Length: 1_0\r\n\r\nx",
    "a length with a blank in it": HEAD + b"Content-Length: 1 1\r\n\r\nx",
    "an empty length": HEAD + b"Content-Length: \r\n\r\n",
    "a length beyond all numbers": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a length behind a vertical tab": HEAD + b"Content-Length: \x0b1\r\n\r\nx",
    "two encodings": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, but not last": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked behind a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a blank before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a length among the trailers": CHUNKS + b"0\r\nContent-Length: 5\r\n\r\n",
    # Chunks. RFC 9112, 7.1.
    "a chunk size in words": CHUNKS + b"xyz\r\n",
    "a chunk size with 0x": CHUNKS + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a sign": CHUNKS + b"+3\r\nabc\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKS + b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a blank": CHUNKS + b"3 \r\nabc\r\n0\r\n\r\n",
    "a chunk size beyond all numbers": CHUNKS + b"fffffffffffffffff\r\nabc",
    "no chunk size": CHUNKS + b"\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKS + b"3\r\nabcd\r\n0\r\n\r\n",
    "a chunk that ends in LF": CHUNKS + b"3\r\nabc\n0\r\n\r\n",
    "a chunk size that ends in LF": CHUNKS + b"3\nabc\r\n0\r\n\r\n",
    "an extension with LF": CHUNKS + b"3;\nx\r\nabc\r\n0\r\n\r\n",
    # Lines. RFC 9112, 2.2 and 5.
    "LF behind a header": b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
    "LF behind the request line": b"GET / HTTP/1.1\nHost: h\r\n\r\n",
    "LF behind a line of HTTP/0.9": b"GET /\n0: HTTP/1.0\r\nHost: h\r\n\r\n",
    "LF behind a line of HTTP/0.9, and a name": b"GET /\nX: HTTP/1.1\r\nHost: h\r\n\r\n",
    "LF for the blank line": b"GET / HTTP/1.1\r\nHost: h\r\n\n\r\n",
    "CR in a value": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
    "zero in a value": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    "a blank line that is not quite": b"GET / HTTP/1.1\r\nHost: h\r\n \r\n\r\n",
    "a header that begins with a blank": b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n",
    "a name with a bracket": b"GET / HTTP/1.1\r\nHost: h\r\nX(: y\r\n\r\n",
    "a name beyond ASCII": b"GET / HTTP/1.1\r\nHost: h\r\nX\xe9: y\r\n\r\n",
    # The host. RFC 9112, 3.2.
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two hosts that agree": b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: me@a\r\n\r\n",
    "a host with a blank": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    # The request line. RFC 9112, 3.
    "two blanks": b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
    "a blank in the target": b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
    "a tab in the target": b"GET /\ta HTTP/1.1\r\nHost: h\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n",
    "a target beyond ASCII": b"GET /\xe9 HTTP/1.1\r\nHost: h\r\n\r\n",
    "a target that is no path": b"GET a HTTP/1.1\r\nHost: h\r\n\r\n",
    "an asterisk for GET": b"GET * HTTP/1.1\r\nHost: h\r\n\r\n",
    "a URI without a host": b"GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n",
    "a URI of another scheme": b"GET ftp://h/x HTTP/1.1\r\nHost: h\r\n\r\n",
    "a URI with a user": b"GET http://me@h/x HTTP/1.1\r\nHost: h\r\n\r\n",
    "an unknown method": b"FETCH / HTTP/1.1\r\nHost: h\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\nHost: h\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "a version in lower case": b"GET / http/1.1\r\nHost: h\r\n\r\n",
    "another protocol": b"GET / RTSP/1.0\r\nHost: h\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


REFUSED_OTHERWISE = {
    "HTTP/2.0": (505, b"GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
    "HTTP/0.9": (505, b"GET / HTTP/0.9\r\nHost: h\r\n\r\n"),
    "an encoding on top": (501, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "another encoding": (501, HEAD + b"Transfer-Encoding: gzip\r\n\r\n"),
    "a tunnel": (501, b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n"),
    "another expectation": (417, HEAD + b"Expect: a miracle\r\nContent-Length: 1\r\n\r\nx"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_malformed_or_ambiguous_is_refused_with_400(name):
    """Whole or byte by byte; whatever follows is nobody's request."""
    data = BAD[name]
    assert refusal(data).status == HTTPStatus.BAD_REQUEST
    assert read(*(data[place : place + 1] for place in range(len(data)))) == [(HTTPStatus.BAD_REQUEST,)]
    assert read(data + GET) == [(HTTPStatus.BAD_REQUEST,)]


@pytest.mark.parametrize("name", REFUSED_OTHERWISE)
def test_what_is_not_understood_has_its_own_status(name):
    """It is well-formed, and nothing that is done here."""
    status, data = REFUSED_OTHERWISE[name]
    assert refusal(data).status == status
    assert read(data + GET) == [(status,)]


def test_requests_before_a_bad_one_are_served_and_none_after_it():
    """FAULT 35. What follows a refused request may be the body of it, written by somebody else."""
    stream = GET + BAD["both lengths"] + GET + POST
    for cut in range(len(stream)):
        found = read(stream[:cut], stream[cut:])
        assert [request[0] for request in found] == ["GET", HTTPStatus.BAD_REQUEST]
    reader = RequestReader(LIMITS)
    reader.receive(BAD["a folded line"])
    with pytest.raises(Refused):
        reader.next_request()
    reader.receive(GET)
    assert reader.next_request() is None
    assert reader.waiting == 0
    reader.close()


def test_a_refusal_repeats_nothing_of_the_client():
    """Its text goes to a log: no escape sequences from outside."""
    for data in BAD.values():
        refused = refusal(data.replace(b"x", b"\x1b"))
        assert str(refused).isprintable()
        assert refused.reason


# Limits.


def head_of(size: int) -> bytes:
    """A head of exactly so many bytes."""
    start = b"GET / HTTP/1.1\r\nHost: h\r\nX: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


def test_a_head_may_be_as_long_as_the_limit_and_no_longer():
    """431; also when its end has not come yet, and when it comes in pieces."""
    limits = Limits(head_bytes=1000)
    assert len(read(head_of(1000) * 3, limits=limits)) == 3
    for size in (1001, 5000):
        data = head_of(size)
        assert refusal(data, limits).status == 431
        assert refusal(data[:1001], limits).status == 431
        assert read(*(data[place : place + 1] for place in range(size)), limits=limits) == [(431,)]
    assert len(read(*(head_of(1000)[place : place + 1] for place in range(1000)), limits=limits)) == 1


def test_there_may_be_as_many_headers_as_the_limit_and_no_more():
    """431; trailers are counted too."""
    limits = Limits(headers=10)
    assert len(read_one(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 9 + b"\r\n", limits).headers) == 10
    assert refusal(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 10 + b"\r\n", limits).status == 431
    assert read_one(CHUNKS + b"0\r\n" + b"X: y\r\n" * 10 + b"\r\n", limits).body == b""
    assert refusal(CHUNKS + b"0\r\n" + b"X: y\r\n" * 11 + b"\r\n", limits).status == 431


def test_a_body_may_be_as_long_as_the_limit_and_no_longer():
    """413: by its announcement, before a byte of it has come; a chunked one when it gets too long."""
    limits = Limits(body_bytes=10)
    assert read_one(HEAD + b"Content-Length: 10\r\n\r\n0123456789", limits).body == b"0123456789"
    assert refusal(HEAD + b"Content-Length: 11\r\n\r\n", limits).status == 413
    assert refusal(HEAD + b"Content-Length: 11\r\nExpect: 100-continue\r\n\r\n", limits).status == 413
    assert read_one(CHUNKS + b"8\r\n01234567\r\n2\r\n89\r\n0\r\n\r\n", limits).body == b"0123456789"
    assert refusal(CHUNKS + b"8\r\n01234567\r\n3\r\n890\r\n", limits).status == 413
    assert refusal(UPGRADE.replace(b"Length: 7", b"Length: 11"), limits).status == 413


def test_a_chunked_body_cannot_be_all_framing():
    """413: an extension that never ends costs the client its connection, not us our memory."""
    limits = Limits(body_bytes=1000)
    assert read_one(CHUNKS + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n", limits).body == b"x" * 1000
    endless = CHUNKS + b"1;" + b"x" * 30_000
    assert refusal(endless, limits).status == 413
    assert read(*(endless[place : place + 1000] for place in range(0, len(endless), 1000)), limits=limits) == [(413,)]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"head_bytes": 0}, ValueError),
        ({"headers": -1}, ValueError),
        ({"body_bytes": -1}, ValueError),
        ({"keep_alive": 0}, ValueError),
        ({"head_timeout": float("nan")}, ValueError),
        ({"head_timeout": None}, TypeError),
        ({"connections": True}, TypeError),
        ({"head_bytes": 1.5}, TypeError),
        ({"request_timeout": "soon"}, TypeError),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_its_name(wrong, error):
    """At once, not at the first request."""
    (name,) = wrong
    with pytest.raises(error, match=name):
        Limits(**wrong)
    assert Limits(body_bytes=0, request_timeout=None).body_bytes == 0


# Responses.


def test_blank_lines_count_for_the_request_they_are_before_however_they_come():
    """A client that sends nothing else would have the reader at work for ever."""
    few = b"\r\n" * 8
    reader = RequestReader(Limits(head_bytes=64))
    for _ in range(9):
        reader.receive(few * 4 + GET)
        assert reader.next_request() is not None
    for _ in range(9):
        reader.receive(few * 4)
        assert reader.next_request() is None
        assert reader.take_plain(GET, base_environ("h", 80), ("127.0.0.1", 1)) is not None
    for _ in range(4):
        reader.receive(few)
        assert reader.next_request() is None
    reader.receive(few)
    with pytest.raises(Refused) as caught:
        reader.next_request()
    assert caught.value.status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    assert reader.over
