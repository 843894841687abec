"""A Flask application through Flask's own test client: what it sees in process, it sees over the wire."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import flask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from manyhands.server import Limits
from serving import connect, get, kept_busy, wait_ready
from sites.flask_shop import create
from support import wait_until
from wire_clients import HOP_BY_HOP, OWN, Wire, flask_client, validated


@pytest.fixture
def app() -> flask.Flask:
    return create()


@pytest.fixture(params=["in process", "wire", "chunked", "in a file", "pinned", "validated"])
def client(request, app, start_server) -> Iterator:
    """Flask's test client: in process, and over the wire in several ways."""
    if request.param == "in process":
        yield app.test_client()
        return
    limits = Limits(
        body_memory=1000 if request.param == "in a file" else 1 << 20, pin_responses=request.param == "pinned"
    )
    server = start_server(validated(app) if request.param == "validated" else app, limits=limits)
    with closing(Wire(server.address, chunked=request.param == "chunked")) as wire:
        yield flask_client(wire, app)


def upload(client, fields):
    """Send a form with files; the client's own way to do so leaves a temporary file open."""
    boundary, data = encode_multipart(fields)
    return client.post("/upload", data=data, content_type=f"multipart/form-data; boundary={boundary}").json


def file_of(data, name):
    return FileStorage(io.BytesIO(data), name)


# The same in process and over the wire.

pytestmark = pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")


def test_views_arguments_and_methods(client):
    """Each kind of URL, and the methods that a view does not have."""
    assert client.get("/").text == "hello, you"
    assert client.get("/", query_string={"who": "Jürgen & Söhne"}).text == "hello, Jürgen & Söhne"
    assert client.get("/nowhere").status_code == 404
    refused = client.post("/")
    assert (refused.status_code, sorted(refused.allow)) == (405, ["GET", "HEAD", "OPTIONS"])
    head = client.head("/")
    assert (head.status_code, head.content_length, head.data) == (200, 10, b"")
    assert client.options("/").allow.as_set() == {"get", "head", "options"}
    assert client.get("/nothing").status == "204 NO CONTENT"
    assert client.get("/teapot").status == "418 I'M A TEAPOT"
    assert "short and stout" in client.get("/teapot").text


def test_a_session_is_in_a_signed_cookie(client):
    """The client reads and writes it as the application does; one that was tampered with is none."""
    assert [client.get("/count").text for _ in range(3)] == ["1", "2", "3"]
    with client.session_transaction() as session:
        assert session["count"] == 3
        session["count"] = 40
    assert client.get("/count").text == "41"
    client.set_cookie("session", client.get_cookie("session").value[:-2] + "xx")
    assert client.get("/count").text == "1"


def test_a_form_needs_its_token_and_leads_elsewhere(client):
    """A token of the session, validation, a redirect, and a message that is shown once."""
    sent = {"name": "tea", "number": "3"}
    assert client.post("/order", data=sent).status_code == 403
    token = re.search('value="(.+?)"', client.get("/order").text)[1]
    assert client.post("/order", data={"name": "tea", "number": "none", "token": token}).status_code == 422
    done = client.post("/order", data=sent | {"token": token}, follow_redirects=True)
    assert ([step.status_code for step in done.history], done.request.path) == ([303], "/order")
    assert "3 of tea" in done.text
    assert "3 of tea" not in client.get("/order").text


def test_redirects_are_followed_on_one_connection(client):
    """Ten of them."""
    done = client.get("/loop/10", follow_redirects=True)
    assert (len(done.history), done.text) == (10, "there")


def test_uploads_are_in_memory_or_in_a_file(client):
    """Small and large ones, two in one field, with fields beside them and names that are no ASCII."""
    contents = [os.urandom(1000), os.urandom(3_000_000), b""]
    sent = {
        "a": [file_of(contents[0], "größe.txt"), file_of(contents[1], "b.bin")],
        "c": file_of(contents[2], "empty"),
        "note": ["zwölf", "elf"],
    }
    found = upload(client, sent)
    assert found["fields"] == {"note": ["zwölf", "elf"]}
    assert [(file["name"], file["rolled"]) for file in found["files"]] == [
        ("größe.txt", False),
        ("b.bin", True),
        ("empty", False),
    ]
    assert [file["digest"] for file in found["files"]] == [hashlib.sha256(data).hexdigest() for data in contents]


def test_a_large_multipart_of_many_parts(client):
    """Five hundred files and two hundred fields in one request."""
    sent = {f"f{number:03}": file_of(bytes(number * 10), f"{number}.bin") for number in range(500)}
    sent |= {f"n{number:03}": "x" * number for number in range(200)}
    found = upload(client, sent)
    assert [file["digest"] for file in found["files"]] == [
        hashlib.sha256(bytes(number * 10)).hexdigest() for number in range(500)
    ]
    assert len(found["fields"]) == 200


def test_bodies_of_every_size_come_back(client):
    """Raw bodies, beyond one read and beyond the memory; JSON."""
    for size in (0, 1, 999, 1001, 65_536, 2_000_000):
        data = os.urandom(size)
        assert client.post("/echo", data=data).data == data
    sent = {"a": [1, None, "ß"]}
    assert flask.json.loads(client.put("/echo", json=sent).data) == sent


def test_a_stream_has_its_context_and_is_closed(client, app):
    """`stream_with_context`: request and session in every piece; teardown comes behind it."""
    client.get("/count")
    assert client.get("/stream").text == "".join(f"/stream {number} 1\n" for number in range(5))
    head = client.head("/stream")
    assert (head.status_code, head.data) == (200, b"")
    head.close()
    notes = app.extensions["shop"]
    wait_until(lambda: notes.torn_down >= 3)
    wait_until(lambda: notes.closed >= 1)


RANGES = [
    "bytes=0-9",
    "bytes=10-",
    "bytes=-5",
    "bytes=0-0",
    "bytes=0-99999999",
    "bytes=99999999-",
    "bytes=5-4",
    "bytes=0-1,4-5",
]


def test_parts_of_files(client):
    """send_file with a range, and with what the client has already."""
    with client.get("/file") as whole:
        content = whole.data
        assert whole.content_length == len(content)
    for asked, expected in {"bytes=0-9": content[:10], "bytes=10-": content[10:], "bytes=-5": content[-5:]}.items():
        with client.get("/file", headers={"Range": asked}) as part:
            assert (part.status_code, part.data, part.content_length) == (206, expected, len(expected))
            assert part.content_range.length == len(content)
    with client.get("/file", headers={"If-None-Match": whole.headers["ETag"]}) as again:
        assert (again.status_code, again.data) == (304, b"")
    with client.get("/memory-file") as memory:
        assert memory.data == b"0123456789" * 1000


def test_static_files(client):
    """Of a directory, and none outside it."""
    found = client.get("/static-like/__init__.py")
    assert found.text.startswith('"""Applications of real frameworks')
    assert client.get("/static-like/../commands.py").status_code == 404
    again = client.get("/static-like/__init__.py", headers={"If-Modified-Since": found.headers["Last-Modified"]})
    assert again.status_code == 304
    for response in (found, again):
        response.close()


def test_a_view_that_raises_is_an_error_page_and_the_traceback_is_in_the_log(client, caplog):
    """Flask's page for it, with nothing in it."""
    found = client.get("/fail")
    assert found.status_code == 500
    assert "not for the client" not in found.text
    assert "not for the client" in caplog.text
    assert client.get("/").text == "hello, you"
    caplog.clear()


def test_cookies_of_all_kinds_come_and_go(client):
    """Several in one response, with quotes and attributes; one that is deleted."""
    client.set_cookie("old", "x")
    assert client.get("/cookies").json == {"old": "x"}
    assert client.get("/cookies").json == {"plain": "1", "odd": 'a "b"; ü'}


# Every difference is a finding.

DIFFERENTIAL = [
    ("GET", "/environ", {}),
    ("GET", "/environ?a=1&a=2&b=%20%2B%C3%BC;c", {}),
    ("GET", "/environ?", {}),
    ("GET", "/environ?a=?&b=/#c", {}),
    ("POST", "/environ", {"data": b"", "content_type": "text/plain"}),
    ("POST", "/environ", {"data": {"a": "ü"}}),
    (
        "GET",
        "/environ",
        {"headers": [("X-Odd", 'a,  b;c="d"'), ("Accept-Language", "de, en;q=0.5"), ("X-Latin", "caf\xe9")]},
    ),
    ("GET", "/environ", {"headers": [("X-Twice", "a"), ("X-Twice", "b")]}),
    ("GET", "/environ", {"headers": {"Cookie": "x=1; y=2"}}),
    ("GET", "/environ", {"base_url": "http://localhost:8000"}),
    ("GET", "/go", {"base_url": "http://localhost:8000"}),
    ("GET", "/", {}),
    ("HEAD", "/", {}),
    ("OPTIONS", "/order", {}),
    ("DELETE", "/", {}),
    ("PATCH", "/echo", {"data": b"xyz"}),
    ("GET", "/nothing", {}),
    ("GET", "/teapot", {}),
    ("GET", "/headers", {}),
    ("HEAD", "/headers", {}),
    ("GET", "/ä/%25/ %2F", {}),
    ("GET", "/environ//", {}),
    ("GET", "/loop//1", {}),
    ("GET", "/stream", {}),
    ("HEAD", "/stream", {}),
    ("HEAD", "/file", {}),
    ("GET", "/memory-file", {}),
    ("GET", "/fail", {}),
    *(("GET", "/file", {"headers": {"Range": wanted}}) for wanted in ["", *RANGES]),
    ("HEAD", "/file", {"headers": {"Range": "bytes=0-9"}}),
    ("GET", "/file", {"headers": {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}}),
    ("GET", "/file", {"headers": {"If-None-Match": "*"}}),
]


@pytest.mark.parametrize(("method", "path", "options"), DIFFERENTIAL)
@pytest.mark.parametrize("pin", [False, True])
def test_the_wire_changes_nothing_in_a_response(app, start_server, caplog, pin, method, path, options):
    """Status, headers and body of both: but for what the connection needs."""
    server = start_server(app, limits=Limits(pin_responses=pin))
    seen = []
    with closing(Wire(server.address)) as wire:
        for client in (app.test_client(), flask_client(wire, app)):
            response = client.open(path, method=method, **options)
            headers = [
                (name.lower(), value) for name, value in response.headers if name.lower() not in HOP_BY_HOP | OWN
            ]
            seen.append((response.status, sorted(headers), response.data))
            response.close()
    caplog.clear()
    if not any(name == "content-length" for name, _ in seen[0][1]):
        seen[1][1][:] = [pair for pair in seen[1][1] if pair != ("content-length", str(len(seen[1][2])))]
    assert seen[0] == seen[1]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12)
VALUE = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=12).map(str.strip).filter(bool)


def test_whatever_is_asked_the_application_knows_the_same(start_server):
    """Paths, queries, header lines, cookies and forms of any characters."""
    app = flask.Flask("any")
    names = {"CONTENT_LENGTH", "CONTENT_TYPE", "PATH_INFO", "QUERY_STRING", "REQUEST_METHOD", "SCRIPT_NAME"}

    @app.route("/<path:path>", methods=["GET", "POST"])
    def known(path):
        asked = flask.request
        return {
            "path": path,
            "url": asked.url,
            "args": list(asked.args.items(multi=True)),
            "form": list(asked.form.items(multi=True)),
            "cookies": asked.cookies,
            "environ": {name: value for name, value in sorted(asked.environ.items()) if name in names and value},
            "headers": sorted(asked.headers.items()),
        }

    server = start_server(app)

    @settings(max_examples=150, deadline=None)
    @given(TEXT, st.dictionaries(TEXT, TEXT), st.lists(VALUE), st.dictionaries(TEXT, TEXT), st.booleans())
    def same(path, query, values, form, post):
        options = {
            "method": "POST" if post else "GET",
            "query_string": query,
            "headers": [("X-Value", value) for value in values] + [("Cookie", "; ".join(values))] * bool(values),
            "data": form if post else None,
        }
        seen = []
        for client in (app.test_client(), flask_client(wire, app)):
            with client.open("/x" + quote(path), **options) as response:
                seen.append((response.status, response.data))
        assert seen[0] == seen[1]

    with closing(Wire(server.address)) as wire:
        same()


# On the way.


@pytest.mark.parametrize("hang_up", [False, True])
def test_a_stream_keeps_its_context_from_thread_to_thread(app, start_server, hang_up):
    """`stream_with_context` enters the context on one thread and leaves it on another, to the end or when the client goes."""
    notes = app.extensions["shop"]
    server = start_server(app)
    wait_ready(server)
    with connect(server) as sock:
        sock.sendall(get(b"/long-stream"))
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        with kept_busy(server, notes.threads[-1]):
            if hang_up:
                while len(set(notes.threads)) == 1:
                    assert sock.recv(1 << 20)
                sock.reset()
            else:
                body = sock.response()[2]
                assert [int(piece.split()[1]) for piece in body.decode().split("/long-stream")[1:]] == [*range(1, 41)]
    wait_until(lambda: notes.closed == 1)
    wait_until(lambda: notes.torn_down == 2)
    wait_until(lambda: server.pool.stats().busy == 0)
    assert len(set(notes.threads)) > 1
    assert notes.failed == []


def test_a_proxy_is_believed_by_werkzeug_if_it_is_asked_to(app, start_server):
    """ProxyFix around the application: address, scheme, host and prefix."""
    from werkzeug.middleware.proxy_fix import ProxyFix

    server = start_server(ProxyFix(app, x_for=1, x_proto=1, x_host=1, x_prefix=1))
    with connect(server) as sock:
        sock.sendall(
            b"GET /environ HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
            b"X-Forwarded-Host: shop.example\r\nX-Forwarded-Prefix: /shop\r\n\r\n"
        )
        found = flask.json.loads(sock.response()[2])
    assert (found["REMOTE_ADDR"], found["root"], found["secure"]) == ("192.0.2.7", "https://shop.example/shop/", True)


def test_a_stream_that_fails_in_the_middle_is_cut_and_logged(app, start_server, caplog):
    """The client sees that something is missing, and not what."""
    server = start_server(app)
    with connect(server) as sock:
        sock.sendall(get(b"/fail-late"))
        received = sock.rest()
    assert b"good" in received
    assert not received.endswith(b"0\r\n\r\n")
    assert b"not for the client" not in received
    wait_until(lambda: "not for the client either" in caplog.text)
    caplog.clear()


def test_an_upload_may_wait_to_be_asked_for(app, start_server):
    """`Expect: 100-continue`, for a body beyond the memory."""
    server = start_server(app, limits=Limits(body_memory=1000))
    data = os.urandom(500_000)
    with connect(server) as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 500000\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(data)
        assert sock.response()[2] == data


def test_a_request_beyond_flasks_limit_is_flasks_to_refuse(app, start_server):
    """MAX_CONTENT_LENGTH: 413; the connection goes on."""
    app.config["MAX_CONTENT_LENGTH"] = 1000
    server = start_server(app)
    for chunked in (False, True):
        with closing(Wire(server.address, chunked=chunked)) as wire:
            client = flask_client(wire, app)
            assert client.post("/echo", data=bytes(1001)).status_code == 413
            assert client.get("/").text == "hello, you"


def test_a_request_that_is_no_websocket_is_no_error_of_the_application(app, start_server, caplog):
    """The server has told the client, and Flask's error handler says that it was none: nothing in the log."""
    server = start_server(app)
    with connect(server) as sock:
        assert sock.ask(b"/talk")[0] == 426
    wait_until(lambda: server.pool.stats().busy == 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
