"""Applications of every kind inside `wsgiref.validate`, over real sockets: whatever the server does, it keeps to PEP 3333."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from wsgiref.validate import validator

import flask
import pytest

from manyhands.server import Limits
from serving import connect
from support import LONG, wait_until, xoptions

TEXT = [("Content-Type", "text/plain")]


def whole(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"hello"]


def pieces(environ, start_response):
    start_response("200 OK", TEXT)
    return iter([b"hel", b"", b"lo"])


def generator(environ, start_response):
    start_response("200 OK", TEXT)
    for _ in range(40):
        yield bytes(100_000)


def written(environ, start_response):
    write = start_response("200 OK", TEXT)
    write(b"hel")
    write(b"lo")
    return []


def echo(environ, start_response):
    body = environ["wsgi.input"]
    lines = body.readline(10) + b"".join(iter(lambda: body.read(1000), b""))
    start_response("200 OK", [*TEXT, ("Content-Length", str(len(lines)))])
    return [lines]


def file(environ, start_response):
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](io.BytesIO(b"hello" * 10_000), 512)


def nothing(environ, start_response):
    start_response("204 No Content", [])
    return []


def replaced(environ, start_response):
    start_response("200 OK", TEXT)
    try:
        raise ValueError("changed its mind")
    except ValueError as error:
        start_response("418 I'm a teapot", TEXT, (ValueError, error, error.__traceback__))
    return [b"short and stout"]


framework = flask.Flask("validated")


@framework.route("/", methods=["GET", "POST"])
def index():
    return flask.request.stream.read(10_000) or "hello"


APPS = [whole, pieces, generator, written, echo, file, nothing, replaced, framework]

REQUESTS = {
    "GET": b"GET /?a=b HTTP/1.1\r\nHost: h\r\n\r\n",
    "HEAD": b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n" + b"0123456789" * 500,
    "chunked": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "old": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
}


@pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")
@pytest.mark.parametrize("pin", [False, True])
@pytest.mark.parametrize("app", APPS, ids=lambda app: getattr(app, "__name__", "flask"))
def test_the_validator_finds_no_fault_with_the_server(start_server, caplog, app, pin):
    """Every kind of request, one after the other, with bodies in memory and in files."""
    server = start_server(validator(app), limits=Limits(pin_responses=pin, body_memory=1000))
    for kind, request in REQUESTS.items():
        with connect(server) as sock:
            sock.sendall(request)
            status, _, _ = sock.response("HEAD" if kind == "HEAD" else "GET")
            assert status in (200, 204, 418) or (app is framework and status == 405)
    wait_until(lambda: server.pool.stats().busy == 0)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_the_log_names_the_rule_that_an_application_breaks(start_server, caplog):
    """The client gets 500, the log the section of PEP 3333; also for what is noticed behind the head."""

    def view(environ, start_response):
        if environ["PATH_INFO"] == "/early":
            start_response("200 OK", TEXT)
            return ["text"]
        if environ["PATH_INFO"] == "/late":
            start_response("200 OK", TEXT)
            return iter([b"good", "bad"])
        start_response("200 OK", [("Content-Length", "5")])
        return [b"four"]

    server = start_server(view)
    with connect(server) as sock:
        assert sock.ask(b"/early")[0] == 500
    with connect(server) as sock:
        sock.sendall(b"GET /late HTTP/1.1\r\nHost: h\r\n\r\n")
        assert not sock.rest().endswith(b"0\r\n\r\n")
    with connect(server) as sock:
        sock.sendall(b"GET /short HTTP/1.1\r\nHost: h\r\n\r\n")
        assert sock.rest().endswith(b"four")

    def lines():
        return [record.getMessage() for record in caplog.records if "PEP 3333" in record.getMessage()]

    wait_until(lambda: len(lines()) == 3)
    early, late, short = lines()
    assert early.startswith(
        "GET /early HTTP/1.1: the application breaks PEP 3333, Unicode Issues: a piece of the body must be"
    )
    assert late.startswith(
        "GET /late HTTP/1.1: the application breaks PEP 3333, Unicode Issues: a piece of the body must be"
    )
    assert "Handling the Content-Length Header: the body had fewer bytes" in short
    caplog.clear()


def test_close_of_a_validated_stream_is_called_although_its_steps_are_on_several_threads(start_server):
    """A slow reader: the validator complains on standard error if an iterator is never closed."""
    closed = threading.Event()

    class Stream:
        def __iter__(self):
            yield from [bytes(1 << 20)] * 30

        def close(self):
            closed.set()

    def view(environ, start_response):
        start_response("200 OK", TEXT)
        return Stream()

    server = start_server(validator(view))
    with connect(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        assert len(sock.response()[2]) == 30 << 20
    assert closed.wait(LONG)


FILES = ("access_log", "bodies", "flask", "gone_clients", "serve", "server_end", "slow_clients", "streams", "websocket")

NOT_VALIDATED = {
    "The validator makes an iterator of a list: what is about responses that are here in full, and their length.": (
        "sent_ahead_are_answered",
        "may_come_byte_by_byte",
        "asks_first",
        "nothing_of_a_whole",
        "finishes_although",
        "response_that_was_given",
    ),
    "It forbids read() without a size, which PEP 3333 allows since it was written.": ("body_of_the_limit",),
    "It hides the class of an application, by which Django's is known.": ("django_application_is_pinned",),
}
"""Tests whose applications cannot be inside the validator; those of test_files.py, as it hides the file from the server, and of
test_bind.py, which read raw responses, are left out as well."""


@pytest.mark.stress
def test_the_applications_of_all_tests_pass_the_validator():
    """In the validator each: the environ, the input, how `start_response` is called, and that iterables are closed."""
    names = [name for several in NOT_VALIDATED.values() for name in several]
    here = Path(__file__).parent
    command = [sys.executable, *xoptions(), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--show-capture=no"]
    done = subprocess.run(
        [
            *command,
            *("-W", "ignore::wsgiref.validate.WSGIWarning", "-k", f"not ({' or '.join(names)})"),
            *(str(here / f"test_{name}.py") for name in FILES),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=here.parent.parent,
        env={**os.environ, "MANYHANDS_TEST_VALIDATE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(names)} deselected" in done.stdout
