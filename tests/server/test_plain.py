"""The compiled way for requests and responses that are nothing special: it takes what it is for, and nothing that the other way
would read or write otherwise.

All bytes that the tests of the readers have are compared as well: see `agree_on_plain` in `reading.py`.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import math
import threading
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import examples
from manyhands.server import Limits, _response
from manyhands.server._connection import Connection
from manyhands.server._environ import base_environ
from manyhands.server._request import RequestReader
from manyhands.server._response import ResponseFrame
from reading import GET, OLD, POST, agree_on_plain, read_one
from serving import connect, get, hello
from support import wait_until
from wsgi_client import Body, app_of

BROWSER = (
    b"GET /a/b?c=d&e=%20 HTTP/1.1\r\nHost: example.com:8080\r\nConnection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: text/html,*/*;q=0.8\r\n"
    b'Accept-Encoding: gzip, deflate, br\r\nAccept-Language: de;q=0.9\r\nCookie: a=b; c=d\r\nsec-ch-ua: "X";v="1"\r\n\r\n'
)
CURL = b"GET / HTTP/1.1\r\nHost: [::1]:80\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"
PLAIN = {
    "wrk": b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n",
    "curl": CURL,
    "browser": BROWSER,
    "head": b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n",
    "blanks": b"GET / HTTP/1.1\r\nHost:h\r\nX-One: \t a  b \t\r\nEmpty:\r\n\r\n",
    "dropped": b"GET / HTTP/1.1\r\nHost: h\r\nX_User: root\r\nProxy: evil\r\n\r\n",
    "most headers": b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(63)) + b"\r\n",
}
OTHERS = {
    "a body": POST,
    "an old one": OLD,
    "two": GET + GET,
    "a part": GET[:-1],
    "a blank line before": b"\r\n" + GET,
    "no host": b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: h/x\r\n\r\n",
    "an empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "twice the same": b"GET / HTTP/1.1\r\nHost: h\r\nX: 1\r\nx: 2\r\n\r\n",
    "a percent": b"GET /%41 HTTP/1.1\r\nHost: h\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n",
    "a whole address": b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "close": b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "two options": b"GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, x\r\n\r\n",
    "a proxy's option": b"GET / HTTP/1.1\r\nHost: h\r\nProxy-Connection: close\r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n",
    "an expectation": b"GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
    "no length": b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    "chunks": b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    "a bare LF": b"GET / HTTP/1.1\nHost: h\r\n\r\n",
    "a bare CR": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
    "a zero": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
    "Latin-1": b"GET / HTTP/1.1\r\nHost: h\r\nX: \xe9\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
    "a blank behind": b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
    "a blank before the colon": b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
    "a name that is none": b"GET / HTTP/1.1\r\nHost: h\r\nX@: y\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n",
    "a small method": b"get / HTTP/1.1\r\nHost: h\r\n\r\n",
    "more headers": b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(64)) + b"\r\n",
}


@pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN)
def test_what_most_clients_send_is_taken(data):
    assert agree_on_plain(data)


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_whatever_is_special_is_left_to_the_reader_of_all_requests(data):
    assert not agree_on_plain(data)


def test_the_limits_hold():
    """Of one byte, and of one header, more than there may be."""
    assert agree_on_plain(CURL, Limits(head_bytes=len(CURL), headers=3))
    assert not agree_on_plain(CURL, Limits(head_bytes=len(CURL) - 1))
    assert not agree_on_plain(CURL, Limits(headers=2))


@pytest.mark.parametrize("before", [b"\r", b"GET", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n"])
def test_nothing_is_taken_behind_what_is_not_complete(before):
    """These bytes are the rest of a head, or a body, whatever they look like."""
    base, remote = base_environ("here", 8000), ("10.0.0.1", 5)
    reader = RequestReader(Limits())
    assert reader.take_plain(CURL, base, remote) is not None
    reader.receive(before)
    assert reader.next_request() is None
    assert reader.take_plain(CURL, base, remote) is None
    reader.close()


def test_nothing_is_taken_behind_the_last_request():
    reader = RequestReader(Limits())
    reader.receive(GET.replace(b"Host", b"Connection: close\r\nHost"))
    assert reader.next_request() is not None
    assert reader.take_plain(CURL, base_environ("here", 8000), ("10.0.0.1", 5)) is None
    reader.close()


EDITS = [
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"\x7f",
    b"\x80",
    b"%",
    b"#",
    b"?",
    b"/",
    b",",
    b"_",
    b"@",
    b"\x0b",
    b"close",
]
LINES = [
    b"Host: h",
    b"Connection: close",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b" folded",
    b"X: y",
    b"",
]


@examples(1500)
@given(st.sampled_from([*PLAIN.values()]), st.data())
def test_a_few_bytes_more_or_less_never_make_two_requests_of_one(data, draw):
    """Edits at random places, and lines that matter."""
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(data)))
        what = draw.draw(st.sampled_from(["insert", "replace", "delete", "line"]))
        if what == "line":
            lines = data.split(b"\r\n")
            lines.insert(at % len(lines), draw.draw(st.sampled_from(LINES)))
            data = b"\r\n".join(lines)
        else:
            edit = b"" if what == "delete" else draw.draw(st.sampled_from(EDITS))
            data = data[:at] + edit + data[at + (what != "insert") :]
    agree_on_plain(data)


# Responses.


@pytest.fixture(autouse=True)
def one_date(monkeypatch):
    """Two heads are written one after the other: no second passes in between."""
    monkeypatch.setattr(_response, "_stamp", _response._Stamp())
    _response._stamp.expires = math.inf


def in_parts(status: str, headers: list[tuple[str, str]], body: bytes, length: int | None) -> bytes | None:
    """The response that is written in parts; None if something is wrong with it."""
    frame = ResponseFrame(read_one(GET))
    try:
        data = frame.head(status, headers, length)
    except (TypeError, ValueError):
        return None
    if body:
        data += frame.frame(body)
    return data + frame.end() if not frame.excess and not frame.short and frame.keep_alive else None


NAMES = [
    "Content-Type",
    "X-Any",
    "set-cookie",
    "Content-Length",
    "content-length",
    "Date",
    "Server",
    "Connection",
    "Upgrade",
    "a b",
    "",
    "X\n",
]
VALUES = ["text/plain", "", "3", "03", "3 ", "-3", "\xb3", "close", "a\r\nb", "\0", "\xe9", "\u0394", "\ud800", "\t x"]
STATUSES = [
    "200 OK",
    "404",
    "500 Oh dear",
    "204 No Content",
    "304 Not",
    "100 Continue",
    "600 x",
    "20 OK",
    "+20 OK",
    "200\r\n",
    "2000",
    "200OK",
]


@examples(1500)
@given(
    st.sampled_from(["200 OK", *STATUSES]),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=3),
    st.sampled_from([b"", b"abc", b"\r\n\r\n"]),
    st.booleans(),
)
def test_a_response_is_the_same_in_one_and_in_parts(status, headers, body, known):
    """Whatever is taken; and what cannot be sent is never taken."""
    frame = ResponseFrame(read_one(GET))
    whole = frame.whole(status, headers, body, known=known)
    if whole is None:
        assert frame.code == 0
        return
    assert whole == in_parts(status, headers, body, len(body) if known else None)
    assert (frame.code, frame.keep_alive) == (int(status[:3]), True)
    assert not frame.short
    assert not frame.excess


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("status", ["200 OK", "404", "301 Moved Permanently"])
def test_what_most_applications_answer_is_written_in_one(status, known):
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "3"), ("Set-Cookie", "a=b")]
    assert ResponseFrame(read_one(GET)).whole(status, headers, b"abc", known=known) is not None


class Shown(list):
    """A list that shows others than it has."""

    def __iter__(self):
        return iter([("X", "shown")])


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        ("204 No Content", [], b""),
        ("200 OK", [("Date", "never")], b"abc"),
        ("200 OK", [("Connection", "close")], b"abc"),
        ("200 OK", [("Content-Length", "2")], b"abc"),
        ("200 OK", [("X", "a\r\nSet-Cookie: b")], b"abc"),
        ("200 OK", [["X", "y"]], b"abc"),
        ("200 OK", [("X", b"y")], b"abc"),
        ("200 OK", Shown([("X", "stored")]), b"abc"),
        ("200 OK", (("X", "y"),), b"abc"),
        ("200 OK", [], bytearray(b"abc")),
        ("200 OK", [], bytes(65_537)),
    ],
)
def test_whatever_is_special_is_left_to_be_written_in_parts(status, headers, body):
    assert ResponseFrame(read_one(GET)).whole(status, headers, body, known=True) is None


def test_a_length_that_nobody_has_said_is_not_guessed():
    """A first piece may be one of many."""
    assert ResponseFrame(read_one(GET)).whole("200 OK", [], b"abc", known=False) is None


def test_who_writes_when_the_response_has_ended_writes_into_no_other(start_server):
    """The old `write()`, kept beyond its request: what it sent would stand before the next response."""
    kept = []

    def view(environ, start_response):
        kept.append(start_response("200 OK", [("Content-Type", "text/plain")]))
        return iter([b"a", b"b"])

    server = start_server(view)
    with connect(server) as sock:
        assert sock.ask()[2] == b"ab"
        wait_until(lambda: server.pool.stats().running == 0)
        with pytest.raises(RuntimeError, match="after the response had ended"):
            kept[0](b"SMUGGLED")
        assert sock.ask()[2] == b"ab"


@pytest.mark.parametrize(
    "request_", [OLD, GET.replace(b"GET", b"HEAD"), GET.replace(b"Host", b"Connection: close\r\nHost")]
)
def test_a_response_is_written_in_parts_where_the_request_asks_for_more(request_):
    assert ResponseFrame(read_one(request_)).whole("200 OK", [], b"abc", known=True) is None


def test_a_piece_behind_the_announced_ones_is_dropped_and_said(start_server, caplog):
    """The first piece was all that was announced; the iterable goes on, and is closed."""
    body = Body(b"abc", b"more")
    server = start_server(app_of(body, headers=[("Content-Length", "3")]))
    with connect(server) as sock:
        for _ in range(2):
            status, _, found = sock.ask()
            assert (status, found) == (200, b"abc")
    server.stop()
    assert body.closed == 2
    assert sum("more bytes than its Content-Length said" in record.message for record in caplog.records) == 2


def test_an_iterable_that_fails_at_its_first_piece_is_closed_and_answered(start_server, caplog):
    body = Body(ValueError("no first piece"))
    server = start_server(app_of(body, headers=[("Content-Length", "3")]))
    with connect(server) as sock:
        assert sock.ask()[0] == 500
    server.stop()
    assert body.closed == 1
    assert "no first piece" in caplog.text
    caplog.clear()  # the traceback's frames hold the server


@pytest.mark.parametrize("headers", [[("Content-Length", "3", "x")], [(None, "3")], [None], [(b"Content-Length", "3")]])
def test_what_are_no_headers_is_said_of_an_iterable_too(start_server, caplog, headers):
    """The rule of PEP 3333 is named, as for a list."""

    def view(environ, start_response):
        start_response("200 OK", headers)
        return iter([b"abc"])

    server = start_server(view)
    with connect(server) as sock:
        assert sock.ask()[0] == 500
    server.stop()
    assert "breaks PEP 3333" in caplog.text
    caplog.clear()


def test_the_environ_is_not_kept_while_the_response_waits(start_server):
    """What frameworks put into it goes when the application lets go of it, and not when a slow client has the response."""

    class Kept:
        pass

    kept = []

    def view(environ, start_response):
        environ["kept"] = thing = Kept()
        kept.append(weakref.ref(thing))
        start_response("200 OK", [])
        return (bytes(1 << 20) for _ in range(100))

    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        gc.collect()
        assert kept[0]() is None


@pytest.mark.skipif(
    importlib.util.find_spec("_testcapi") is None, reason="this interpreter has nothing of its own tests"
)
def test_without_memory_a_request_is_refused_and_nothing_panics(subprocess_python):
    """FAULT 18. Whichever of its allocations fails."""
    done = subprocess_python(WITHOUT_MEMORY)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"Refused", "PlainRequest"}


WITHOUT_MEMORY = """
import _testcapi
from manyhands.server import Limits
from manyhands.server._environ import base_environ
from manyhands.server._request import RequestReader
base, remote = base_environ("h", 1), ("1.2.3.4", 5)
data = b"GET /abc?d HTTP/1.1\\r\\nHost: h\\r\\nX-Long: " + b"y" * 9000 + b"\\r\\nUser-Agent: z\\r\\n\\r\\n"
RequestReader(Limits()).take_plain(data, base, remote)
seen = []
for number in range(1, 60):
    reader = RequestReader(Limits())
    _testcapi.set_nomemory(number, number + 1)
    try:
        found = reader.take_plain(data, base, remote)
    except BaseException as error:
        found = error
    finally:
        _testcapi.remove_mem_hooks()
    seen.append(type(found).__name__)
print(*seen)
"""


def test_an_access_log_that_raises_is_told_and_the_connection_goes_on(start_server, monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda hooked: told.append(str(hooked.exc_value)))

    class Broken(logging.Handler):
        def handle(self, record):
            raise ValueError("no disk")

    logger = logging.getLogger("manyhands.access")
    handler, level = Broken(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        server = start_server(hello)
        with connect(server) as sock:
            assert sock.ask()[0] == sock.ask()[0] == 200
        server.stop()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert told == ["no disk"] * 2


@pytest.mark.parametrize(
    "request_",
    [
        GET,
        b"",
        get(b"/pieces"),
        b"GARBAGE\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999999\r\n\r\n",
    ],
)
def test_a_connection_that_has_ended_does_not_wait_for_the_collector(start_server, request_):
    """Whatever became of its request: ten thousand would be thirty megabytes until somebody needs as many again."""

    def view(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"a", b"b"]) if environ["PATH_INFO"] == "/pieces" else [b"a"]

    def left() -> int:
        return sum(type(thing) is Connection for thing in gc.get_objects())

    server = start_server(view)
    gc.collect()
    gc.disable()
    try:
        for _ in range(8):
            with connect(server) as sock:
                sock.sendall(request_)
                if request_:
                    sock.recv(1)
        wait_until(lambda: server.connections == 0 and not left())
    finally:
        gc.enable()
