"""Responses in pieces: whose thread they cost, what is kept of them, and how they end."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from contextlib import ExitStack
from types import ModuleType

import pytest

import manyhands as mh
from gate import Gate
from manyhands.server import Connection, Limits
from manyhands.server._spool import Spool
from serving import GET, ask, connect, get, hello
from support import LONG, wait_until

PIECE = bytes(65_536)


class Endless:
    """A view whose stream never ends; `/health` answers at once. Says who was closed."""

    def __init__(self) -> None:
        self.closed: list[int] = []
        self.threads: set[str] = set()

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/health":
            return hello(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self.pieces(int(environ["PATH_INFO"][1:] or 0))

    def pieces(self, number):
        try:
            while True:
                self.threads.add(threading.current_thread().name)
                yield PIECE
        finally:
            self.closed.append(number)


def test_readers_of_a_byte_at_a_time_hold_no_thread(start_server):
    """A hundred of them at an endless stream, and two threads: another client is answered, and each stream ends with its
    reader.
    """
    view = Endless()
    server = start_server(view, threads=2)
    with ExitStack() as stack:
        readers = [stack.enter_context(connect(server)) for _ in range(100)]
        for number, sock in enumerate(readers):
            sock.sendall(get(b"/%d" % number))
        wait_until(lambda: server.pool.stats().syncing_parked == 100)
        for _ in range(3):
            assert [sock.recv(1) for sock in readers] != []
            assert ask(server, "/health") == (200, b"/health")
        wait_until(lambda: server.pool.stats().busy == 0)  # the last answer came a moment before its job's end
        assert server.pool.stats().syncing_held == 0
        for sock in readers[:50]:
            sock.reset()
        wait_until(lambda: sorted(view.closed) == list(range(50)))
        assert server.pool.stats().syncing_parked == 50
        for sock in readers[50:]:
            sock.close()
        wait_until(lambda: sorted(view.closed) == list(range(100)))
    wait_until(lambda: server.pool.stats().stopped == 100)


def test_a_stream_that_waits_for_its_client_costs_one_descriptor(start_server):
    """The connection's own watch tells of room, and no other."""
    server = start_server(Endless())
    with ExitStack() as stack:
        readers = [stack.enter_context(connect(server)) for _ in range(20)]
        wait_until(lambda: server.connections == 20)
        before = server.loop.stats().watches, len(os.listdir("/proc/self/fd"))
        for sock in readers:
            sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_parked == 20)
        assert (server.loop.stats().watches, len(os.listdir("/proc/self/fd"))) == before


def test_a_client_with_room_again_keeps_nobody_busy(start_server, monkeypatch):
    """The view takes its time for the next piece: that there is room is not reported again and again."""
    ready = []
    on_more = Connection._on_more_than_input

    def counted(connection, events):
        ready.append(events)
        on_more(connection, events)

    monkeypatch.setattr(Connection, "_on_more_than_input", counted)
    with Gate() as gate:

        def view(environ, start_response):
            if environ["PATH_INFO"] != "/stream":
                return hello(environ, start_response)
            start_response("200 OK", [])
            return pieces()

        def pieces():
            yield bytes(16 << 20)
            gate()
            yield b"last"

        server = start_server(view)
        with connect(server) as sock:
            sock.sendall(get(b"/stream"))
            wait_until(lambda: server.pool.stats().syncing_parked == 1)
            body = threading.Thread(target=sock.response)
            body.start()
            gate.wait_entered()
            assert ask(server, "/health") == (200, b"/health")  # a report may have been on its way
            seen = len(ready)
            for _ in range(20):
                assert ask(server, "/health") == (200, b"/health")
            assert len(ready) == seen
            gate.open()
            body.join(LONG)


def test_little_is_made_ahead_for_a_client_that_reads_nothing(start_server):
    """FAULT 15. The kernel would take megabytes of a stream by itself: what it takes, and one piece."""
    made = []

    def view(environ, start_response):
        start_response("200 OK", [])
        while True:
            made.append(1)
            yield bytes(16_384)

    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        assert len(made) * 16_384 < 1 << 20


def test_a_reader_that_is_fast_lets_others_have_the_thread(start_server):
    """One thread, and a stream that never has to wait for its client: between two pieces the other request is served."""
    view = Endless()
    server = start_server(view, threads=1)
    with connect(server) as fast:
        fast.sendall(GET)
        over = threading.Event()

        def drain():
            while fast.recv(1 << 20) and not over.is_set():
                pass

        reader = threading.Thread(target=drain)
        reader.start()
        for _ in range(5):
            assert ask(server, "/health") == (200, b"/health")
        over.set()
        reader.join(LONG)
    wait_until(lambda: view.closed == [0])


def test_the_bytes_of_a_stream_are_in_order_whoever_makes_them(start_server):
    """Pieces of many sizes for a slow reader; every thread of the pool may make one."""
    pieces = [os.urandom(size) for size in (1, 70_000, 300_000, 5, 1_000_000, 0, 2_000_000)] * 4
    seen = []

    def view(environ, start_response):
        start_response("200 OK", [])
        for number, piece in enumerate(pieces):
            assert mh.current_job() is environ["manyhands.job"]
            seen.append(number)
            yield piece

    server = start_server(view, threads=2)
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        assert sock.response()[2] == b"".join(pieces)
        assert sock.ask()[0] == 200
    assert seen[: len(pieces)] == list(range(len(pieces)))


def test_a_stream_that_fails_between_two_steps_is_cut(start_server, caplog):
    """FAULT 34. It had a thread, gave it back, and raised on the next one: no last chunk, and the log has the reason."""
    go_on = threading.Event()

    def view(environ, start_response):
        start_response("200 OK", [])
        yield bytes(16 << 20)
        assert go_on.wait(LONG)
        raise ValueError("halfway through")

    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        go_on.set()
        received = sock.rest()
        assert len(received) > 16 << 20
        assert not received.endswith(b"0\r\n\r\n")
    wait_until(lambda: "halfway through" in caplog.text)
    caplog.clear()  # the traceback refers to the server


def test_a_stream_whose_time_is_over_while_its_client_has_no_room_is_stopped(start_server):
    """`request_timeout` reaches a job that has no thread."""
    view = Endless()
    server = start_server(view, limits=Limits(request_timeout=0.2))
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: view.closed == [0])
        wait_until(lambda: server.connections == 0)


def test_a_client_that_takes_nothing_for_too_long_ends_its_stream(start_server):
    """`body_gap_timeout` in a sync without a thread."""
    view = Endless()
    server = start_server(view, limits=Limits(body_gap_timeout=0.2))
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: view.closed == [0])
        wait_until(lambda: server.connections == 0)


def test_a_server_that_stops_ends_its_streams(start_server):
    """A stream without a thread is told, and closed, within the grace."""
    view = Endless()
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        assert server.stop(grace=0) == []
    assert view.closed == [0]


# Pinned.


def test_a_pinned_response_stays_on_its_thread_and_lets_it_go_at_its_end(start_server):
    """Longer than the memory: the rest is in a file, the only thread serves others, and the client gets every byte."""
    pieces = [os.urandom(1 << 20) for _ in range(16)]
    threads = []

    def view(environ, start_response):
        if environ["PATH_INFO"] == "/health":
            return hello(environ, start_response)
        base = sqlite3.connect(":memory:")  # refuses every other thread

        def rows():
            try:
                for piece in pieces:
                    threads.append(threading.current_thread().name)
                    (row,) = base.execute("select ?", (piece,)).fetchone()
                    yield row
            finally:
                base.close()
                threads.append(threading.current_thread().name)

        start_response("200 OK", [])
        return rows()

    server = start_server(view, threads=1, limits=Limits(pin_responses=True))
    with connect(server) as sock:
        sock.sendall(get(b"/rows"))
        wait_until(lambda: len(threads) == len(pieces) + 1)
        assert len(set(threads)) == 1
        assert ask(server, "/health") == (200, b"/health")
        wait_until(lambda: server.pool.stats().busy == 0)
        assert sock.response()[2] == b"".join(pieces)
        assert sock.ask(b"/health")[2] == b"/health"


def test_a_pinned_response_ends_with_its_client(start_server):
    """It never waits for the client, and is stopped all the same."""
    view = Endless()
    server = start_server(view, limits=Limits(pin_responses=True))
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: view.threads)
        sock.reset()
        wait_until(lambda: view.closed == [0])
    assert len(view.threads) == 1


def test_a_pinned_response_without_an_end_waits_when_its_file_is_full(start_server, monkeypatch):
    """The disk is finite: then the thread is held after all."""
    monkeypatch.setattr("manyhands.server._answer.SPOOL_BYTES", 4 << 20)
    view = Endless()
    server = start_server(view, limits=Limits(pin_responses=True))
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_held == 1)
        assert sock.recv(1) == b"H"
        sock.reset()
        wait_until(lambda: view.closed == [0])


def test_the_old_write_does_not_wait_for_the_client(start_server):
    """What `write()` is given beyond the client's room is spooled, in order before what the iterable gives."""
    body = os.urandom(24 << 20)
    with Gate() as gate:

        def view(environ, start_response):
            write = start_response("200 OK", [("Content-Length", str(len(body) + 3))])
            for start in range(0, len(body), 1 << 20):
                write(body[start : start + (1 << 20)])
            gate()
            return iter([b"end"])

        server = start_server(view, threads=1)
        with connect(server) as sock:
            sock.sendall(GET)
            gate.wait_entered()
            gate.open()
            assert sock.response()[2] == body + b"end"


def test_the_old_write_waits_when_the_file_is_full(start_server, monkeypatch):
    """As a pinned response does."""
    monkeypatch.setattr("manyhands.server._answer.SPOOL_BYTES", 4 << 20)
    stopped = threading.Event()

    def view(environ, start_response):
        write = start_response("200 OK", [])
        try:
            while True:
                write(PIECE)
        except mh.JobStopped:
            stopped.set()
            raise

    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_held == 1)
        sock.reset()
        assert stopped.wait(LONG)


def test_a_django_application_is_pinned_unless_it_is_said(start_server, monkeypatch):
    """Its database connections refuse other threads."""

    class WSGIHandler:
        def __call__(self, environ, start_response):
            return hello(environ, start_response)

    handlers = ModuleType("django.core.handlers.wsgi")
    handlers.WSGIHandler = WSGIHandler
    monkeypatch.setitem(sys.modules, "django.core.handlers.wsgi", handlers)
    assert start_server(WSGIHandler()).pin_responses
    assert not start_server(WSGIHandler(), limits=Limits(pin_responses=False)).pin_responses
    assert not start_server(hello).pin_responses
    with pytest.raises(TypeError, match="pin_responses"):
        Limits(pin_responses=1)


# What is kept.


@pytest.mark.parametrize("limit", [0, 1, 7, 100, None])
def test_a_spool_gives_what_it_was_given(limit):
    """In memory, in the file, and back: first in, first out, however it is taken."""
    spool = Spool(limit)
    given = taken = b""
    for number in range(300):
        piece = os.urandom(number % 13)
        spool.append(piece, spill=number % 5 != 0)
        given += piece
        if number % 3 == 0:
            front = spool.front()
            count = min(len(front), number % 17)
            taken += front[:count]
            if count:
                spool.advance(count)
        assert len(spool) == len(given) - len(taken)
    assert (spool.in_file > 0) is (limit is not None)
    parts = []

    def write(piece):
        parts.append(bytes(piece[:5]))
        return min(len(piece), 5)

    while spool:
        spool.write_to(write)
    assert taken + b"".join(parts) == given
    spool.append(b"again")
    spool.close()
    assert not spool
    assert spool.write_to(write) == 0


def test_what_waits_in_the_file_is_not_in_the_memory_too():
    """Ten thousand clients that have taken a byte each would hold a gigabyte of what they have not taken."""
    spool = Spool(0)
    spool.append(b"x" * 300_000)
    assert spool.write_to(lambda piece: 1) == 1
    assert len(spool) == spool.in_file == 299_999
    spool.close()
