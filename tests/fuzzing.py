"""What the fuzzers draw from, and how long: a few seconds as a test, as long as one likes by `make fuzz`."""

from __future__ import annotations

import logging
import os
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FUZZ_EXAMPLES = int(os.environ.get("MANYHANDS_FUZZ_EXAMPLES", "0"))


def examples(count: int) -> Any:
    """Settings for so many examples, or for as many as the environment says."""
    return settings(
        max_examples=FUZZ_EXAMPLES or count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def complaints(caplog: Any) -> list[str]:
    """Warnings and errors in the log, but for those of a handler that was slow: that is the machine."""
    found = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [text for text in found if "has run for" not in text]


class Sent(NamedTuple):
    """A request, and what a reader is to make of it."""

    data: bytes
    method: bytes
    target: bytes
    body: bytes
    keep_alive: bool
    """Whether another may follow."""


def cut(data: st.DataObject, stream: bytes, most: int = 12) -> list[bytes]:
    """The stream in pieces."""
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=most)))
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True) if a < b]


TOKEN = st.text("!#$%&'*+-.^`|~09azAZ", min_size=1, max_size=8)
VALUE = st.text("\t !\"#'(),/:;<=>?@[]{}~09azAZ\x80\x9b\xff", max_size=12).map(str.strip)
TARGET = st.text("!$&'()*+,-./:;=@_~%09azAZ", max_size=12).map(lambda path: f"/{path}".encode())
# Bytes that look like framing are what a body is best at.
PIECES = st.sampled_from([b"\r\n", b"\r", b"\n", b"0\r\n\r\n", b"1\r\nx\r\n", b"GET / HTTP/1.1\r\n", b"x"])
BODY = st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=8).map(b"".join))
RESERVED = frozenset({"content-length", "transfer-encoding", "host", "expect", "connection", "upgrade", "trailer"})
EXTENSION = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b;c"', b";a=b;c"])
BLANK = st.sampled_from([b"", b"", b" ", b"\t", b"  "])


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """A body in chunks, with extensions and trailers."""
    places = sorted(draw(st.sets(st.integers(1, max(1, len(body) - 1)), max_size=4)))
    parts = [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True) if body[a:b]]
    data = b""
    for part in parts:
        size = b"%x" % len(part)
        size = draw(st.sampled_from([size, size.upper(), size.zfill(4)]))
        data += size + draw(EXTENSION) + b"\r\n" + part + b"\r\n"
    trailers = b"".join(b"X-%d: y\r\n" % number for number in range(draw(st.integers(0, 2))))
    return data + draw(st.sampled_from([b"0", b"000"])) + draw(EXTENSION) + b"\r\n" + trailers + b"\r\n"


@st.composite
def good_request(draw: st.DrawFn) -> Sent:
    """One that every reader takes for the same."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS"]))
    target = draw(TARGET)
    old = draw(st.integers(0, 5)) == 0
    lines = [b"%b %b HTTP/1.%d" % (method, target, not old)]
    headers = [b"Host:%bh:80" % draw(BLANK)]
    for name in draw(st.lists(TOKEN, max_size=3)):
        if name.lower() not in RESERVED:
            headers.append(name.encode() + b":" + draw(BLANK) + draw(VALUE).encode("latin-1") + draw(BLANK))
    body = draw(BODY)
    framing = draw(st.sampled_from(["none", "length", "length"] if old else ["none", "length", "chunked", "chunked"]))
    payload = b""
    if framing == "none":
        body = b""
    elif framing == "length":
        headers.append(b"Content-Length:%b%b" % (draw(BLANK), str(len(body)).zfill(draw(st.integers(1, 3))).encode()))
        payload = body
    else:
        headers.append(draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED"])))
        payload = draw(chunked(body))
    keep = not old
    connection = draw(st.sampled_from([b"", b"", b"", b"close", b"keep-alive", b"Keep-Alive, x"]))
    if connection:
        headers.append(b"Connection: " + connection)
        keep = connection != b"close"
    headers = draw(st.permutations(headers))
    return Sent(b"\r\n".join([*lines, *headers, b"", payload]), method, target, body, keep)


BYTES = b"\r\n\t :;,0123aAxXgG/?#%\x00\x0b\x1b\x7f\x80\x9b\xe9\xff"
"""Bytes that have a meaning, or that somebody else may give one."""


@st.composite
def changed(draw: st.DrawFn, stream: bytes) -> bytes:
    """The stream with a few bytes put in, replaced, removed, doubled or moved."""
    text = bytearray(stream)
    for _ in range(draw(st.integers(1, 4))):
        if not text:
            break
        at = draw(st.integers(0, len(text) - 1))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            text[at : at + 1] = bytes([draw(st.sampled_from(BYTES))])
        elif kind == 1:
            text[at:at] = bytes([draw(st.sampled_from(BYTES))])
        elif kind == 2:
            del text[at : at + draw(st.integers(1, 4))]
        elif kind == 3:
            piece = text[at : at + draw(st.integers(1, 30))]
            text[at:at] = piece
        else:
            to = draw(st.integers(0, len(text) - 1))
            piece = text[at : at + draw(st.integers(1, 30))]
            del text[at : at + len(piece)]
            text[to:to] = piece
    return bytes(text)


@st.composite
def hostile_stream(draw: st.DrawFn) -> bytes:
    """Requests one behind the other, most of them damaged."""
    stream = b"".join(draw(st.lists(good_request().map(lambda sent: sent.data), min_size=1, max_size=3)))
    return draw(st.one_of(changed(stream), st.just(stream), st.binary(max_size=60)))
