"""Server-sent events: who they cost a thread, how they read, and how they end. Source: WHATWG HTML, 9.2."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from wsgiref.validate import validator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import manyhands as mh
from manyhands.server import Events, Limits
from manyhands.server._sse import COMMENT
from serving import GET, ask, connect, get, hello
from support import LONG, wait_until

HEAD = [("Content-Type", "text/event-stream")]


class News:
    """Each request to `/news` gets an `Events`; anything else is answered at once."""

    def __init__(self, **options) -> None:
        self.options = options
        self.feeds: list[Events] = []
        self.jobs: list[mh.Job] = []

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] != "/news":
            return hello(environ, start_response)
        start_response("200 OK", list(HEAD))
        events = Events(**self.options)
        self.jobs.append(environ["manyhands.job"])
        self.feeds.append(events)
        return events

    def forget(self) -> None:
        self.feeds.clear()
        self.jobs.clear()


class Reader:
    """A client of one stream, read chunk by chunk."""

    def __init__(self, sock) -> None:
        self.stream = sock.makefile()
        assert b"200 OK" in self.stream.readline()
        while self.stream.readline() != b"\r\n":
            pass

    def chunk(self) -> bytes:
        """The next chunk, empty at the end; comments are passed over."""
        while True:
            data = self.stream.read(int(self.stream.readline(), 16))
            assert self.stream.readline() == b"\r\n"
            if data != COMMENT:
                return data


def parse(stream: bytes) -> list[tuple[str, str, str]]:
    """Read a stream as the standard says: each event's type, its data, the last id."""
    found = []
    kind, data, last = "", [], ""
    for line in stream.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            if data:
                found.append((kind or "message", "\n".join(data), last))
            kind, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last = value
    return found


def test_a_hundred_readers_hold_no_thread(start_server):
    """One thread: it is free while nothing is there to be sent, and each reader gets each event, in order."""
    view = News()
    server = start_server(view, threads=1)
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(server)) for _ in range(100)]
        for sock in socks:
            sock.sendall(get(b"/news"))
        wait_until(lambda: server.pool.stats().syncing_parked == 100)
        assert server.pool.stats().busy == 0
        assert ask(server) == (200, b"/")
        readers = [Reader(sock) for sock in socks]
        for number in range(3):
            for events in view.feeds:
                events.send(str(number), id=str(number))
        for reader in readers:
            received = b""
            while received.count(b"data") < 3:
                received += reader.chunk()
            assert parse(received) == [("message", str(number), str(number)) for number in range(3)]
        wait_until(lambda: server.pool.stats().syncing_parked == 100)
    wait_until(lambda: server.pool.stats().stopped == 100)
    view.forget()


def test_the_head_comes_before_the_first_event(start_server):
    """Else a client would not know that it is connected."""
    view = News()
    server = start_server(validator(view))
    with connect(server) as sock:
        sock.sendall(get(b"/news"))
        stream = sock.makefile()
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        while stream.readline() != b"\r\n":
            pass
        assert stream.readline() + stream.read(len(COMMENT)) == b"%x\r\n" % len(COMMENT) + COMMENT
    wait_until(lambda: view.feeds[0].closed)
    view.forget()


@given(
    data=st.text(),
    event=st.none() | st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])),
    identity=st.none() | st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"])),
)
@example(data="one\rtwo\r\nthree\n\nfour\n", event=None, identity=None)
@example(data=" : id: 4\x85\u2028", event=" ", identity=":")
def test_what_is_sent_is_what_a_client_reads(data, event, identity):
    """Whatever the text: several lines, none, colons, spaces at the beginning."""
    data = data.encode(errors="replace").decode()
    events = Events()
    events.send(data, event=event, id=identity, retry=7)
    events.send("behind it")
    events.close()
    stream = b"".join(events)
    assert stream.startswith(COMMENT)
    assert b"\nretry: 7\n" in b"\n" + stream
    text = data.replace("\r\n", "\n").replace("\r", "\n")
    assert parse(stream) == [(event or "message", text, identity or ""), ("message", "behind it", identity or "")]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"data": b"x"}, TypeError),
        ({"data": "x", "event": "a\nb"}, ValueError),
        ({"data": "x", "event": "a\rb"}, ValueError),
        ({"data": "x", "id": "a\nb"}, ValueError),
        ({"data": "x", "id": "a\0b"}, ValueError),
        ({"data": "x", "id": 4}, TypeError),
        ({"data": "x", "retry": -1}, ValueError),
        ({"data": "x", "retry": "soon"}, TypeError),
    ],
)
def test_what_a_client_would_misread_is_refused(wrong, error):
    """A line break in a name would be an event of its own; nothing of it is sent."""
    events = Events()
    with pytest.raises(error):
        events.send(**wrong)
    events.close()
    assert b"".join(events) == COMMENT


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"keep_alive": 0}, ValueError),
        ({"capacity": 0}, ValueError),
        ({"capacity": "1"}, TypeError),
        ({"on_close": 1}, TypeError),
    ],
)
def test_events_with_options_that_make_no_sense_are_refused(wrong, error):
    """When they are made."""
    with pytest.raises(error):
        Events(**wrong)


def test_a_stream_that_is_quiet_for_long_says_that_it_is_alive(start_server):
    """Comments, which hold no thread either; then an event still comes."""
    view = News(keep_alive=0.02)
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/news"))
        stream = sock.makefile()
        while stream.readline() != b"\r\n":
            pass
        for _ in range(4):
            assert stream.readline() + stream.readline() + stream.readline() + stream.readline() == b"3\r\n:\n\n\r\n"
        view.feeds[0].send("at last")
        while b"at last" not in stream.readline():
            pass
    wait_until(lambda: view.feeds[0].closed)
    view.forget()


def test_events_that_come_leave_no_timers_behind(start_server):
    """Each wait has one, which is cancelled when it is over."""
    view = News(keep_alive=1000)
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/news"))
        reader = Reader(sock)
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        before = server.loop.stats().timers
        for number in range(20):
            view.feeds[0].send(str(number))
            assert parse(reader.chunk()) == [("message", str(number), "")]
            wait_until(lambda: server.pool.stats().syncing_parked == 1)
        wait_until(lambda: server.loop.stats().timers == before)
    wait_until(lambda: view.feeds[0].closed)
    view.forget()


def test_no_more_than_so_many_events_wait_for_a_client(start_server):
    """The one beyond is refused to whoever sends it, and what was taken comes in order when the client reads."""
    view = News(capacity=5)
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/news"))
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        events, sent = view.feeds[0], 0
        text = "x" * 500_000
        with pytest.raises(mh.WouldBlock):
            while True:
                events.send(f"{sent} {text}")
                sent += 1
                if sent > 4:
                    wait_until(lambda: not events._pieces or server.pool.stats().syncing_parked == 1)
        with pytest.raises(mh.WouldBlock):
            events.send("one more")
        events.close()
        body = sock.response()[2]
        assert [data.split()[0] for _, data, _ in parse(body)] == [str(number) for number in range(sent)]
        assert sock.ask()[0] == 200
    view.forget()


def test_a_client_that_goes_closes_its_events(start_server):
    """The job is stopped, `on_close` is called once, and sending says so from then on."""
    closed = []
    view = News(on_close=closed.append)
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/news"))
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        assert not view.feeds[0].closed
    wait_until(lambda: closed)
    assert closed == view.feeds
    (job,) = view.jobs
    wait_until(lambda: job.status is mh.JobStatus.STOPPED)
    assert job.reason is mh.StopReason.OWNER_GONE
    with pytest.raises(mh.ClosedResourceError):
        view.feeds[0].send("too late")
    view.feeds[0].close()
    assert len(closed) == 1
    closed.clear()
    view.forget()


def test_the_view_closes_its_events_and_the_connection_is_used_again(start_server):
    """What was sent before comes, then the last chunk."""
    view = News()
    server = start_server(view)
    with connect(server) as sock:
        for _ in range(3):
            sock.sendall(get(b"/news"))
            wait_until(lambda: server.pool.stats().syncing_parked == 1)
            events = view.feeds.pop()
            events.send("first")
            events.send("last")
            events.close()
            assert parse(sock.response()[2]) == [("message", "first", ""), ("message", "last", "")]
            del events
        assert sock.ask()[2] == b"/"
    view.forget()


def test_a_server_that_stops_ends_its_events_at_once(start_server):
    """They have no end of their own: nobody waits for the grace to be over, and the client sees a whole response."""
    view = News()
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/news"))
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        view.feeds[0].send("last")
        reader = Reader(sock)
        assert parse(reader.chunk()) == [("message", "last", "")]
        wait_until(lambda: view.feeds[0]._wake is not None)
        assert server.stop(grace=LONG) == []
        assert reader.chunk() == b""
    assert server.pool.stats().stopped == 0
    view.forget()


def test_events_that_begin_while_the_server_stops_end_as_well(start_server):
    """The view was under way when the stop came."""
    entered, go_on = threading.Event(), threading.Event()

    def view(environ, start_response):
        entered.set()
        assert go_on.wait(LONG)
        start_response("200 OK", list(HEAD))
        return Events()

    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(GET)
        assert entered.wait(LONG)
        stopper = threading.Thread(target=server.stop, kwargs={"grace": LONG})
        stopper.start()
        wait_until(lambda: server.stopping)
        go_on.set()
        assert sock.response()[2] == COMMENT
        stopper.join(LONG)
        assert not stopper.is_alive()


def test_the_deadline_of_a_request_ends_its_events_too(start_server):
    """Nobody has promised otherwise: the stream is cut."""
    view = News()
    server = start_server(view, limits=Limits(request_timeout=0.1))
    with connect(server) as sock:
        sock.sendall(get(b"/news"))
        assert not sock.rest().endswith(b"0\r\n\r\n")
        wait_until(lambda: view.jobs[0].status is mh.JobStatus.STOPPED)
        assert view.jobs[0].reason is mh.StopReason.DEADLINE
        assert view.feeds[0].closed
    view.forget()


def test_pinned_events_wait_with_their_thread(start_server):
    """As any pinned response; the client's end stops it."""
    view = News()
    server = start_server(view, threads=2, limits=Limits(pin_responses=True))
    with connect(server) as sock:
        sock.sendall(get(b"/news"))
        reader = Reader(sock)
        wait_until(lambda: view.feeds)
        assert server.pool.stats().busy == 1
        for number in range(3):
            view.feeds[0].send(str(number))
            assert parse(reader.chunk()) == [("message", str(number), "")]
        assert server.pool.stats().busy == 1
    wait_until(lambda: view.feeds[0].closed)
    view.forget()


def test_middleware_that_wants_the_whole_response_waits_with_its_thread(start_server):
    """It joins the pieces before it returns: an empty one would have it ask again and again."""
    view = News()
    asked = []

    def counted(pieces):
        for piece in pieces:
            asked.append(piece)
            yield piece

    def middleware(environ, start_response):
        return [b"".join(counted(view(environ, start_response)))]

    server = start_server(middleware)
    with connect(server) as sock:
        sock.sendall(get(b"/news"))
        wait_until(lambda: asked)
        view.feeds[0].send("x")
        wait_until(lambda: len(asked) == 2)
        view.feeds[0].close()
        assert parse(sock.response()[2]) == [("message", "x", "")]
    assert asked == [COMMENT, b"data: x\n\n"]
    view.forget()


def test_middleware_that_drops_empty_pieces_waits_with_its_thread(start_server):
    """It asks again in the same step: "not yet" is said once there, and then the thread waits."""
    view = News()
    asked = []

    def middleware(environ, start_response):
        for piece in view(environ, start_response):
            asked.append(piece)
            if piece:
                yield piece

    server = start_server(middleware)
    with connect(server) as sock:
        sock.sendall(get(b"/news"))
        reader = Reader(sock)
        for number in range(3):
            wait_until(lambda: view.feeds and view.feeds[0]._wake is not None)
            view.feeds[0].send(str(number))
            assert parse(reader.chunk()) == [("message", str(number), "")]
        wait_until(lambda: view.feeds[0]._wake is not None)
        view.feeds[0].close()
        assert reader.chunk() == b""
    assert len(asked) <= 1 + 3 * 2 + 1
    view.forget()


def test_events_are_the_body_of_one_response():
    """A second one would take every other event."""
    events = Events()
    iter(events)
    with pytest.raises(RuntimeError, match="one response"):
        iter(events)


def test_without_the_server_the_thread_waits():
    """In a framework's test client, or on another server."""
    events = Events(keep_alive=None)
    found = []
    reader = threading.Thread(target=lambda: found.extend(events))
    reader.start()
    wait_until(lambda: found and events._wake is not None)
    events.send("x")
    wait_until(lambda: len(found) == 2)
    events.close()
    reader.join(LONG)
    assert found == [COMMENT, b"data: x\n\n"]


def test_an_on_close_that_raises_is_logged(caplog):
    """Whoever closes has done nothing wrong."""

    def on_close(events):
        raise ValueError("unsubscribed twice")

    Events(on_close=on_close).close()
    assert "unsubscribed twice" in caplog.text


@pytest.mark.parametrize("come", ["event", "end"])
def test_what_comes_as_the_response_goes_to_wait_is_not_lost(start_server, monkeypatch, come):
    """It had nothing, and said so: an event comes, or the end, before anybody is named whom it wakes."""
    arm, fed = Events.arm, []

    def feed_and_arm(events, job):
        if not fed:
            fed.append(events)
            if come == "event":
                events.send("in between")
            else:
                events.close()
        arm(events, job)

    monkeypatch.setattr(Events, "arm", feed_and_arm)
    view = News()
    with connect(start_server(view)) as sock:
        sock.sendall(get(b"/news"))
        wait_until(lambda: fed)
        if come == "event":
            wait_until(lambda: "0 waiting" in repr(fed[0]))
            fed[0].close()
        assert len(parse(sock.response()[2])) == (come == "event")
    view.forget()


@pytest.mark.race
def test_what_threads_send_at_once_is_all_there_and_each_ones_in_order(start_server):
    """Four of them, while the job parks, is woken, and parks again."""
    view = News(capacity=10_000)
    server = start_server(view, threads=2)
    count = 300
    with connect(server) as sock:
        sock.sendall(get(b"/news"))
        wait_until(lambda: view.feeds)

        def send(sender):
            for number in range(count):
                view.feeds[0].send(f"{sender} {number}")

        senders = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
        for thread in senders:
            thread.start()
        for thread in senders:
            thread.join(LONG)
        view.feeds[0].close()
        found = [tuple(map(int, data.split())) for _, data, _ in parse(sock.response()[2])]
    for sender in range(4):
        assert [number for who, number in found if who == sender] == list(range(count))
    view.forget()
