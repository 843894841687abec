"""A real Flask application on real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import urllib.parse
from collections.abc import Iterator

import flask
import pytest

import manyhands as mh
from commands import EXAMPLES
from manyhands.server import Server
from support import LONG, wait_until


class Site:
    """The application, and what its views noted."""

    def __init__(self) -> None:
        self.app = app = flask.Flask(__name__)
        app.secret_key = "for the tests"
        self.stopped: list[mh.StopReason | None] = []
        self.streamed: list[int] = []
        self.stream_closed = threading.Event()
        self.begun = threading.Event()

        @app.get("/")
        def index():
            return "hello, " + flask.request.args.get("who", "you")

        @app.post("/form")
        def form():
            return {"fields": flask.request.form.to_dict(flat=False), "agent": flask.request.headers["User-Agent"]}

        @app.put("/json")
        def put_json():
            return flask.request.get_json()

        @app.post("/upload")
        def upload():
            return {name: len(file.read()) for name, file in flask.request.files.items()}

        @app.post("/body")
        def body():
            return flask.request.get_data()

        @app.get("/count")
        def count():
            flask.session["count"] = flask.session.get("count", 0) + 1
            return str(flask.session["count"])

        @app.get("/go")
        def go():
            return flask.redirect(flask.url_for("index", _external=True))

        @app.get("/file")
        def file():
            return flask.send_file(__file__, conditional=True)

        @app.get("/fail")
        def fail():
            raise ValueError("not for the client")

        @app.get("/stream")
        def stream():
            def pieces():
                try:
                    for number in range(5):
                        self.streamed.append(number)
                        yield f"{flask.request.path} {number}\n"
                finally:
                    self.stream_closed.set()

            return flask.Response(flask.stream_with_context(pieces()), mimetype="text/plain")

        @app.get("/work")
        def work():
            self.begun.set()
            try:
                while True:
                    mh.sleep_blocking(0.01)
                    below()
            except mh.JobStopped as stopped:
                self.stopped.append(stopped.reason)
                raise

        def below():
            assert flask.request.path == "/work"
            mh.check_in()

        @app.teardown_request
        def teardown(error):
            flask.g.torn_down = True


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def client(site) -> Iterator[http.client.HTTPConnection]:
    """A connection to the application on a server."""
    with Server(site.app, threads=2) as server, contextlib.closing(connection_to(server)) as connection:
        yield connection


def connection_to(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(*server.address, timeout=LONG)


def ask(connection, method, path, body=None, headers=None):
    """Status, headers in lower case, body."""
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def test_routes_arguments_and_methods(client):
    """On one connection."""
    assert ask(client, "GET", "/")[::2] == (200, b"hello, you")
    assert ask(client, "GET", "/?who=J%C3%BCrgen")[2] == "hello, Jürgen".encode()
    assert ask(client, "GET", "/nowhere")[0] == 404
    status, headers, _ = ask(client, "POST", "/", b"")
    assert (status, set(headers["allow"].split(", "))) == (405, {"GET", "HEAD", "OPTIONS"})
    status, headers, body = ask(client, "HEAD", "/")
    assert (status, headers["content-length"], body) == (200, "10", b"")
    assert ask(client, "OPTIONS", "/")[0] == 200


def test_forms_json_and_uploads(client):
    """Bodies in the ways that frameworks read them; chunked as well."""
    form = urllib.parse.urlencode([("a", "1"), ("a", "2"), ("ö", "ß")])
    headers = {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "tests"}
    assert json.loads(ask(client, "POST", "/form", form, headers)[2]) == {
        "fields": {"a": ["1", "2"], "ö": ["ß"]},
        "agent": "tests",
    }
    value = {"nested": [1, None, "x" * 10_000]}
    assert json.loads(ask(client, "PUT", "/json", json.dumps(value), {"Content-Type": "application/json"})[2]) == value
    assert ask(client, "PUT", "/json", "{", {"Content-Type": "application/json"})[0] == 400
    part = (
        b'--cut\r\nContent-Disposition: form-data; name="up"; filename="f"\r\n\r\n'
        + bytes(100_000)
        + b"\r\n--cut--\r\n"
    )
    assert json.loads(
        ask(client, "POST", "/upload", part, {"Content-Type": "multipart/form-data; boundary=cut"})[2]
    ) == {"up": 100_000}
    data = os.urandom(300_000)
    pieces = (data[start : start + 7000] for start in range(0, len(data), 7000))
    assert ask(client, "POST", "/body", pieces)[2] == data


def test_sessions_and_redirects(client):
    """Cookies come and go; a URL that is made has the host that was asked for."""
    cookie = ""
    for count in (b"1", b"2", b"3"):
        _, headers, body = ask(client, "GET", "/count", headers={"Cookie": cookie})
        assert body == count
        cookie = headers["set-cookie"].split(";")[0]
    status, headers, _ = ask(client, "GET", "/go", headers={"Host": "example.org:81"})
    assert (status, headers["location"]) == (302, "http://example.org:81/")


def test_files_whole_in_part_and_not_again(client):
    """send_file: ranges and conditions."""
    with open(__file__, "rb") as file:
        content = file.read()
    _, headers, body = ask(client, "GET", "/file")
    assert body == content
    assert ask(client, "GET", "/file", headers={"Range": "bytes=10-19"})[::2] == (206, content[10:20])
    assert ask(client, "GET", "/file", headers={"If-None-Match": headers["etag"]})[::2] == (304, b"")
    assert ask(client, "GET", "/")[2] == b"hello, you"


def test_a_view_that_raises_is_an_error_page_and_the_traceback_is_in_the_log(client, caplog):
    """Flask's own page; the connection goes on."""
    status, _, body = ask(client, "GET", "/fail")
    assert status == 500
    assert b"Internal Server Error" in body
    assert b"not for the client" not in body
    assert "not for the client" in caplog.text
    assert ask(client, "GET", "/")[0] == 200
    caplog.clear()


def test_a_stream_comes_in_pieces_with_its_context(client, site):
    """The generator sees the request, and is closed."""
    status, headers, body = ask(client, "GET", "/stream")
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    assert body == b"".join(b"/stream %d\n" % number for number in range(5))
    assert site.stream_closed.wait(LONG)
    assert site.streamed == [*range(5)]


def test_a_view_checks_in_from_any_depth_and_stops_when_its_client_hangs_up(site):
    """`except Exception`, as in the framework, does not swallow it; the context is torn down."""
    with Server(site.app, threads=2) as server:
        with socket.create_connection(server.address, LONG) as sock:
            sock.sendall(b"GET /work HTTP/1.1\r\nHost: h\r\n\r\n")
            assert site.begun.wait(LONG)
        wait_until(lambda: server.pool.stats().stopped == 1)
        assert site.stopped == [mh.StopReason.OWNER_GONE]
        with contextlib.closing(connection_to(server)) as client:
            assert ask(client, "GET", "/")[0] == 200


def test_many_clients_at_once_get_their_own_answers(site):
    """Eight clients, fifty requests each, four threads: nothing is mixed up."""
    wrong: list[object] = []

    def client(number: int) -> None:
        with contextlib.closing(connection_to(server)) as connection:
            for turn in range(50):
                who = f"{number}-{turn}"
                found = ask(connection, "GET", f"/?who={who}")
                if found[::2] != (200, f"hello, {who}".encode()):
                    wrong.append(found)

    with Server(site.app, threads=4) as server:
        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
            assert not thread.is_alive()
    assert wrong == []


def test_example_flask_app_stops_its_report_when_nobody_waits_for_it(caplog):
    """The example's own application: `/jobs` shows the report while it runs, and not afterwards."""
    space: dict = {"__name__": "flask_app"}
    exec(compile((EXAMPLES / "flask_app.py").read_text(encoding="utf-8"), "flask_app.py", "exec"), space)
    with Server(space["app"], threads=2) as server, contextlib.closing(connection_to(server)) as client:

        def jobs() -> list[str]:
            return [line.split()[1] for line in json.loads(ask(client, "GET", "/jobs")[2])]

        with socket.create_connection(server.address, LONG) as sock:
            sock.sendall(b"GET /report HTTP/1.1\r\nHost: h\r\n\r\n")
            wait_until(lambda: "/report" in jobs())
        wait_until(lambda: jobs() == ["/jobs"])
        assert ask(client, "POST", "/echo", b"x" * 1000)[2] == b"x" * 1000
        assert "StopReason.OWNER_GONE" in caplog.text
    caplog.clear()
