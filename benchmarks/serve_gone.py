"""How long does a server work on for clients that have hung up?

A hundred clients ask, twenty of each kind, for what takes half a minute; 50 ms later all hang up. A hundred threads, so
that all begin. The kinds: a loop that works 10 ms at a time and checks in; a sleep; a receive of a socket on which nothing
comes; a query of SQLite that says how it is interrupted; a stream that knows nothing of all that. The views note when they
begin and end (`serve_app.py`); from the hang-up

* `200 ms`, `3 s`: how many of the hundred are still at work, those that begin after it included;
* `free ms`: until nobody is; what is still at work when the run ends counts as that. The bound is the promise.

The application is the same for all: outside manyhands a check-in does nothing, and a server that does not look for the end
of a connection while a view works cannot know. A stream ends where writing to it fails.
"""

from __future__ import annotations

import socket
import tempfile
import time
from pathlib import Path

from benchmarks._http_servers import HTTPServer, circumstances, installed, missing, serving_http
from benchmarks._process import ALL_CORES, raise_file_limit
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, find

QUESTION = "how long a server works on for 100 clients that hang up after 50 ms"

CLIENTS = 100
KINDS = ("check_in", "sleep", "receive", "query", "stream")
STAY_SECONDS = 0.05
PROMISE_MS = 200.0
WATCHED_SECONDS = 3.0


def measure(plan: Plan) -> Report:
    """Measure every server."""
    raise_file_limit()
    names = installed(plan.python)
    about = circumstances(names, plan.python)
    rows = {name: Row({"server": name, "clients": CLIENTS}) for name in names}
    for name in alternate(names, plan.rounds):
        rows[name].add(**hang_up(name, plan.python))
    columns = [Column("at work after 200 ms", "after_200_ms", digits=0), Column("after 3 s", "after_3_s", digits=0)]
    columns += [
        Column("of them streams", "streams_after_3_s", digits=0),
        Column("free ms min", "free_ms", "minimum", 0),
    ]
    columns += [Column("median", "free_ms", "median", 0), Column("maximum", "free_ms", "maximum", 0)]
    ours = find(list(rows.values()), server="manyhands")
    targets = []
    if ours:
        targets = [
            Target(
                f"ms until nothing works for a dead client, {statistic}",
                getattr(ours, statistic)("free_ms"),
                PROMISE_MS,
            )
            for statistic in ("minimum", "median", "maximum")
        ]
    return Report(
        list(rows.values()),
        columns,
        targets,
        missing(names),
        {"threads": CLIENTS, "stay_seconds": STAY_SECONDS} | about,
    )


def hang_up(name: str, python: str) -> dict[str, float]:
    """Let the clients come and go, and look for how long the views go on."""
    with tempfile.NamedTemporaryFile() as book:
        env = {"SERVE_BOOK": book.name}
        with serving_http(name, python, threads=CLIENTS, cores=ALL_CORES, env=env) as server:
            left = _come_and_go(server)
            deadline = left + WATCHED_SECONDS
            while time.monotonic() < deadline:
                time.sleep(0.1)
                if time.monotonic() - left > 2 * PROMISE_MS / 1000 and not at_work(Path(book.name), time.monotonic()):
                    break
        seen = {
            "after_200_ms": len(at_work(Path(book.name), left + PROMISE_MS / 1000)),
            "after_3_s": len(still := at_work(Path(book.name), deadline)),
            "streams_after_3_s": sum(which.startswith("stream") for which in still),
        }
        ends = [when for what, _, when in entries(Path(book.name)) if what == "ended"]
    free = WATCHED_SECONDS if seen["after_3_s"] else max([*ends, left]) - left
    return {**seen, "free_ms": free * 1000}


def _come_and_go(server: HTTPServer) -> float:
    """Ask, stay a moment, hang up. Returns when the last one was gone."""
    clients = []
    for number in range(CLIENTS):
        sock = socket.create_connection(server.address)
        sock.sendall(f"GET /work/{KINDS[number % len(KINDS)]}/{number} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        clients.append(sock)
    time.sleep(STAY_SECONDS)
    for sock in clients:
        sock.close()
    return time.monotonic()


def entries(book: Path) -> list[tuple[str, str, float]]:
    """What the views noted: (begun or ended, which, when)."""
    found = []
    for line in book.read_text().splitlines():
        what, which, when = line.split()
        found.append((what, which, float(when)))
    return found


def at_work(book: Path, moment: float) -> set[str]:
    """Who was at work at this moment."""
    working: set[str] = set()
    for what, which, when in entries(book):
        if when <= moment:
            (working.add if what == "begun" else working.discard)(which)
    return working
