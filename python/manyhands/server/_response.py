"""Responses of HTTP/1.1 without a socket: a head and pieces of a body in, bytes out.

`ResponseFrame` is one response: what its head says of the body decides how each piece is framed. `error_response` is a
whole response of the server's own. The lines that every response has are made once a second.

Rules for code in this file: no socket, no thread. Nothing that an application gives can end a line, or the head: names and
statuses are checked against their grammar once and remembered, values by counting the line breaks of the whole head.
Source: RFC 9112 (HTTP/1.1), RFC 9110 (HTTP semantics).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from time import monotonic
from typing import Final

from manyhands import _core
from manyhands.server._request import Request
from manyhands.server._rules import CONTENT_LENGTH, HOP_BY_HOP, broken

__all__ = ["LAST_CHUNK", "ONE_COPY", "ResponseFrame", "error_response"]

LAST_CHUNK: Final = b"0\r\n\r\n"

ONE_COPY: Final = 65_536
"""A body up to this size is copied behind its head and sent with it; beyond it a second system call costs less."""

NO_CONTENT: Final = 204
EMPTY: Final = frozenset({NO_CONTENT, 304})
"""Statuses whose response has no body, whatever its headers say."""

SERVER: Final = "Server: manyhands\r\n"

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""In a field's value: neither is VCHAR, obs-text, a blank or a tab (RFC 9110, 5.5)."""

_TOKEN = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_STATUS = re.compile(r"[2-5]\d\d [^\r\n\0]*|[2-5]\d\d", re.ASCII)

_PLAIN, _CONTENT_LENGTH, _DATE, _SERVER, _CONNECTION, _KEEP_ALIVE, _FORBIDDEN = range(7)
_SPECIAL = {
    "content-length": _CONTENT_LENGTH,
    "date": _DATE,
    "server": _SERVER,
    "connection": _CONNECTION,
    "keep-alive": _KEEP_ALIVE,
    "transfer-encoding": _FORBIDDEN,
    "upgrade": _FORBIDDEN,
    "te": _FORBIDDEN,
    "trailer": _FORBIDDEN,
}
_known_names: dict[str, int] = {}
"""A header's name as applications write it -> what it means here; only good names are in it. An application has a few."""
_known_statuses: dict[str, int] = {}
_KNOWN = 1000
"""How many of them are remembered."""


def _meaning(name: str) -> int:
    """Say what a header of a response is to the server.

    Raises:
        ValueError: it is no name of a header.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a header must be a str, and got {name!r}")
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no name of a header")
    meaning = _SPECIAL.get(name.lower(), _PLAIN)
    if len(_known_names) < _KNOWN:
        _known_names[name] = meaning
    return meaning


def _status_code(status: str) -> int:
    """Read a status line's "200 OK".

    Raises:
        ValueError: it does not begin with a final status, or has line breaks.
    """
    if not isinstance(status, str):
        raise TypeError(f"the status must be a str such as '200 OK', and got {status!r}")
    if _STATUS.fullmatch(status) is None:
        raise ValueError(f"the status must be three digits from 200 to 599, a blank and a reason, and got {status!r}")
    code = int(status[:3])
    if len(_known_statuses) < _KNOWN:
        _known_statuses[status] = code
    return code


class _Stamp:
    """The header lines that every response has, made once a second."""

    __slots__ = ("expires", "lines")

    def __init__(self) -> None:
        self.expires = monotonic() + 1.0
        self.lines = f"{SERVER}Date: {formatdate(usegmt=True)}\r\n"


_stamp = _Stamp()


def _stamp_of_now() -> _Stamp:
    global _stamp  # noqa: PLW0603 - one of the process; whoever replaces it puts a whole one there
    if monotonic() >= _stamp.expires:
        _stamp = _Stamp()
    return _stamp


class ResponseFrame:
    """The framing of one response: `head()`, then `frame()` for each piece of the body, then `end()`.

    Args:
        request: What it answers.
        keep_alive: Whether the server would use the connection again.

    Attributes:
        code: The status, 0 before the head.
        head_only: The request was HEAD.
        bodiless: A body is not sent, whatever the application gives: HEAD, 204, 304.
        keep_alive: Whether the connection can be used again; final after `end()`.
        excess: The application gave more than it had announced; the rest was dropped.
        short: After `end()`: it gave less. The client learns it from the connection's end.

    Source: RFC 9112, 6 and 7.
    """

    # Most responses change none of these.
    _announced: int | None = None  # the application's Content-Length
    _chunked = False
    _closes = False
    _common = ""  # the lines that every response has
    _left: int | None = 0  # bytes that are still to come; None if that is not known
    code = 0
    bodiless = False
    excess = False
    short = False

    def __init__(self, request: Request | _core.PlainRequest, *, keep_alive: bool = True) -> None:
        self.head_only = request.method == "HEAD"
        self._http_10 = request.http_10
        self.keep_alive = keep_alive and request.keep_alive

    def whole(self, status: str, headers: list[tuple[str, str]], body: object, *, known: bool) -> bytes | None:
        """Write the whole of a short response whose head is nothing special; of any other None, and nothing has changed.

        Args:
            status: As "200 OK".
            headers: As for `head`.
            body: Everything, or a first piece that may be.
            known: It is everything. Else the application's Content-Length has to say so.
        """
        if self._http_10 or self.head_only or not self.keep_alive:
            return None
        stamp = _stamp
        if monotonic() >= stamp.expires:
            stamp = _stamp_of_now()
        made = _core.plain_response(status, headers, body, stamp.lines, known, ONE_COPY)
        if made is None:
            return None
        data, self.code = made
        return data

    def head(self, status: str, headers: Iterable[tuple[str, str]], length: int | None = None) -> bytes:
        """Write the head and decide on the framing.

        Args:
            status: As "200 OK".
            headers: list of (name, value), both str, Latin-1.
            length: Bytes of the whole body if that is known; a Content-Length of the application's comes first.

        Raises:
            TypeError, ValueError: something in it cannot be sent; nothing has changed.
        """
        code = _known_statuses.get(status) or _status_code(status)
        self._announced = None
        self._closes = not self.keep_alive
        self._common = _stamp_of_now().lines
        lines = ["HTTP/1.1 ", status, "\r\n"]
        for name, value in headers:
            meaning = _known_names.get(name)
            if meaning is None:
                meaning = _meaning(name)
            if not meaning or self._heed(meaning, name, value, code):
                lines += (name, ": ", value, "\r\n")
        try:
            given = "".join(lines)
        except TypeError:
            raise _fault(headers) from None
        count = (len(lines) + 1) // 4
        # One more or less of these is a header that somebody smuggled into a value.
        if given.count("\n") != count or given.count("\r") != count or _CONTROL.search(given) is not None:
            raise _fault(headers)
        try:
            head = f"{given}{self._common}{self._choose_framing(code, length)}\r\n".encode("latin-1")
        except UnicodeEncodeError:
            raise _fault(headers) from None
        self.code = code
        self.keep_alive = not self._closes
        return head

    def _heed(self, meaning: int, name: str, value: str, code: int) -> bool:
        """Take note of a header that means something to the server; whether it is sent as it is."""
        if not isinstance(value, str):
            raise _fault([(name, value)])
        if meaning == _CONTENT_LENGTH:
            self._announced = _read_length(value, self._announced)
            return code != NO_CONTENT
        if meaning == _DATE:
            self._common = self._common.partition("Date: ")[0]
            return True
        if meaning == _SERVER:
            self._common = self._common.replace(SERVER, "")
            return True
        if meaning == _CONNECTION:
            self._closes = self._closes or value.strip().lower() == "close"
            return False
        if meaning == _KEEP_ALIVE:
            return False
        raise broken(HOP_BY_HOP, ValueError(f"{name} is the server's to set, not the application's"))

    def _choose_framing(self, code: int, length: int | None) -> str:
        """Decide how the body is framed, and return the lines that say so. Source: RFC 9112, 6.3."""
        empty = code in EMPTY
        self.bodiless = self.head_only or empty
        self._chunked = False
        announced = self._announced
        self._left = length if announced is None else announced
        lines = ""
        if self.bodiless:
            self._left = 0
            if announced is None and length and not empty:
                lines = f"Content-Length: {length}\r\n"
        elif announced is None:
            if length is not None:
                lines = f"Content-Length: {length}\r\n"
            elif self._http_10:
                self._closes = True
            else:
                self._chunked = True
                lines = "Transfer-Encoding: chunked\r\n"
        if self._closes:
            lines += "Connection: close\r\n"
        elif self._http_10:
            lines += "Connection: keep-alive\r\n"
        return lines

    def frame(self, data: bytes) -> bytes:
        """Put a piece of the body into its framing; it must not be empty. What is more than announced is dropped."""
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._left is None:
            return data
        if len(data) > self._left:
            self.excess = not self.bodiless
            data = data[: self._left]
        self._left -= len(data)
        return data

    def claim(self, length: int) -> int:
        """Say how many of so many bytes belong to the body, if they are sent past `frame()`. Its length has to be known."""
        assert self._left is not None
        taken = min(length, self._left)
        self.excess = taken < length and not self.bodiless
        self._left -= taken
        return taken

    @property
    def filled(self) -> bool:
        """As many bytes as were announced have come; not known of a body without a length."""
        return self._left == 0

    def end(self) -> bytes:
        """Return what ends the body. If it is shorter than announced, the connection must be closed behind it."""
        if self._chunked:
            return LAST_CHUNK
        if self._left:
            self.short = True
            self.keep_alive = False
        return b""


def _fault(headers: Iterable[tuple[str, str]]) -> Exception:
    """Say which of them cannot be sent, and why; if none, it is the status."""
    for name, value in headers:
        if not isinstance(value, str):
            return TypeError(f"the value of {name} must be a str, and got {value!r}")
        if _CONTROL.search(value) is not None or "\n" in value or "\r" in value:
            return ValueError(f"the value of {name} must not contain a line break, a zero or another control character")
        if not all(ord(character) < 256 for character in value):
            return ValueError(f"the value of {name} must be in latin-1, as of PEP 3333, and got {value!r}")
    return ValueError("the status must be in latin-1, and without control characters")


def _read_length(value: str, before: int | None) -> int:
    if before is not None:
        raise broken(CONTENT_LENGTH, ValueError("there must not be two Content-Length headers"))
    if not value.isascii() or not value.isdigit():
        raise broken(CONTENT_LENGTH, ValueError(f"Content-Length must be a number of bytes, and got {value!r}"))
    return int(value)


def error_response(
    status: HTTPStatus,
    *,
    keep_alive: bool = False,
    retry_after: int | None = None,
    head_only: bool = False,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Write a whole response that the server gives by itself: its body is the status in words."""
    text = f"{status.value} {status.phrase}\n"
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}\r\n",
        _stamp_of_now().lines,
        "Content-Type: text/plain; charset=utf-8\r\n",
        f"Content-Length: {len(text)}\r\n",
    ]
    if retry_after is not None:
        lines.append(f"Retry-After: {retry_after}\r\n")
    if headers is not None:
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
    if not keep_alive:
        lines.append("Connection: close\r\n")
    lines.append("\r\n")
    if not head_only:
        lines.append(text)
    return "".join(lines).encode("ascii")
