"""A Flask application whose slow view ends when its client hangs up.

    manyhands serve flask_app:app          # in this directory
    curl http://127.0.0.1:8000/report      # and press Ctrl-C after a second

What to look for:
* the view is an ordinary one: it calls `mh.check_in()` once per row, which costs nothing worth mentioning and raises when there
  is nobody left to work for. `except Exception` does not catch it; `finally` and `with` run as ever;
* `/jobs` shows what runs: after you hung up, the report is gone from it within one row;
* `mh.sleep_blocking()` stands for a call that blocks and can be stopped; `manyhands.blocking` has more of them;
* `/stream` sends a line per second. A client that stops reading holds one line, not the whole stream.

Needs Flask. It runs on any other WSGI server as well: outside a job a check-in does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import flask

import manyhands as mh

ROWS = 300

app = flask.Flask(__name__)
log = logging.getLogger("flask_app")


@app.get("/")
def index() -> str:
    """Answer at once."""
    return "Try /report, /stream and /jobs.\n"


@app.get("/report")
def report() -> str:
    """Work for half a minute, for as long as somebody waits for it."""
    job = mh.current_job()
    row = total = 0
    try:
        for row in range(ROWS):
            mh.check_in()  # raises when the client has gone
            if job is not None:
                job.progress(row, ROWS, "rows")
            mh.sleep_blocking(0.1)  # the work on a row
            total += row
    except mh.JobStopped as stopped:
        log.warning("report: stopped after row %d: %s", row, stopped.reason)
        raise
    return f"{total}\n"


@app.get("/stream")
def stream() -> flask.Response:
    """Send a line per second."""

    def lines() -> Iterator[str]:
        for second in range(60):
            yield f"second {second}\n"
            mh.sleep_blocking(1.0)

    return flask.Response(lines(), mimetype="text/plain")


@app.get("/jobs")
def jobs() -> list[str]:
    """Show what runs in the pool that this very request runs in."""
    connection = flask.request.environ.get("manyhands.connection")
    if connection is None:
        return []
    return [f"{job.name} {job.status.name} {job.age:.1f} s {job.progress or ''}" for job in connection.pool.jobs()]


@app.post("/echo")
def echo() -> bytes:
    """Send back what came."""
    return flask.request.get_data()
