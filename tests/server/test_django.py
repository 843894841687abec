"""A real Django application on real sockets: what Django's own test client sees in process, it sees over the wire."""

from __future__ import annotations

import gc
import gzip
import hashlib
import json
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import manyhands as mh
from event_reader import EventReader
from manyhands.server import Limits
from serving import ask, connect, get, kept_busy, wait_ready
from support import LONG, wait_until
from wire_clients import Wire, django_client, validated

django = pytest.importorskip("django")

from sites.django_setup import set_up


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """The application."""
    return set_up(tmp_path_factory.mktemp("shop"))


@pytest.fixture(autouse=True)
def notes(shop, caplog):
    """What its views noted; behind each test nobody has a connection to the database."""
    from django.db import connections

    from sites.shop.views import notes

    notes.clear()
    yield notes
    notes.clear()
    caplog.get_records("call").clear()  # a refusal's record has the request in it
    connections.close_all()


def in_process():
    from django.test import Client

    # A request of HTTP/1.1 has a Host.
    return Client(enforce_csrf_checks=True, raise_request_exception=False, headers={"Host": "testserver"})


@pytest.fixture(params=["in process", "wire", "chunked", "in a file", "unpinned", "validated"])
def client(request, shop, start_server) -> Iterator:
    """Django's test client: in process, and over the wire in several ways."""
    if request.param == "in process":
        yield in_process()
        return
    limits = Limits(
        body_memory=1000 if request.param == "in a file" else 1 << 20, pin_responses=request.param != "unpinned"
    )
    server = start_server(validated(shop) if request.param == "validated" else shop, limits=limits)
    with closing(Wire(server.address, chunked=request.param == "chunked")) as wire:
        yield django_client(wire)


@pytest.fixture
def wire(shop, start_server) -> Iterator:
    """A client over the wire, as the server is by default."""
    server = start_server(shop)
    with closing(Wire(server.address)) as wire:
        yield django_client(wire)


# The same in process and over the wire.

pytestmark = pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")


def test_views_arguments_and_methods(client):
    """Each kind of URL, and the methods that a view does not have."""
    assert client.get("/").content == b"hello, you"
    assert client.get("/", {"who": "Jürgen & Söhne"}).content == "hello, Jürgen & Söhne".encode()
    assert client.get("/nowhere").status_code == 404
    assert client.get("/upload").status_code == 405
    assert client.get("/upload")["Allow"] == "POST"
    head = client.head("/")
    assert (head.status_code, head["Content-Length"], head.content) == (200, "10", b"")
    nothing = client.get("/nothing")
    assert (nothing.status_code, nothing.content) == (204, b"")


def test_a_session_is_in_the_database_and_counts(client):
    """Its cookie comes and goes; another client has another session."""
    assert [client.get("/count").content for _ in range(3)] == [b"1", b"2", b"3"]
    assert client.session["count"] == 3
    client.cookies.clear()
    assert client.get("/count").content == b"1"


def test_a_form_needs_its_token_and_leads_elsewhere(client):
    """CSRF, validation, a redirect, and a message in the session."""
    sent = {"name": "tea", "number": "3"}
    assert client.post("/order", sent).status_code == 403
    page = client.get("/order").content.decode()
    token = re.search('name="csrfmiddlewaretoken" value="(.+?)"', page)[1]
    wrong = client.post("/order", {"name": "tea", "number": "none", "csrfmiddlewaretoken": token})
    assert (wrong.status_code, b"Enter a whole number" in wrong.content) == (422, True)
    done = client.post("/order", sent | {"csrfmiddlewaretoken": token}, follow=True)
    assert done.redirect_chain == [("/order", 302)]
    assert b"3 of tea" in done.content
    assert client.post("/order", sent, headers={"X-CSRFToken": token}).status_code == 302


def test_a_login_lasts(client):
    """A redirect to the page for it, the form, the redirect back, and the session after it."""
    first = client.get("/mine")
    assert (first.status_code, first["Location"]) == (302, "/login?next=/mine")
    page = client.get("/login").content.decode()
    token = re.search('name="csrfmiddlewaretoken" value="(.+?)"', page)[1]
    done = client.post("/login", {"username": "ada", "password": "secret", "csrfmiddlewaretoken": token}, follow=True)
    assert done.content == b"for ada"
    assert client.get("/mine").content == b"for ada"
    client.logout()
    assert client.get("/mine").status_code == 302


def test_uploads_are_in_memory_or_in_a_file(client):
    """Small and large ones in one form, with fields beside them and names that are no ASCII."""
    from django.core.files.uploadedfile import SimpleUploadedFile

    small, large = os.urandom(1000), os.urandom(3_000_000)
    files = {"a": SimpleUploadedFile("größe.txt", small, "text/plain"), "note": "zwölf"}
    for kept in ("InMemoryUploadedFile", "TemporaryUploadedFile"):
        found = client.post("/upload", files).json()
        assert found["fields"] == {"note": "zwölf"}
        first = found["files"][0]
        assert (first["field"], first["name"], first["kept"]) == ("a", "größe.txt", kept)
        sent = [hashlib.sha256(data).hexdigest() for data in (small, large)]
        assert [file["digest"] for file in found["files"]] == sent[: len(found["files"])]
        files["a"].seek(0)
        files["b"] = SimpleUploadedFile("b.bin", large, "application/octet-stream")


def test_bodies_of_every_size_come_back(client):
    """Raw bodies, beyond one read and beyond the memory."""
    for size in (0, 1, 999, 1001, 65_536, 2_000_000):
        data = os.urandom(size)
        assert client.post("/echo", data, content_type="application/octet-stream").content == data
    sent = {"a": [1, None, "ß"]}
    assert json.loads(client.put("/echo", sent, content_type="application/json").content) == sent


def test_streams_and_files_arrive_whole(client):
    """A generator, a file of the disk, a file in memory."""
    from sites.shop import views

    assert client.get("/stream").getvalue() == b"".join(b"/stream %d\n" % number for number in range(5))
    file = client.get("/file")
    with open(views.__file__, "rb") as source:
        content = source.read()
    assert (file.getvalue(), file["Content-Length"]) == (content, str(len(content)))
    assert file["Content-Disposition"] == 'attachment; filename="views.py"'
    memory = client.get("/memory-file")
    assert (memory.getvalue(), memory["Content-Length"]) == (b"0123456789" * 1000, "10000")
    head = client.head("/file")
    assert (head["Content-Length"], head.getvalue()) == (str(len(content)), b"")
    for response in (file, memory, head):
        response.close()


def test_a_compressed_stream_is_the_same(client):
    """GZipMiddleware, on a page, a file and a stream."""
    for path in ("/long", "/file", "/rows"):
        response = client.get(path)
        plain = response.getvalue()
        packed = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert packed["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.getvalue()) == plain
        response.close()
        packed.close()
    assert plain.count(b"\n") == 50


def test_what_has_not_changed_is_not_sent_again(client):
    """An ETag of ConditionalGetMiddleware, and the date of a static file."""
    tag = client.get("/long")["ETag"]
    again = client.get("/long", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    file = client.get("/media/page.css")
    assert (file.getvalue(), file["Content-Type"]) == (b"body { color: black }\n", "text/css")
    file.close()
    again = client.get("/media/page.css", headers={"If-Modified-Since": file["Last-Modified"]})
    assert again.status_code == 304
    assert client.get("/media/../settings.py").status_code == 400


def test_a_view_that_raises_is_an_error_page_and_the_traceback_is_in_the_log(client, caplog):
    """Django's page for it, with nothing in it."""
    found = client.get("/fail")
    assert found.status_code == 500
    assert b"not for the client" not in found.content
    assert "not for the client" in caplog.text
    assert client.get("/").content == b"hello, you"


def test_cookies_of_all_kinds_come_and_go(client):
    """Several in one response, with quotes and attributes; one that is deleted."""
    first = client.get("/cookies")
    assert set(first.cookies) == {"plain", "odd", "old"}
    assert (first.cookies["odd"].value, first.cookies["odd"]["samesite"]) == ('a "b"; c', "Strict")
    assert first.cookies["old"]["max-age"] == 0 or first.cookies["old"]["max-age"] == "0"
    assert client.get("/cookies").json()["odd"] == 'a "b"; c'


def test_many_writers_at_once(client):
    """Each sees what the others did: one transaction after the other."""
    assert client.post("/sell/1").json()["sold"] >= 1
    before = client.post("/sell/2").json()["sold"]
    assert [client.post("/sell/2").json()["sold"] - before for _ in range(5)] == [1, 2, 3, 4, 5]
    assert client.post("/sell/99999").status_code == 404


DIFFERENTIAL = [
    ("GET", "/environ", {}),
    ("GET", "/environ?a=1&a=2&b=%20%2B%C3%BC;c", {}),
    ("GET", "/environ?", {}),
    ("POST", "/environ", {"data": b"", "content_type": "text/plain"}),
    ("GET", "/environ", {"headers": {"X-Odd": 'a,  b;c="d"', "Accept-Language": "de, en;q=0.5", "Cookie": "x=1; y=2"}}),
    ("GET", "/environ", {"headers": {"Host": "localhost:8000"}}),
    ("GET", "/", {"headers": {"Host": "evil.example"}}),
    ("GET", "/go", {}),
    ("GET", "/stream", {}),
    ("HEAD", "/stream", {}),
    ("GET", "/file", {}),
    ("HEAD", "/file", {}),
    ("GET", "/long", {}),
    ("HEAD", "/long", {}),
    ("OPTIONS", "/work", {}),
    ("DELETE", "/", {}),
    ("PATCH", "/echo", {"data": b"xyz", "content_type": "text/plain"}),
    ("GET", "/nothing", {}),
    ("GET", "/ä/%", {}),
    ("GET", "/memory-file", {}),
    ("GET", "/media/page.css", {}),
    ("GET", "/media/page.css", {"headers": {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}}),
    ("GET", "/long", {"headers": {"If-None-Match": "*"}}),
    ("GET", "/fail", {}),
]


@pytest.mark.parametrize(("method", "path", "options"), DIFFERENTIAL)
def test_the_wire_changes_nothing_in_a_response(wire, caplog, method, path, options):
    """Status, headers and body of both: but for what the connection needs."""
    seen = []
    for client in (in_process(), wire):
        response = client.generic(method, path, **options)
        headers = {name.lower(): value for name, value in response.items()}
        seen.append((response.status_code, response.reason_phrase, headers, response.getvalue()))
        response.close()
    assert set(seen[1][2]) - set(seen[0][2]) <= {"content-length"}
    seen[1][2].setdefault("content-length", str(len(seen[1][3])))
    seen[0][2].setdefault("content-length", seen[1][2]["content-length"])
    assert seen[0] == seen[1]


# Whose thread, and whose connection to the database.


@pytest.fixture
def signals(shop):
    """Who began and finished requests: (signal, thread)."""
    from django.core.signals import request_finished, request_started

    seen: list[tuple[str, int]] = []

    def started(**_):
        seen.append(("started", threading.get_ident()))

    def finished(**_):
        seen.append(("finished", threading.get_ident()))

    request_started.connect(started)
    request_finished.connect(finished)
    yield seen
    request_started.disconnect(started)
    request_finished.disconnect(finished)


@pytest.fixture
def many_items(shop):
    """More than a socket takes of `/rows`."""
    from django.db import connections

    from sites.shop.models import Item

    made = Item.objects.bulk_create(Item(name="one more") for _ in range(2000))
    connections.close_all()
    yield len(made) + 50
    Item.objects.filter(name="one more").delete()


def wrapped(app):
    """As users put things around an application."""
    from werkzeug.middleware.proxy_fix import ProxyFix

    return ProxyFix(app)


@pytest.mark.parametrize("wrap", [lambda app: app, wrapped], ids=["plain", "wrapped"])
def test_a_stream_reads_the_database_row_by_row_on_one_thread(shop, start_server, many_items, notes, signals, wrap):
    """By default, for a client that takes its time: its thread is let go of, and its connection closed, all the same."""
    server = start_server(wrap(shop))
    with connect(server) as sock:
        sock.sendall(get(b"/rows"))
        wait_until(lambda: len(signals) == 2)
        wait_until(lambda: server.pool.stats().busy == 0)
        status, _, body = sock.response()
        assert (status, body.count(b"\n")) == (200, many_items)
        assert sock.ask()[0] == 200
    assert len(notes.threads) == many_items
    assert {thread for _, thread in signals[:2]} == set(notes.threads)
    assert notes.failed == []


@pytest.mark.parametrize("wrap", [lambda app: app, wrapped], ids=["plain", "wrapped"])
def test_a_file_is_closed_by_its_view_s_thread_while_the_client_takes_its_time(shop, start_server, signals, wrap):
    """The end of the request, which closes database connections, is its thread's business, whatever sends the file."""
    from django.conf import settings

    big = Path(settings.MEDIA_ROOT, "big")
    big.parent.mkdir(parents=True, exist_ok=True)
    with big.open("wb") as file:
        file.truncate(200 << 20)
    try:
        server = start_server(wrap(shop), threads=3)
        with connect(server) as sock:
            sock.sendall(get(b"/media/big"))
            wait_until(lambda: server.pool.stats().syncing_parked == 1)
            assert [what for what, _ in signals] == ["started", "finished"]
            assert len({thread for _, thread in signals}) == 1
    finally:
        big.unlink()


@pytest.fixture
def opened(shop):
    """Connections to the database that were opened meanwhile."""
    from django.db.backends.signals import connection_created

    opened = []

    def note(connection, **_):
        opened.append(connection)

    connection_created.connect(note)
    yield opened
    connection_created.disconnect(note)


def test_without_pinning_such_a_stream_fails_on_the_next_thread(shop, start_server, many_items, notes, opened, caplog):
    """What the default is for. The transaction is left open for good: its thread never comes back to it."""
    from django.db import DatabaseError

    server = start_server(shop, limits=Limits(pin_responses=False))
    wait_ready(server)
    with connect(server) as sock:
        sock.sendall(get(b"/rows"))
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        with kept_busy(server, notes.threads[-1]):
            assert not sock.rest().endswith(b"0\r\n\r\n")
    assert len(set(notes.threads)) > 1
    assert isinstance(notes.failed[0], DatabaseError)
    assert "can only be used in that same thread" in caplog.text
    (left,) = [connection for connection in opened if connection.connection is not None]
    assert left.in_atomic_block
    notes.clear()
    caplog.get_records("call").clear()
    gc.collect()  # the error and its log record hold the cursor
    left.connection.rollback()
    left.connection.close()
    left.connection = None


@pytest.mark.parametrize(
    "path", ["/", "/file", "/memory-file", "/stream", "/fail", "/nothing", "/nowhere", "/fail-late"]
)
def test_every_request_is_finished_on_its_thread(shop, start_server, signals, path):
    """`request_finished`, by which Django closes connections, when the response is closed; of every kind, also for HEAD."""
    server = start_server(shop)
    for request in (get(path.encode()), get(path.encode()).replace(b"GET", b"HEAD")):
        signals.clear()
        with connect(server) as sock:
            sock.sendall(request)
            wait_until(lambda: len(signals) == 2)
        assert [name for name, _ in signals] == ["started", "finished"]
        assert len({thread for _, thread in signals}) == 1


def test_a_file_is_finished_on_its_thread_also_through_what_is_around_the_application(shop, start_server, signals):
    """Django hands the server a file, which says nothing of Django."""
    server = start_server(wrapped(shop))
    for _ in range(5):
        with connect(server) as sock:
            assert sock.ask(b"/file")[0] == 200
    wait_until(lambda: len(signals) == 10)
    for first, second in zip(signals[::2], signals[1::2], strict=True):
        assert first[1] == second[1]


def test_no_connection_to_the_database_is_left_behind_by_many_requests_at_once(shop, start_server, opened):
    """Eight clients on four threads that write to one row: nothing is lost, and every connection was closed again."""
    from django.db import connections

    from sites.shop.models import Item

    def client():
        with closing(Wire(server.address)) as wire:
            own = django_client(wire)
            for _ in range(10):
                assert own.post("/sell/3").status_code == 200
                assert own.get("/count").status_code == 200

    before = Item.objects.get(pk=3).sold
    server = start_server(shop, threads=4)
    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * LONG)
        assert not thread.is_alive()
    wait_until(lambda: server.pool.stats().busy == 0)
    assert Item.objects.get(pk=3).sold == before + 80
    connections.close_all()  # this thread's
    assert len(opened) >= 160
    assert [connection for connection in opened if connection.connection is not None] == []


# A client that goes.


@pytest.mark.parametrize("wrap", [lambda app: app, wrapped], ids=["plain", "wrapped"])
@pytest.mark.parametrize("path", [b"/work", b"/query"])
def test_a_view_stops_when_its_client_hangs_up(shop, start_server, notes, signals, path, wrap):
    """A loop with check-ins, and one endless query; Django finishes the request, and so closes the connection."""
    server = start_server(wrap(shop))
    with connect(server) as sock:
        sock.sendall(get(path))
        assert notes.begun.wait(LONG)
    wait_until(lambda: server.pool.stats().stopped == 1)
    assert notes.stopped == [mh.StopReason.OWNER_GONE]
    assert [name for name, _ in signals] == ["started", "finished"]
    assert len({thread for _, thread in signals}) == 1
    with connect(server) as sock:
        assert sock.ask()[0] == 200


def test_an_async_view_is_told_by_its_requests_job(shop, start_server, notes, signals, access):
    """It runs on another thread, where `check_in()` knows of no job."""
    server = start_server(shop)
    with connect(server) as sock:
        sock.sendall(get(b"/wait-async"))
        assert notes.begun.wait(LONG)
    wait_until(lambda: len(signals) == 2)
    assert notes.stopped == [mh.StopReason.OWNER_GONE]
    wait_until(lambda: access() == [("GET /wait-async HTTP/1.1", 499)])


def test_a_report_ends_with_its_reader(shop, start_server, many_items, notes, signals, monkeypatch):
    """In the middle of its transaction, which is rolled back: another one can begin."""
    monkeypatch.setattr("manyhands.server._answer.SPOOL_BYTES", 1 << 20)
    server = start_server(shop)
    with connect(server) as sock:
        sock.sendall(get(b"/rows"))
        wait_until(lambda: server.pool.stats().syncing_held == 1)
        sock.reset()
    wait_until(lambda: len(signals) == 2)
    assert [type(error) for error in notes.failed] == [GeneratorExit]
    with closing(Wire(server.address)) as wire:
        assert django_client(wire).post("/sell/4").status_code == 200


# On the way.


def test_a_stream_that_fails_in_the_middle_is_cut_and_logged(shop, start_server, caplog):
    """The client sees that something is missing, and not what."""
    server = start_server(shop)
    with connect(server) as sock:
        sock.sendall(get(b"/fail-late"))
        received = sock.rest()
    assert b"good" in received
    assert not received.endswith(b"0\r\n\r\n")
    assert b"not for the client" not in received
    wait_until(lambda: "not for the client either" in caplog.text)


def test_an_upload_may_wait_to_be_asked_for(shop, start_server):
    """`Expect: 100-continue`, for a body beyond the memory."""
    server = start_server(shop, limits=Limits(body_memory=1000))
    data = os.urandom(500_000)
    with connect(server) as sock:
        sock.sendall(
            b"POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Type: a/b\r\nContent-Length: 500000\r\n\r\n"
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(data)
        assert sock.response()[2] == data


def test_a_request_beyond_djangos_limit_is_djangos_to_refuse(shop, start_server, caplog):
    """DATA_UPLOAD_MAX_MEMORY_SIZE is 2.5 MiB: 400 and its own log line; the connection goes on."""
    server = start_server(shop)
    with closing(Wire(server.address)) as wire:
        client = django_client(wire)
        assert client.post("/echo", bytes(3_000_000), content_type="a/b").status_code == 400
        assert client.get("/").content == b"hello, you"
    caplog.get_records("call").clear()


@pytest.mark.parametrize("believed", [True, False])
def test_a_proxy_is_believed_if_its_address_is(shop, start_server, believed):
    """Without SECURE_PROXY_SSL_HEADER: the scheme and the client's address."""
    server = start_server(shop, trusted_proxies=["127.0.0.1"] if believed else [])
    with connect(server) as sock:
        sock.sendall(
            b"GET /environ HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n"
        )
        found = json.loads(sock.response()[2])
    assert (found["secure"], found["REMOTE_ADDR"]) == ((True, "192.0.2.7") if believed else (False, "127.0.0.1"))


def test_a_large_file_for_a_slow_reader_holds_no_thread_and_no_connection(shop, start_server, signals, tmp_path):
    """The kernel has it; Django has finished the request long before the client has read it."""
    from django.conf import settings

    content = os.urandom(1 << 20) * 20
    (settings.MEDIA_ROOT / "large.bin").write_bytes(content)
    server = start_server(shop, threads=1)
    with connect(server) as sock:
        sock.sendall(get(b"/media/large.bin"))
        wait_until(lambda: len(signals) == 2)
        assert ask(server, "/") == (200, b"hello, you")
        assert sock.response()[2] == content


@pytest.mark.parametrize("farewell", [True, False])
def test_a_view_talks_by_websocket_and_reads_the_database(shop, start_server, signals, caplog, farewell):
    """Django finishes the request when the conversation is over, whichever way."""
    from websockets.sync.client import connect as connect_page

    server = start_server(shop)
    with connect_page("ws://{}:{}/talk".format(*server.address)) as page:
        for number in range(1, 6):
            page.send(str(number))
            assert page.recv(LONG) == f"item {number - 1}"
        if not farewell:
            page.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: len(signals) == 2)
    wait_until(lambda: server.pool.stats().busy == 0)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    with connect(server) as sock:
        assert sock.ask()[0] == 200


def test_a_request_that_is_no_websocket_is_no_error_of_the_application(shop, start_server, caplog):
    """The server has told the client, and the view is done: nothing in the log."""
    server = start_server(shop)
    with connect(server) as sock:
        assert sock.ask(b"/talk")[0] == 426
    wait_until(lambda: server.pool.stats().busy == 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# Server-sent events.


@pytest.mark.parametrize("kind", ["plain", "gzip", "left alone"])
def test_a_page_that_waits_for_events_holds_its_thread(shop, start_server, notes, signals, kind):
    """StreamingHttpResponse is pinned: the thread waits. Events arrive at once, also through GZipMiddleware."""
    if kind == "gzip" and django.VERSION < (6,):
        pytest.skip("its GZipMiddleware keeps pieces back until there is enough to compress")
    server = start_server(shop, threads=2)
    path = "/news?Content-Encoding=identity" if kind == "left alone" else "/news"
    options = {} if kind == "plain" else {"Accept_Encoding": "gzip"}
    with EventReader(server.address, path, **options) as reader:
        assert reader.response.getheader("Content-Encoding") == {"gzip": "gzip", "left alone": "identity"}.get(kind)
        assert reader.event() == {"id": "1", "data": "there are 1"}
        for number in range(5):
            notes.readers[0].send(str(number))
            assert reader.event() == {"data": str(number)}
        assert server.pool.stats().busy == 1
        assert ask(server, "/") == (200, b"hello, you")
    wait_until(lambda: len(notes.gone) == 1)
    wait_until(lambda: len(signals) == 4)
    wait_until(lambda: server.pool.stats().busy == 0)


@pytest.mark.parametrize("pin", [None, False], ids=["pinned", "unpinned"])
def test_a_server_that_stops_ends_the_pages_that_wait_for_events(shop, start_server, notes, pin):
    """Behind what was sent, and at once: whether or not each has a thread."""
    server = start_server(shop, threads=2, limits=Limits(pin_responses=pin))
    with EventReader(server.address) as reader:
        assert reader.event() == {"id": "1", "data": "there are 1"}
        wait_until(lambda: server.pool.stats().busy == (pin is None))
        assert server.stop(grace=10 * LONG) == []
        assert reader.event() == {}
    assert len(notes.gone) == 1


def test_pages_that_wait_for_events_hold_no_thread_if_nothing_is_pinned(shop, start_server, notes):
    """For a project whose streams leave the database alone."""
    server = start_server(shop, threads=2, limits=Limits(pin_responses=False))
    with ExitStack() as pages:
        readers = [pages.enter_context(EventReader(server.address)) for _ in range(20)]
        assert [reader.event() for reader in readers] == [{"id": "1", "data": "there are 1"}] * 20
        wait_until(lambda: server.pool.stats().busy == 0)
        for events in notes.readers:
            events.send("news")
            events.close()
        for reader in readers:
            assert [reader.event(), reader.event()] == [{"data": "news"}, {}]
    wait_until(lambda: len(notes.gone) == 20)
