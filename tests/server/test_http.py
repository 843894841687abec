"""HTTP/1.1 without sockets: what comes out of bytes, wherever they are cut; what is refused; how responses are framed."""

from __future__ import annotations

import http.client
import io
import itertools
from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyhands.server._limits import Limits
from manyhands.server._request import CONTINUE, Refused, Request, RequestReader
from manyhands.server._response import ResponseFrame, error_response

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
        request.body,
        request.chunked,
        request.http_10,
        request.keep_alive,
    )


def read(*pieces: bytes, limits: Limits = LIMITS) -> Seen:
    """Feed the pieces one by one; each request, and what it was refused with, in order."""
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
    reader = RequestReader(limits)
    reader.receive(data)
    with pytest.raises(Refused) as caught:
        while reader.next_request() is not None:
            pass
    assert reader.over
    reader.close()
    return caught.value


# Requests.


def test_a_request_has_its_parts():
    """Method, target, headers as they were sent, host, body."""
    request = read_one(
        b"PUT /a%20b?c=d HTTP/1.1\r\nHost: example:8000\r\nX-Odd: \t spaced out \t \r\nx-odd:again\r\n"
        b"Content-Length: 3\r\n\r\nabc"
    )
    assert seen(request) == (
        "PUT",
        b"/a%20b?c=d",
        [
            (b"Host", b"example:8000"),
            (b"X-Odd", b"spaced out"),
            (b"x-odd", b"again"),
            (b"Content-Length", b"3"),
        ],
        b"example:8000",
        b"abc",
        False,
        False,
        True,
    )


@pytest.mark.parametrize("name", GOOD)
def test_the_same_requests_come_out_wherever_the_bytes_are_cut(name):
    """Each stream whole, cut in two at every place, in three around every place, and byte by byte."""
    data = GOOD[name]
    whole = read(data)
    assert len(whole) >= 2
    assert all(len(request) > 1 for request in whole), whole
    assert read(*(data[place : place + 1] for place in range(len(data)))) == whole
    for place in range(len(data) + 1):
        assert read(data[:place], data[place:]) == whole
        assert read(data[:place], data[place : place + 1], data[place + 1 :]) == whole
        assert read(data[:place], data[place : place + 3], data[place + 3 :]) == whole


def test_an_upgrade_that_is_not_granted_is_served_with_its_body():
    """A client that offers HTTP/2 in the clear sends the body of its request all the same."""
    (upgrade, after) = read(UPGRADE + GET)
    assert upgrade[0] == "POST" and upgrade[4] == b"half\r\n\r"
    assert after[1] == b"/hello?who=you"
    assert read(UPGRADE_CHUNKED + GET)[0][4] == b"body"
    assert [request[1] for request in read(WEBSOCKET + GET)] == [b"/ws", b"/hello?who=you"]


names = st.sampled_from([b"Accept", b"accept", b"X-Long-Name-Of-No-Meaning", b"Cookie", b"Via"])
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).map(str.encode)
bodies = st.binary(max_size=300) | st.sampled_from([b"", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"0\r\n\r\n"])


@st.composite
def good_requests(draw: st.DrawFn) -> tuple[bytes, tuple[object, ...]]:
    """A request as bytes, and as it must come out."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"OPTIONS"]))
    target = b"/" + draw(st.sampled_from([b"", b"a/b", b"%2e%2e/", b"?x=1&y=%00", b"//x"]))
    headers = [(b"Host", b"h:1"), *draw(st.lists(st.tuples(names, values), max_size=5))]
    body = draw(bodies)
    chunked = draw(st.booleans())
    if chunked:
        cuts = sorted(draw(st.sets(st.integers(0, len(body)), max_size=5)) | {0, len(body)})
        pieces = [body[a:b] for a, b in itertools.pairwise(cuts)]
        framed = b"".join(
            b"%X%b\r\n%b\r\n" % (len(piece), draw(st.sampled_from([b"", b";e", b";e=f"])), piece) for piece in pieces
        )
        framed += b"0\r\n" + draw(st.sampled_from([b"", b"Trailer-Of-No-Use: 1\r\n"])) + b"\r\n"
        headers.append((b"Transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"]))))
    else:
        framed = body
        if body or draw(st.booleans()):
            headers.append((b"Content-Length", b"%d" % len(body)))
    head = b"".join(
        b"%b:%b%b\r\n" % (name, draw(st.sampled_from([b"", b" ", b"\t"])), value) for name, value in headers
    )
    data = b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, head, framed)
    return data, (method.decode(), target, headers, b"h:1", body, chunked, False, True)


@settings(deadline=None)
@given(st.lists(good_requests(), min_size=1, max_size=4), st.data())
def test_whatever_is_written_comes_out_in_order(requests, data):
    """Random requests, one behind the other, cut anywhere."""
    stream = b"".join(written for written, _ in requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*pieces) == [wanted for _, wanted in requests]


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([GET, POST, CHUNKED, b"\r\n", b"\x00", b" ", b"0"])).map(b"".join),
    st.data(),
)
def test_rubbish_ends_in_requests_or_in_one_refusal_wherever_it_is_cut(stream, data):
    """Never another exception, and the cuts decide nothing."""
    cut = data.draw(st.integers(0, len(stream)))
    whole = read(stream)
    assert read(stream[:cut], stream[cut:]) == whole
    assert all(len(found) > 1 for found in whole[:-1])


def test_one_request_is_parsed_at_a_time():
    """What comes behind it waits as bytes: a thousand requests in one packet are not a thousand objects."""
    reader = RequestReader(LIMITS)
    reader.receive(GET * 1000)
    for left in range(999, 989, -1):
        assert reader.next_request() is not None
        assert reader.waiting == left * len(GET)
    reader.close()


def test_nothing_comes_after_the_last_request():
    """`Connection: close` is the client's word that this is all."""
    assert [request[1] for request in read(LAST + GET)] == [b"/bye"]
    assert [request[7] for request in read(LAST)] == [False]
    assert [request[7] for request in read(b"GET / HTTP/1.0\r\n\r\n" + GET)] == [False]


def test_the_state_between_requests_is_seen():
    """`idle` and `in_body` are what time limits go by."""
    reader = RequestReader(LIMITS)
    assert reader.idle and not reader.in_body
    for piece, idle, in_body in ((POST[:10], False, False), (POST[10:-3], False, True)):
        reader.receive(piece)
        assert reader.next_request() is None
        assert (reader.idle, reader.in_body) == (idle, in_body)
    reader.receive(POST[-3:] + b"\r\n")
    assert reader.next_request() is not None
    assert reader.next_request() is None
    assert reader.idle and not reader.in_body
    reader.close()


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_a_client_that_waits_for_continue_is_told_once(framing):
    """And not if the body has begun by itself, or there is none."""
    head = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n" + framing + b"\r\n\r\n"
    body = b"hello" if b"Length" in framing else b"5\r\nhello\r\n0\r\n\r\n"
    reader = RequestReader(LIMITS)
    reader.receive(head)
    assert reader.next_request() is None
    assert [reader.take_continue(), reader.take_continue()] == [True, False]
    reader.receive(body)
    request = reader.next_request()
    assert request is not None and request.body == b"hello"
    reader.receive(head + body[:1])
    assert reader.next_request() is None
    assert not reader.take_continue()
    reader.receive(body[1:])
    assert reader.next_request() is not None
    reader.receive(head.replace(framing, b"Content-Length: 0"))
    assert reader.next_request() is not None
    assert not reader.take_continue()
    reader.close()
    assert CONTINUE.startswith(b"HTTP/1.1 100 ")


@pytest.mark.parametrize(
    ("line", "host", "target"),
    [
        (b"GET http://other:81/x?y", b"other:81", b"/x?y"),
        (b"GET http://other", b"other", b"/"),
        (b"GET https://[::1]:8/", b"[::1]:8", b"/"),
        (b"OPTIONS *", b"h", b"*"),
        (b"GET //x", b"h", b"//x"),
    ],
)
def test_the_other_forms_of_a_target_are_understood(line, host, target):
    """An absolute URI overrules the Host header (RFC 9112, 3.2.2)."""
    request = read_one(line + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (request.host, request.target) == (host, target)


# What is refused.

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
