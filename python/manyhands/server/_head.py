"""The head of a request: what is made of its request line and its headers, and which of them are refused.

What llhttp does not check is checked here: the protocol's name and version, that there is one Host, the form of the target,
Transfer-Encoding in HTTP/1.0 or other than chunked, expectations.

Rules for code in this file: no socket, no clock, no thread, nothing that is kept. Whatever is wrong is a `Refused`.
Source: RFC 9112 (HTTP/1.1), RFC 9110 (HTTP semantics).
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

from manyhands.server._budget import Budget

__all__ = ["Framing", "Headers", "Refused", "Request", "read_headers", "read_request_line"]

Headers = list[tuple[bytes, bytes]]


class Refused(Exception):
    """A request that is not served; the connection is to be closed after the response.

    Attributes:
        status: What the client is told.
        reason: Why, in words of ours: nothing in it comes from the client.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(f"{status.value} {status.phrase}: {reason}")
        self.status = status
        self.reason = reason


class Request:
    """One whole request.

    Attributes:
        method: Upper case.
        target: As it was sent, but for an absolute URI, which is reduced to its path and query; `*` for OPTIONS.
        headers: list of (name, value), both bytes, as they were sent and in order; no blanks around the values.
        host: The authority of an absolute URI, else the Host header's value, else None.
        body: What was sent, without its framing; empty if it is in `file`.
        file: A body that was too long for the memory, at its beginning; to be closed. None for any other.
        length: Bytes of the body.
        chunked: Whether the length was not announced.
        kept: Bytes of the budget, of the memory's or of the files', that are its body's.
        budget: Where they go when it is closed.
        http_10: The client speaks HTTP/1.0.
        keep_alive: The client wants to use the connection again.
    """

    __slots__ = (
        "body",
        "budget",
        "chunked",
        "file",
        "headers",
        "host",
        "http_10",
        "keep_alive",
        "kept",
        "length",
        "method",
        "target",
    )

    method: str
    target: bytes
    headers: Headers
    host: bytes | None
    body: bytes
    file: BinaryIO | None
    length: int
    chunked: bool
    http_10: bool
    keep_alive: bool
    kept: int
    budget: Budget | None

    @property
    def name(self) -> str:
        """The method and the path."""
        return f"{self.method} {self.target.partition(b'?')[0].decode('ascii')}"

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target!r} with {self.length} bytes>"

    def close(self) -> None:
        """Let go of the body: of the file, if there is one, and of the memory. Idempotent."""
        if self.file is not None:
            self.file.close()
        if self.kept:
            kept, self.kept = self.kept, 0
            assert self.budget is not None
            self.budget.give_back(kept)


class Framing(NamedTuple):
    """What the headers say of the body."""

    length: int
    """Bytes; 0 if it is chunked."""
    chunked: bool
    expects_continue: bool
    """The client waits for `100 Continue` before it sends the body."""
    host: bytes | None
    """The Host header, which is good."""


_LENGTH, _ENCODING, _HOST, _EXPECT = range(1, 5)
_WATCHED = {b"content-length": _LENGTH, b"transfer-encoding": _ENCODING, b"host": _HOST, b"expect": _EXPECT}

_VISIBLE = re.compile(rb"[ -~]+")

_AUTHORITY = re.compile(rb"[\w.~%!$&'()*+,;=:\[\]-]*", re.ASCII)
"""RFC 3986 (3.2), without user information, which a Host header must not have (RFC 9110, 4.2.4)."""


def read_request_line(line: bytes, request: Request) -> None:
    """Split the request line; llhttp takes other protocols, further blanks, and a line that ends in LF alone (HTTP/0.9)."""
    parts = line.split(b" ")
    if len(parts) != 3 or _VISIBLE.fullmatch(line) is None:
        raise _bad("the request line must be a method, a target and a version, with one blank in between")
    method, target, version = parts
    if version == b"HTTP/1.1":
        request.http_10 = False
    elif version == b"HTTP/1.0":
        request.http_10 = True
    elif version.startswith(b"HTTP/"):
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "the versions spoken are HTTP/1.1 and HTTP/1.0")
    else:
        raise _bad("the protocol is not HTTP")
    if method == b"CONNECT":
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "this is no proxy")
    request.method = method.decode("ascii")
    request.host = None
    if target[0] == 47 and b"#" not in target:  # "/": nearly always
        request.target = target
    else:
        _read_target(request, target)


def _read_target(request: Request, target: bytes) -> None:
    """Read the other forms of a target. Source: RFC 9112, 3.2."""
    if target == b"*" and request.method == "OPTIONS":
        request.target = target
        return
    try:
        scheme, authority, path, query, _ = urlsplit(target)
    except ValueError:
        scheme, authority, path, query = b"", b"", b"", b""
    if b"#" in target or scheme not in (b"http", b"https") or not _AUTHORITY.fullmatch(authority) or not authority:
        raise _bad("the target must be a path, or a URI of http with a host")
    # The URI's host overrules the header's: RFC 9112, 3.2.2.
    request.host = authority
    request.target = (path or b"/") + (b"?" + query if query else b"")


def read_headers(request: Request, headers: Headers, good_host: bytes | None) -> Framing:
    """Read what decides on the framing and on whom it is for.

    Args:
        request: Its `host` is set.
        headers: As they came.
        good_host: A Host header that was found good before: a connection sends the same again and again.
    """
    hosts: list[bytes] = []
    length = 0
    chunked = False
    expectation = b""
    for name, value in headers:
        watched = _WATCHED.get(name.lower())
        if watched is None:
            continue
        if watched == _HOST:
            hosts.append(value)
        elif watched == _LENGTH:
            # llhttp takes digits only, one such header, and no number above 64 bits; but as many zeros before it as one
            # likes, and of more than 4,300 digits Python makes no number.
            length = int(value.lstrip(b"0") or b"0")
        elif watched == _ENCODING:
            _check_encoding(request, value)
            chunked = True
        else:
            expectation = value.lower()
    host = _check_host(request, hosts, good_host)
    if expectation and expectation != b"100-continue":
        raise Refused(HTTPStatus.EXPECTATION_FAILED, "the only expectation is 100-continue")
    expects = bool(expectation) and (chunked or length > 0) and not request.http_10
    return Framing(length, chunked, expects, host)


def _check_host(request: Request, hosts: list[bytes], good: bytes | None) -> bytes | None:
    if len(hosts) != 1:
        if hosts or not request.http_10:
            raise _bad("there must be one Host header")
        return good
    (host,) = hosts
    if host != good and _AUTHORITY.fullmatch(host) is None:
        raise _bad("the Host header is no name and no address")
    if request.host is None:
        request.host = host
    return host


def _check_encoding(request: Request, encoding: bytes) -> None:
    if request.http_10:
        raise _bad("HTTP/1.0 has no Transfer-Encoding")
    if encoding.lower() != b"chunked":
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "no Transfer-Encoding but chunked is understood")


def _bad(reason: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, reason)
