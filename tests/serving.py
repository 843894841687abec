"""A server of the tests, its clients, and its views."""

from __future__ import annotations

import http.client
import io
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import manyhands as mh
from gate import Gate
from manyhands.server import Server
from support import LONG, wait_until

StartServer = Callable[..., Server]


GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class _Stream(io.BufferedReader):
    """A connection's input, which stays open when `http.client` has read a response from it."""

    def close(self) -> None:
        """Stay open."""


class Client(socket.socket):
    """A connection to a server that reads response after response."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__()
        self.settimeout(LONG)
        try:
            self.connect(address)
        except BaseException:
            self.close()
            raise
        self._stream = _Stream(socket.SocketIO(self, "r"))

    def makefile(self, *_args: object, **_options: object) -> _Stream:  # type: ignore[override]
        """What `http.client` reads from."""
        return self._stream

    def response(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Read one response: status, headers, body."""
        found = http.client.HTTPResponse(self, method=method)
        found.begin()
        return found.status, {name.lower(): value for name, value in found.getheaders()}, found.read()

    def rest(self) -> bytes:
        """Everything until the server closes."""
        return self._stream.read()

    def ask(self, path: bytes = b"/") -> tuple[int, dict[str, str], bytes]:
        """Send a request and read its response."""
        self.sendall(get(path))
        return self.response()

    def reset(self) -> None:
        """Hang up without a farewell."""
        self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def connect(server: Server) -> Client:
    """A client, to be used in a `with` statement."""
    return Client(server.address)


def get(path: bytes) -> bytes:
    """A request."""
    return GET.replace(b"/", path, 1)


def wait_ready(server: Server) -> None:
    """Wait until all of its threads are there: then a request begins where it was read, and goes on on another thread."""
    wait_until(lambda: server.loop.joined == server.pool.threads + 1)


def ask(server: Server, path: str = "/", method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    client = http.client.HTTPConnection(*server.address, timeout=LONG)
    try:
        client.request(method, path, body)
        found = client.getresponse()
        return found.status, found.read()
    finally:
        client.close()


def hello(environ, start_response):
    """Answer with the path."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]


class Working:
    """A view that works until it is stopped, and says so; `/` answers at once."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.jobs: list[mh.Job] = []
        self.raised: list[BaseException] = []

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/":
            return hello(environ, start_response)
        self.jobs.append(environ["manyhands.job"])
        self.begun.set()
        try:
            while True:
                mh.sleep_blocking(0.01)
                mh.check_in()
        except mh.JobStopped as stopped:
            self.raised.append(stopped)
            raise

    def wait_begun(self) -> None:
        assert self.begun.wait(LONG)


@contextmanager
def kept_busy(server: Server, ident: int) -> Iterator[None]:
    """While entered, this thread of the server is in a handler: a stream that goes on goes on on another one."""
    for _ in range(100):
        gates: list[Gate] = []
        try:
            # All but one of them, until the one that is meant has come.
            while len(gates) < server.loop.joined - 1:
                came: list[int] = []
                gates.append(Gate())
                server.loop.post(lambda came=came, gate=gates[-1]: (came.append(threading.get_ident()), gate()))
                gates[-1].wait_entered()
                if came == [ident]:
                    for gate in gates[:-1]:
                        gate.open()
                    yield
                    return
        finally:
            for gate in gates:
                gate.open()
    raise AssertionError(f"thread {ident} took none of the messages")
