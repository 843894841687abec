"""Requests that are malformed, or that two readers could take for different ones: what the server, h11 and llhttp make of each.

A request can only be smuggled if two readers disagree on where one ends. So the server is compared with two others, element by
element and in combinations: it takes nothing that neither of them takes, and what is taken by two of them is the same
request with the same body. Each difference is explained where it stands.

Sources of the elements:

* RFC 9112 (HTTP/1.1), RFC 9110 (semantics), by section.
* C. Linhart, A. Klein, R. Heled, S. Orrin, *HTTP Request Smuggling*, 2005: two lengths.
* J. Kettle, *HTTP Desync Attacks: Request Smuggling Reborn*, 2019: Transfer-Encoding, obfuscated. *HTTP/1.1 Must Die*, 2025:
  Expect, obfuscated.
* A. Klein, *HTTP Request Smuggling in 2020*: CR in a header, words behind the name.
* B. Jabiyev and others, *T-Reqs: HTTP Request Smuggling with Differential Fuzzing*, 2021: mutated request lines and bodies.
* J. Weikop, *Funky Chunks*, 2025: line ends in and behind chunks.
* CVE-2021-22959 and CVE-2021-22960 (llhttp: a blank before the colon, chunk extensions), CVE-2022-32213 to 32215 and
  CVE-2022-35256 (llhttp: Transfer-Encoding in several lines and before LF), CVE-2023-30589 (llhttp: CR for CR LF),
  CVE-2025-43859 (h11: what follows a chunk), CVE-2023-38697 (protocol-http1: signs and 0x in sizes).
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http_parsers import REFUSED, by_h11, by_httptools, ours
from serving import GET, connect, hello

PARSERS = {"ours": ours, "h11": by_h11, "llhttp": by_httptools}


class Element(NamedTuple):
    """A part of a request, and who refuses every request that has it."""

    text: bytes
    refused_by: str = ""
    why: str = ""


ALL = "ours h11 llhttp"
STRICT = "ours llhttp"
ALONE = "ours"


LINES = [
    Element(b"GET /a HTTP/1.1"),
    Element(b"POST /a?b=c HTTP/1.1"),
    Element(b"PUT http://h/x HTTP/1.1"),
    Element(b'GET /"<> HTTP/1.1', "", "no characters of a URI, and nobody minds"),
    Element(b"GET /a b HTTP/1.1", ALL, "RFC 9112, 3: two blanks, whoever reads the target"),
    Element(b"GET / HTTP/1.1 ", ALL, "RFC 9112, 3"),
    Element(b"GET / HTTP/1.01", ALL, "RFC 9112, 2.3: one digit"),
    Element(b"GET / http/1.1", ALL, "RFC 9112, 2.3: by case"),
    Element(b"GET /\xe9 HTTP/1.1", ALL, "RFC 3986: ASCII"),
    Element(b"GET /\t HTTP/1.1", ALL, "RFC 9112, 3"),
    Element(b" GET / HTTP/1.1", ALL, "RFC 9112, 2.2"),
    Element(b"GET\t/ HTTP/1.1", ALL, "RFC 9112, 3: T-Reqs has more"),
    Element(b"G\x00T / HTTP/1.1", ALL, "RFC 9110, 9.1: a token"),
    Element(b"GET  / HTTP/1.1", "ours h11", "RFC 9112, 3: llhttp skips blanks before the target"),
    Element(b"GET /", "ours h11", "llhttp knows HTTP/0.9 requests"),
    Element(b"DESCRIBE / RTSP/1.0", "ours h11", "llhttp knows other protocols"),
    Element(b"FETCH / HTTP/1.1", STRICT, "RFC 9110, 9.1: h11 takes any token, llhttp has a list"),
    Element(b"get / HTTP/1.1", STRICT, "RFC 9110, 9.1: methods are by case, so this is another one"),
    Element(b"GET / HTTP/1.2", STRICT, "RFC 9112, 2.3: h11 takes any digits"),
    Element(b"GET a HTTP/1.1", STRICT, "RFC 9112, 3.2: h11 does not look at the target"),
    Element(b"GET * HTTP/1.1", ALONE, "RFC 9112, 3.2.4: for OPTIONS only"),
    Element(b"GET / HTTP/2.0", ALONE, "RFC 9112, 2.3: it is not spoken here"),
    Element(b"GET / HTTP/0.9", ALONE, "the same"),
    Element(b"GET /#a HTTP/1.1", ALONE, "RFC 9112, 3.2: a target has no fragment"),
    Element(b"CONNECT h:1 HTTP/1.1", ALONE, "RFC 9110, 9.3.6: this is no proxy"),
]

HEADERS = [
    Element(b"X: y"),
    Element(b"X:y"),
    Element(b"X: a\tb"),
    Element(b"X: \xe9", "", "RFC 9110, 5.5: obs-text"),
    Element(b"X_y: z"),
    Element(b"Transfer-Encodin: chunked"),
    Element(b"Expect: 100-continue"),
    Element(b"X : y", ALL, "RFC 9112, 5.1; CVE-2021-22959"),
    Element(b"X\t: y", ALL, "RFC 9112, 5.1"),
    Element(b"X\x00: y", ALL, "RFC 9110, 5.1"),
    Element(b"X\xe9: y", ALL, "RFC 9110, 5.1"),
    Element(b"X(: y", ALL, "RFC 9110, 5.1"),
    Element(b": y", ALL, "RFC 9110, 5.1"),
    Element(b"X", ALL, "RFC 9112, 5"),
    Element(b"X: a\x00b", ALL, "RFC 9110, 5.5"),
    Element(b"X: a\rb", ALL, "RFC 9112, 2.2; Klein, 2020"),
    Element(b"X: a\rTransfer-Encoding: chunked", ALL, "RFC 9112, 2.2; CVE-2023-30589"),
    Element(b"Content-Length abc: 3", ALL, "Klein, 2020"),
    Element(b"Content-Length : 3", ALL, "RFC 9112, 5.1"),
    Element(b"X: a\r\n b", STRICT, "RFC 9112, 5.2: h11 unfolds, as a server may"),
    Element(b"X: a\r\n\tTransfer-Encoding: chunked", STRICT, "the same; Kettle, 2019"),
    Element(b"X: a\nY: b", STRICT, "RFC 9112, 2.2: h11 takes LF for a line's end, as a recipient may"),
    Element(b"X: a\nTransfer-Encoding: chunked\nY: b", STRICT, "the same; Kettle, 2019"),
    Element(b"X: a\x01b", STRICT, "RFC 9110, 5.5: h11 keeps control characters"),
    Element(b"Host: h2", "ours h11", "RFC 9112, 3.2: llhttp does not count hosts"),
    Element(b"Expect: y", ALONE, "RFC 9110, 10.1.1: 417"),
    Element(b"Expect: y 100-continue", ALONE, "the same; Kettle, 2025"),
]

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"

BODIES = [
    Element(b"\r\n"),
    Element(b"Content-Length: 3\r\n\r\nabc"),
    Element(b"Content-Length: 003\r\n\r\nabc", "", "RFC 9110, 8.6: digits, as many as one likes"),
    Element(b"Content-Length: 3 \r\n\r\nabc", "", "RFC 9112, 5: blanks around a value are none of it"),
    Element(b"Content-Length: +3\r\n\r\nabc", ALL, "RFC 9110, 8.6; CVE-2023-38697"),
    Element(b"Content-Length: 0x3\r\n\r\nabc", ALL, "the same"),
    Element(b"Content-Length: 3_0\r\n\r\nabc", ALL, "RFC 9110, 8.6: what Python's int() takes"),
    Element(b"Content-Length:\r\n\r\n", ALL, "RFC 9110, 8.6"),
    Element(b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", ALL, "RFC 9112, 6.3; Linhart, 2005"),
    Element(b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", STRICT, "RFC 9110, 8.6: a recipient may take either"),
    Element(b"Content-Length: 3, 3\r\n\r\nabc", STRICT, "the same"),
    Element(b"Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n" + END),
    Element(
        b"Transfer-Encoding:\tchunked\r\n\r\n3\r\nabc\r\n" + END, "", "RFC 9112, 5: a tab is a blank; Kettle, 2019"
    ),
    Element(b"Transfer-Encoding: xchunked\r\n\r\n" + END, ALL, "RFC 9112, 6.1; Kettle, 2019"),
    Element(b"Transfer-Encoding: \x0bchunked\r\n\r\n" + END, ALL, "the same"),
    Element(b'Transfer-Encoding: "chunked"\r\n\r\n' + END, ALL, "the same"),
    Element(b"Transfer-Encoding: identity\r\n\r\n", ALL, "RFC 9112, 6.1; CVE-2022-32213"),
    Element(b"Transfer-Encoding: chunked, identity\r\n\r\n" + END, ALL, "RFC 9112, 6.3: chunked is the last"),
    Element(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n" + END, ALL, "the same; CVE-2022-32215"),
    Element(b"Transfer-Encoding:\r\n\r\n", ALL, "RFC 9112, 6.1"),
    Element(
        b"Transfer-Encoding: gzip, chunked\r\n\r\n" + END, "ours h11", "RFC 9112, 6.1: 501; llhttp leaves it to others"
    ),
    Element(
        b"Transfer-Encoding: ,chunked\r\n\r\n" + END, "ours h11", "RFC 9110, 5.6.1: an empty element; llhttp skips it"
    ),
    Element(
        b"Content-Length: 3\r\n" + CHUNKED + END,
        STRICT,
        "RFC 9112, 6.1: a server may refuse both; h11 drops the length",
    ),
    Element(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + END, STRICT, "the same; Kettle, 2019"),
    Element(CHUNKED + b"3\r\nabc\r\n" + END),
    Element(CHUNKED + b"a\r\n0123456789\r\n00B\r\n01234567890\r\n" + END),
    Element(CHUNKED + b'3;x;y=z;a="b;c"\r\nabc\r\n' + END, "", "RFC 9112, 7.1.1: extensions are skipped"),
    Element(CHUNKED + b"3\r\nabc\r\n0;x\r\nX: y\r\nHost: no\r\n\r\n", "", "RFC 9112, 7.1.2: trailers are dropped"),
    Element(CHUNKED + b"0" * 25 + b"3\r\nabc\r\n" + END, "h11", "RFC 9112, 7.1: any number of digits; h11 takes 20"),
    Element(CHUNKED + b" 3\r\nabc\r\n" + END, ALL, "RFC 9112, 7.1"),
    Element(CHUNKED + b"0x3\r\nabc\r\n" + END, ALL, "RFC 9112, 7.1; CVE-2023-38697"),
    Element(CHUNKED + b"+3\r\nabc\r\n" + END, ALL, "the same"),
    Element(CHUNKED + b"-0\r\n\r\n", ALL, "the same"),
    Element(CHUNKED + b"\r\nabc\r\n" + END, ALL, "RFC 9112, 7.1"),
    Element(CHUNKED + b"3,x\r\nabc\r\n" + END, ALL, "RFC 9112, 7.1"),
    Element(
        CHUNKED + b"3 ;x\r\nabc\r\n" + END, ALL, "RFC 9112, 7.1.1: bad whitespace, which a recipient need not take"
    ),
    Element(CHUNKED + b"3\nabc\r\n" + END, ALL, "RFC 9112, 7.1: LF ends no line in a body; Weikop, 2025"),
    Element(CHUNKED + b"3\rabc\r\n" + END, ALL, "RFC 9112, 2.2; Weikop, 2025"),
    Element(CHUNKED + b"3;\nx\r\nabc\r\n" + END, ALL, "the same"),
    Element(CHUNKED + b"3\r\nabc\n" + END, ALL, "the same"),
    Element(CHUNKED + b"3\r\nabcXX" + END, ALL, "RFC 9112, 7.1; CVE-2025-43859"),
    Element(CHUNKED + b"3\r\nabcd\r\n" + END, ALL, "RFC 9112, 7.1; Weikop, 2025"),
    Element(CHUNKED + b"0\n\r\n", ALL, "RFC 9112, 7.1"),
    Element(CHUNKED + b"0\r\r\n\r\n", ALL, "RFC 9112, 7.1"),
    Element(CHUNKED + b"0\r\nX : y\r\n\r\n", ALL, "RFC 9112, 5.1, in a trailer"),
    Element(CHUNKED + b"0\r\n X: y\r\n\r\n", ALL, "RFC 9112, 5.2, in a trailer"),
    Element(CHUNKED + b"3 \r\nabc\r\n" + END, STRICT, "RFC 9112, 7.1: h11 takes blanks behind a size"),
    Element(CHUNKED + b"3; x\r\nabc\r\n" + END, STRICT, "RFC 9112, 7.1.1: h11 does not look at extensions"),
    Element(CHUNKED + b"3;a\rb\r\nabc\r\n" + END, STRICT, "the same; CVE-2021-22960"),
    Element(CHUNKED + b"3;\x00\r\nabc\r\n" + END, STRICT, "the same"),
    Element(
        CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n", STRICT, "RFC 9110, 6.5.1: no framing in trailers; h11 drops it"
    ),
    Element(CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n", STRICT, "the same"),
    Element(CHUNKED + b"0\r\n\n", STRICT, "RFC 9112, 7.1: h11 takes LF for a line's end"),
]

START = Element(b"GET / HTTP/1.1")
HOST = b"Host: h\r\n"


def request_of(line: Element = START, headers: list[Element] = (), body: Element = BODIES[0]) -> bytes:
    """A request of these elements."""
    return line.text + b"\r\n" + HOST + b"".join(header.text + b"\r\n" for header in headers) + body.text


ONE_BY_ONE = {
    **{f"line {one.text!r}": (one, request_of(one)) for one in LINES},
    **{f"header {one.text!r}": (one, request_of(headers=[one])) for one in HEADERS},
    **{f"body {one.text!r}": (one, request_of(Element(b"POST / HTTP/1.1"), body=one)) for one in BODIES},
}

ENDS = {
    "CR LF before it": (
        b"\r\n\r\n" + GET,
        "h11",
        "RFC 9112, 2.2: should be ignored; h11 refuses a line without a request",
    ),
    "LF before it": (b"\n" + GET, "ours h11", "RFC 9112, 2.2: CR LF; llhttp skips any"),
    "CR before it": (b"\r" + GET, "ours h11", "the same"),
    "CR CR LF before it": (b"\r\r\n" + GET, "ours h11", "the same"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", "ours h11", "RFC 9112, 3.2; llhttp does not count hosts"),
    "no host, in 1.0": (b"GET / HTTP/1.0\r\n\r\n", "", ""),
    "chunked, in 1.0": (b"POST / HTTP/1.0\r\n" + CHUNKED + END, ALONE, "RFC 9112, 6.1: to be taken for faulty"),
    "LF behind the line": (
        b"GET / HTTP/1.1\nHost: h\r\n\r\n",
        STRICT,
        "RFC 9112, 2.2: h11 takes LF, as a recipient may",
    ),
    "CR behind the line": (b"GET / HTTP/1.1\rHost: h\r\n\r\n", ALL, "RFC 9112, 2.2"),
    "CR CR LF behind the line": (b"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", ALL, "RFC 9112, 2.2"),
    "a host with a blank": (
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        ALONE,
        "RFC 9112, 3.2: no reader of framing looks at it",
    ),
    "a host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", ALONE, "the same"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ALL, "no HTTP"),
}


def refusers(data: bytes) -> set[str]:
    """Who refuses it."""
    return {name for name, parse in PARSERS.items() if parse(data)[-1:] == [REFUSED]}


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_who_refuses_an_element_is_known_and_explained(name):
    """Each alone in an otherwise good request. Whoever takes it finds one request, the same as the others do."""
    element, data = ONE_BY_ONE[name]
    assert refusers(data) == set(element.refused_by.split())
    assert element.why or not element.refused_by
    taken = [parse(data) for parse in PARSERS.values() if parse(data)[-1:] != [REFUSED]]
    # h11 may wait for the end of a body that only it has seen announced.
    assert all(len(found) == 1 or (not found and "ours" in element.refused_by) for found in taken)
    assert len({found[0][2] for found in taken if found}) <= 1


@pytest.mark.parametrize("name", ENDS)
def test_who_refuses_an_end_or_a_beginning_is_known_and_explained(name):
    """What is no element: around a request, and instead of one."""
    data, refused_by, why = ENDS[name]
    assert refusers(data) == set(refused_by.split())
    assert why or not refused_by


@settings(deadline=None)
@given(
    st.sampled_from(LINES),
    st.lists(st.sampled_from(HEADERS), max_size=3),
    st.sampled_from(BODIES),
    st.booleans(),
)
def test_combinations_are_refused_by_whoever_refuses_an_element(line, headers, body, followed):
    """Two readers that take the same bytes find the same requests in them; nothing that is refused here is begun."""
    elements = [line, *headers, body]
    data = request_of(line, headers, body) + (GET if followed else b"")
    found = {name: parse(data) for name, parse in PARSERS.items()}
    expected = {name for element in elements for name in element.refused_by.split()}
    # What the server takes, every reader that refuses no element of it takes for the same.
    if "ours" in expected:
        assert found["ours"] in ([REFUSED], [])
        return
    assert len(found["ours"]) == 1 + followed
    bodies = [request[2] for request in found["ours"]]
    assert all([request[2] for request in found[name]] == bodies for name in PARSERS if name not in expected)


@settings(deadline=None)
@given(st.data())
def test_a_request_with_a_few_bytes_changed_means_the_same_to_all_who_take_it(data):
    """Bytes of a good request are replaced, removed and put in: whatever the server and h11 both take, is one request."""
    text = bytearray(
        request_of(Element(b"POST /a HTTP/1.1"), [Element(b"X: y")], data.draw(st.sampled_from(BODIES))) + GET
    )
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        byte = data.draw(st.sampled_from(b"\r\n\t :;,0123aAxX\x00\x0b\x7f\xe9"))
        change = data.draw(st.integers(0, 2))
        text[at : at + (change != 2)] = b"" if change == 1 else bytes([byte])
    mine, other = ours(bytes(text)), by_h11(bytes(text))
    for one, two in zip(mine, other, strict=False):
        if REFUSED in (one, two):
            break
        assert one[2] == two[2], "the bodies differ: the next request begins elsewhere"
        if one[1] != two[1]:
            assert two[1].startswith(b"http")  # a whole URI: the server makes a path of it


# Over a socket.


@pytest.mark.parametrize("name", [name for name, (one, _) in ONE_BY_ONE.items() if "ours" in one.refused_by])
def test_a_refused_request_is_answered_once_and_closed(start_server, name):
    """FAULT 35. An error of the client's, one response, and nothing that follows is a request."""
    called = []

    def view(environ, start_response):
        called.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    server = start_server(view, threads=1)
    with connect(server) as sock:
        sock.sendall(ONE_BY_ONE[name][1] + GET * 3)
        status, headers, _ = sock.response()
        assert status in (400, 417, 501, 505)
        assert headers["connection"] == "close"
        assert sock.rest() == b""
    assert called == []
