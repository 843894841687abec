"""Server-sent events and async generators as the responses of Flask and Django views."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing

import pytest

import manyhands as mh
from event_reader import EventReader
from serving import ask, connect, get
from sites.flask_shop import create
from support import LONG, wait_until
from wire_clients import Wire, flask_client


@pytest.fixture
def app():
    return create()


def test_pages_of_flask_that_wait_for_events_hold_no_thread(app, start_server):
    """Fifty of them and two threads: others are answered, each page gets what any thread sends, in order."""
    server = start_server(app, threads=2)
    notes = app.extensions["shop"]
    with ExitStack() as pages:
        readers = [pages.enter_context(EventReader(server.address, Last_Event_ID=str(number))) for number in range(50)]
        assert {reader.response.getheader("Content-Type") for reader in readers} == {"text/event-stream; charset=utf-8"}
        assert [reader.event()["data"] for reader in readers] == [f"welcome back to {number}" for number in range(50)]
        wait_until(lambda: server.pool.stats().busy == 0)
        assert ask(server, "/") == (200, b"hello, you")

        def send():
            for number in range(10):
                for events in notes.readers:
                    events.send(f"{number}\nof ten", event="news", id=str(number))

        thread = threading.Thread(target=send)
        thread.start()
        for reader in readers:
            assert [reader.event() for _ in range(10)] == [
                {"event": "news", "id": str(number), "data": "of ten"} for number in range(10)
            ]
        thread.join(LONG)
        for reader in readers[:25]:
            reader.close()
        wait_until(lambda: len(notes.gone) == 25)
        assert all(events.closed for events in notes.gone)
        for events in notes.readers:
            events.close()
        assert [reader.event() for reader in readers[25:]] == [{}] * 25
    with pytest.raises(mh.ClosedResourceError):
        notes.readers[0].send("nobody is there")
    notes.readers.clear()
    notes.gone.clear()


@pytest.mark.parametrize("over_the_wire", [False, True])
def test_an_async_generator_is_what_a_flask_view_returns(app, start_server, over_the_wire):
    """In Flask's own client, where a loop is made for the while, and over the wire."""
    server = start_server(app)
    with closing(Wire(server.address)) as wire:
        client = flask_client(wire, app) if over_the_wire else app.test_client()
        with client.get("/ticks") as found:
            assert found.text == "".join(f"tick {number}\n" for number in range(5))
    assert app.extensions["shop"].closed == 1


def test_an_async_generator_of_flask_ends_with_its_client_and_holds_no_thread(app, start_server):
    """It awaits for ever; its `finally` runs when the client has gone."""
    server = start_server(app, threads=1)
    with connect(server) as sock:
        sock.sendall(get(b"/ticks?forever"))
        received = b""
        while b"tick 4" not in received:
            received += sock.recv(1000)
        wait_until(lambda: server.pool.stats().busy == 0)
        assert ask(server, "/") == (200, b"hello, you")
        assert app.extensions["shop"].closed == 0
    wait_until(lambda: app.extensions["shop"].closed == 1)
