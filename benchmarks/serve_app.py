"""The applications that the servers serve: one file, the same for all of them.

`app` is plain WSGI, `flask_app` the smallest Flask. What is in them is written as for any server;
`manyhands.check_in()` and its kind do nothing where no manyhands runs the view. Only a stream of events has two
forms, since a server that waits without a thread needs to be told that there is nothing yet.

With SERVE_BOOK set, views of `/work/KIND` and `/end/KIND` note in that file when they begin and end, by the monotonic clock,
which all processes of a machine share.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

HELLO = b"Hello, world!\n"
MEGABYTE = bytes(1 << 20)
PIECE = bytes(16_384)
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT count(i) FROM n"
WORK_SECONDS = 30.0
LATE_SECONDS = 0.3
MS_ITERATIONS = int(os.environ.get("SERVE_ITERATIONS", "20000"))
"""Of pure Python, for about a millisecond: the benchmark that asks for it has counted."""

_book = os.open(path, os.O_WRONLY | os.O_APPEND) if (path := os.environ.get("SERVE_BOOK")) else None


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Plain WSGI."""
    path = environ["PATH_INFO"]
    if path == "/":
        return _answer(start_response, HELLO)
    view = _VIEWS.get(path) or _VIEWS.get(path[: path.find("/", 1) + 1])
    return _answer(start_response, b"ok\n") if view is None else view(environ, start_response)


def _answer(start_response: Callable[..., object], body: bytes) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def _big(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    return _answer(start_response, MEGABYTE)


def _upload(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    body = environ["wsgi.input"]
    length = 0
    while piece := body.read(65_536):
        length += len(piece)
    return _answer(start_response, b"%d\n" % length)


def _millisecond(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    total = 0
    for number in range(MS_ITERATIONS):
        total += number & 7
    return _answer(start_response, b"%d\n" % total)


def _stream(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return _endless()


def _endless() -> Iterator[bytes]:
    while True:
        yield PIECE


# ---- clients that wait for events ----


class _Ticker:
    """Sends an event a second to everybody who listens, one after the other over the second, from one thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Any] = []
        self._thread: threading.Thread | None = None

    def add(self, listener: Any) -> None:
        with self._lock:
            self._listeners.append(listener)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        parts = 50
        while True:
            for part in range(parts):
                with self._lock:
                    listeners = self._listeners[part::parts]
                for listener in listeners:
                    if listener.closed:
                        with self._lock:
                            self._listeners.remove(listener)
                    else:
                        with contextlib.suppress(Exception):
                            listener.send("tick")
                time.sleep(1 / parts)


_ticker = _Ticker()


def _events(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    if "manyhands.connection" in environ:
        from manyhands.server import Events

        events: Any = Events()
        _ticker.add(events)
        return events
    return _blocking_events()


def _blocking_events() -> Iterator[bytes]:
    """Without such a thing a view waits in its thread, whatever it waits by."""
    while True:
        yield b"data: tick\n\n"
        time.sleep(1)


# ---- clients that hang up ----


def _note(what: str, which: str) -> None:
    if _book is not None:
        os.write(_book, f"{what} {which} {time.monotonic():.6f}\n".encode())


@contextlib.contextmanager
def _noted(which: str) -> Iterator[None]:
    _note("begun", which)
    try:
        yield
    finally:
        _note("ended", which)


def _work(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """`/work/KIND/NUMBER`: half a minute of work."""
    _, _, kind, number = environ["PATH_INFO"].split("/")
    which = f"{kind}/{number}"
    if kind == "stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return _slow_pieces(which)
    with _noted(which):
        _KINDS[kind](time.monotonic() + WORK_SECONDS)
    return _answer(start_response, b"done\n")


def _slow_pieces(which: str) -> Iterator[bytes]:
    end = time.monotonic() + WORK_SECONDS
    with _noted(which):
        while time.monotonic() < end:
            yield b"piece\n"
            time.sleep(0.01)


def _check_in(end: float) -> None:
    import manyhands as mh

    while time.monotonic() < end:
        time.sleep(0.01)
        mh.check_in()


def _sleep(end: float) -> None:
    import manyhands as mh

    mh.sleep_blocking(end - time.monotonic())


def _receive(end: float) -> None:
    from manyhands import blocking

    ours, theirs = socket.socketpair()
    with ours, theirs:
        blocking.wait_readable(ours, timeout=end - time.monotonic())


def _query(end: float) -> None:
    import manyhands as mh

    job = mh.current_job()
    told = threading.Event()
    database = sqlite3.connect(":memory:", check_same_thread=False)
    # An interrupt that comes before the query has begun interrupts nothing: the query looks by itself as well.
    database.set_progress_handler(lambda: told.is_set() or time.monotonic() > end, 100_000)

    def interrupt() -> None:
        told.set()
        database.interrupt()

    try:
        with contextlib.nullcontext() if job is None else job.on_stop(interrupt):
            database.execute(ENDLESS).fetchall()
    except sqlite3.OperationalError:
        mh.check_in()
    finally:
        database.close()


_KINDS = {"check_in": _check_in, "sleep": _sleep, "receive": _receive, "query": _query}


# ---- the end of the server ----


def _end(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """`/end/KIND/NUMBER`: "fast", "late", or "long" and stopped only by a check-in."""
    import manyhands as mh

    _, _, kind, number = environ["PATH_INFO"].split("/")
    _note("begun", f"{kind}/{number}")
    if kind == "late":
        time.sleep(LATE_SECONDS)
    elif kind == "long":
        mh.sleep_blocking(WORK_SECONDS)
    return _answer(start_response, number.encode())


_VIEWS = {
    "/big": _big,
    "/upload": _upload,
    "/ms": _millisecond,
    "/stream": _stream,
    "/events": _events,
    "/work/": _work,
    "/end/": _end,
}
"""Path, or its beginning, to view; others are answered "ok", as /health is."""


def _make_flask() -> Any:
    import flask

    made = flask.Flask("hello")

    @made.get("/")
    def index() -> str:
        return "Hello, world!\n"

    return made


def __getattr__(name: str) -> Any:
    # Only who serves it pays for importing it.
    if name != "flask_app":
        raise AttributeError(name)
    made = sys.modules[__name__].__dict__["flask_app"] = _make_flask()
    return made
