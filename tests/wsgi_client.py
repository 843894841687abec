"""What a WSGI application is called with and answers to, without a socket."""

from __future__ import annotations

from manyhands.server._environ import base_environ, environ_of
from manyhands.server._limits import Limits
from manyhands.server._request import Request, RequestReader
from manyhands.server._response import ResponseFrame
from manyhands.server._wsgi import Exchange

GET = b"GET /a%2Fb%C3%A9?c=%20d HTTP/1.1\r\nHost: example:80\r\n\r\n"


def request_of(data: bytes) -> Request:
    """The request in these bytes."""
    reader = RequestReader(Limits())
    reader.receive(data)
    request = reader.next_request()
    assert request is not None
    reader.close()
    return request


def environ(data: bytes) -> dict:
    """The environ of the request in these bytes."""
    return environ_of(base_environ("here", 8000), request_of(data), ("10.0.0.1", 5))


class Client:
    """Takes what an exchange sends, piece by piece, and remembers which one was the last."""

    def __init__(self, data: bytes = GET) -> None:
        self.request = request_of(data)
        self.frame = ResponseFrame(self.request)
        self.sent: list[bytes] = []
        self.final: list[bool] = []
        self.exchange = Exchange(self.frame, self._send)
        self.environ = environ_of(base_environ("here", 8000), self.request, ("10.0.0.1", 5))

    def _send(self, data: bytes, *, final: bool) -> None:
        assert data
        assert True not in self.final, "something came behind the end"
        self.sent.append(data)
        self.final.append(final)

    def call(self, app) -> tuple[str, list[str], bytes]:
        """Run the application; status line, header lines (but Server and Date), and the body as it was framed."""
        for _ in self.exchange.run(app, self.environ) or ():
            pass
        return self.parts()

    def parts(self) -> tuple[str, list[str], bytes]:
        head, _, body = b"".join(self.sent).partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        return first, [line for line in lines if not line.startswith(("Server:", "Date:"))], body


class Body:
    """An iterable that counts how often it is closed, and may fail on the way."""

    def __init__(self, *pieces: bytes | BaseException) -> None:
        self.pieces = pieces
        self.closed = 0

    def __iter__(self):
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def close(self) -> None:
        self.closed += 1


def app_of(result, status="200 OK", headers=()):
    """An application that gives this result."""

    def app(environ, start_response):
        start_response(status, list(headers))
        return result

    return app


class List(list):
    """A list with a `close()`."""

    closed = 0

    def close(self):
        self.closed += 1


# What the application gets.
