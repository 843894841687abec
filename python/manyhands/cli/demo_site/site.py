"""The Flask application that `manyhands demo` serves: quick views, slow ones, streams and a conversation.

    manyhands serve manyhands.cli.demo_site:app --dashboard 8001

What to look for:

* the views are ordinary blocking ones. `report` checks in at every row, so it ends when its client hangs up; `query` gives
  SQLite's own interrupt to its job, which breaks the query off then;
* `rows` is a generator without an end: of a client that reads slowly one piece is held, and no thread;
* `news` is server-sent events, made by an async generator: while it awaits, it holds no thread. For events that come from
  elsewhere there is `manyhands.server.Events`;
* `talk` holds its thread as long as the conversation lasts, and sends to other conversations as well;
* what became of the slow views is written in a book, which `/book` shows. That is all that the demo asks for.
"""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import flask

import manyhands as mh
from manyhands.server import WebSocket, WebSocketClosed, iter_async, websocket

__all__ = ["app"]

ROWS, ROW_SECONDS = 600, 0.05
"""A report lasts half a minute."""

QUERY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 4000000000) SELECT sum(i) FROM n"
"""It lasts some minutes."""

REMEMBERED = 2000
"""Entries that the book still has."""

IN_THE_NEWS = 20
"""Ended views that one event tells of, at most."""

TICK = 1.0
"""Seconds between two events."""

TOO_SLOW = 4000
"""The code of a goodbye to who does not read what is said. Source: RFC 6455, 7.4.2: it is the application's to choose."""

OWN_URL = re.compile(r"http://127\.0\.0\.1:\d{1,5}/")
"""A dashboard on this machine."""

app = flask.Flask(__name__, static_folder="page", static_url_path="/page", template_folder="page")


class Book:
    """Which slow views began, for whom, and when they were told that nobody waits for them any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self._ended: deque[dict[str, Any]] = deque(maxlen=IN_THE_NEWS)
        self._ends = 0
        self._under_way: Counter[str] = Counter()

    def begin(self, what: str, visitor: dict[str, Any]) -> dict[str, Any]:
        """Write down that a view begins. The view may add to the entry."""
        entry = {"what": what, **visitor, "ended": None, "because": None}
        with self._lock:
            self._entries.append(entry)
            self._under_way[what] += 1
        return entry

    def end(self, entry: dict[str, Any], job: mh.Job[Any] | None) -> None:
        """Write down that it has ended, and why if it was told to."""
        entry["because"] = job.reason.name if job is not None and job.reason is not None else None
        entry["ended"] = time.monotonic()
        with self._lock:
            self._ends += 1
            self._ended.append(entry)
            self._under_way[entry["what"]] -= 1

    @contextmanager
    def entry(self, what: str, visitor: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Write down both."""
        job, entry = mh.current_job(), self.begin(what, visitor)
        try:
            yield entry
        finally:
            self.end(entry, job)

    def read(self) -> list[dict[str, Any]]:
        """What is in it."""
        with self._lock:
            return [dict(entry) for entry in self._entries]

    def under_way(self, what: str) -> int:
        """How many of these have begun and not ended."""
        with self._lock:
            return self._under_way[what]

    def ended_since(self, ends: int) -> tuple[int, list[dict[str, Any]]]:
        """How many have ended up to now, and the last of them, without the first so many."""
        with self._lock:
            ended = list(self._ended)
            return self._ends, ended[max(0, len(ended) - (self._ends - ends)) :]


class Room:
    """Who talks. What one says all of them hear, each by way of the one thread that says it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._present: set[WebSocket] = set()

    @contextmanager
    def visit(self, ws: WebSocket) -> Iterator[None]:
        """Be there."""
        with self._lock:
            self._present.add(ws)
        try:
            yield
        finally:
            with self._lock:
                self._present.discard(ws)

    def say(self, words: str) -> None:
        """Send it to all; who does not read has to leave."""
        with self._lock:
            present = list(self._present)
        for ws in present:
            with suppress(WebSocketClosed):
                try:
                    ws.send(words, timeout=0)
                except TimeoutError:
                    ws.close(TOO_SLOW, "too slow")


book = Book()
room = Room()


def visitor() -> dict[str, Any]:
    """Who asks, as the book has it."""
    request = flask.request
    port = request.environ.get("REMOTE_PORT")
    return {"client": f"{request.remote_addr}:{port}", "tag": request.args.get("tag")}


@app.get("/")
def index() -> str:
    """Show what there is to see."""
    return flask.render_template("index.html", dashboard=app.config.get("DASHBOARD"))


@app.get("/health")
def health() -> str:
    """Answer at once."""
    return "ok\n"


@app.get("/report")
def report() -> str:
    """Work for half a minute, for as long as somebody waits for it."""
    job = mh.current_job()
    total = 0
    with book.entry("report", visitor()) as entry:
        for row in range(ROWS):
            entry["row"] = row
            mh.check_in()  # raises when the client has gone
            if job is not None:
                job.progress(row, ROWS, "rows")
            mh.sleep_blocking(ROW_SECONDS)  # stands for the work on a row
            total += row
    return f"{total}\n"


@app.get("/query")
def query() -> str:
    """Ask a database for what takes it minutes."""
    job = mh.current_job()
    with book.entry("query", visitor()), closing(sqlite3.connect(":memory:", check_same_thread=False)) as database:
        if job is None:
            return f"{database.execute(QUERY).fetchone()[0]}\n"
        # SQLite forgets an interrupt that comes before the query has begun, so it also asks by itself.
        database.set_progress_handler(lambda: job.stop_requested, 100_000)
        try:
            with job.on_stop(database.interrupt):
                return f"{database.execute(QUERY).fetchone()[0]}\n"
        except sqlite3.OperationalError:
            mh.check_in()  # raises what it was interrupted for
            raise


@app.get("/rows")
def rows() -> flask.Response:
    """Send a table without an end."""

    def lines(who: dict[str, Any]) -> Iterator[str]:
        with book.entry("rows", who):
            for first in itertools.count(step=100):
                yield "".join(f"{row:>12} {row * row:>24}\n" for row in range(first, first + 100))

    return flask.Response(lines(visitor()), mimetype="text/plain")


@app.get("/live")
def live_page() -> flask.Response:
    """Show the page of the stream."""
    return app.send_static_file("live.html")


@app.get("/news")
def news() -> flask.Response:
    """Tell what the server is doing, once a second, to whoever waits for it."""
    pool, job = flask.request.environ["manyhands.connection"].pool, mh.current_job()

    async def tell(who: dict[str, Any]) -> AsyncIterator[bytes]:
        entry = book.begin("news", who)
        ends, _ = book.ended_since(0)
        try:
            while True:
                ends, ended = book.ended_since(ends)
                yield f"data: {json.dumps({**look(pool), 'ended': ended})}\n\n".encode()
                await mh.sleep(TICK)
        finally:
            book.end(entry, job)

    return flask.Response(iter_async(tell(visitor())), mimetype="text/event-stream")


def look(pool: mh.ThreadPool) -> dict[str, Any]:
    """What the server is doing."""
    stats = pool.stats()
    return {
        "time": time.monotonic(),
        "readers": book.under_way("news"),
        "threads": threading.active_count(),
        "busy": stats.busy,
        "waiting": stats.syncing_parked,
        "answered": stats.finished,
        "stopped": stats.stopped,
    }


@app.post("/upload")
def upload() -> str:
    """Count what came."""
    return f"{len(flask.request.get_data())}\n"


@app.get("/talk")
def talk_page() -> flask.Response:
    """Show the page of the conversation."""
    return app.send_static_file("talk.html")


@app.route("/talk/socket", websocket=True)
def talk() -> str:
    """Hand on what one says to all."""
    ours = [flask.request.host_url.rstrip("/"), None]
    # Flask would write a browser that is gone without a goodbye into its log, as an error of the view.
    with suppress(WebSocketClosed), websocket(flask.request.environ, origins=ours) as ws, room.visit(ws):
        for words in ws:
            room.say(str(words)[:1000])
    return ""  # nobody gets it


@app.get("/book")
def read_book() -> list[dict[str, Any]]:
    """Show what became of the slow views."""
    return book.read()


@app.post("/dashboard")
def tell_dashboard() -> tuple[str, int]:
    """Learn, once, where the dashboard is: it was opened behind this application's back."""
    url = flask.request.get_data(as_text=True)
    if "DASHBOARD" in app.config or "Origin" in flask.request.headers or not OWN_URL.fullmatch(url):
        return "no\n", 409
    app.config["DASHBOARD"] = url
    return "yes\n", 200
