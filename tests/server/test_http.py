"""HTTP/1.1 without sockets: what comes out of bytes, wherever they are cut; what is refused; how responses are framed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyhands.server._request import CONTINUE, RequestReader
from reading import (
    CHUNKED,
    GET,
    GOOD,
    LAST,
    LIMITS,
    POST,
    UPGRADE,
    UPGRADE_CHUNKED,
    WEBSOCKET,
    read,
    read_one,
    seen,
)


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
