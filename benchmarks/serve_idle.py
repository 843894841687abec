"""What does an idle connection weigh that is kept, beside other servers?

10,000 clients connect, ask once, read the answer and fall silent. How much the memory of all the server's processes has grown
meanwhile (Pss of smaps_rollup), per connection. The kernel's memory is not counted. A thousand clients come and go before:
what a server keeps of its busiest moment, and what it makes once, is there already.

`answered` is how many of the 10,000 had an answer in time, which is twelve seconds for all of them, and `open` how many were
still connected at the end.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time

from benchmarks._http_servers import HTTPServer, circumstances, installed, missing, serving_http
from benchmarks._process import ALL_CORES, raise_file_limit
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, find

QUESTION = "memory of an idle connection that is kept, 10,000 of them, beside other servers"

IDLE = 10_000
BEFORE = 1000
"""A tenth of them: what they leave behind is used again."""
SPARE_FILES = 300
AT_ONCE = 200
"""Clients that ask at the same time: below what a server's queue of connections holds."""
ANSWER_SECONDS = 10.0
COME_SECONDS = 12.0
"""For all of them to come. A server that looks at each of its connections in every turn has fewer by then."""
KIB_LIMIT = 4.0
REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def measure(plan: Plan) -> Report:
    """Measure every server."""
    count = min(1000 if plan.quick else IDLE, raise_file_limit() - SPARE_FILES)
    names = installed(plan.python)
    about = circumstances(names, plan.python)
    notes = missing(names)
    rows = {name: Row({"server": name, "connections": count}) for name in names}
    for name in alternate(names, max(1, plan.rounds // 3)):
        with serving_http(name, plan.python, threads=8, cores=ALL_CORES) as server:
            held = ask_and_stay(server, min(BEFORE, count // 10))
            for sock in held:
                sock.close()
            time.sleep(0.5)
            before = server.resident_kib()
            held = ask_and_stay(server, count)
            time.sleep(0.5)
            kib = (server.resident_kib() - before) / max(1, len(held))
            rows[name].add(kib=kib, answered=len(held), open=_still_open(held), threads=server.threads())
            for sock in held:
                sock.close()
    columns = [
        Column("KiB each min", "kib", "minimum"),
        Column("median", "kib"),
        Column("answered", "answered", digits=0),
    ]
    columns += [Column("open", "open", digits=0), Column("threads", "threads", digits=0)]
    ours = find(list(rows.values()), server="manyhands")
    targets = []
    if ours:
        targets = [
            Target("KiB of an idle connection, minimum", ours.minimum("kib"), KIB_LIMIT),
            Target("KiB of an idle connection, median", ours.median("kib"), KIB_LIMIT),
        ]
    return Report(list(rows.values()), columns, targets, notes, {"connections": count, "before": BEFORE} | about)


def ask_and_stay(server: HTTPServer, count: int) -> list[socket.socket]:
    """Connect, ask and read the answer, some at a time. Returns those that were answered; the others are closed."""
    answered: list[socket.socket] = []
    deadline = time.monotonic() + COME_SECONDS
    while count > 0 and time.monotonic() < deadline:
        part, count = min(count, AT_ONCE), count - AT_ONCE
        found = _ask_together(server, part)
        answered += found
        if not found:
            break
    return answered


def _ask_together(server: HTTPServer, count: int) -> list[socket.socket]:
    answered = []
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            sock = socket.create_connection(server.address, ANSWER_SECONDS)
            sock.sendall(REQUEST)
            selector.register(sock, selectors.EVENT_READ)
        deadline = time.monotonic() + ANSWER_SECONDS
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                sock = key.fileobj  # type: ignore[assignment]
                selector.unregister(sock)
                try:
                    got = sock.recv(65_536)
                except OSError:
                    got = b""
                if b"200" in got[:20]:
                    answered.append(sock)
                else:
                    sock.close()
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
    return answered


def _still_open(held: list[socket.socket]) -> int:
    count = 0
    for sock in held:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            try:
                count += sock.recv(1) != b""
            except BlockingIOError:
                count += 1
    return count
