"""What becomes of a request whose client has gone."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest

import manyhands as mh
from gate import Gate
from manyhands.server import Server
from manyhands.server._connection import Connection
from manyhands.server._wire import Wire
from serving import GET, Client, Working, ask, connect, get, hello
from support import LONG, wait_until


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


def test_a_job_that_sees_first_that_its_client_has_gone_counts_as_stopped(start_server, monkeypatch):
    """Its write fails while another thread is at the end of the connection, and comes to tell the job only after that."""
    with Gate() as gate:

        def view(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            yield b"a part"
            gate()
            while True:
                yield b"more"

        server = start_server(view)
        with connect(server) as sock, monkeypatch.context() as late:
            sock.sendall(GET)
            gate.wait_entered()
            for step in ("_on_end_of_input", "_on_hang_up", "abandon"):
                late.setattr(Connection, step, lambda *_args, **_options: None)
            sock.reset()
            gate.open()
            wait_until(lambda: server.pool.stats().running == 0)
            stats = server.pool.stats()
            assert (stats.stopped, stats.finished) == (1, 0)


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


def test_a_client_that_closes_its_half_is_answered_if_that_is_the_policy(start_server, access):
    """FAULT 3. `half_close="finish"`: all that it sent is answered, and nothing is told to stop; then it is closed."""
    with Gate() as gate:
        connections = []

        def view(environ, start_response):
            connections.append(environ["manyhands.connection"])
            gate()
            mh.check_in()
            return hello(environ, start_response)

        server = start_server(view, half_close="finish")
        with connect(server) as sock:
            sock.sendall(get(b"/first") + get(b"/second"))
            gate.wait_entered()
            sock.shutdown(socket.SHUT_WR)
            wait_until(lambda: connections[0]._input_over)
            assert not connections[0].gone
            gate.open()
            assert sock.response()[2] == b"/first"
            assert sock.response()[2] == b"/second"
            assert sock.rest() == b""
    assert access() == [("GET /first HTTP/1.1", 200), ("GET /second HTTP/1.1", 200)]
    wait_until(lambda: server.connections == 0)


@pytest.mark.parametrize("half", [False, True], ids=["at once", "after the half-close"])
def test_a_reset_ends_a_request_whatever_the_policy(start_server, half):
    """After the half-close nothing is read any more, and a reset is heard all the same."""
    view = Working()
    server = start_server(view, half_close="finish")
    with connect(server) as sock:
        sock.sendall(get(b"/work"))
        view.wait_begun()
        (job,) = view.jobs
        if half:
            sock.shutdown(socket.SHUT_WR)
            (connection,) = server.listener.connections
            wait_until(lambda: connection._input_over)
            assert job.reason is None
        sock.reset()
        wait_until(lambda: job.status is mh.JobStatus.STOPPED)
    assert job.reason is mh.StopReason.OWNER_GONE
    assert view.raised


def test_urgent_data_before_the_end_is_nothing_to_the_server(start_server):
    """It is asked to report such data, as that is what it can ask for without asking for anything."""
    with Gate() as gate:

        def view(environ, start_response):
            gate()
            return hello(environ, start_response)

        server = start_server(view, half_close="finish")
        with connect(server) as sock:
            sock.sendall(GET)
            gate.wait_entered()
            sock.send(b"?", socket.MSG_OOB)
            sock.shutdown(socket.SHUT_WR)
            (connection,) = server.listener.connections
            wait_until(lambda: connection._input_over)
            gate.open()
            assert sock.response()[2] == b"/"
            assert sock.rest() == b""


def test_a_policy_that_does_not_exist_is_refused():
    """By its name, at once."""
    with pytest.raises(ValueError, match="half_close"):
        Server(hello, half_close="perhaps")


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


def test_a_client_that_goes_with_its_whole_response_stops_nobody(start_server, monkeypatch):
    """The view is still tidying up when the client closes: it is not told to stop, nor when the connection ends before it."""
    post = Connection._post

    def post_and_wait(connection, callback):
        post(connection, callback)
        if callback.__name__ == "_after_job":  # the job has not ended
            wait_until(lambda: connection.fileno() == -1)

    monkeypatch.setattr(Connection, "_post", post_and_wait)
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
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        sock.sendall(GET * 3000)
        wait_until(lambda: found["connection"]._held)
        sock.reset()
        wait_until(lambda: found["job"].status is mh.JobStatus.STOPPED)
        assert found["job"].reason is mh.StopReason.OWNER_GONE
        wait_until(lambda: server.connections == 0)
    found.clear()


def test_the_number_of_a_socket_is_not_given_to_another_while_a_job_may_write_to_it(start_server):
    """The connection has ended, and the view is still at work: only its end closes the socket."""
    with Gate() as gate:

        def view(environ, start_response):
            gate()
            return hello(environ, start_response)

        server = start_server(view)
        with connect(server) as sock:
            sock.sendall(GET)
            gate.wait_entered()
            (connection,) = server.listener.connections
            sock.reset()
        wait_until(lambda: connection.gone and server.connections == 0)
        assert connection.fileno() >= 0
        gate.open()
        wait_until(lambda: connection.fileno() == -1)


def test_a_client_that_is_not_read_any_more_and_goes_stops_a_view_that_writes_nothing(start_server):
    """It sent too much ahead, and reset the connection while the view works: a reset is told without reading."""
    view = Working()
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/work"))
        view.wait_begun()
        sock.sendall(GET * 3000)
        wait_until(lambda: [connection for connection in server.listener.connections if connection._held])
        sock.reset()
        wait_until(lambda: view.raised and server.connections == 0)
    assert view.raised[0].reason is mh.StopReason.OWNER_GONE
    view.raised.clear()


def test_urgent_bytes_keep_nobody_busy(start_server, monkeypatch):
    """While a client is not read, its urgent byte would be reported without end: it is taken out."""
    ready = []
    drop_urgent = Wire.drop_urgent

    def counted(wire):
        ready.append(1)
        drop_urgent(wire)

    monkeypatch.setattr(Wire, "drop_urgent", counted)
    view = Working()
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/work"))
        view.wait_begun()
        sock.sendall(GET * 3000)
        wait_until(lambda: [connection for connection in server.listener.connections if connection._held])
        for sent in range(1, 4):
            sock.send(b"!", socket.MSG_OOB)
            wait_until(lambda sent=sent: len(ready) >= sent)
        for _ in range(10):
            assert ask(server, "/") == (200, b"/")
        assert len(ready) == 3
        sock.reset()
        wait_until(lambda: view.raised and server.connections == 0)
    view.raised.clear()


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
