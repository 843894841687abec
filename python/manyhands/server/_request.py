"""Requests of HTTP/1.1 without a socket: bytes in, requests out.

Theory of operation. `RequestReader` is one connection's input. Bytes go in by `receive()`, one request at a time comes
out of `next_request()`; what came behind it waits, unparsed. Where a request ends is llhttp's decision alone (by
httptools); there is no second opinion that somebody could play against it. What is done here beside it:

* The bytes are *cut* before they are fed: behind each blank line, and at the end of a body whose length is known. So
  a feed never holds the end of one request and the beginning of the next, and the size of a head is known exactly. The
  cuts decide nothing: if they were at other places, the same requests would come out.
* What llhttp does not check: the protocol's name and version, that there is one Host, Transfer-Encoding in HTTP/1.0 or
  other than chunked, the limits, the form of the target.
* A request that asks for an upgrade is served as if it did not, which RFC 9110 (7.8) allows. llhttp leaves such a body
  to the new protocol, so a new parser is told its framing and reads on.

Rules for code in this file: no socket, no clock, no thread. Whatever is wrong with a request is a `Refused`, after which
the reader gives nothing more: the connection must be closed, or what follows could be taken for a request that
nobody sent.
Source: RFC 9112 (HTTP/1.1), RFC 9110 (HTTP semantics).
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from manyhands.server._limits import Limits

__all__ = ["CONTINUE", "Refused", "Request", "RequestReader"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What a client may wait for before it sends the body."""

BLANK_LINE: Final = b"\r\n\r\n"

CHUNK_OVERHEAD: Final = 8
"""A chunked body may be so many times as long as what is in it. One byte in a chunk of its own takes six."""

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
        body: What was sent, without its framing.
        chunked: Whether the length was not announced.
        http_10: The client speaks HTTP/1.0.
        keep_alive: The client wants to use the connection again.
    """

    __slots__ = ("body", "chunked", "headers", "host", "http_10", "keep_alive", "method", "target")

    method: str
    target: bytes
    headers: Headers
    host: bytes | None
    body: bytes
    chunked: bool
    http_10: bool
    keep_alive: bool

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target!r} with {len(self.body)} bytes>"


_LENGTH, _ENCODING, _HOST, _EXPECT = range(1, 5)
_WATCHED = {b"content-length": _LENGTH, b"transfer-encoding": _ENCODING, b"host": _HOST, b"expect": _EXPECT}

_AUTHORITY = re.compile(rb"[\w.~%!$&'()*+,;=:\[\]-]*", re.ASCII)
"""RFC 3986 (3.2), without user information, which a Host header must not have (RFC 9110, 4.2.4)."""


class RequestReader:
    """The input of one connection: `receive()` what came, and ask for `next_request()` until it is None.

    Args:
        limits: `head_bytes`, `headers` and `body_bytes` are kept here; the clock is not this class's business.

    Threads: one at a time.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_complete",
        "_expects_continue",
        "_fed",
        "_given_host",
        "_head",
        "_headers",
        "_left",
        "_limits",
        "_over",
        "_parser",
        "_prelude",
        "_refusal",
        "_request",
        "_skipped",
        "_tail",
        "_unread",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._unread = b""
        self._over = False  # nothing more is taken: a request was refused, or the last one has come
        self._refusal: Refused | None = None
        self._head: bytes | bytearray = b""  # of the request at hand, as far as it was fed
        self._headers: Headers = []  # then the trailers, which nobody gets
        self._request: Request | None = None  # its head is complete
        self._complete: Request | None = None
        self._body: list[bytes] = []
        self._left = 0  # of a body whose length is known; of a chunked one how much more it may have
        self._chunked = False
        self._fed = 0  # bytes of a chunked body, framing included
        self._tail = b""  # the last three bytes fed: a blank line may begin in them
        self._expects_continue = False
        self._given_host: bytes | None = None  # the last good one: a connection sends the same again and again
        self._prelude = self._skipped = False  # see _read_on_after_upgrade

    @property
    def waiting(self) -> int:
        """How many bytes were received and not parsed."""
        return len(self._unread)

    @property
    def idle(self) -> bool:
        """Nothing of a request is here."""
        return not self._head and self._request is None and not self._unread

    @property
    def in_body(self) -> bool:
        """A head is complete, and its body is not."""
        return self._request is not None

    @property
    def over(self) -> bool:
        """Nothing more will come out: the last request said so, or one was refused."""
        return self._over

    def receive(self, data: bytes) -> None:
        """Keep what the client sent."""
        if not self._over:
            self._unread = self._unread + data if self._unread else data

    def next_request(self) -> Request | None:
        """Parse on, and return the next request; None if it is not complete.

        Raises:
            Refused: once; the reader is over.
        """
        while self._unread and not self._over:
            if self._unread[0] < 33 and not self._head and self._request is None:
                self._unread = self._unread.lstrip(b"\r\n")  # blank lines between requests: RFC 9112, 2.2
                if not self._unread:
                    break
            self._feed(self._cut())
            request = self._complete
            if request is not None:
                self._complete = None
                if not request.keep_alive:
                    self._end()
                return request
        return None

    def take_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body; True once."""
        wanted, self._expects_continue = self._expects_continue, False
        begun = self._body or self._fed or self._unread
        return wanted and self._request is not None and not begun

    def close(self) -> None:
        """Let go of the parser, which holds on to this object."""
        self._end()
        self._parser = None

    # The cuts.

    def _cut(self) -> bytes:
        """Take from what was received at most to the end of the head, of the body, or of something in a chunked body."""
        unread = self._unread
        sized = self._request is not None and not self._chunked
        end = self._left if sized else self._behind_blank_line(unread)
        if end >= len(unread):
            self._unread = b""
            return unread
        self._unread = unread[end:]
        return unread[:end]

    def _behind_blank_line(self, unread: bytes) -> int:
        """Return where the next blank line ends; all of it if there is none."""
        tail = self._tail
        if tail:
            found = (tail + unread[:3]).find(BLANK_LINE)
            if found >= 0:
                self._tail = b""
                return found + 4 - len(tail)
        found = unread.find(BLANK_LINE)
        if found < 0:
            self._tail = (tail + unread)[-3:]
            return len(unread)
        self._tail = b""
        return found + 4

    def _feed(self, piece: bytes) -> None:
        """Let llhttp read on."""
        assert self._parser is not None
        try:
            if self._request is None:
                if not self._head:
                    self._head = piece
                else:  # a bytearray grows in place: a head may come byte by byte
                    self._head = self._head if isinstance(self._head, bytearray) else bytearray(self._head)
                    self._head += piece
                if len(self._head) > self._limits.head_bytes:
                    raise self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too long")
            elif self._chunked:
                self._fed += len(piece)
                if self._fed > self._limits.head_bytes + CHUNK_OVERHEAD * self._limits.body_bytes:
                    raise self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body has too much framing")
            self._parser.feed_data(piece)
        except HttpParserUpgrade as upgrade:
            self._read_on_after_upgrade(piece[upgrade.args[0] :])
        except (HttpParserError, Refused) as error:
            self._end()
            if self._refusal is None and isinstance(error, HttpParserCallbackError):
                raise  # a mistake of ours, not the client's
            raise (self._refusal or Refused(HTTPStatus.BAD_REQUEST, str(error))) from None

    def _end(self) -> None:
        self._over = True
        self._unread = b""
        self._body = []
        self._headers = []
        self._request = None
        self._head = b""

    def _refuse(self, status: HTTPStatus, reason: str) -> Refused:
        """Note what is wrong: httptools replaces what a callback raises by an error of its own."""
        self._refusal = Refused(status, reason)
        return self._refusal

    def _bad(self, reason: str) -> Refused:
        return self._refuse(HTTPStatus.BAD_REQUEST, reason)

    def _read_on_after_upgrade(self, rest: bytes) -> None:
        """Go on with a parser that has not heard of the upgrade.

        The head was read; if a body follows it, the new parser is told its framing by a head of ours first.
        """
        self._unread = rest + self._unread
        self._parser = HttpRequestParser(self)
        if not self._skipped:
            return
        self._skipped = False
        self._prelude = True
        framing = b"Transfer-Encoding: chunked" if self._chunked else b"Content-Length: %d" % self._left
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        self._prelude = False
        self._headers = []

    # What llhttp calls, by way of httptools.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, or a trailer. llhttp leaves the blanks behind a value."""
        if len(self._headers) >= self._limits.headers:
            raise self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "there are too many headers")
        self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Check what llhttp has not, and make the request."""
        if self._prelude:
            return
        assert self._parser is not None
        request = Request()
        self._read_request_line(request)
        length, chunked = self._read_headers(request)
        request.headers = self._headers
        request.chunked = chunked
        request.keep_alive = self._parser.should_keep_alive()
        request.body = b""
        self._request = request
        self._headers = []
        self._chunked = chunked
        self._left = self._limits.body_bytes if chunked else length
        self._fed = 0

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self._left -= len(data)
        if self._left < 0:
            raise self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long")
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Hand the request out, unless llhttp left its body to another protocol."""
        request = self._request
        assert request is not None
        assert self._parser is not None
        body = self._body
        if (self._chunked or self._left) and self._parser.should_upgrade():
            self._skipped = True
            return
        if body:
            request.body = body[0] if len(body) == 1 else b"".join(body)
            self._body = []
        self._complete = request
        self._request = None
        self._head = b""
        self._chunked = self._expects_continue = False
        if self._headers:
            self._headers = []  # trailers: dropped, as RFC 9110 (6.5.1) asks of whoever does not know them

    # The parts of a head.

    def _read_request_line(self, request: Request) -> None:
        """Split the request line; llhttp has looked at its characters, but takes other protocols and further blanks."""
        parts = bytes(self._head[: self._head.find(b"\r\n")]).split(b" ")
        if len(parts) != 3:
            raise self._bad("the request line must be a method, a target and a version, with one blank in between")
        method, target, version = parts
        if version == b"HTTP/1.1":
            request.http_10 = False
        elif version == b"HTTP/1.0":
            request.http_10 = True
        elif version.startswith(b"HTTP/"):
            raise self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "the versions spoken are HTTP/1.1 and HTTP/1.0")
        else:
            raise self._bad("the protocol is not HTTP")
        if method == b"CONNECT":
            raise self._refuse(HTTPStatus.NOT_IMPLEMENTED, "this is no proxy")
        request.method = method.decode("ascii")
        request.host = None
        if target[0] == 47 and b"#" not in target:  # "/": nearly always
            request.target = target
        else:
            self._read_target(request, target)

    def _read_target(self, request: Request, target: bytes) -> None:
        """Read the other forms of a target. Source: RFC 9112, 3.2."""
        if target == b"*" and request.method == "OPTIONS":
            request.target = target
            return
        try:
            scheme, authority, path, query, _ = urlsplit(target)
        except ValueError:
            scheme, authority, path, query = b"", b"", b"", b""
        if b"#" in target or scheme not in (b"http", b"https") or not _AUTHORITY.fullmatch(authority) or not authority:
            raise self._bad("the target must be a path, or a URI of http with a host")
        # The URI's host overrules the header's: RFC 9112, 3.2.2.
        request.host = authority
        request.target = (path or b"/") + (b"?" + query if query else b"")

    def _read_headers(self, request: Request) -> tuple[int, bool]:
        """Read what decides on the framing and on whom it is for; return the length, and whether it is chunked instead."""
        hosts: list[bytes] = []
        length = 0
        chunked = False
        expectation = b""
        for name, value in self._headers:
            watched = _WATCHED.get(name.lower())
            if watched is None:
                continue
            if watched == _HOST:
                hosts.append(value)
            elif watched == _LENGTH:
                length = int(value)  # llhttp takes digits only, and one such header
            elif watched == _ENCODING:
                self._check_encoding(request, value)
                chunked = True
            else:
                expectation = value.lower()
        self._check_host(request, hosts)
        if length > self._limits.body_bytes:
            raise self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long")
        if expectation:
            if expectation != b"100-continue":
                raise self._refuse(HTTPStatus.EXPECTATION_FAILED, "the only expectation is 100-continue")
            self._expects_continue = (chunked or length > 0) and not request.http_10
        return length, chunked

    def _check_host(self, request: Request, hosts: list[bytes]) -> None:
        if len(hosts) != 1:
            if hosts or not request.http_10:
                raise self._bad("there must be one Host header")
            return
        (host,) = hosts
        if host != self._given_host:
            if _AUTHORITY.fullmatch(host) is None:
                raise self._bad("the Host header is no name and no address")
            self._given_host = host
        if request.host is None:
            request.host = host

    def _check_encoding(self, request: Request, encoding: bytes) -> None:
        if request.http_10:
            raise self._bad("HTTP/1.0 has no Transfer-Encoding")
        if encoding.lower() != b"chunked":
            raise self._refuse(HTTPStatus.NOT_IMPLEMENTED, "no Transfer-Encoding but chunked is understood")
