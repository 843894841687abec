"""A shop in Flask."""

from __future__ import annotations

import hashlib
import io
import secrets
import threading
from typing import Any

import flask
from werkzeug.datastructures import FileStorage

import manyhands as mh
from manyhands.server import Events, HandshakeRefused, iter_async, websocket

PIECES = 5


def create() -> flask.Flask:
    """Make the application."""
    app = flask.Flask(__name__)
    app.secret_key = "for the tests"
    app.extensions["shop"] = notes = Notes()

    @app.get("/")
    def index():
        return "hello, " + flask.request.args.get("who", "you")

    @app.route("/environ", methods=["GET", "POST"])
    def environ():
        """What the application knows of the request."""
        known = {
            name: value
            for name, value in sorted(flask.request.environ.items())
            if isinstance(value, str) and value and (name.startswith("HTTP_") or name in NAMES)
        }
        return known | {"url": flask.request.url, "root": flask.request.root_url, "secure": flask.request.is_secure}

    @app.route("/echo", methods=["POST", "PUT", "PATCH"])
    def echo():
        return flask.request.get_data(), {"Content-Type": "application/octet-stream"}

    @app.get("/count")
    def count():
        flask.session["count"] = flask.session.get("count", 0) + 1
        return str(flask.session["count"])

    @app.route("/order", methods=["GET", "POST"])
    def order():
        """A form with a token that is in the session."""
        token = flask.session.setdefault("token", secrets.token_urlsafe())
        if flask.request.method == "GET":
            said = "".join(f"<p>{message}</p>" for message in flask.get_flashed_messages())
            return f'{said}<form method="post"><input name="token" value="{token}"></form>'
        if not secrets.compare_digest(flask.request.form.get("token", ""), token):
            flask.abort(403)
        if not flask.request.form["number"].isdigit():
            flask.abort(422)
        flask.flash(f"{flask.request.form['number']} of {flask.request.form['name']}")
        return flask.redirect(flask.url_for("order"), 303)

    @app.post("/upload")
    def upload():
        """What came, and where Werkzeug had it meanwhile."""
        found = [
            {
                "field": field,
                "name": file.filename,
                "type": file.content_type,
                "digest": digest_of(file),
                "rolled": bool(getattr(file.stream, "_rolled", False)),
            }
            for field, file in sorted(flask.request.files.items(multi=True), key=lambda pair: pair[0])
        ]
        return {"files": found, "fields": flask.request.form.to_dict(flat=False)}

    @app.get("/stream")
    def stream():
        def pieces():
            try:
                for number in range(PIECES):
                    yield f"{flask.request.path} {number} {flask.session.get('count')}\n"
            finally:
                notes.closed += 1

        return flask.Response(flask.stream_with_context(pieces()), mimetype="text/plain")

    @app.get("/long-stream")
    def long_stream():
        """More than a socket takes; request, session and `g` in every piece."""
        flask.g.number = 0

        def pieces():
            try:
                for _ in range(40):
                    notes.threads.append(threading.get_ident())
                    flask.g.number += 1
                    yield f"{flask.request.path} {flask.session.get('count')} {flask.g.number}".ljust(200_000)
            except Exception as error:
                notes.failed.append(error)
                raise
            finally:
                notes.closed += 1

        return flask.Response(flask.stream_with_context(pieces()), mimetype="text/plain")

    @app.get("/file")
    def file():
        return flask.send_file(__file__, as_attachment=True, download_name="shöp.py", conditional=True)

    @app.get("/memory-file")
    def memory_file():
        return flask.send_file(io.BytesIO(b"0123456789" * 1000), "application/octet-stream", etag="made")

    @app.get("/static-like/<path:path>")
    def static_like(path):
        return flask.send_from_directory(app.root_path, path)

    @app.get("/go")
    def go():
        return flask.redirect(flask.url_for("count", _external=True))

    @app.get("/loop/<int:left>")
    def loop(left):
        return flask.redirect(flask.url_for("loop", left=left - 1)) if left else "there"

    @app.get("/fail")
    def fail():
        raise ValueError("not for the client")

    @app.get("/fail-late")
    def fail_late():
        def pieces():
            yield "good"
            raise ValueError("not for the client either")

        return flask.Response(pieces())

    @app.get("/teapot")
    def teapot():
        flask.abort(418, description="short and stout")

    @app.get("/nothing")
    def nothing():
        response = flask.Response(status=204)
        del response.headers["Content-Type"]  # of what
        return response

    @app.get("/cookies")
    def cookies():
        response = flask.jsonify(flask.request.cookies)
        response.set_cookie("plain", "1")
        response.set_cookie("odd", 'a "b"; ü', httponly=True, samesite="Strict")
        response.delete_cookie("old")
        return response

    @app.get("/headers")
    def headers():
        return "", {"X-Latin": "caf\xe9", "X-Empty": "", "X-Long": "x" * 4000, "Content-Language": "de"}

    @app.get("/news")
    def news():
        events = Events(on_close=notes.gone.append)
        events.send(f"welcome back to {flask.request.headers.get('Last-Event-ID')}", id="1")
        notes.readers.append(events)
        return flask.Response(events, mimetype="text/event-stream")

    @app.get("/ticks")
    def ticks():
        forever = "forever" in flask.request.args

        async def pieces():
            try:
                for number in range(PIECES):
                    await mh.sleep(0)
                    yield f"tick {number}\n".encode()
                if forever:
                    await mh.sleep_forever()
            finally:
                notes.closed += 1

        return flask.Response(iter_async(pieces()), mimetype="text/plain")

    app.register_error_handler(HandshakeRefused, lambda refused: ("", 204))

    @app.get("/talk")
    def talk():
        with websocket(flask.request.environ) as ws:
            ws.send("hello")
        return ""

    @app.teardown_request
    def teardown(error):
        notes.torn_down += 1

    return app


class Notes:
    """What the application noted."""

    def __init__(self) -> None:
        self.closed = self.torn_down = 0
        self.threads: list[int] = []
        self.failed: list[Exception] = []
        self.readers: list[Events] = []
        self.gone: list[Events] = []


NAMES = (
    *("CONTENT_LENGTH", "CONTENT_TYPE", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR", "REQUEST_METHOD", "REQUEST_URI"),
    *("SCRIPT_NAME", "SERVER_PROTOCOL", "wsgi.url_scheme"),
)


def digest_of(file: FileStorage) -> Any:
    """Read it whole."""
    return hashlib.sha256(file.read()).hexdigest()
