"""The server on real sockets: what its clients get, and what becomes of requests whose clients have gone."""

from __future__ import annotations

import errno
import http.client
import io
import logging
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest

import manyhands as mh
from commands import START
from gate import Gate
from manyhands.server import Limits, Server, serve
from support import LONG, wait_until

StartServer = Callable[..., Server]
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Start servers that are stopped when the test ends."""
    with ExitStack() as servers:
        yield lambda app, **options: servers.enter_context(Server(app, **{"threads": 2, **options}))


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


@pytest.fixture
def access(caplog) -> Callable[[], list[tuple[str, int]]]:
    """The access log: (request, status) of each line."""
    caplog.set_level(logging.INFO, "manyhands.access")

    def lines() -> list[tuple[str, int]]:
        return [(record.args[1], record.args[2]) for record in caplog.records if record.name == "manyhands.access"]

    return lines


# What a client gets.


def test_a_connection_is_used_again(start_server):
    """Keep-alive: three requests, one connection."""
    server = start_server(hello)
    with connect(server) as sock:
        for path in (b"/one", b"/two", b"/three"):
            assert sock.ask(path)[2] == path
        assert server.connections == 1


def test_requests_sent_ahead_are_answered_in_order(start_server):
    """Pipelining: fifty in one packet, the body of one between them, the last one closes."""
    server = start_server(hello)
    packet = b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in range(50))
    packet += b"POST /post HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nGET "
    packet += b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    with connect(server) as sock:
        sock.sendall(packet)
        bodies = re.findall(rb"\r\n\r\n(/[a-z0-9]+)", sock.rest())
    assert bodies == [b"/%d" % number for number in range(50)] + [b"/post", b"/last"]


def test_a_request_may_come_byte_by_byte(start_server):
    """Nobody waits for it but its own connection."""
    server = start_server(
        lambda environ, start_response: [environ["wsgi.input"].read(), start_response("200 OK", [])][:1]
    )
    with connect(server) as sock:
        for byte in b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n":
            sock.send(bytes([byte]))
        assert sock.response()[2] == b"abc"


def test_a_body_of_a_mebibyte_arrives_and_one_byte_more_is_too_much(start_server):
    """413 by its announcement; the client reads it although it goes on sending."""
    server = start_server(
        lambda environ, start_response: [start_response("200 OK", []), environ["wsgi.input"].read()][1:]
    )
    body = os.urandom(1 << 20)
    assert ask(server, "/", "POST", body) == (200, body)
    with connect(server) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1))
        sock.sendall(body)
        status, headers, _ = sock.response()
        assert (status, headers["connection"]) == (413, "close")
        assert sock.recv(1) == b""


def test_a_bad_request_gets_its_status_and_the_end_of_the_connection(start_server, access):
    """FAULT 35. What was sent behind it is not answered."""
    server = start_server(hello)
    for bad, status in (
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 20_000, 431),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    ):
        with connect(server) as sock:
            sock.sendall(GET + bad + GET)
            received = sock.rest()
        assert re.findall(rb"HTTP/1.1 (\d+) ", received) == [b"200", b"%d" % status]
    assert [status for _, status in access()] == [200, 400, 200, 400, 200, 431, 200, 505]


def test_a_client_that_asks_first_is_told_to_continue(start_server):
    """Expect: 100-continue; refused at once if the body would be too long."""
    server = start_server(
        lambda environ, start_response: [start_response("200 OK", []), environ["wsgi.input"].read()][1:]
    )
    head = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with connect(server) as sock:
        sock.sendall(head % 5)
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert sock.response()[2] == b"hello"
        sock.sendall(head % (1 << 21))
        assert sock.response()[0] == 413


def test_a_full_queue_is_503_at_once_and_the_connection_stays(start_server, access):
    """With Retry-After; no thread is needed to say it."""
    with Gate() as gate:

        def view(environ, start_response):
            if environ["PATH_INFO"] == "/wait":
                gate()
            return hello(environ, start_response)

        server = start_server(view, threads=1, max_queue_depth=0)
        with connect(server) as first, connect(server) as second:
            first.sendall(get(b"/wait"))
            gate.wait_entered()
            second.sendall(GET * 3)
            for _ in range(3):
                status, headers, _ = second.response()
                assert (status, headers["retry-after"]) == (503, "1")
            gate.open()
            assert first.response()[2] == b"/wait"
            wait_until(lambda: server.pool.stats().busy == 0)
            second.sendall(GET)
            assert second.response()[0] == 200
    assert [status for _, status in access()].count(503) == 3


def test_the_view_finds_its_job_and_its_connection(start_server):
    """In the environ, and by `current_job()` from anywhere below."""
    found = {}

    def view(environ, start_response):
        found.update(environ, job=mh.current_job())
        return hello(environ, start_response)

    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(b"GET /a/b?secret=1 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert sock.response()[0] == 200
        assert found["job"] is found["manyhands.job"]
        assert found["job"].name == "GET /a/b"
        assert found["manyhands.connection"].remote == sock.getsockname()
        assert found["manyhands.connection"].pool is server.pool
        assert (found["SERVER_NAME"], found["SERVER_PORT"]) == ("127.0.0.1", str(server.address[1]))


# A client that goes.


@pytest.mark.parametrize(
    "go", [Client.close, Client.reset, lambda sock: sock.shutdown(socket.SHUT_WR)], ids=["fin", "rst", "half"]
)
def test_a_client_that_hangs_up_stops_its_view(start_server, access, go):
    """`check_in()` raises in the view, and the job's record says OWNER_GONE."""
    view = Working()
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/work"))
        view.wait_begun()
        go(sock)
        (job,) = view.jobs
        wait_until(lambda: job.status is mh.JobStatus.STOPPED)
        assert job.reason is mh.StopReason.OWNER_GONE
        assert [stopped.reason for stopped in view.raised] == [mh.StopReason.OWNER_GONE]
        wait_until(lambda: access() == [("GET /work HTTP/1.1", 499)])
        wait_until(lambda: server.connections == 0)
    assert ask(server) == (200, b"/")


def test_a_queued_request_of_a_client_that_has_gone_never_starts(start_server, access):
    """It leaves the queue at once, while the only thread is still busy."""
    calls = []
    with Gate() as gate:

        def view(environ, start_response):
            calls.append(environ["PATH_INFO"])
            gate()
            return hello(environ, start_response)

        server = start_server(view, threads=1)
        with connect(server) as first, connect(server) as second, connect(server) as third:
            first.sendall(get(b"/first"))
            gate.wait_entered()
            second.sendall(get(b"/second"))
            third.sendall(get(b"/third"))
            wait_until(lambda: server.pool.stats().queued == 2)
            second.reset()
            wait_until(lambda: access() == [("GET /second HTTP/1.1", 499)])
            assert server.pool.stats().queued == 1
            gate.open()
            assert (first.response()[2], third.response()[2]) == (b"/first", b"/third")
        assert calls == ["/first", "/third"]


def test_a_hundred_clients_that_hang_up_leave_nobody_at_work(start_server):
    """T75a. In little more than the interval of the check-ins every thread is free again, and the queue is empty."""
    view = Working()
    server = start_server(view, threads=4)
    clients = [socket.create_connection(server.address, LONG) for _ in range(100)]
    for sock in clients:
        sock.sendall(get(b"/work"))
    wait_until(lambda: server.pool.stats().busy == 4 and server.pool.stats().queued == 96)
    for sock in clients:
        sock.close()
    wait_until(lambda: server.pool.stats().stopped == 100)
    stats = server.pool.stats()
    assert (stats.queued, stats.busy, stats.running) == (0, 0, 0)
    assert {job.reason for job in view.jobs} == {mh.StopReason.OWNER_GONE}
    assert len(view.raised) == len(view.jobs)
    assert ask(server) == (200, b"/")


def test_a_view_that_finishes_although_its_client_closed_its_half_writes_its_response(start_server, access):
    """FAULT 3. It was told to stop and did not check in; half of the connection is open, and gets everything."""
    with Gate() as gate:
        connections = []

        def view(environ, start_response):
            connections.append(environ["manyhands.connection"])
            gate()
            return hello(environ, start_response)

        server = start_server(view)
        with connect(server) as sock:
            sock.sendall(get(b"/late"))
            gate.wait_entered()
            sock.shutdown(socket.SHUT_WR)
            wait_until(lambda: connections[0].gone)
            gate.open()
            assert sock.response()[2] == b"/late"
            assert sock.rest() == b""
    assert access() == [("GET /late HTTP/1.1", 200)]


def test_a_response_that_was_given_is_written_to_the_end_although_no_request_will_follow(start_server):
    """FAULT 3. The client closes its half while most of a large response is still on its way."""
    body = os.urandom(16 << 20)
    server = start_server(lambda environ, start_response: (start_response("200 OK", []), [body])[1])
    with connect(server) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.sendall(GET)
        first = sock.recv(1000)
        wait_until(lambda: server.pool.stats().finished == 1)
        sock.shutdown(socket.SHUT_WR)
        assert (first + sock.rest()).partition(b"\r\n\r\n")[2] == body


def test_a_client_that_goes_with_its_whole_response_stops_nobody(start_server):
    """The view is still tidying up when the client closes: it is not told to stop."""
    with Gate() as tidying:
        found = {}

        class Body(list):
            def close(self):
                tidying()

        def view(environ, start_response):
            found.update(job=environ["manyhands.job"], connection=environ["manyhands.connection"])
            start_response("200 OK", [])
            return Body([b"done"])

        server = start_server(view)
        with connect(server) as sock:
            assert sock.ask()[2] == b"done"
            tidying.wait_entered()
            sock.shutdown(socket.SHUT_WR)
            wait_until(lambda: found["connection"]._watch.paused)
            assert not found["connection"].gone
            tidying.open()
            assert sock.rest() == b""
        wait_until(lambda: found["job"].status is mh.JobStatus.FINISHED)
        assert found["job"].reason is None
    found.clear()


def test_a_client_that_is_not_read_any_more_and_goes_is_noticed_by_writing_to_it(start_server):
    """It sent too much ahead, and then reset the connection in the middle of a stream."""
    found = {}

    def view(environ, start_response):
        found.update(job=environ["manyhands.job"], connection=environ["manyhands.connection"])
        start_response("200 OK", [])
        return iter(lambda: bytes(65_536), None)

    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_held == 1)
        sock.sendall(GET * 3000)
        wait_until(lambda: found["connection"]._watch.paused)
        sock.reset()
        wait_until(lambda: found["job"].status is mh.JobStatus.STOPPED)
        assert found["job"].reason is mh.StopReason.OWNER_GONE
        wait_until(lambda: server.connections == 0)
    found.clear()


def test_a_connection_that_is_closed_while_its_request_becomes_a_job_is_closed(start_server):
    """The job is refused, as its owner has ended; the leak line sees the socket."""
    server = start_server(hello)
    pool = server.pool

    def close_and_enqueue(function, owner, **options):
        owner.remove()
        return pool.enqueue(function, owner=owner, **options)

    server.pool = SimpleNamespace(enqueue=close_and_enqueue)
    try:
        with connect(server) as sock:
            sock.sendall(GET)
            assert sock.rest() == b""
    finally:
        server.pool = pool


# Slow clients.


def test_a_client_that_reads_slowly_holds_one_piece(start_server):
    """FAULT 15. The generator is not asked for the next piece before the socket has room; hanging up closes it."""
    produced = []
    closed = threading.Event()

    def pieces():
        try:
            while True:
                produced.append(1)
                yield bytes(65_536)
        finally:
            closed.set()

    server = start_server(lambda environ, start_response: (start_response("200 OK", []), pieces())[1])
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_held == 1)
        for _ in range(3):
            before = len(produced)
            received = 0
            while received < 8 << 20:
                received += len(sock.recv(1 << 20))
            wait_until(lambda: server.pool.stats().syncing_held == 1)
            assert len(produced) > before
        kernel = (len(produced) << 16) - 3 * (8 << 20)
        assert kernel < 16 << 20, "more than all buffers of the kernel was produced for a client that reads nothing"
        assert not closed.is_set()
        (job,) = [job for job in server.pool.jobs() if job.name == "GET /"]
        assert job.status is mh.JobStatus.SYNCING
        sock.reset()
        assert closed.wait(LONG)
    wait_until(lambda: server.pool.stats().stopped == 1)


def test_a_client_that_reads_nothing_of_a_whole_response_holds_no_thread(start_server):
    """The only thread serves the next client; the first gets every byte when it likes to."""
    body = os.urandom(24 << 20)

    def view(environ, start_response):
        start_response("200 OK", [])
        return [body if environ["PATH_INFO"] == "/long" else b"short"]

    server = start_server(view, threads=1)
    with connect(server) as slow:
        slow.sendall(get(b"/long") + GET)
        assert slow.recv(1) == b"H"
        assert ask(server) == (200, b"short")
        assert ask(server) == (200, b"short")
        received = bytearray()
        while len(received) < len(body):
            received += slow.recv(1 << 20)
        while not received.endswith(b"short"):
            received += slow.recv(1 << 20)
        assert bytes(received).partition(b"\r\n\r\n")[2].startswith(body)


def test_clients_that_trickle_their_requests_hold_no_thread(start_server):
    """FAULT 16. Twelve half requests and one thread: another client is served, and all twelve when they are done."""
    server = start_server(hello, threads=1)
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(12)]
        for sock in slow[:6]:
            sock.sendall(GET[:20])
        for sock in slow[6:]:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe")
        for _ in range(5):
            assert ask(server, "/health") == (200, b"/health")
        for sock in slow[:6]:
            sock.sendall(GET[20:])
        for sock in slow[6:]:
            sock.sendall(b"llo")
        assert [sock.response()[2] for sock in slow] == [b"/"] * 12


def test_a_client_that_sends_far_ahead_is_read_no_further(start_server):
    """While a request is in hand a bounded part of the next ones is kept; nothing is lost."""
    with Gate() as gate:
        connections = []

        def view(environ, start_response):
            connections.append(environ["manyhands.connection"])
            if environ["PATH_INFO"] == "/wait":
                gate()
            return hello(environ, start_response)

        server = start_server(view, threads=1)
        with connect(server) as sock:
            sock.sendall(get(b"/wait"))
            gate.wait_entered()
            count = 20_000
            sender = threading.Thread(
                target=sock.sendall, args=(GET * (count - 1) + GET.replace(b"h\r\n", b"h\r\nConnection: close\r\n"),)
            )
            sender.start()
            (connection,) = connections
            wait_until(lambda: connection._watch.paused)
            assert connection._reader.waiting <= 65_536 + 4096
            gate.open()
            assert sock.rest().count(b"HTTP/1.1 200 OK") == count + 1
            sender.join(LONG)


# Time.


def test_an_idle_connection_is_closed_after_a_while(start_server):
    """Between two requests, however long a head may take."""
    server = start_server(hello, limits=Limits(keep_alive=0.05, head_timeout=1000))
    with connect(server) as sock:
        assert sock.ask()[0] == 200
        assert sock.rest() == b""
    wait_until(lambda: server.connections == 0)


def test_a_connection_on_which_nothing_comes_is_closed_after_a_while(start_server):
    """Before its first request, however long an idle one may stay."""
    server = start_server(hello, limits=Limits(keep_alive=1000, head_timeout=0.05))
    with connect(server) as sock:
        assert sock.rest() == b""


def test_bytes_that_trickle_in_do_not_prolong_the_time_for_a_head(start_server):
    """FAULT 16. Slowloris: a byte now and then, and never the end."""
    server = start_server(hello, limits=Limits(head_timeout=0.2))
    with connect(server) as sock:
        assert sock.ask()[0] == 200
        sock.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(500):
            if select.select([sock], [], [], 0.01)[0]:
                break
            sock.send(b"x")
        else:
            pytest.fail("each byte prolonged the time")
        assert sock.response()[0] == 408


@pytest.mark.parametrize(
    ("part", "limits"),
    [
        (GET[:-2], Limits(head_timeout=0.05)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf", Limits(body_gap_timeout=0.05)),
    ],
    ids=["head", "body"],
)
def test_a_request_that_does_not_come_to_its_end_is_408(start_server, part, limits):
    """On a fresh connection and on one that was used before."""
    server = start_server(hello, limits=limits)
    for before in (b"", GET):
        with connect(server) as sock:
            if before:
                sock.sendall(before)
                assert sock.response()[0] == 200
            sock.sendall(part)
            assert sock.response()[0] == 408
            assert sock.recv(1) == b""


def test_a_view_that_takes_too_long_is_stopped_and_the_client_told(start_server):
    """`request_timeout`: DEADLINE in the view, 503 outside."""
    view = Working()
    server = start_server(view, limits=Limits(request_timeout=0.1))
    with connect(server) as sock:
        assert sock.ask(b"/work")[0] == 503
        assert sock.recv(1) == b""
    assert [stopped.reason for stopped in view.raised] == [mh.StopReason.DEADLINE]


def test_a_request_whose_time_is_over_in_the_queue_never_starts_and_is_told(start_server):
    """503 while the only thread is still busy."""
    with Gate() as gate:

        def view(environ, start_response):
            gate()
            return hello(environ, start_response)

        server = start_server(view, threads=1, limits=Limits(request_timeout=0.1))
        with connect(server) as first, connect(server) as second:
            first.sendall(GET)
            gate.wait_entered()
            second.sendall(GET)
            assert second.response()[0] == 503
            gate.open()


# Errors of the application.


def test_an_application_that_raises_before_the_head_is_500_and_logged(start_server, caplog):
    """FAULT 34. The traceback is in the log only."""

    def view(environ, start_response):
        raise KeyError("secret")

    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(GET)
        status, headers, body = sock.response()
        assert (status, headers["connection"]) == (500, "close")
        assert b"secret" not in body
    (record,) = [record for record in caplog.records if record.name == "manyhands.server"]
    assert "GET / HTTP/1.1" in record.getMessage()
    assert "secret" in str(record.exc_info)
    caplog.clear()  # the traceback's frames hold the server
    del record


@pytest.mark.parametrize("headers", [[], [("Content-Length", "100")]], ids=["chunked", "length"])
def test_an_application_that_raises_in_the_body_cannot_be_taken_for_a_whole_one(start_server, caplog, headers):
    """FAULT 34. The connection ends without the last chunk, or short; `close()` is called once."""
    closed = []

    class Body:
        def __iter__(self):
            yield b"half"
            raise KeyError("halfway")

        def close(self):
            closed.append(1)

    server = start_server(lambda environ, start_response: (start_response("200 OK", headers), Body())[1])
    with connect(server) as sock:
        sock.sendall(GET)
        with pytest.raises(http.client.IncompleteRead):
            sock.response()
    assert closed == [1]
    assert "halfway" in caplog.text
    caplog.clear()


def test_an_application_that_exits_does_not_end_the_server(start_server, caplog):
    """FAULT 34. SystemExit and the like are an error of one request."""

    def view(environ, start_response):
        if environ["PATH_INFO"] == "/exit":
            sys.exit("enough")
        return hello(environ, start_response)

    server = start_server(view)
    assert ask(server, "/exit")[0] == 500
    assert ask(server)[0] == 200
    assert "enough" in caplog.text
    caplog.clear()


# The listener.


def test_there_are_at_most_so_many_connections(start_server):
    """Further clients wait in the kernel's queue and are served when somebody leaves."""
    server = start_server(hello, limits=Limits(connections=2))
    with connect(server) as first, connect(server) as second, connect(server) as third:
        for sock in (first, second):
            sock.sendall(GET)
            assert sock.response()[0] == 200
        third.sendall(GET)
        wait_until(lambda: server._watch.paused)
        assert server.connections == 2
        first.close()
        assert third.response()[0] == 200


def test_without_descriptors_the_listener_backs_off_and_says_so_once(start_server, caplog):
    """T101. The clients wait, and are served as soon as there are descriptors."""
    server = Server(hello, threads=1)
    accept = server._listener.accept
    left = [OSError(errno.ECONNABORTED, "gone"), *(OSError(errno.EMFILE, "too many open files") for _ in range(3))]

    class Short:
        def accept(self):
            if left:
                raise left.pop(0)
            return accept()

    server._listener = Short()
    with server:
        assert ask(server) == (200, b"/")
        assert left == []
        assert [record.levelname for record in caplog.records if "no new connections" in record.getMessage()] == [
            "WARNING"
        ]


def test_a_port_in_use_is_refused_and_nothing_is_left(start_server):
    """OSError at once; the leak line sees the rest."""
    server = start_server(hello)
    with pytest.raises(OSError, match="in use"):
        Server(hello, port=server.address[1])
    with pytest.raises(OSError, match=r"\w"):
        Server(hello, "no.such.host.invalid")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [({"app": None}, TypeError, "app"), ({"threads": 0}, ValueError, "threads"), ({"limits": 5}, TypeError, "limits")],
)
def test_a_server_that_makes_no_sense_is_refused(options, error, words):
    """With the name of what is wrong, before anything is opened."""
    with pytest.raises(error, match=words):
        Server(**{"app": hello, **options})


# The end.


def test_stop_lets_what_is_in_hand_finish_and_closes_what_is_idle(start_server):
    """The response says that the connection ends; nobody new is let in."""
    with Gate() as gate:

        def view(environ, start_response):
            if environ["PATH_INFO"] == "/wait":
                gate()
            return hello(environ, start_response)

        server = start_server(view)
        with connect(server) as busy, connect(server) as idle:
            idle.sendall(GET)
            assert idle.response()[0] == 200
            busy.sendall(get(b"/wait"))
            gate.wait_entered()
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            assert idle.recv(1) == b""
            with pytest.raises(ConnectionError):
                socket.create_connection(server.address, LONG)
            gate.open()
            assert busy.response()[2] == b"/wait"
            assert busy.recv(1) == b""
            stopping.join(LONG)
            assert not stopping.is_alive()


def test_stop_tells_what_does_not_finish_and_its_client(start_server):
    """After the grace: POOL_FINISHING in the view, 503 outside; the queued one never starts."""
    view = Working()
    server = start_server(view, threads=1)
    with connect(server) as running, connect(server) as queued:
        running.sendall(get(b"/work"))
        view.wait_begun()
        queued.sendall(get(b"/work"))
        wait_until(lambda: server.pool.stats().queued == 1)
        assert server.stop(grace=0.05) == []
        assert (running.response()[0], queued.response()[0]) == (503, 503)
    assert [stopped.reason for stopped in view.raised] == [mh.StopReason.POOL_FINISHING]


def test_stop_says_who_runs_all_the_same(start_server, caplog):
    """A view that neither ends nor checks in is returned and logged; a second stop finds it gone."""
    with Gate() as gate:

        def view(environ, start_response):
            gate()
            return hello(environ, start_response)

        server = start_server(view)
        with connect(server) as sock:
            sock.sendall(get(b"/stubborn"))
            gate.wait_entered()
            (left,) = server.stop(grace=0)
            assert left.name == "GET /stubborn"
            assert "GET /stubborn" in caplog.text
            gate.open()
            wait_until(lambda: server.stop() == [])


def test_a_view_cannot_stop_its_own_server(start_server):
    """It would wait for itself."""
    caught = []

    def view(environ, start_response):
        try:
            server.stop()
        except mh.WouldDeadlock as error:
            caught.append(error)
        return hello(environ, start_response)

    server = start_server(view)
    assert ask(server)[0] == 200
    assert len(caught) == 1
    with pytest.raises(ValueError, match="grace"):
        server.stop(grace=-1)


def test_stop_races_requests_and_every_connection_is_accounted_for(start_server):
    """Clients that come, go and ask while the server stops: each gets a whole answer or none; nothing is left."""
    whole = re.compile(
        rb"(HTTP/1.1 200 OK\r\n.*?\r\n\r\n/|HTTP/1.1 503 .*?\r\n\r\n503 Service Unavailable\n)*", re.DOTALL
    )
    for _ in range(10):
        server = Server(hello, threads=2)
        received: list[bytes] = []

        def client(server=server, received=received) -> None:
            try:
                while True:
                    with connect(server) as sock:
                        sock.sendall(GET + GET.replace(b"h\r\n", b"h\r\nConnection: close\r\n"))
                        received.append(sock.rest())
            except ConnectionError:
                pass

        with server:
            clients = [threading.Thread(target=client) for _ in range(4)]
            for thread in clients:
                thread.start()
            wait_until(lambda received=received: len(received) > 20)
            assert server.stop() == []
        for thread in clients:
            thread.join(LONG)
        assert [data for data in received if whole.fullmatch(data) is None] == []


SERVE = """
import sys, threading
import manyhands as mh
from manyhands.server import serve

def app(environ, start_response):
    print("begun", environ["PATH_INFO"], flush=True)
    if environ["PATH_INFO"] == "/work":
        mh.sleep_blocking({work})
    if environ["PATH_INFO"] == "/stubborn":
        threading.Event().wait(60)
    start_response("200 OK", [])
    return [b"done"]

left = serve(app, port=0, threads=2, grace={grace}, on_started=lambda server: print(server.address[1], flush=True))
print("left", [job.name for job in left], flush=True)
"""


@contextmanager
def serving(work: float = 0.3, grace: float = LONG) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """A process that serves until it gets a signal."""
    command = [sys.executable, "-W", "error", "-c", SERVE.format(work=work, grace=grace)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, ("127.0.0.1", int(process.stdout.readline()))
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_in_order(number):
    """FAULT 12. The request in hand is answered; the process ends by itself, with nothing on standard error."""
    with serving() as (process, address), Client(address) as sock:
        sock.sendall(get(b"/work"))
        assert process.stdout.readline() == "begun /work\n"
        process.send_signal(number)
        assert sock.response()[2] == b"done"
        printed, complaints = process.communicate(timeout=START)
        assert (printed, complaints, process.returncode) == ("left []\n", "", 0)


def test_a_signal_stops_what_does_not_finish_in_time():
    """FAULT 12. The client of a view that was told to stop gets 503."""
    with serving(work=60, grace=0.1) as (process, address), Client(address) as sock:
        sock.sendall(get(b"/work"))
        assert process.stdout.readline() == "begun /work\n"
        process.send_signal(signal.SIGINT)
        assert sock.response()[0] == 503
        printed, complaints = process.communicate(timeout=START)
        assert (printed, complaints, process.returncode) == ("left []\n", "", 0)


def test_the_second_signal_ends_the_server_at_once():
    """FAULT 12. With status 130, whoever is left."""
    with serving() as (process, address), Client(address) as sock:
        sock.sendall(get(b"/stubborn"))
        assert process.stdout.readline() == "begun /stubborn\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(ConnectionError):
            wait_until(lambda: socket.create_connection(address, LONG).close())
        process.send_signal(signal.SIGINT)
        before = time.monotonic()
        assert process.wait(START) == 130
        assert time.monotonic() - before < LONG / 2


def test_serve_is_for_the_main_thread(spawn):
    """It alone gets signals."""
    with pytest.raises(RuntimeError, match="main thread"):
        spawn(serve, hello).result()
