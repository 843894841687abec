"""Clients that take their time, and views that do: limits, and whose thread it costs."""

from __future__ import annotations

import os
import select
import threading
from contextlib import ExitStack

import pytest

import manyhands as mh
from gate import Gate
from manyhands.server import Connection, Limits
from serving import GET, Working, ask, connect, get, hello
from support import LONG, wait_until


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
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        for _ in range(3):
            before = len(produced)
            received = 0
            while received < 8 << 20:
                received += len(sock.recv(1 << 20))
            wait_until(lambda: server.pool.stats().syncing_parked == 1)
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
            wait_until(lambda: connection._held)
            assert connection._reader.waiting <= 16_384 + 4096
            assert connection._reader.waiting_requests <= 16 + 4096 // len(GET) + 1
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


def test_a_first_request_that_is_over_before_the_connection_is_timed_is_idle_like_any_other(start_server, monkeypatch):
    """Its first deadline is set by a post, which may come behind the first response: then it is not the time for a head."""
    answered = threading.Event()
    posts = []
    post = Connection._post

    def late(self, callback):
        if callback == self._on_started:
            posts.append(callback)
        else:
            post(self, callback)

    monkeypatch.setattr(Connection, "_post", late)
    server = start_server(hello, limits=Limits(keep_alive=0.2, head_timeout=1000))
    with connect(server) as sock:
        assert sock.ask()[0] == 200
        wait_until(lambda: server.connection_states() == {"idle": 1} and not server.pool.jobs())
        (started,) = posts
        (connection,) = server.listener.connections
        post(connection, started)
        post(connection, answered.set)
        assert answered.wait(LONG)
        assert sock.rest() == b""


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


def test_bytes_that_trickle_in_do_not_prolong_the_time_for_a_request(start_server):
    """FAULT 16. Each byte of the body comes in time, and the whole does not; the next request has its own time."""
    server = start_server(hello, limits=Limits(request_timeout=0.2))
    with connect(server) as sock:
        for _ in range(3):
            sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n")
            sock.sendall(b"ab")
            assert sock.response()[0] == 200
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n")
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
