"""What becomes of the requests in hand at Ctrl-C, beside other servers?

Eight threads under load: four clients ask for what is answered at once, four for what takes 0.3 s, four for what takes half a
minute. Then the server and all its processes get SIGINT, as at Ctrl-C in a terminal; where it can be said, requests have two
seconds to end. From then on

* `seconds`: until the process had ended; what had not after ten seconds was killed;
* `begun`: views that were begun in the whole run; `lost`: those of them whose client got no whole answer, and was told
  nothing. 503 is an answer. A request that was sent and not begun is not lost: the client sees the connection's end, and may
  send it again.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from benchmarks._http_servers import HTTPServer, circumstances, installed, missing, serving_http
from benchmarks._process import ALL_CORES
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, find
from benchmarks.serve_gone import entries

QUESTION = "what becomes of the requests in hand at Ctrl-C under load, beside other servers"

THREADS = 8
GRACE = 2.0
LOAD_SECONDS = 1.0
GIVE_UP_SECONDS = 10.0
LAST_WORDS = 1.0
"""Seconds that views which were told to stop have, behind the grace."""
CLIENTS = {"fast": 4, "late": 4, "long": 4}


def measure(plan: Plan) -> Report:
    """Measure every server."""
    names = installed(plan.python)
    about = circumstances(names, plan.python)
    rows = {name: Row({"server": name}) for name in names}
    for name in alternate(names, max(2, plan.rounds // 2)):
        rows[name].add(**end(name, plan.python))
    columns = [
        Column("seconds", "seconds"),
        Column("maximum", "seconds", "maximum"),
        Column("killed", "killed", digits=0),
    ]
    columns += [Column("begun", "begun", digits=0), Column("lost", "lost", digits=0)]
    columns += [Column("maximum", "lost", "maximum", 0), Column("503", "unavailable", digits=0)]
    ours = find(list(rows.values()), server="manyhands")
    targets = []
    if ours:
        targets = [
            Target("seconds from Ctrl-C to the end, maximum", ours.maximum("seconds"), GRACE + LAST_WORDS),
            Target("requests begun and not answered, maximum", ours.maximum("lost"), 0),
        ]
    return Report(
        list(rows.values()), columns, targets, missing(names), {"threads": THREADS, "grace": GRACE} | CLIENTS | about
    )


class Clients:
    """They ask, one request after the other, and know what was answered."""

    def __init__(self, server: HTTPServer) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._asked = 0
        self.answered: dict[str, int] = {}
        self.threads = [
            threading.Thread(target=self._go_on, args=(kind,)) for kind, count in CLIENTS.items() for _ in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def _go_on(self, kind: str) -> None:
        try:
            while True:
                client = http.client.HTTPConnection(*self._server.address, timeout=40)
                client.connect()
                try:
                    while self._ask(kind, client):
                        pass
                except (OSError, http.client.HTTPException):
                    pass
                finally:
                    client.close()
        except OSError:
            return  # nobody listens any more

    def _ask(self, kind: str, client: http.client.HTTPConnection) -> bool:
        with self._lock:
            number = self._asked = self._asked + 1
        client.request("GET", f"/end/{kind}/{number}")
        response = client.getresponse()
        response.read()
        with self._lock:
            self.answered[f"{kind}/{number}"] = response.status
        return not response.will_close


def end(name: str, python: str) -> dict[str, float]:
    """Load the server, interrupt it, and account for every request."""
    with tempfile.NamedTemporaryFile() as book:
        env = {"SERVE_BOOK": book.name}
        with serving_http(name, python, threads=THREADS, grace=GRACE, cores=ALL_CORES, env=env) as server:
            clients = Clients(server)
            time.sleep(LOAD_SECONDS)
            os.killpg(server.process.pid, signal.SIGINT)
            told = time.monotonic()
            try:
                server.process.wait(GIVE_UP_SECONDS)
            except subprocess.TimeoutExpired:
                killed = 1
            else:
                killed = 0
            seconds = time.monotonic() - told
        for thread in clients.threads:
            thread.join()
        begun = {which for what, which, _ in entries(Path(book.name)) if what == "begun"}
    lost = begun - clients.answered.keys()
    unavailable = sum(status == 503 for status in clients.answered.values())
    return {"seconds": seconds, "killed": killed, "begun": len(begun), "lost": len(lost), "unavailable": unavailable}
