"""WSGI: a request becomes a call of the application, and what it answers becomes bytes. Source: PEP 3333.

Knows no socket and no loop: `Exchange` is given a function that sends bytes, and may wait in it. Everything here happens on
the thread of the request's job, so nothing needs a lock.

What is sent in one piece: a list or tuple (its length is known, so it gets a Content-Length), and the head together with
the first piece that is not empty. A piece is never held back for the next one: PEP 3333 forbids it.

The application's `close()` is called once, whatever happens. A head that cannot be sent as it is (a line break in a
value, a header that is not the application's to set) is an error of the application like any other: a 500, and the
traceback in the log.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

from manyhands.server._request import Request
from manyhands.server._response import ResponseFrame

__all__ = ["Application", "Environ", "Exchange", "base_environ", "environ_of"]

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class StartResponse(Protocol):
    """What an application gets to begin its response with."""

    def __call__(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]: ...


Application = Callable[[Environ, Any], Iterable[bytes]]

ONE_COPY: Final = 65_536
"""A body up to this size is copied behind its head and sent with it; beyond it a second system call costs less."""

_DROPPED: Final = ""

_names: dict[bytes, str] = {
    b"Content-Type": "CONTENT_TYPE",
    b"Content-Length": "CONTENT_LENGTH",
}
"""A header's name as clients write it -> its key in the environ."""
_KNOWN = 1000
"""How many of them are remembered: the names are the clients' choice."""


def base_environ(host: str, port: int) -> Environ:
    """Make what all requests of a server have in common."""
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_SOFTWARE": "manyhands",
        "QUERY_STRING": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        # The body is whole and its length is known, so that reading to the end is safe: what frameworks ask this key.
        "wsgi.input_terminated": True,
    }


def environ_of(base: Environ, request: Request, remote: tuple[str, int] | None) -> Environ:
    """Make the environ of a request.

    Args:
        base: What `base_environ` made; it is copied.
        request: Its body becomes `wsgi.input`.
        remote: The client's address and port; None if it has none.

    Header names with an underscore are dropped: `X_User` and `X-User` would be the same key, and a proxy in front knows only
    how to drop one of them. `Proxy` is dropped as well: HTTP_PROXY is read by clients inside the application.
    """
    environ = base.copy()
    target = request.target
    environ["REQUEST_METHOD"] = request.method
    environ["REQUEST_URI"] = environ["RAW_URI"] = target.decode("latin-1")
    if b"?" in target:
        target, _, query = target.partition(b"?")
        environ["QUERY_STRING"] = query.decode("latin-1")
    if b"%" in target:
        target = unquote_to_bytes(target)
    environ["PATH_INFO"] = target.decode("latin-1")
    environ["SERVER_PROTOCOL"] = "HTTP/1.0" if request.http_10 else "HTTP/1.1"
    environ["wsgi.input"] = io.BytesIO(request.body)
    if remote is not None:
        environ["REMOTE_ADDR"] = remote[0]
        environ["REMOTE_PORT"] = str(remote[1])
    for name, value in request.headers:
        key = _names.get(name)
        if key is None:
            key = _key_of(name)
        if key:
            text = value.decode("latin-1")
            if key in environ:
                text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
            environ[key] = text
    if request.host is not None:
        environ["HTTP_HOST"] = request.host.decode("latin-1")
    if request.chunked:
        environ["CONTENT_LENGTH"] = str(len(request.body))
    return environ


def _key_of(name: bytes) -> str:
    """Return a header's key in the environ, empty for one that is dropped, and remember it."""
    folded = name.lower()
    # Host is set from the request, since the target may overrule it; Transfer-Encoding is undone.
    if b"_" in name or folded in (b"host", b"proxy", b"transfer-encoding"):
        key = _DROPPED
    else:
        key = name.decode("ascii").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
    if len(_names) < _KNOWN:
        _names[name] = key
    return key


class Send(Protocol):
    """How an exchange gives bytes to the client."""

    def __call__(self, data: bytes, *, final: bool) -> None:
        """Send `data`.

        Args:
            data: Not empty.
            final: It is the last piece, and need not be waited for. Else: wait until the client has room for it, so
                that no more than one piece is ever held.

        Raises:
            JobStopped: the client has gone, or somebody else stopped the request.
        """


class Exchange:
    """One call of the application, and what it answers.

    Args:
        frame: The response's framing.
        send: Where the bytes go.

    Attributes:
        frame: As given.
        head_sent: The client has the head, or a part of it: the response cannot be changed any more.
        complete: Every byte of the response was given to `send`.

    Threads: the one that runs the job.
    """

    __slots__ = ("_headers", "_send", "_status", "complete", "frame", "head_sent")

    def __init__(self, frame: ResponseFrame, send: Send) -> None:
        self.frame = frame
        self._send = send
        self._status: str | None = None
        self._headers: Headers = []
        self.head_sent = False
        self.complete = False

    def run(self, app: Application, environ: Environ) -> None:
        """Call the application and send its response.

        Raises:
            JobStopped: from `send`, or from the application, which checked in.
            BaseException: whatever the application raised. If `head_sent`, the connection must be closed, so that the
                client can tell a part from the whole; if `complete`, nothing is lost.
        """
        result = app(environ, self.start_response)
        try:
            if isinstance(result, list | tuple) and not self.head_sent:
                self._send_whole(result)
            else:
                self._send_pieces(result)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """Begin the response; it goes out with the first piece of the body.

        Raises:
            RuntimeError: it was called before, and `exc_info` is missing.
            TypeError: `headers` is no list.
            BaseException: `exc_info`, if the client has the head already.
        """
        if exc_info is not None:
            try:
                if self.head_sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a cycle through this frame
        elif self._status is not None:
            raise RuntimeError("start_response() was called twice; the second time it needs exc_info (PEP 3333)")
        if not isinstance(headers, list):
            raise TypeError(f"headers must be a list of (name, value), both str (PEP 3333), and got {headers!r}")
        self._status = status
        self._headers = headers
        return self.write

    def write(self, data: bytes) -> None:
        """Send a piece of the body at once: what `start_response` returns, for applications that cannot iterate."""
        _check_piece(data)
        if data:
            self._send_piece(data)

    def _head(self, length: int | None = None) -> bytes:
        if self._status is None:
            raise RuntimeError(
                "the application did not call start_response() before its first piece of the body (PEP 3333)"
            )
        return self.frame.head(self._status, self._headers, length)

    def _send_whole(self, pieces: list[bytes] | tuple[bytes, ...]) -> None:
        """Send a body that is here in full, with its length."""
        if len(pieces) == 1:
            body = pieces[0]
            _check_piece(body)
        else:
            body = b"".join(pieces)
        frame = self.frame
        head = self._head(len(body))
        if body and not frame.bodiless:
            body = frame.frame(body)
            tail = frame.end()
            assert not tail, "a body of known length is not chunked"
            self.head_sent = True
            if len(body) <= ONE_COPY:
                self._send(head + body, final=True)
            else:
                self._send(head, final=False)
                self._send(body, final=True)
        else:
            frame.end()
            self.head_sent = True
            self._send(head, final=True)
        self.complete = True

    def _send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Send each piece when it comes. The head waits for the first one, as until then it may be replaced."""
        frame = self.frame
        for piece in pieces:
            _check_piece(piece)
            if not piece:
                continue
            self._send_piece(piece)
            if frame.bodiless:
                break
        if not self.head_sent:
            head = self._head(0)
            frame.end()
            self.head_sent = True
            self._send(head, final=True)
        elif not frame.bodiless and (tail := frame.end()):
            self._send(tail, final=True)
        self.complete = True

    def _send_piece(self, piece: bytes) -> None:
        frame = self.frame
        if self.head_sent:
            data = b"" if frame.bodiless else frame.frame(piece)
        else:
            data = self._head()
            self.head_sent = True
            if not frame.bodiless:
                data += frame.frame(piece)
        if data:
            final = frame.bodiless or frame.filled
            self._send(data, final=final)
            self.complete = final


def _check_piece(piece: object) -> None:
    if not isinstance(piece, bytes):
        raise TypeError(f"a piece of the body must be bytes (PEP 3333), and got {type(piece).__name__}")
