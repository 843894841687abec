"""The demo of the loop: that it shows real figures, and that it finds a server out that is not right."""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from commands import assert_no_complaint, run_command
from manyhands.cli import demo_echo
from manyhands.cli._demo_process import DemoProcess
from manyhands.cli._failure import Failure
from manyhands.cli._load import Load, LoadRun, Wrong
from support import LONG

pytestmark = pytest.mark.whole

Serve = Callable[[socket.socket], None]


@contextmanager
def serving(serve: Serve) -> Iterator[tuple[str, int]]:
    """A server with a plain thread per connection, which does with it what `serve` does, right or wrong."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve_quietly(sock: socket.socket) -> None:
        with suppress(OSError), sock:
            serve(sock)

    def accept() -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                connections.append(sock)
                threads.append(threading.Thread(target=serve_quietly, args=(sock,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(LONG)
        for sock in connections:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(LONG)


def echo(sock: socket.socket) -> None:
    """Echo as it should be."""
    while data := sock.recv(65_536):
        sock.sendall(data)


def echo_with_one_byte_changed(sock: socket.socket) -> None:
    """Echo, but change a byte of the fifth piece."""
    pieces = 0
    while data := sock.recv(65_536):
        pieces += 1
        sock.sendall(data if pieces != 5 else bytes([data[0] ^ 1]) + data[1:])


def echo_a_byte_twice(sock: socket.socket) -> None:
    """Echo, but with one byte too many."""
    while data := sock.recv(65_536):
        sock.sendall(data + data[-1:])


def echo_a_part_and_close(sock: socket.socket) -> None:
    """Lose the end of an answer."""
    sock.sendall(sock.recv(65_536)[:-1])


def echo_nothing(sock: socket.socket) -> None:
    """Take everything and give nothing."""
    while sock.recv(65_536):
        pass


def echo_and_never_close(sock: socket.socket) -> None:
    """Echo well, but miss the end of the stream."""
    echo(sock)
    threading.Event().wait(2)


def test_what_a_right_server_gives_back_is_counted() -> None:
    """Against a server that is not ours: the load knows sockets, not manyhands."""
    with serving(echo) as address:
        load = LoadRun(address, connections=8, seconds=0.3).run()
    assert load.requests == len(load.latencies) > 8
    assert load.bytes > load.requests
    assert 0 < load.percentile(0.5) <= load.percentile(0.99) < LONG


@pytest.mark.parametrize(
    ("serve", "clause"),
    [
        (echo_with_one_byte_changed, "got other bytes back than it sent"),
        (echo_a_byte_twice, "got other bytes back than it sent"),
        (echo_a_part_and_close, "was closed by the server in request 0"),
        (echo_nothing, r"8 of 8 connections waited 0\.5 s in vain, the first of them for .* bytes of answer 0"),
        (echo_and_never_close, "in vain, the first of them for the server to close it"),
    ],
)
def test_a_server_that_is_wrong_is_found_out(serve: Serve, clause: str) -> None:
    """Changed, doubled and lost bytes, silence, and a connection that is never closed."""
    with serving(serve) as address, pytest.raises(Wrong, match=clause):
        LoadRun(address, connections=8, seconds=0.2, patience=0.5).run()


def test_a_server_that_is_not_there_is_found_out() -> None:
    """The sentence names the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(Wrong, match=r"connection 0 of 3 was not accepted \(.*refused"):
        LoadRun(address, connections=3, seconds=0.2, patience=0.5).run()


def test_percentiles_are_latencies_that_were_measured() -> None:
    """No interpolation; of nothing it is 0."""
    load = Load(latencies=[0.004, 0.001, 0.003, 0.002])
    assert [load.percentile(share) for share in (0.0, 0.5, 0.99, 1.0)] == [0.001, 0.003, 0.004, 0.004]
    assert Load().percentile(0.5) == 0.0


def test_the_demo_shows_the_figures_and_the_server_s_summary() -> None:
    """The whole command, with real traffic on several threads; the server's books agree with the client's."""
    done = run_command("demo", "echo", "--connections", "50", "--seconds", "0.7", "--threads", "3")
    assert done.returncode == 0, done.stderr
    assert_no_complaint(done.stderr)
    for line in (
        r"requests +[\d,]+, every byte as it must be",
        r"requests per second +[1-9][\d,]*",
        r"latency +p50 \d+\.\d\d ms, p99 \d+\.\d\d ms",
        r"server's CPU +\d+\.\d us per request",
        r"ended by SIGINT after",
        r"connections +50(, [0-9]+ still open)?$",
        r"handlers per thread +main [\d,]+, echo-1 [\d,]+, echo-2 [\d,]+$",
    ):
        assert re.search(line, done.stdout, re.MULTILINE), done.stdout


def test_books_that_do_not_agree_are_found_out() -> None:
    """The bytes that came back right are the bytes of the server's summary, no more and no fewer."""
    load = Load(requests=10, bytes=12_345)
    demo_echo.check(load, "  messages 10\n  bytes                12,345\n")
    with pytest.raises(Failure, match="12,345 bytes came back right, but the server's summary says otherwise"):
        demo_echo.check(load, "  messages 10\n  bytes                12,344\n")
    with pytest.raises(Failure, match="no request was answered"):
        demo_echo.check(Load(), "  bytes                0\n")


def test_a_server_that_cannot_start_is_reported_with_its_own_words() -> None:
    """The demo's sentence holds the server's."""
    with (
        pytest.raises(Failure, match="the server did not start. It said: .*there is no port 70000"),
        DemoProcess(["echo", "--port", "70000"], demo_echo.LISTENS),
    ):
        pass


def test_a_server_that_dies_on_the_way_is_reported() -> None:
    """Its status is in the sentence."""
    with DemoProcess(["echo", "--port", "0"], demo_echo.LISTENS) as server:
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        with pytest.raises(
            Failure, match="did not end as it should. The server has ended with status -9 and said nothing"
        ):
            server.end()


def test_a_demo_with_more_connections_than_descriptors_says_what_to_do() -> None:
    """One sentence, status 1, before anything is started."""
    done = run_command("demo", "echo", "--connections", "500", max_descriptors=256)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a demo with 500 connections needs" in done.stderr and "ulimit -n" in done.stderr
