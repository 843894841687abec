"""Faults of the system under a server: no descriptor, no memory, no room on the disk, calls that are interrupted or do half."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

from manyhands.server import Limits
from manyhands.server._budget import Budget
from manyhands.server._connection import Connection
from manyhands.server._request import Refused, RequestReader
from reading import refusal
from serving import GET, Client, ask, connect, hello
from support import LONG, wait_until, xoptions

HERE = Path(__file__).parent

POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"

# Descriptors.

FEW = """
import json, logging, os, resource, sys, time
from manyhands.server import Server

records = []

class Kept(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.WARNING:
            records.append(record.getMessage())

logging.getLogger("manyhands").addHandler(Kept())

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]

with Server(app, threads=1, access_log=False) as server:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    print(server.address[1], flush=True)
    for line in sys.stdin:
        print(json.dumps([time.process_time(), records, server.connections]), flush=True)
"""


@pytest.mark.fault
def test_a_server_without_descriptors_costs_nothing_says_so_once_and_serves_again():
    """FAULT 1. 64 descriptors, 300 clients: those that are in are served, the others wait; no CPU, one line of log."""
    with (
        subprocess.Popen([sys.executable, *xoptions(), "-c", FEW], stdin=-1, stdout=-1, text=True) as process,
        ExitStack() as stack,
    ):
        assert process.stdin is not None
        assert process.stdout is not None

        def look() -> tuple[float, list[str], int]:
            process.stdin.write("\n")
            process.stdin.flush()
            return tuple(json.loads(process.stdout.readline()))

        port = int(process.stdout.readline())
        clients = [stack.enter_context(Client(("127.0.0.1", port))) for _ in range(300)]
        wait_until(lambda: look()[1])
        spent, begin = look()[0], monotonic()
        inside = look()[2]
        assert 20 < inside < 64
        for client in clients[:20]:
            assert client.ask()[0] == 200
        # Half a second without anything: five tries.
        waiting = clients[-1]
        waiting.settimeout(0.5)
        waiting.sendall(GET)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        used, records, _ = look()
        assert used - spent < 0.1 * (monotonic() - begin) + 0.1
        assert len(records) == 1
        assert "Too many open files" in records[0]
        assert "ulimit -n" in records[0]
        for client in clients[:-1]:
            client.close()
        begin = monotonic()
        waiting.settimeout(LONG)
        assert waiting.response()[0] == 200
        assert monotonic() - begin < 2
        process.stdin.close()
        assert process.wait(LONG) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM, None])
def test_a_client_that_cannot_be_watched_does_not_end_the_listener(start_server, monkeypatch, caplog, number):
    """FAULT 33, FAULT 1. It is closed; the next one is served; the log says it once. None: Python has no memory."""
    start = Connection.start
    failures = [1, 1]

    def failing(self):
        if failures:
            failures.pop()
            raise MemoryError if number is None else OSError(number, os.strerror(number))
        start(self)

    monkeypatch.setattr(Connection, "start", failing)
    server = start_server(hello, threads=1)
    for _ in range(2):
        with connect(server) as client:
            assert client.rest() == b""
    assert ask(server, "/next") == (200, b"/next")
    wait_until(lambda: server.connections == 0)
    assert [record.levelname for record in caplog.records if "no new connections" in record.getMessage()] == ["WARNING"]


@pytest.mark.parametrize(
    ("number", "status"), [(errno.EMFILE, 503), (errno.ENFILE, 503), (errno.ENOMEM, 503), (errno.ENOSPC, 507)]
)
def test_a_body_for_which_there_is_no_file_is_refused(monkeypatch, number, status):
    """FAULT 30, FAULT 18. What passes is 503, a full disk 507."""

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("manyhands.server._body.tempfile.TemporaryFile", fail)
    assert refusal(POST % 5000 + bytes(5000), Limits(body_memory=1000)).status == status


# The disk.


def long_response(environ, start_response):
    """More than the memory and a socket take; /health is short."""
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/health":
        return [b"ok"]
    return (bytes(100_000) for _ in range(300))


def test_a_response_that_finds_no_room_on_the_disk_ends_the_connection_and_nothing_else(
    start_server, monkeypatch, caplog
):
    """FAULT 30. ENOSPC in the spool of a pinned response: cut short, so that nobody takes it for whole; the log says why."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    server = start_server(long_response, threads=1, limits=Limits(pin_responses=True, response_memory=1000))
    monkeypatch.setattr("manyhands.server._spool.os.pwrite", full)
    with connect(server) as client:
        client.sendall(GET)
        wait_until(lambda: any(record.exc_info for record in caplog.records))
        assert ask(server, "/health") == (200, b"ok")
        assert not client.rest().endswith(b"0\r\n\r\n")
    reason = next(record.exc_info[1] for record in caplog.records if record.exc_info)
    assert "No space left" in str(reason)
    del reason
    wait_until(lambda: server.connections == 0)
    caplog.clear()


def test_a_spool_that_cannot_be_read_back_ends_the_connection_and_nothing_else(start_server, monkeypatch, caplog):
    """FAULT 30. EIO while the strand sends what the job has left."""

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    server = start_server(long_response, threads=1, limits=Limits(pin_responses=True, response_memory=1000))
    monkeypatch.setattr("manyhands.server._spool.os.pread", broken)
    with connect(server) as client:
        client.sendall(GET)
        assert not client.rest().endswith(b"0\r\n\r\n")
    assert ask(server, "/health") == (200, b"ok")
    wait_until(lambda: server.connections == 0)
    caplog.clear()


def test_a_file_of_a_response_that_was_taken_to_the_end_is_closed(start_server, monkeypatch):
    """By the job, which has written all of it itself before its last piece: nothing is left to the collector."""
    files = []
    make = tempfile.TemporaryFile
    taken = threading.Event()

    def kept(**options):
        files.append(make(**options))
        return files[-1]

    def view(environ, start_response):
        start_response("200 OK", [])

        def pieces():
            for _ in range(200):
                yield bytes(100_000)
            while True:
                yield b"x"
                if taken.wait(0.001) and not files[0].closed:
                    return

        return pieces()

    monkeypatch.setattr("manyhands.server._spool.tempfile.TemporaryFile", kept)
    server = start_server(view, threads=1, limits=Limits(pin_responses=True, response_memory=1000))
    with connect(server) as client:
        client.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        wait_until(lambda: files)
        received = 0
        while received < 20_000_000:
            received += len(client.recv(1 << 20))
        taken.set()
        assert client.rest().endswith(b"0\r\n\r\n")
        wait_until(lambda: not server.pool.jobs())
        assert [file.closed for file in files] == [True]


# Memory.


def test_bodies_of_all_clients_have_one_bound_in_memory(start_server):
    """FAULT 18. Beyond it they go to files, one by one; what a request has had is given back when it ends."""

    def view(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [b"%d" % len(body)]

    server = start_server(view, threads=1, limits=Limits(body_memory=100_000))
    server.budget = Budget(300_000)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(10)]
        for client in clients:
            client.sendall(POST % 90_000 + bytes(89_999))
        # Three at most fit, and fewer if all of them began at once.
        wait_until(lambda: [connection._reader._left for connection in server.listener.connections] == [1] * 10)
        assert sum(connection._reader._body._file is not None for connection in server.listener.connections) >= 7
        assert server.budget.taken <= 300_000
        assert ask(server, "/", "POST", bytes(10)) == (200, b"10")
        clients[0].reset()
        for client in clients[1:]:
            client.sendall(b"x")
            assert client.response()[2] == b"90000"
            assert client.ask()[2] == b"0"
    wait_until(lambda: server.connections == 0)
    assert server.budget.taken == 0


def test_a_request_for_which_there_is_no_memory_is_503(start_server, monkeypatch):
    """FAULT 18. It is the request's fault, and not an error of the reader's."""

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("manyhands.server._request.read_headers", fail)
    assert refusal(POST % 1 + b"x").status == 503
    monkeypatch.setattr("manyhands._core.plain_request", fail)
    reader = RequestReader(Limits())
    with pytest.raises(Refused, match="^503"):
        reader.take_plain(GET, {}, ("", 0))
    assert reader.over
    reader.close()
    server = start_server(hello)
    with connect(server) as sock:
        sock.sendall(GET)
        assert sock.response()[0] == 503
        assert sock.rest() == b""
    assert server.refused() == {503: 1}


# Calls that are interrupted, or do half of what was asked.

SUITE = ("test_bodies.py", "test_files.py", "test_slow_clients.py", "test_streams.py")
NOT_MEANT = "not (kernel or little_is_made or sends_far_ahead or hold_no_thread or holds_one_piece)"
"""Tests that count what single calls take, or who waits: a call that finds nothing is made again, and nobody waits for it."""


def run_suite(names: tuple[str, ...], *before: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *xoptions(), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--show-capture=no"]
    return subprocess.run(
        [*before, *command, "-k", NOT_MEANT, *(str(HERE / name) for name in names)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=HERE.parent.parent,
        env={**os.environ, "MANYHANDS_TEST_PATIENCE": "3", **environment},
    )


@pytest.mark.whole
@pytest.mark.fault
def test_the_server_s_tests_pass_where_every_call_does_a_part():
    """FAULT 30. A third of all reads and writes find nothing, the others take a few bytes."""
    done = run_suite((*SUITE, "test_websocket.py"), MANYHANDS_TEST_FAULTS="short")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.stress
@pytest.mark.fault
@pytest.mark.parametrize(
    ("calls", "error"),
    [
        ("recvfrom,sendto,accept4,sendfile,pwrite64,pread64,epoll_wait,epoll_pwait,epoll_pwait2", "EINTR"),
        ("recvfrom,sendto,sendfile", "EAGAIN"),
        ("accept4", "ENOMEM"),  # each costs the listener a tenth of a second
    ],
)
def test_the_server_s_tests_pass_where_the_kernel_refuses_a_call_now_and_then(calls, error):
    """FAULT 30. Every third or seventh of these fails: interrupted, not ready after all, no memory for another connection."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    with tempfile.NamedTemporaryFile("r") as trace:
        every = 7 if error == "ENOMEM" else 3
        inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when=3+{every}"]
        # A client of `websockets` takes "not ready" on a socket that blocks for its end.
        names = ("test_bodies.py", "test_files.py", "test_websocket.py") if error == "EINTR" else SUITE
        done = run_suite(names, "strace", "-f", "-qq", "--seccomp-bpf", "-o", trace.name, *inject)
        injected = "INJECTED" in trace.read()
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stdout + done.stderr
    assert injected
    assert " passed" in done.stdout
