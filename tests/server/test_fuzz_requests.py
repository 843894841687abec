"""Random streams of requests, good and damaged: how many there are, which bodies they have, and where they end.

The good ones are made together with what a reader is to make of them, so that the test needs no second reader: see
`fuzzing.py`. The damaged ones are judged by h11, a reader that shares no code with the server's. `make fuzz` goes on longer.
"""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from fuzzing import chunked, cut, examples, good_request, hostile_stream
from http_parsers import REFUSED, by_h11, ours
from manyhands.server import Limits
from manyhands.server._budget import Budget
from manyhands.server._request import Refused, RequestReader
from reading import body_of, read
from serving import GET

HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"


@examples(200)
@given(st.lists(good_request(), min_size=1, max_size=5), st.data())
def test_a_sequence_is_read_as_it_was_written(sent, data):
    """Each request with its body, in order, up to the last that the connection may carry, wherever the stream is cut."""
    expected = []
    for request in sent:
        expected.append((request.method.decode(), request.target, request.body))
        if not request.keep_alive:
            break
    stream = b"".join(request.data for request in sent)
    blank = data.draw(st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]))
    found = read(*cut(data, blank + stream))
    assert [(request[0], request[1], request[4]) for request in found] == expected
    bodies = [request[2] for request in by_h11(stream)]
    old = next((index for index, request in enumerate(sent) if b" HTTP/1.0\r\n" in request.data), len(expected))
    assert bodies == [body for _, _, body in expected[: old + 1]]  # h11 has no keep-alive of HTTP/1.0


@examples(40)
@given(st.data())
def test_a_chunked_body_is_the_same_wherever_it_is_cut(data):
    """At each byte, once: nothing depends on what came at a time. What follows is another request."""
    body = data.draw(st.binary(max_size=20))
    stream = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + data.draw(chunked(body)) + GET
    whole = read(stream)
    assert [(request[0], request[4]) for request in whole] == [("POST", body), ("GET", b"")]
    for place in range(1, len(stream)):
        assert read(stream[:place], stream[place:]) == whole


@examples(150)
@given(hostile_stream(), st.data())
def test_damaged_streams_have_the_same_verdict_in_any_pieces(stream, data):
    """The same requests, and the same refusal at the same place; byte by byte as well."""
    whole = read(stream)
    assert read(*cut(data, stream)) == whole
    assert read(*(stream[place : place + 1] for place in range(len(stream)))) == whole


TAKEN_HERE_ALONE = [
    # RFC 9112, 2.2: a server should ignore a blank line before a request; h11 refuses it.
    re.compile(rb"\r\n[A-Z]"),
    # RFC 9112, 7.1: a size has any number of digits; h11 takes 20.
    re.compile(rb"0{18}"),
]
"""What h11 refuses and the server takes, with the reason."""


@examples(300)
@given(hostile_stream())
def test_nothing_is_taken_that_another_reader_refuses(stream):
    """What both take has the same body; what h11 refuses is no request here, but for what is named above."""
    mine, other = ours(stream), by_h11(stream)
    for one, two in zip(mine, other, strict=False):
        if one == REFUSED:
            return
        if two == REFUSED:
            assert any(known.search(stream) for known in TAKEN_HERE_ALONE), f"h11 refuses what is {one} here"
            return
        assert one[2] == two[2], "the bodies differ: the next request begins elsewhere"


@examples(100)
@given(hostile_stream(), st.data())
def test_whatever_comes_the_reader_ends_and_gives_its_memory_back(stream, data):
    """No error but a refusal; nothing comes behind one; a body is in the budget while its request is open, and then no more."""
    budget = Budget(100)
    limits = Limits(head_bytes=300, headers=8, body_bytes=200, body_memory=50)
    reader = RequestReader(limits, budget)
    requests = []
    try:
        for piece in cut(data, stream):
            reader.receive(piece)
            while (request := reader.next_request()) is not None:
                requests.append(request)
    except Refused as refused:
        assert refused.reason.isascii()
        assert refused.reason.isprintable()
        reader.receive(GET)
        assert reader.next_request() is None
    assert reader.waiting <= len(stream)
    assert reader._body is None or len(reader._body._memory) <= 50
    reader.close()
    for request in requests:
        assert len(body_of(request)) <= 200
        request.close()
        request.close()
    assert budget.taken == 0
