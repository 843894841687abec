"""The server on real sockets: what its clients get."""

from __future__ import annotations

import errno
import http.client
import os
import re
import sys

import pytest

import manyhands as mh
from gate import Gate
from manyhands.server import Limits, Server
from serving import GET, ask, connect, get, hello
from support import wait_until


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


def test_a_body_of_the_limit_arrives_and_one_byte_more_is_too_much(start_server):
    """413 by its announcement; the client reads it although it goes on sending."""
    server = start_server(
        lambda environ, start_response: [start_response("200 OK", []), environ["wsgi.input"].read()][1:],
        limits=Limits(body_bytes=1 << 20),
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
        sock.sendall(head % (1 << 27))
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
        wait_until(lambda: server.listener._watch.paused)
        assert server.connections == 2
        first.close()
        assert third.response()[0] == 200


def test_a_client_that_sends_ahead_gets_the_whole_response_that_ends_its_connection(start_server):
    """The application closes, the client did not know: what it sends meanwhile must not cost it what was sent to it."""
    body = bytes(300_000)

    def view(environ, start_response):
        start_response("200 OK", [("Connection", "close")])
        return [body]

    server = start_server(view)
    with connect(server) as client:
        client.sendall(GET)
        wait_until(lambda: server.connection_states() == {"closing": 1} or server.connections == 0)
        client.sendall(GET)
        status, headers, received = client.response()
        assert (status, headers["connection"], len(received)) == (200, "close", len(body))
        assert client.rest() == b""
    wait_until(lambda: server.connections == 0)


def test_without_descriptors_the_listener_backs_off_and_says_so_once(start_server, caplog):
    """T101. The clients wait, and are served as soon as there are descriptors."""
    server = Server(hello, threads=1)
    listening = server._listening.socket
    left = [OSError(errno.ECONNABORTED, "gone"), *(OSError(errno.EMFILE, "too many open files") for _ in range(3))]

    class Short:
        def accept(self):
            if left:
                raise left.pop(0)
            return listening.accept()

        def __getattr__(self, name):
            return getattr(listening, name)

    server._listening.socket = Short()
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


def test_the_stats_of_a_server_are_of_its_connections_and_its_requests(start_server):
    """One idle, one with a request in hand, one that was refused."""
    with Gate() as gate:

        def view(environ, start_response):
            if environ["PATH_INFO"] == "/wait":
                gate()
            return hello(environ, start_response)

        server = start_server(view, name="shop")
        with connect(server) as idle, connect(server) as busy, connect(server) as wrong:
            assert idle.ask()[0] == 200
            wrong.sendall(b"rubbish\r\n\r\n")
            assert wrong.response()[0] == 400
            busy.sendall(get(b"/wait"))
            gate.wait_entered()
            wait_until(lambda: server.stats().requests.busy == 1)
            stats = server.stats()
            assert (stats.name, stats.refused, stats.requests.submitted) == ("shop", {400: 1}, 2)
            assert (stats.connections["idle"], stats.connections["busy"]) == (1, 1)
            gate.open()
            assert busy.response()[0] == 200
