"""How fast is /health beside crowds of slow clients?

Four threads for views. First /health alone, one request every two milliseconds on a connection that is kept; then beside
500 clients that connect and say nothing, 500 that upload a byte a second, 500 that read a byte a second of a stream that never
ends, and 500 that listen for events, of which there is one a second. Bytes and events are spread evenly over the second. The
crowd is a process of its own, and so is the one that asks; both share a core, and the server has the other.

* `p99`: of the answers that came; `answered`: the share that came within two seconds, after which the asker gives up, and
  takes a new connection;
* `x alone`: the p99 beside the crowd, of that alone.

`crowd` says who was there. The servers that hold a thread for each slow client answer nobody once there are four.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks._http_servers import HTTPServer, circumstances, installed, missing, serving_http
from benchmarks._machine import ROOT
from benchmarks._process import LOAD_CORES, ChildFailed, _on_cores, raise_file_limit
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, find, ratio_targets

QUESTION = "p99 of /health beside slow clients of every kind, 4 threads, beside other servers"

THREADS = 4
EACH = 500
LIMIT = 2.0
GIVE_UP_SECONDS = 2.0
PAUSE_SECONDS = 0.002
SETTLE_SECONDS = 1.5
"""From the last of the crowd's requests to the first measured answer: each has had its first byte or event."""
PARTS = 50
"""Into which the crowd's second is divided."""

Step = Callable[[], object]


def measure(plan: Plan) -> Report:
    """Measure every server, alone and beside the crowd."""
    raise_file_limit()
    names = installed(plan.python)
    about = circumstances(names, plan.python)
    each = 50 if plan.quick else EACH
    seconds = 1.0 if plan.quick else 3.0
    rows = {
        (name, crowd): Row({"server": name, "crowd": 4 * each if crowd else 0})
        for name in names
        for crowd in (False, True)
    }
    for name in alternate(names, max(1, plan.rounds // 3)):
        with serving_http(name, plan.python, threads=THREADS) as server:
            alone = ask_health(server, seconds)
            with crowd_of(server, each):
                beside = ask_health(server, seconds)
        rows[name, False].add(**alone)
        rows[name, True].add(**beside)
    columns = [Column("p50 ms", "p50_ms"), Column("p99 ms min", "p99_ms", "minimum"), Column("median", "p99_ms")]
    columns += [Column("worst", "worst_ms", "maximum", 1), Column("answered %", "answered", digits=0)]
    found = list(rows.values())
    targets = []
    ours, alone_row = (find(found, server="manyhands", crowd=count) for count in (4 * each, 0))
    if ours and alone_row:
        targets = ratio_targets("p99 of /health beside the crowd / alone", ours, alone_row, "p99_ms", LIMIT)
        targets.append(Target("% answered beside the crowd", ours.minimum("answered"), 100, at_most=False))
    return Report(
        found, columns, targets, missing(names), {"threads": THREADS, "each": each, "seconds": seconds} | about
    )


def ask_health(server: HTTPServer, seconds: float) -> dict[str, float]:
    """Ask again and again, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.serve_slow", "health", str(server.port), str(seconds)]
    with _on_cores(LOAD_CORES):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildFailed(done.stderr)
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


@contextmanager
def crowd_of(server: HTTPServer, each: int) -> Iterator[None]:
    """Keep slow clients there until the end of the block."""
    command = [sys.executable, "-m", "benchmarks.serve_slow", "crowd", str(server.port), str(each)]
    with _on_cores(LOAD_CORES), subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise ChildFailed("the crowd did not come")
            yield
        finally:
            process.kill()


# ---- in the children ----


def main() -> None:
    """Be the crowd, or the one who asks."""
    what, port, number = sys.argv[1:]
    if what == "crowd":
        be_the_crowd(int(port), int(number))
    else:
        print(json.dumps(be_the_asker(int(port), float(number))))


def be_the_asker(port: int, seconds: float) -> dict[str, float]:
    """Ask for /health for so long; milliseconds."""
    latencies: list[float] = []
    unanswered = 0
    sock: socket.socket | None = None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter()
        try:
            if sock is None:
                sock = socket.create_connection(("127.0.0.1", port), GIVE_UP_SECONDS)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
            data = b""
            while not data.endswith(b"ok\n"):
                piece = sock.recv(4096)
                if not piece:
                    raise ConnectionResetError
                data += piece
        except OSError:
            unanswered += 1
            if sock is not None:
                sock.close()
                sock = None
            continue
        latencies.append(time.perf_counter() - started)
        time.sleep(PAUSE_SECONDS)
    if sock is not None:
        sock.close()
    answered = 100 * len(latencies) / (len(latencies) + unanswered)
    if not latencies:
        latencies = [GIVE_UP_SECONDS]
    latencies.sort()
    p50, p99 = (latencies[int(share * (len(latencies) - 1))] * 1000 for share in (0.5, 0.99))
    return {
        "p50_ms": p50,
        "p99_ms": p99,
        "worst_ms": latencies[-1] * 1000,
        "answered": answered,
        "asked": len(latencies),
    }


def be_the_crowd(port: int, each: int) -> None:
    """Connect them all, say so, and let each do its byte a second."""
    raise_file_limit()
    steps: list[Step] = []
    listeners: list[socket.socket] = []
    kept = []
    for _ in range(each):
        silent = socket.create_connection(("127.0.0.1", port), 30)
        upload = socket.create_connection(("127.0.0.1", port), 30)
        upload.sendall(b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n")
        reader = _small(port, b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n")
        events = _small(port, b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
        listeners.append(events)
        kept.append(silent)
        steps += [lambda sock=upload: sock.send(b"x"), lambda sock=reader: sock.recv(1)]  # type: ignore[misc]
        kept += [upload, reader, events]
        for sock in (upload, reader, events):
            sock.setblocking(False)
    waiting = select.epoll()
    by_number = {sock.fileno(): sock for sock in listeners}
    for number in by_number:
        waiting.register(number, select.EPOLLIN)
    time.sleep(SETTLE_SECONDS)
    print("here", flush=True)
    part = 0
    while True:
        until = time.monotonic() + 1 / PARTS
        for step in steps[part % PARTS :: PARTS]:
            _quietly(step)
        part += 1
        while (left := until - time.monotonic()) > 0:
            for number, _ in waiting.poll(left):
                try:
                    if not by_number[number].recv(65_536):
                        waiting.unregister(number)
                except OSError:
                    waiting.unregister(number)


def _small(port: int, request: bytes) -> socket.socket:
    """A client that takes little ahead."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", port))
    sock.sendall(request)
    return sock


def _quietly(step: Step) -> None:
    try:
        step()
    except OSError:
        return  # it was closed: it is part of what the server does with the slow


if __name__ == "__main__":
    main()
