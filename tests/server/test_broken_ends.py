"""What goes wrong where a request begins or ends, or where something is logged, ends no connection's turn and no thread."""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
import ssl
import threading
from collections import deque
from contextlib import ExitStack, suppress
from types import SimpleNamespace

import pytest

import manyhands as mh
from gate import Gate
from manyhands.server import Events, Limits, Server, WebSocketClosed, _connection, iter_async
from manyhands.server._bind import Bind, Listening
from manyhands.server._budget import Budget
from manyhands.server._deadline import Deadline
from manyhands.server._proxies import Proxies
from manyhands.server._request import RequestReader
from manyhands.server._serve import serve_here
from manyhands.server._settings import Settings
from manyhands.server._source import Source
from manyhands.server._supervisor import Supervisor
from manyhands.server._websocket import WebSocket
from manyhands.server._worker_process import State, Worker
from serving import GET, ask, connect, get, hello
from support import LONG, wait_until


@pytest.fixture
def told(monkeypatch):
    """The kinds of errors that `threading.excepthook` was told of."""
    errors = []
    monkeypatch.setattr(threading, "excepthook", lambda hooked: errors.append(hooked.exc_type))
    return errors


@pytest.fixture
def refusing(told):
    """A filter of the program that raises for every line of the library."""

    def refuse(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError(record.name)

    loggers = [logging.getLogger(f"manyhands.{name}") for name in ("server", "loop", "pool", "access")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addFilter(refuse)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeFilter(refuse)
        logger.setLevel(level)


def test_a_log_that_raises_ends_no_thread_and_no_connection(start_server, refusing, told):
    """Not by a request that is refused, nor by one that is served and has its line in the access log."""
    server = start_server(hello)
    for _ in range(8):
        with connect(server) as sock:
            sock.sendall(b"no request\r\n\r\n")
            assert sock.response()[0] == 400
    with connect(server) as sock:
        for _ in range(3):
            assert sock.ask()[2] == b"/"
    assert server.loop.joined == 3
    assert set(told) == {ZeroDivisionError}


@pytest.mark.parametrize("error", [lambda: WebSocketClosed(1000, ""), ValueError], ids=["another's", "its own"])
def test_a_view_that_raises_has_no_other_response_behind_its_own(start_server, refusing, error):
    """Also if it was another client's WebSocket that was closed; and if what it raised cannot be logged."""

    def view(environ, start_response):
        if environ["PATH_INFO"] == "/part":
            start_response("200 OK", [("Content-Length", "300")])
            return part()
        raise error()

    def part():
        yield b"x" * 10
        raise error()

    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(GET + get(b"/next"))
        assert sock.response()[0] == 500
        assert sock.rest() == b""
    with connect(server) as sock:
        sock.sendall(get(b"/part") + get(b"/next"))
        assert sock.rest().endswith(b"\r\n\r\n" + b"x" * 10)


def test_a_request_that_cannot_be_begun_is_told_so(start_server, caplog):
    """503, and the connection is closed; the socket as well, which the leak line sees."""
    caplog.set_level(logging.CRITICAL, "manyhands.server")  # a record would keep the frames, and they the server
    server = start_server(hello)
    pool = server.pool

    def refuse(*_, **__):
        raise RuntimeError("can't start new thread")

    server.pool = SimpleNamespace(enqueue=refuse)
    try:
        with connect(server) as sock:
            sock.sendall(GET)
            assert sock.response()[0] == 503
            assert sock.rest() == b""
    finally:
        server.pool = pool
    assert ask(server) == (200, b"/")


def test_a_stop_that_meets_the_end_of_a_request_reaches_its_connection(start_server, monkeypatch):
    """It was said when the job had read that there is none, and before the connection was free."""
    server = start_server(hello)
    move_back, gate = Deadline.move_back, Gate()

    def slowly(self, seconds):
        gate()
        return move_back(self, seconds)

    with connect(server) as sock, gate:
        assert sock.ask()[2] == b"/"
        monkeypatch.setattr(Deadline, "move_back", slowly)
        sock.sendall(GET)
        gate.wait_entered()
        stopping = threading.Thread(target=server.stop, args=(2 * LONG,))
        stopping.start()
        wait_until(lambda: server.stopping)
        gate.open()
        stopping.join(LONG)
        assert not stopping.is_alive(), "it waits for a connection that nobody told"


def test_what_waits_behind_a_response_that_its_client_has_does_not_wait_for_ever(start_server):
    """A body whose announced length was reached, and that goes on without an end."""
    ended = threading.Event()
    never = mh.Event()

    async def pieces():
        try:
            yield b"whole"
            await never.wait()
        finally:
            ended.set()

    def view(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return iter_async(pieces())

    server = start_server(view, limits=Limits(body_gap_timeout=0.2, keep_alive=0.2))
    with connect(server) as sock:
        sock.sendall(GET)
        assert sock.response()[2] == b"whole"
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
    assert ended.wait(LONG)
    wait_until(lambda: server.connections == 0)


def test_what_a_signal_s_handler_puts_while_pieces_are_taken_is_not_lost():
    """The lock is reentrant for it."""
    source = Source(capacity=10)

    class Interrupted(deque):
        def once(self):
            if not source._closed:
                source._put(b"late")
                source._put_end()

        def popleft(self):
            piece = super().popleft()
            self.once()
            return piece

        def clear(self):
            self.once()
            super().clear()

    source._pieces = Interrupted([b"early"])
    assert b"".join(source) == b"earlylate"


def test_a_message_sent_in_the_midst_of_another_is_sent_behind_it(start_server):
    """By a signal's handler or a finalizer, on the thread that sends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        posted, sent = [], []
        conversation: WebSocket

        def write(data):
            if len(sent) == 0:
                sent.append(bytes(data))
                conversation.send("second")
                conversation.close()
            else:
                sent.append(bytes(data))
            return len(data)

        connection = SimpleNamespace(
            lock=threading.RLock(),
            wire=SimpleNamespace(write=write),
            strand=SimpleNamespace(post=posted.append, call_later=lambda *_: SimpleNamespace(cancel=lambda: None)),
            abandon=lambda: None,
            wait_for=lambda _: None,
        )
        conversation = WebSocket(connection, server_protocol(), 1000, 10.0)
        conversation.send("first")
        assert (sent, len(posted)) == ([b"\x81\x05first"], 2)
        for callback in posted[:2]:
            callback()
        assert sent == [b"\x81\x05first", b"\x81\x06second", b"\x88\x02\x03\xe8"]


def server_protocol():
    from websockets.protocol import State
    from websockets.server import ServerProtocol

    protocol = ServerProtocol()
    protocol.state = State.OPEN
    return protocol


class Counting(RequestReader):
    """How many pieces of a body llhttp gave."""

    pieces = 0

    def on_body(self, data):
        self.pieces += 1
        super().on_body(data)


@pytest.mark.parametrize("read", [1000, 65_536])
@pytest.mark.parametrize(
    "content", [b"x" * 65_536, b"\r\n\r\n" * 16_384, b"0\r\n\r\n" * 13_000], ids=["x", "blank", "ends"]
)
def test_a_chunk_costs_the_same_whatever_is_in_it(content, read):
    """Blank lines as well, behind which a body may end."""
    reader = Counting(Limits())
    data = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    requests = []
    for start in range(0, len(data), read):
        reader.receive(data[start : start + read])
        requests.append(reader.next_request())
    assert [request.body for request in requests if request is not None] == [content]
    assert reader.pieces <= len(data) / read + 2


def test_a_socket_that_was_handed_on_is_not_handed_on_again():
    """A program that a view starts would keep the port, and take its clients."""
    with socket.create_server(("127.0.0.1", 0)) as handed:
        number = handed.detach()
        handed_on = socket.socket(fileno=number)
        handed_on.set_inheritable(True)
        listening = Listening(Bind(fd=handed_on.detach()))
        try:
            assert listening.socket.get_inheritable() is False
        finally:
            listening.close()


async def asgi(scope, receive, send): ...


@pytest.mark.parametrize(
    ("app", "options", "error", "words"),
    [
        (asgi, {}, TypeError, "ASGI"),
        (hello, {"port": 70_000}, ValueError, "port must be from 1 to 65535"),
        (hello, {"port": -1}, ValueError, "port must be from 1 to 65535"),
        (hello, {"port": "80"}, TypeError, "port must be a whole number"),
        (hello, {"host": 5}, TypeError, "host must be a str"),
        (hello, {"bind": 8000}, TypeError, "HOST:PORT, unix:PATH or fd:NUMBER"),
        (hello, {"tls": ssl.create_default_context()}, ValueError, "a context for clients"),
        (lambda: hello, {}, TypeError, "if it makes one, give what it returns"),
        (hello, {"bind": "127.0.0.1:0", "port": 80}, ValueError, "and not both"),
    ],
    ids=[
        "asgi",
        "a port too high",
        "a negative port",
        "a port of text",
        "no host",
        "bind",
        "tls",
        "factory",
        "two places",
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(app, options, error, words):
    """In a sentence that says what is expected."""
    with pytest.raises(error, match=words):
        Server(app, **options)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tls": "chain.pem"}, TypeError, "the files"),
        ({"tls": ("chain.pem", "key.pem", "more")}, TypeError, "the files"),
        ({"on_started": 5}, TypeError, "on_started must be callable"),
        ({"bind": "127.0.0.1:0", "host": "0.0.0.0"}, ValueError, "and not both"),
    ],
)
def test_arguments_of_serve_that_make_no_sense_are_refused_at_once(options, error, words):
    """Before it listens."""
    with pytest.raises(error, match=words):
        mh.server.serve(hello, signals=False, **options)


def test_a_server_that_was_stopped_is_not_started_again():
    """It says so of itself, and not of a loop that the program has never seen."""
    server = Server(hello, name="shop")
    server.start()
    server.stop()
    with pytest.raises(mh.LoopClosed, match="server 'shop' was stopped: make a new one"):
        server.start()


def test_an_address_that_is_taken_is_named():
    """The system's own words do not have it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            Server(hello, port=port)


@pytest.mark.parametrize("grace", ["10", None, -1, float("nan")])
def test_a_grace_that_is_no_time_is_refused_before_anything_is_served(grace):
    """And not at the end, when it is too late to end in order."""
    with pytest.raises((TypeError, ValueError), match="grace must be a number of seconds"):
        mh.server.serve(hello, port=0, grace=grace, signals=False)


@pytest.mark.parametrize(
    ("hop", "address"),
    [("1.2.3.4:55", "1.2.3.4"), ("[2001:db8::1]:55", "2001:db8::1"), ("[2001:db8::1]", "2001:db8::1")],
)
def test_an_address_that_a_proxy_wrote_with_its_port_is_the_client_s(hop, address):
    """Source of the form: RFC 7239, 6."""
    environ = {"REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "7", "HTTP_X_FORWARDED_FOR": hop}
    Proxies(["127.0.0.1"]).apply(environ)
    assert environ == {"REMOTE_ADDR": address, "HTTP_X_FORWARDED_FOR": hop}


def test_the_length_that_an_application_reads_is_not_the_client_s_text(start_server):
    """Thousands of zeros before it are more than `int()` takes."""

    def view(environ, start_response):
        start_response("200 OK", [])
        return [environ["CONTENT_LENGTH"].encode()]

    with connect(start_server(view)) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %b5\r\n\r\nhello" % (b"0" * 5000))
        assert sock.response()[2] == b"5"


@pytest.mark.parametrize("character", ["\x00", "\x0b", "\x1b", "\x7f"])
def test_a_control_character_in_a_header_of_the_application_is_refused(start_server, caplog, character):
    """RFC 9110, 5.5; and PEP 3333."""
    caplog.set_level(logging.CRITICAL, "manyhands.server")  # as above

    def view(environ, start_response):
        start_response("302 Found", [("Location", f"/a{character}b")])
        return []

    assert ask(start_server(view))[0] == 500


@pytest.mark.parametrize("name", ["headers", "request_timeout", "body_bytes"])
def test_a_limit_without_a_sensible_bound_is_refused(name):
    """It would break at the first request."""
    with pytest.raises(ValueError, match="must be at most"):
        Limits(**{name: 10**400})


def test_responses_that_nobody_reads_share_a_bounded_memory(start_server):
    """Beyond it they wait in files; all come whole, and what was taken is given back."""
    body = bytes(range(256)) * 32_768

    def view(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    server = start_server(view, threads=2)
    server.outgoing = Budget(len(body))
    before = files_without_a_name()
    with ExitStack() as clients:
        socks = [clients.enter_context(connect(server)) for _ in range(4)]
        for sock in socks:
            sock.sendall(GET)
        wait_until(lambda: server.connection_states() == {"writing": 4})
        assert 0 < server.outgoing.taken <= len(body)
        assert files_without_a_name() >= before + 2
        assert all(sock.response()[2] == body for sock in socks)
        wait_until(lambda: server.connection_states() == {"idle": 4})
        assert (server.outgoing.taken, files_without_a_name()) == (0, before)


def test_a_client_that_leaves_its_response_gives_its_memory_back(start_server):
    """The whole of it at once."""
    body = b"x" * (8 << 20)

    def view(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.outgoing.taken > 0)
    wait_until(lambda: server.outgoing.taken == 0)


def files_without_a_name():
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{number}").endswith("(deleted)")
    return found


def test_bodies_in_files_share_a_bound(start_server):
    """A further one is told to come again; the others' are whole, and what was taken is given back."""
    length = 300_000

    def view(environ, start_response):
        start_response("200 OK", [])
        return [str(len(environ["wsgi.input"].read())).encode()]

    server = start_server(view, limits=Limits(body_memory=1000))
    server.files = Budget(2 * length)
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % length
    with ExitStack() as clients:
        first, second, third = (clients.enter_context(connect(server)) for _ in range(3))
        for sock in (first, second):
            sock.sendall(head + b"x" * (length - 1))
        wait_until(lambda: server.files.taken == 2 * (length - 1))
        third.sendall(head + b"x" * 20_000)
        assert third.response()[0] == 503
        for sock in (first, second):
            sock.sendall(b"x")
            assert sock.response()[2] == b"300000"
        wait_until(lambda: server.files.taken == 0)


@pytest.mark.parametrize("given", ["127.0.0.1", [5], [True]])
def test_proxies_that_are_no_list_of_texts_are_refused(given):
    """A text is no list of its characters."""
    with pytest.raises(TypeError, match="a list of addresses|must be a str"):
        Server(hello, trusted_proxies=given)


def test_the_id_of_an_event_is_text():
    """A number is what one thinks of first."""
    with pytest.raises(TypeError, match="id must be str, and got 5"):
        Events().send("x", id=5)


def test_a_decorator_that_gives_what_it_wraps_other_arguments_makes_an_application(start_server):
    """What is called counts, as with werkzeug's `Request.application`, and not what is inside."""

    @functools.wraps(lambda request: request)
    def app(environ, start_response):
        return hello(environ, start_response)

    assert ask(start_server(app)) == (200, b"/")


def test_a_listener_that_cannot_even_set_a_timer_is_not_paused_for_ever():
    """There is no memory: it comes back at once, and its watch does not end by an error."""
    paused = []

    def call_later(seconds, callback):
        raise MemoryError

    timers = SimpleNamespace(call_later=call_later)
    watch = SimpleNamespace(strand=timers, pause=lambda: paused.append(1), resume=None)
    server = Server(hello)
    server.listener._back_off(watch, MemoryError())
    server.stop()
    assert paused == []


def test_what_goes_wrong_when_the_end_is_announced_does_not_keep_the_server():
    """It is raised, behind the server's end."""
    served = []

    def on_started(server: Server) -> None:
        served.append(server)
        server.on_stop()

    def on_ending(server: Server) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve_here(hello, Bind("127.0.0.1", 0), Settings(), on_started=on_started, on_ending=on_ending)
    assert served[0].loop.closed


def test_a_connection_that_ends_before_the_listener_has_its_watch_keeps_none(start_server, monkeypatch):
    """The watch would hold the connection, and be held by it."""
    server = start_server(hello)
    add = server.loop.add
    made = []

    def ends_at_once(source, *args, **options):
        watch = add(source, *args, **options)
        watch.remove()
        wait_until(lambda: isinstance(getattr(source, "_watch", None), _connection._Ended))
        made.append(source)
        return watch

    monkeypatch.setattr(server.loop, "add", ends_at_once)
    with connect(server) as sock:
        assert sock.recv(1) == b""
        wait_until(lambda: made and server.connections == 0)
    assert isinstance(made[0]._watch, _connection._Ended)


def test_a_worker_that_has_closed_its_line_is_not_sent_the_signal():
    """It is at its last functions, and the signal has its default meaning again."""
    sent = []
    supervisor = Supervisor([], 0, SimpleNamespace(address=("", 0)), url="", grace=1.0)
    for left in (False, True):
        worker = Worker(0, SimpleNamespace(send_signal=sent.append, pid=1), SimpleNamespace(), None, 0.1)
        worker.left = left
        supervisor._end(worker, signal.SIGTERM)
        assert worker.state is State.ENDING
    supervisor._selector.close()
    assert sent == [signal.SIGTERM]
