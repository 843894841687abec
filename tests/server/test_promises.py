"""The three promises of the server: nobody works for who has gone, nobody slow holds a thread, nobody is forgotten at the end.

How fast each is kept on a quiet machine is for the benchmarks `serve_gone`, `serve_slow` and `serve_end` to say. Here are
bounds that hold beside other tests, and what is no question of time: whose thread is held, and what became of each request.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import manyhands as mh
from commands import START
from gate import Gate
from manyhands import blocking
from manyhands.server import Events
from serving import Client, connect, get, hello
from support import LONG, wait_until

# ------------------------------------------------------------------------------------------------ (a) clients that go

SOON = 0.2 * LONG
"""Seconds. The promise is 0.2; ten times that is for a machine that is busy with other tests, and far below the 30 of a job."""

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT count(i) FROM n"


class Thirty:
    """Views of 30 seconds, of five kinds: their path says which. Knows who is at work, and for whom it was all over.

    Each ends by itself after 30 s, as a view does that nobody stops.
    """

    def __init__(self) -> None:
        self.silent, self._other_end = socket.socketpair()
        self.lock = threading.Lock()
        self.at_work: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        self.jobs: list[tuple[str, mh.Job]] = []

    def close(self) -> None:
        self.silent.close()
        self._other_end.close()
        self.jobs.clear()

    def __call__(self, environ, start_response):
        kind = environ["PATH_INFO"][1:]
        if not kind:
            return hello(environ, start_response)
        self.jobs.append((kind, environ["manyhands.job"]))
        if kind == "stream":
            start_response("200 OK", [])
            return self.stream()
        with self.working(kind):
            getattr(self, kind)()
        start_response("200 OK", [])
        return [b"done"]

    @contextlib.contextmanager
    def working(self, kind: str) -> Iterator[None]:
        with self.lock:
            self.begun[kind] += 1
            self.at_work[kind] += 1
        try:
            yield
        finally:
            with self.lock:
                self.at_work[kind] -= 1

    def check_in(self) -> None:
        """Works a millisecond at a time, and checks in between."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            threading.Event().wait(0.001)
            mh.check_in()

    def sleep(self) -> None:
        mh.sleep_blocking(30)

    def receive(self) -> None:
        blocking.wait_readable(self.silent, timeout=30)
        blocking.recv(self.silent, 1)

    def query(self) -> None:
        """Is inside SQLite all the time, where nothing can check in."""
        database = sqlite3.connect(":memory:", check_same_thread=False)
        end = time.monotonic() + 30
        told = threading.Event()
        # What interrupts before the query has begun interrupts nothing: so the query looks as well, now and then.
        database.set_progress_handler(lambda: told.is_set() or time.monotonic() > end, 100_000)

        def interrupt() -> None:
            told.set()
            database.interrupt()

        try:
            with mh.current_job().on_stop(interrupt):
                database.execute(ENDLESS).fetchall()
        except sqlite3.OperationalError:
            mh.check_in()
            raise
        finally:
            database.close()

    def stream(self) -> Iterator[bytes]:
        """Knows nothing of jobs: it is closed at its `yield`."""
        with self.working("stream"):
            end = time.monotonic() + 30
            while time.monotonic() < end:
                threading.Event().wait(0.001)
                yield b"piece"


KINDS = ("check_in", "sleep", "receive", "query", "stream")


@pytest.mark.parametrize("threads", [100, 8], ids=["a thread each", "most of them queued"])
def test_within_a_moment_nothing_works_for_a_hundred_clients_that_hung_up(start_server, threads):
    """T75a. A check-in loop, a sleep, a receive, a query of SQLite and a stream, twenty clients each; all go at once."""
    view = Thirty()
    server = start_server(view, threads=threads)
    clients = [socket.create_connection(server.address, LONG) for _ in range(100)]
    try:
        for number, sock in enumerate(clients):
            sock.sendall(get(b"/%b" % KINDS[number % len(KINDS)].encode()))
        # A stream that others wait for gives its thread away between two pieces: so more may have begun than have threads.
        wait_until(lambda: server.pool.stats().submitted == 100 and view.begun.total() >= threads)
        if threads == 100:
            assert view.begun == dict.fromkeys(KINDS, 20)
    finally:
        for sock in clients:
            sock.close()
    closed = time.monotonic()

    def over() -> bool:
        stats = server.pool.stats()
        return stats.stopped + stats.finished == stats.submitted and not view.at_work.total()

    wait_until(over)
    assert time.monotonic() - closed < SOON
    stats = server.pool.stats()
    assert (stats.busy, stats.queued, stats.syncing_parked) == (0, 0, 0)
    # A stream may be the first to notice that there is nobody to write to: then it ends by itself, told by nobody.
    reasons = {(kind, job.reason) for kind, job in view.jobs} - {("stream", None)}
    assert reasons <= {(kind, mh.StopReason.OWNER_GONE) for kind in view.begun}
    assert view.begun.total() == len(view.jobs)
    wait_until(lambda: server.connections == 0)
    with connect(server) as sock:
        assert sock.ask()[2] == b"/"
    view.close()


# ------------------------------------------------------------------------------------------------- (b) clients that wait

EACH = 50
THREADS = 4

HEALTHY = 0.2 * LONG
"""Seconds that the answer of /health may take: a thousand times what it takes alone, and a tenth of what a client that has
to wait for a thread of a slow one would."""


class Site:
    """`/health` answers at once, `/stream` and `/events` never end, `/wait` holds its thread until its gate is opened."""

    def __init__(self) -> None:
        self.events: list[Events] = []
        self.gates: list[Gate] = []
        self._free = iter(self.gates)
        self._free_lock = threading.Lock()  # without the GIL an iterator gives one gate to two threads

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/stream":
            start_response("200 OK", [])
            return iter(lambda: bytes(16_384), None)
        if path == "/events":
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            events = Events()
            self.events.append(events)
            return events
        if path == "/wait":
            with self._free_lock:
                gate = next(self._free)
            gate()
        return hello(environ, start_response)


class Crowd:
    """Slow clients of every kind, of which each does its next byte when it is told to."""

    def __init__(self, server, site: Site, stack: ExitStack) -> None:
        self._server = server
        self._site = site
        self._stack = stack
        self._steps: list[Callable[[], object]] = []

    def come(self, count: int) -> None:
        for _ in range(count):
            for kind in (self.silent, self.upload, self.reader, self.listener):
                sock = self._stack.enter_context(connect(self._server))
                kind(sock)

    def step(self) -> None:
        """Each of them sends, or takes, one byte, or gets one event."""
        for events in self._site.events:
            events.send("tick")
        for step in self._steps:
            step()

    def silent(self, sock: Client) -> None:
        """Says nothing at all."""

    def upload(self, sock: Client) -> None:
        sock.sendall(b"POST /health HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")
        self._steps.append(lambda: sock.sendall(b"x"))

    def reader(self, sock: Client) -> None:
        sock.sendall(get(b"/stream"))
        self._steps.append(lambda: sock.recv(1))

    def listener(self, sock: Client) -> None:
        sock.sendall(get(b"/events"))
        self._steps.append(lambda: read_event(sock))


def read_event(sock: Client) -> None:
    received = b""
    while not received.endswith(b"data: tick\n\n\r\n"):
        received += sock.recv(4096)


STREAMS = 2
"""How many of the kinds have a request in hand all the time."""


def test_a_crowd_of_slow_clients_holds_no_thread_and_health_is_answered(start_server):
    """FAULT 16. Fifty that are silent, fifty that send a byte at a time, fifty that read one of an endless stream, and
    fifty that listen for events.
    """
    site = Site()
    server = start_server(site, threads=THREADS)
    with ExitStack() as stack:
        crowd = Crowd(server, site, stack)
        health = stack.enter_context(connect(server))
        assert health.ask(b"/health")[2] == b"/health"
        crowd.come(EACH)
        wait_until(lambda: server.connection_states() == {"idle": EACH + 1, "reading": EACH, "busy": STREAMS * EACH})
        wait_until(lambda: server.pool.stats().syncing_parked == STREAMS * EACH)  # each has had its first piece
        for _ in range(5):
            crowd.step()
            asked = time.monotonic()
            assert health.ask(b"/health")[2] == b"/health"
            assert time.monotonic() - asked < HEALTHY
            # A stream whose client has taken something has a thread for a moment, and gives it back.
            wait_until(lambda: (server.pool.stats().busy, server.pool.stats().syncing_parked) == (0, STREAMS * EACH))
            assert server.pool.stats().syncing_held == 0
        # No thread is held: as many views as there are threads are all inside at once.
        site.gates += [stack.enter_context(Gate()) for _ in range(THREADS)]
        waiting = [stack.enter_context(connect(server)) for _ in site.gates]
        for sock in waiting:
            sock.sendall(get(b"/wait"))
        for gate in site.gates:
            gate.wait_entered()
        assert server.pool.stats().busy == THREADS
        for gate in site.gates:
            gate.open()
        assert [sock.response()[2] for sock in waiting] == [b"/wait"] * THREADS
    wait_until(lambda: server.connections == 0)
    wait_until(lambda: all(events.closed for events in site.events))
    wait_until(lambda: server.pool.stats().stopped + server.pool.stats().finished == server.pool.stats().submitted)
    site.events.clear()


# ------------------------------------------------------------------------------------------------------ (c) the end

GRACE = 0.5
LIMITS = {"everybody listens": GRACE + 1.0, "one is deaf": GRACE + 4.0}
"""Seconds from the signal: behind the grace one for those who were told to stop, to say so. If one of them does not listen,
one more each for the pool and for the loop to give it up, and at the end of the interpreter."""

SERVE = """
import json, logging, sys, threading
import manyhands as mh
from manyhands.server import serve

book = open(sys.argv[1], "a", buffering=1)
lock = threading.Lock()

def note(*entry):
    with lock:
        book.write(json.dumps(entry) + chr(10))

class Access(logging.Handler):
    def emit(self, record):
        note("log", record.access.request.split()[1], record.access.status)

logging.getLogger("manyhands.access").addHandler(Access())
logging.getLogger("manyhands.access").setLevel(logging.INFO)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    note("begun", path)
    kind = path.split("/")[1]
    if kind == "long":
        mh.sleep_blocking(60)
    elif kind == "deaf":
        threading.Event().wait(60)
    elif kind == "late":
        threading.Event().wait(0.3)
    start_response("200 OK", [])
    return [path.encode()]

left = serve(app, port=0, threads=6, grace={grace}, on_started=lambda server: print(server.address[1], flush=True))
for job in left:
    note("left", job.name.split()[1])
print("ended", flush=True)
"""


class Load:
    """Clients that ask, each for a path of its own, until nobody answers. Knows what was asked and what came."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.lock = threading.Lock()
        self.asked: list[str] = []
        self.answers: dict[str, int] = {}
        self.spoilt: list[str] = []
        self.under_way = threading.Event()  # set when even a slower one has its answer

    def ask(self, kind: str, sock: Client) -> bool:
        """Whether there was an answer, and there may be another."""
        with self.lock:
            path = f"/{kind}/{len(self.asked)}"
            self.asked.append(path)
        try:
            sock.sendall(get(path.encode()))
            status, headers, body = sock.response()
        except (ConnectionError, http.client.RemoteDisconnected):
            return False
        except http.client.HTTPException as error:
            self.spoilt.append(f"{path}: {error!r}")
            return False
        if status == 200 and body != path.encode():
            self.spoilt.append(f"{path}: {body!r}")
        with self.lock:
            self.answers[path] = status
        if kind == "late":
            self.under_way.set()
        return status == 200 and headers.get("connection") != "close"

    def go_on(self, kind: str) -> None:
        """On one connection after the other, until nobody listens."""
        with contextlib.suppress(ConnectionError):
            while True:
                with Client(self.address) as sock:
                    while self.ask(kind, sock):
                        pass

    def hang_up(self) -> None:
        """Ask for what takes long, and go."""
        with contextlib.suppress(ConnectionError):
            while True:
                with Client(self.address) as sock:
                    with self.lock:
                        path = f"/long/gone-{len(self.asked)}"
                        self.asked.append(path)
                    sock.sendall(get(path.encode()))
                    threading.Event().wait(0.01)


@pytest.mark.parametrize("who", LIMITS)
def test_ctrl_c_under_load_ends_in_time_and_every_request_is_answered_or_counted(tmp_path: Path, spawn, who):
    """FAULT 12. Fast ones, late ones, some that would take a minute, some whose client has gone, and one that does not stop:
    each that was begun has one line in the log, or is named as left; each that was answered has its status there; and who got
    no answer was not begun.
    """
    books = tmp_path / "books"
    deaf = ["/deaf/one"] if who == "one is deaf" else []
    command = [sys.executable, "-W", "error", "-c", SERVE.format(grace=GRACE), str(books)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        ExitStack() as on,
    ):
        on.callback(process.kill)
        assert process.stdout is not None
        load = Load(("127.0.0.1", int(process.stdout.readline())))
        for path in deaf:
            on.enter_context(Client(load.address)).sendall(get(path.encode()))
        calls = [spawn(load.go_on, kind) for kind in ("fast", "fast", "fast", "late", "late", "long", "long", "long")]
        calls += [spawn(load.hang_up)]
        assert load.under_way.wait(LONG)
        # More than there are threads: some are in the queue when the time is over.
        calls += [spawn(load.go_on, "long") for _ in range(8)]
        wait_until(lambda: len([path for path in list(load.asked) if path.startswith("/long/")]) > 10)
        process.send_signal(signal.SIGINT)
        told = time.monotonic()
        printed, complaints = process.communicate(timeout=START)
        took = time.monotonic() - told
        for call in calls:
            call.result()
    assert (printed, process.returncode) == ("ended\n", 0)
    assert took < LIMITS[who] + LONG / 4  # for the end of an interpreter on a busy machine
    entries = [json.loads(line) for line in books.read_text().splitlines()]
    begun = Counter(path for what, path, *_ in entries if what == "begun")
    lines = Counter(path for what, path, *_ in entries if what == "log")
    logged = {path: rest[0] for what, path, *rest in entries if what == "log"}
    left = [path for what, path, *_ in entries if what == "left"]
    assert load.spoilt == []
    assert left == deaf
    assert all(path in complaints for path in deaf)
    assert set(begun.values()) == {1}
    assert set(lines.values()) == {1}
    assert begun.keys() - lines.keys() == set(left), "what was begun is answered, stopped, or named as left"
    assert {path: logged.get(path) for path in load.answers} == load.answers, "what was answered is in the log"
    # Who went may be told 503 to their back.
    unanswered = {(path, logged[path]) for path in load.asked if path not in load.answers and path in logged}
    assert {entry for entry in unanswered if "gone" not in entry[0] or entry[1] == 200} == set()
    assert {200, 499, 503} == set(logged.values())
