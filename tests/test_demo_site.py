"""The application of the demo, in itself and in a browser."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

import manyhands as mh
from browsing import browser
from manyhands.cli.demo_site import site as demo_site
from manyhands.server import Server, WebSocketClosed
from serving import Client
from support import LONG, wait_until

pytestmark = pytest.mark.whole

SHOTS = os.environ.get("MANYHANDS_SCREENSHOTS")
"""A directory for pictures to look at."""


@pytest.fixture
def site() -> Iterator[Server]:
    """The application, served."""
    with Server(demo_site.app, threads=4) as server:
        yield server


def get(path: str) -> bytes:
    """A request."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def entry_of(client: socket.socket) -> dict[str, Any] | None:
    """What the book has on a client."""
    who = "{}:{}".format(*client.getsockname())
    return next((entry for entry in reversed(demo_site.book.read()) if entry["client"] == who), None)


@pytest.mark.parametrize("path", ["/report", "/query", "/rows", "/news"])
def test_a_slow_view_ends_when_its_client_hangs_up_and_the_book_says_so(site: Server, path: str) -> None:
    """Check-ins, a query that SQLite interrupts, a stream without an end, news: the client is the reason."""
    with Client(site.address) as client:
        client.sendall(get(path))
        wait_until(lambda: entry_of(client))
        entry = entry_of(client)
        assert (entry["what"], entry["because"], entry["ended"]) == (path[1:], None, None)
        who = client.getsockname()
        client.shutdown(socket.SHUT_WR)  # a client that is gone, and whose address is still known
        wait_until(lambda: entry_of(client)["ended"])
        assert client.getsockname() == who
        assert entry_of(client)["because"] == "OWNER_GONE"
    wait_until(lambda: site.pool.stats().busy == 0)


def test_a_report_counts_its_rows_and_says_where_it_was(site: Server) -> None:
    """For the dashboard by its progress, for the book by its entry."""
    with Client(site.address) as client:
        client.sendall(get("/report?tag=mine"))
        wait_until(lambda: (entry_of(client) or {}).get("row"))
        (job,) = site.pool.jobs()
        assert (job.name, job.progress[1:]) == ("GET /report", (600, "rows"))
        assert entry_of(client)["tag"] == "mine"


def test_news_come_to_all_who_follow(site: Server) -> None:
    """No thread is held by those who are told."""
    with Client(site.address) as first, Client(site.address) as second:
        for client in (first, second):
            client.sendall(get("/news"))
        heard = []
        for client in (first, second):
            stream = client.makefile()
            while not (line := stream.readline()).startswith(b"data: "):
                assert line
            heard.append(json.loads(line.removeprefix(b"data: ")))
        assert {1, 2} >= {news["readers"] for news in heard}
        wait_until(lambda: site.pool.stats().syncing_parked == 2)
        assert site.pool.stats().busy == 0


@contextmanager
def talker(server: Server) -> Iterator[ClientConnection]:
    """Somebody in the conversation."""
    host, port = server.address
    with connect(f"ws://{host}:{port}/talk/socket", sock=socket.create_connection(server.address)) as ws:
        yield ws


def test_what_one_says_all_of_them_hear(site: Server) -> None:
    """The speaker as well."""
    with talker(site) as ann, talker(site) as bob:
        ann.send("is anybody here?")
        assert ann.recv(LONG) == "is anybody here?"
        bob.send("bob is")
        assert ann.recv(LONG) == "bob is"
        while bob.recv(LONG) != "bob is":  # he may have come before or after ann spoke
            pass


class Deaf:
    """A conversation that takes nothing, or that is over."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.closed: list[tuple[int, str]] = []

    def send(self, words: str, timeout: float) -> None:
        raise self._error

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


def test_who_does_not_read_has_to_leave_the_room() -> None:
    """With a code of the application's own; one that has gone meanwhile is no error."""
    room = demo_site.Room()
    deaf, gone = Deaf(TimeoutError()), Deaf(WebSocketClosed(1000, ""))
    with room.visit(deaf), room.visit(gone):
        room.say("hello")
    assert (deaf.closed, gone.closed) == ([(4000, "too slow")], [])


def test_the_dashboard_s_address_is_learned_once_and_only_of_this_machine(monkeypatch) -> None:
    """It becomes a link on the first page."""
    monkeypatch.setattr(demo_site.app, "config", demo_site.app.config.copy())
    client = demo_site.app.test_client()
    for body, status in (
        ("http://example.com/", 409),
        ("http://127.0.0.1:8001/", 200),
        ("http://127.0.0.1:8002/", 409),
    ):
        assert client.post("/dashboard", data=body).status_code == status
    assert 'href="http://127.0.0.1:8001/"' in client.get("/").text


def test_in_a_browser_a_report_is_started_and_hung_up_on(site: Server) -> None:
    """Two clicks; the page says what the server has done about it."""
    with browser() as tab:
        tab.open(site.url)
        tab.wait("document.getElementById('start') && !document.getElementById('start').disabled")
        tab.click("document.getElementById('start')")
        tab.wait("document.getElementById('said').textContent.includes('runs for')")
        tab.click("document.getElementById('hang-up')")
        tab.wait(
            "/stopped it at row \\d+ of 600, because its client went/.test(document.getElementById('said').textContent)"
        )
        assert tab.ask("[...document.querySelectorAll('a')].map((a) => a.pathname)") == ["/live", "/talk"]
        if SHOTS:
            tab.screenshot(Path(SHOTS) / "demo.png")
        assert tab.errors == []


def test_in_a_browser_the_stream_is_live(site: Server) -> None:
    """The figures come again and again, and who ended is told."""
    with browser() as tab, Client(site.address) as client:
        tab.open(f"{site.url}live")
        tab.wait("document.getElementById('readers').textContent === '1'")
        tab.wait("/^[0-9]+$/.test(document.getElementById('rate').textContent)")
        client.sendall(get("/report"))
        wait_until(lambda: entry_of(client))
        client.close()
        tab.wait("document.getElementById('log').textContent.includes('its client hung up')")
        if SHOTS:
            tab.screenshot(Path(SHOTS) / "demo-live.png")
        assert tab.errors == []


def test_in_a_browser_a_conversation_goes_both_ways(site: Server) -> None:
    """What the page says others hear, and the other way round; text stays text."""
    with browser() as tab, talker(site) as ann:
        tab.open(f"{site.url}talk")
        tab.wait("!document.getElementById('words').disabled && document.activeElement.id === 'words'")
        wait_until(lambda: len(demo_site.room._present) == 2)  # the handshake comes before
        ann.send("<b>hello</b>")
        tab.wait("document.querySelector('#log li')?.textContent === '<b>hello</b>'")
        assert ann.recv(LONG) == "<b>hello</b>"
        tab.call("Input.insertText", text="hello ann")
        tab.click("document.getElementById('send')")
        assert ann.recv(LONG).endswith(": hello ann")
        tab.wait("document.querySelectorAll('#log li').length === 2")
        if SHOTS:
            tab.screenshot(Path(SHOTS) / "demo-talk.png")
        assert tab.errors == []


def test_outside_of_a_job_the_views_are_ordinary_ones() -> None:
    """As on any other server: check-ins do nothing there."""
    assert mh.current_job() is None
    client = demo_site.app.test_client()
    assert client.get("/health").text == "ok\n"
    assert client.post("/upload", data=b"abc").text == "3\n"
    with client.get("/live") as page:
        assert "A live stream" in page.text
