"""Requests of HTTP/1.1 without a socket: bytes in, requests out.

Theory of operation. `RequestReader` is one connection's input. Bytes go in by `receive()`, one request at a time comes
out of `next_request()`; what came behind it waits, unparsed. Where a request ends is llhttp's decision alone (by
httptools); there is no second opinion that somebody could play against it. What is done here beside it:

* The bytes are *cut* before they are fed: behind each blank line, and at the end of a body whose length is known. So
  a feed never holds the end of one request and the beginning of the next, and the size of a head is known exactly. The
  cuts decide nothing: if they were at other places, the same requests would come out. See `_cuts.py`.
* What llhttp does not check: the limits; and what is in a head, see `_head.py`.
* A request as nearly all are, whole and alone in what was read, is taken by `take_plain`, which is compiled. It takes none that
  llhttp would not take, and makes the same of it.
* A request that asks for an upgrade is served as if it did not, which RFC 9110 (7.8) allows. llhttp leaves such a body
  to the new protocol, so a new parser is told its framing and reads on.

A body is kept as `_body.py` has it.

Rules for code in this file: no socket, no clock, no thread. Whatever is wrong with a request is a `Refused`, after which
the reader gives nothing more: the connection must be closed, or what follows could be taken for a request that
nobody sent.
Source: RFC 9112 (HTTP/1.1), RFC 9110 (HTTP semantics).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from manyhands import _core
from manyhands.server._body import Body
from manyhands.server._budget import Budget
from manyhands.server._cuts import BLANK_LINE, Cuts
from manyhands.server._head import Headers, Refused, Request, read_headers, read_request_line
from manyhands.server._limits import Limits

__all__ = ["CONTINUE", "Refused", "Request", "RequestReader"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What a client may wait for before it sends the body."""

NO_MEMORY: Final = "there is no memory for the request"

CHUNK_OVERHEAD: Final = 8
"""A chunked body may be so many times as long as what is in it. One byte in a chunk of its own takes six."""


class RequestReader:
    """The input of one connection: `receive()` what came, and ask for `next_request()` until it is None.

    Args:
        limits: `head_bytes`, `headers`, `body_bytes` and `body_memory` are kept here; the clock is not this class's business.
        budget: What the bodies of all connections may take of the memory; None for any.
        files: What they may take in temporary files; None for any.

    Attributes:
        unread: What was received and not parsed.

    Threads: one at a time.
    """

    __slots__ = (
        "_blank",
        "_body",
        "_budget",
        "_chunked",
        "_complete",
        "_cuts",
        "_expects_continue",
        "_fed",
        "_files",
        "_good_host",
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
        "_was_head",
        "unread",
    )

    def __init__(self, limits: Limits, budget: Budget | None = None, files: Budget | None = None) -> None:
        self._limits = limits
        self._budget = budget
        self._files = files
        self._cuts = Cuts()
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self.unread = b""
        self._was_head = False  # what was refused was a HEAD request
        self._over = False  # nothing more is taken: a request was refused, or the last one has come
        self._blank = 0  # bytes of blank lines before the request at hand
        self._refusal: Refused | None = None
        self._head: bytes | bytearray = b""  # of the request at hand, as far as it was fed
        self._headers: Headers = []  # then the trailers, which nobody gets
        self._request: Request | None = None  # its head is complete
        self._complete: Request | None = None
        self._body: Body | None = None  # what is here of it
        self._left = 0  # of a body whose length is known; of a chunked one how much more it may have
        self._chunked = False
        self._fed = 0  # bytes of a chunked body, framing included
        self._expects_continue = False
        self._good_host: bytes | None = None  # the last good one: a connection sends the same again and again
        self._prelude = self._skipped = False  # see _read_on_after_upgrade

    @property
    def waiting(self) -> int:
        """How many bytes were received and not parsed."""
        return len(self.unread)

    @property
    def waiting_requests(self) -> int:
        """How many requests wait among them, at most: a body may hold what looks like the end of a head."""
        return self.unread.count(BLANK_LINE)

    @property
    def idle(self) -> bool:
        """Nothing of a request is here."""
        return not self._head and self._request is None and not self.unread

    @property
    def in_body(self) -> bool:
        """A head is complete, and its body is not."""
        return self._request is not None

    @property
    def over(self) -> bool:
        """Nothing more will come out: the last request said so, or one was refused."""
        return self._over

    @property
    def at_head_request(self) -> bool:
        """What is here of a request, or was refused, is a HEAD."""
        return self._was_head or self._head.startswith(b"HEAD ")

    def receive(self, data: bytes) -> None:
        """Keep what the client sent."""
        if not self._over:
            self.unread = self.unread + data if self.unread else data

    def take_plain(self, data: bytes, base: dict[str, Any], remote: tuple[str, int]) -> _core.PlainRequest | None:
        """Read a whole request that is nothing special, if these bytes are one, and nothing of another is here.

        None if they are not, or not a good one: then they are to be received.

        Args:
            data: What the client sent.
            base: What `base_environ` made.
            remote: The client's address and port; an empty one if it has none.

        Raises:
            Refused: there is no memory for it; the reader is over.
        """
        limits = self._limits
        if self._head or self.unread or self._over or self._request is not None or len(data) > limits.head_bytes:
            return None
        try:
            request = _core.plain_request(data, base, limits.headers, remote)
        except MemoryError:
            self._end()
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, NO_MEMORY) from None
        if request is not None:
            self._blank = 0
        return request

    def next_request(self) -> Request | None:
        """Parse on, and return the next request; None if it is not complete.

        Raises:
            Refused: once; the reader is over.
        """
        while self.unread and not self._over:
            if self.unread[0] < 33 and not self._head and self._request is None and not self._skip_blank_lines():
                break
            self._feed(self._cut())
            request = self._complete
            if request is not None:
                self._complete = None
                if not request.keep_alive:
                    self._end()
                return request
        return None

    def _skip_blank_lines(self) -> bool:
        """Skip blank lines before a request; False if nothing is left. Source: RFC 9112, 2.2.

        Raises:
            Refused: CR or LF alone, which llhttp would skip too; more blank lines than a head may have bytes.
        """
        unread = self.unread
        start = 0
        while unread.startswith(b"\r\n", start):
            start += 2
        self.unread = unread = unread[start:]
        self._blank += start
        if self._blank > self._limits.head_bytes:
            self._end()
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "there are too many blank lines before it")
        if unread.startswith((b"\r", b"\n")) and unread != b"\r":
            self._end()
            raise Refused(HTTPStatus.BAD_REQUEST, "a line ends in CR LF")
        return bool(unread) and unread != b"\r"

    def take_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body; True once."""
        wanted, self._expects_continue = self._expects_continue, False
        begun = self._body is not None or self._fed or self.unread
        return wanted and self._request is not None and not begun

    def take_rest(self) -> bytes:
        """Give what was received and not parsed to somebody who speaks another protocol; the reader is over."""
        rest = self.unread
        self._end()
        return rest

    def close(self) -> None:
        """Let go of the parser, which holds on to this object."""
        self._end()
        self._parser = None

    # The cuts.

    def _cut(self) -> bytes:
        """Take from what was received at most to the end of the head, or of the body."""
        unread = self.unread
        if self._request is None:
            end = self._cuts.behind_blank_line(unread)
        elif self._chunked:
            end = self._cuts.behind_chunks(unread)
        else:
            end = self._left
        if end >= len(unread):
            self.unread = b""
            return unread
        self.unread = unread[end:]
        return unread[:end]

    def _feed(self, piece: bytes) -> None:
        """Let llhttp read on."""
        assert self._parser is not None
        try:
            if self._request is None:
                if not self._head:
                    self._head = piece
                    self._blank = 0
                else:  # a bytearray grows in place: a head may come byte by byte
                    self._head = self._head if isinstance(self._head, bytearray) else bytearray(self._head)
                    self._head += piece
                if len(self._head) > self._limits.head_bytes:
                    raise self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too long")
            elif self._chunked:
                self._fed += len(piece)
            self._parser.feed_data(piece)
            if self._chunked:
                given = self._limits.body_bytes - self._left
                if self._fed > self._limits.head_bytes + CHUNK_OVERHEAD * given:
                    raise self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body has too much framing")
        except HttpParserUpgrade as upgrade:
            self._read_on_after_upgrade(piece[upgrade.args[0] :])
        except (HttpParserError, Refused) as error:
            self._end()
            refusal = self._refusal_of(error)
            try:
                if refusal is error:
                    raise  # with what caused it
                raise refusal from None
            finally:
                del refusal  # its traceback has this frame

    def _refusal_of(self, error: Exception) -> Exception:
        """Say what the client is told of an error, if it is one of the client's."""
        refusal, self._refusal = self._refusal, None  # its traceback has this object
        if refusal is not None:
            return refusal
        if not isinstance(error, HttpParserCallbackError):
            return Refused(HTTPStatus.BAD_REQUEST, str(error))
        if isinstance(error.__context__, MemoryError):
            return Refused(HTTPStatus.SERVICE_UNAVAILABLE, NO_MEMORY)
        return error  # a mistake of ours

    def _end(self) -> None:
        self._over = True
        self._was_head = self.at_head_request
        self.unread = b""
        if self._body is not None:
            self._body.close()
            self._body = None
        self._headers = []
        self._request = None
        self._head = b""

    def _refuse(self, status: HTTPStatus, reason: str) -> Refused:
        """Note what is wrong: httptools replaces what a callback raises by an error of its own."""
        self._refusal = Refused(status, reason)
        return self._refusal

    def _read_on_after_upgrade(self, rest: bytes) -> None:
        """Go on with a parser that has not heard of the upgrade.

        The head was read; if a body follows it, the new parser is told its framing by a head of ours first.
        """
        self.unread = rest + self.unread
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
        try:
            read_request_line(bytes(self._head[: self._head.find(b"\r\n")]), request)
            framing = read_headers(request, self._headers, self._good_host)
        except Refused as refused:
            self._refusal = refused
            raise
        length, chunked, self._expects_continue, self._good_host = framing
        if length > self._limits.body_bytes:
            raise self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long")
        request.headers = self._headers
        request.chunked = chunked
        request.keep_alive = self._parser.should_keep_alive()
        request.body = b""
        request.file = None
        request.length = 0
        request.kept = 0
        request.budget = None
        self._request = request
        self._headers = []
        self._chunked = chunked
        self._left = self._limits.body_bytes if chunked else length
        self._fed = 0
        if chunked:
            self._cuts.begin_chunks()

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self._left -= len(data)
        if self._left < 0:
            raise self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long")
        body = self._body
        if body is None:
            self._body = body = Body(self._limits.body_memory, self._budget, self._files)
        try:
            body.append(data)
        except Refused as refused:
            self._refusal = refused
            raise

    def on_message_complete(self) -> None:
        """Hand the request out, unless llhttp left its body to another protocol."""
        request = self._request
        assert request is not None
        assert self._parser is not None
        if (self._chunked or self._left) and self._parser.should_upgrade():
            self._skipped = True
            return
        if self._body is not None:
            try:
                self._body.hand_over(request)
            except Refused as refused:
                self._refusal = refused
                raise
            self._body = None
        self._complete = request
        self._request = None
        self._head = b""
        self._chunked = self._expects_continue = False
        if self._headers:
            self._headers = []  # trailers: dropped, as RFC 9110 (6.5.1) asks of whoever does not know them
