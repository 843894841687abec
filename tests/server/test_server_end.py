"""How a server ends: stop, grace, signals."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import manyhands as mh
from commands import START
from gate import Gate
from manyhands.server import Server, serve
from serving import GET, Client, Working, ask, connect, get, hello
from support import LONG, wait_until


def test_stop_lets_what_is_in_hand_finish_and_closes_what_is_idle(start_server):
    """The response says that the connection ends; nobody new is let in. The view would hear of its end at once."""
    entered, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def view(environ, start_response):
        if environ["PATH_INFO"] == "/wait":
            entered.set()
            try:
                mh.blocking.wait(go_on, LONG)
            finally:
                ended.set()
        return hello(environ, start_response)

    server = start_server(view)
    with connect(server) as busy, connect(server) as idle:
        idle.sendall(GET)
        assert idle.response()[0] == 200
        busy.sendall(get(b"/wait"))
        assert entered.wait(LONG)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert idle.recv(1) == b""
        with pytest.raises(ConnectionError):
            socket.create_connection(server.address, LONG)
        assert not ended.wait(0.1)
        go_on.set()
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


def test_a_second_stop_makes_the_first_one_shorter(start_server):
    """On another thread, where both wait for the end; in a signal's handler within the first, which returns at once."""
    view = Working()
    for nested in (False, True):
        server = start_server(view, threads=1)
        with connect(server) as sock:
            sock.sendall(get(b"/work"))
            wait_until(lambda server=server: server.pool.stats().busy == 1)
            again = []
            if nested:
                server.on_stop = lambda server=server, again=again: again.append(server.stop(grace=0))
            stopping = threading.Thread(target=server.stop, args=(100 * LONG,))
            stopping.start()
            wait_until(lambda server=server: server.stopping)
            if not nested:
                again.append(server.stop(grace=0))
            stopping.join(LONG)
            assert not stopping.is_alive()
            assert server.loop.closed
            assert again == [[]]


def test_a_server_that_is_stopped_before_it_has_begun_says_nothing(caplog, monkeypatch):
    """As a worker may be, which is told to end while it starts: nothing is lost, so nothing is said of it."""
    server = Server(hello)
    monkeypatch.setattr(server.loop, "start", lambda: None)  # no thread of its own is there yet
    server.start()
    assert server.stop() == []
    assert [record.getMessage() for record in caplog.records] == []


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
