"""WebSocket conversations: against the client of `websockets`, and against bytes that no client would send."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.frames import Close, Frame, Opcode
from websockets.sync.client import connect as connect_client
from websockets.uri import parse_uri

import certified
import manyhands as mh
from gate import Gate
from manyhands.server import HandshakeRefused, Server, WebSocketClosed, websocket
from serving import Client, connect
from support import LONG, wait_until

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What RFC 6455, 1.3, gives for that key."""


def echo(environ, start_response):
    with websocket(environ) as ws:
        for message in ws:
            ws.send(message)
    start_response("200 OK", [])
    return [b"nobody gets this"]


def conversing(talk: Any, **options: Any) -> Any:
    """An application that has this conversation."""

    def app(environ, start_response):
        with websocket(environ, **options) as ws:
            talk(ws)
        return []

    return app


def client_of(server: Server, path: str = "/", **options: Any) -> Any:
    options = {"open_timeout": LONG, "close_timeout": LONG, "proxy": None, **options}
    return connect_client(f"ws://127.0.0.1:{server.address[1]}{path}", **options)


@contextlib.contextmanager
def opened(server: Server) -> Any:
    """A client whose every byte is the test's, behind the handshake."""
    with connect(server) as client:
        client.sendall(HANDSHAKE)
        status, _, _ = response_of(client)
        assert status == 101
        yield client


def response_of(client: Client) -> tuple[int, dict[str, str], bytes]:
    return client.response()


def masked(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


def read_frame(client: Client) -> tuple[int, bytes]:
    """Opcode and payload of a short frame that is not masked."""
    head = client._stream.read(2)
    assert len(head) == 2, "the connection was closed"
    length = head[1] & 127
    if length == 126:
        (length,) = struct.unpack("!H", client._stream.read(2))
    return head[0] & 15, client._stream.read(length)


def test_the_handshake_is_the_rfc_s(start_server):
    """RFC 6455, 1.3: the example's key has the example's answer."""
    with connect(start_server(echo)) as client:
        client.sendall(HANDSHAKE)
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert ACCEPT in head


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_come_back_as_they_were_sent(start_server, access, compression):
    """Text and binary, empty and long; the access log has one line, at the end."""
    server = start_server(echo)
    with client_of(server, "/talk", compression=compression) as client:
        for message in ("", "äöü €", b"", bytes(range(256)), "x" * 70_000, b"y" * 300_000):
            client.send(message)
            assert client.recv(LONG) == message
        assert access() == []
    assert client.close_code == 1000
    wait_until(lambda: server.connections == 0)
    assert access() == [("GET /talk HTTP/1.1", 101)]


long_messages = st.integers(60_000, 70_000).map(lambda length: (bytes(range(256)) * 274)[:length])
message = st.one_of(st.text(max_size=300), st.binary(max_size=300), long_messages)


def test_random_messages_in_random_frames_come_back_in_order(start_server):
    """Cut into fragments, with pings in between, and cut again into what TCP gives at a time."""
    server = start_server(echo)

    @settings(max_examples=25, deadline=None)
    @given(st.data())
    def check(data):
        sent, stream = frames_of(data)
        with opened(server) as client:
            step = data.draw(st.sampled_from([1, 7, 4096])) if len(stream) < 500 else 4096
            for begin in range(0, len(stream), step):
                client.sendall(stream[begin : begin + step])
            received = []
            while len(received) < len(sent):
                opcode, payload = read_long_frame(client)
                if opcode != Opcode.PONG:
                    received.append(payload.decode() if opcode == Opcode.TEXT else payload)
            client.sendall(masked(Opcode.CLOSE, Close(1000, "").serialize()))
            while read_long_frame(client)[0] == Opcode.PONG:
                pass
        assert received == sent

    check()


def frames_of(data: st.DataObject) -> tuple[list[str | bytes], bytes]:
    """Messages, and frames of them."""
    sent = data.draw(st.lists(message, max_size=4))
    stream = b""
    for item in sent:
        payload = item.encode() if isinstance(item, str) else item
        opcode = Opcode.TEXT if isinstance(item, str) else Opcode.BINARY
        cuts = sorted(data.draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for index, part in enumerate(parts):
            stream += masked(opcode if index == 0 else Opcode.CONT, part, fin=index == len(parts) - 1)
            if data.draw(st.booleans()):
                stream += masked(Opcode.PING, b"?")
    return sent, stream


def read_long_frame(client: Client) -> tuple[int, bytes]:
    head = client._stream.read(2)
    length = head[1] & 127
    if length == 126:
        (length,) = struct.unpack("!H", client._stream.read(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", client._stream.read(8))
    return head[0] & 15, client._stream.read(length)


def test_pings_are_answered_while_the_view_is_busy(start_server):
    """The strand does it: the view has other things to do."""
    go_on = threading.Event()
    with opened(start_server(conversing(lambda ws: go_on.wait(LONG)))) as client:
        client.sendall(masked(Opcode.PING, b"there?"))
        assert read_frame(client) == (Opcode.PONG, b"there?")
        go_on.set()


def test_a_client_that_answers_no_ping_is_gone(start_server):
    """Its job is told to stop, and the connection ends."""
    stopped = threading.Event()

    def wait(ws):
        try:
            ws.receive()
        finally:
            stopped.set()

    server = start_server(conversing(wait, ping_interval=0.02, ping_timeout=0.1))
    with opened(server) as client:
        assert read_frame(client)[0] == Opcode.PING
        assert stopped.wait(LONG)
        client.rest()
    wait_until(lambda: server.connections == 0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (masked(Opcode.TEXT, b"\xff\xfe"), 1007),
        (Frame(Opcode.TEXT, b"not masked").serialize(mask=False), 1002),
        (masked(Opcode.CONT, b"of nothing"), 1002),
        (masked(Opcode.BINARY, b"x" * 1001), 1009),
        (masked(Opcode.BINARY, b"x" * 600, fin=False) + masked(Opcode.CONT, b"x" * 600), 1009),
        (b"\xf1\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x89\xfe\x00\x7e" + bytes(4 + 126), 1002),
    ],
)
def test_what_breaks_the_protocol_ends_the_conversation_with_its_code(start_server, data, code):
    """Not UTF-8, not masked, a fragment of nothing, too long, reserved bits, an unknown opcode, a control frame too long."""
    ended = []

    def talk(ws):
        try:
            ended.append(ws.receive())
        except WebSocketClosed as closed:
            ended.append(closed.code)

    server = start_server(conversing(talk, max_size=1000))
    with opened(server) as client:
        client.sendall(data)
        opcode, payload = read_frame(client)
        assert (opcode, struct.unpack("!H", payload[:2])[0]) == (Opcode.CLOSE, code)
        client.shutdown(socket.SHUT_WR)
        assert client.rest() == b""
    wait_until(lambda: ended == [code])


def test_what_comes_behind_a_message_that_is_wrong_is_not_received(start_server):
    """1007 or 1009, also if both were read at once."""
    for wrong, code in ((b"\xff", 1007), (b"x" * 101, 1009)):
        got: list[Any] = []
        server = start_server(conversing(got.extend, max_size=100))
        with opened(server) as client:
            client.sendall(masked(Opcode.TEXT, b"good") + masked(Opcode.TEXT, wrong) + masked(Opcode.TEXT, b"late"))
            opcode, payload = read_frame(client)
            assert (opcode, struct.unpack("!H", payload[:2])[0]) == (Opcode.CLOSE, code)
            client.shutdown(socket.SHUT_WR)
            client.rest()
        wait_until(lambda server=server: server.connections == 0)
        assert got == ["good"]


def test_a_ping_between_two_parts_of_a_message_as_long_as_may_be_is_answered(start_server):
    """RFC 6455, 5.5: it does not count."""
    with opened(start_server(conversing(lambda ws: ws.send(ws.receive()), max_size=100))) as client:
        client.sendall(masked(Opcode.TEXT, b"x" * 100, fin=False) + masked(Opcode.PING, b"?" * 125))
        assert read_frame(client) == (Opcode.PONG, b"?" * 125)
        client.sendall(masked(Opcode.CONT, b""))
        assert read_frame(client) == (Opcode.TEXT, b"x" * 100)


def test_a_client_that_pings_and_reads_nothing_costs_bounded_memory(start_server):
    """Of its pings the last is answered (RFC 6455, 5.5.3), when it reads again."""
    server = start_server(conversing(lambda ws: ws.receive(), ping_interval=None))
    with opened(server) as client:
        (connection,) = server.listener.connections
        conversation = connection._conversation
        count = 0
        while conversation._room.is_set():
            client.sendall(b"".join(masked(Opcode.PING, b"%125d" % number) for number in range(count, count + 500)))
            count += 500
        for _ in range(20):
            client.sendall(b"".join(masked(Opcode.PING, b"%125d" % number) for number in range(count, count + 500)))
            count += 500
        assert len(conversation._unsent) < (1 << 18) + 8192
        answered, last = 0, -1
        while last < count - 1:
            opcode, payload = read_frame(client)
            assert opcode == Opcode.PONG
            answered, last = answered + 1, int(payload)
        assert answered < count
        client.sendall(masked(Opcode.TEXT, b"that is all"))
        assert read_frame(client)[0] == Opcode.CLOSE


@pytest.mark.parametrize("message", [b"", b"x", b"xy"])
def test_messages_of_nothing_fill_the_inbox_too(start_server, message):
    """What they cost is counted, not what is in them: a client that sends ahead is told to wait."""
    begin = threading.Event()
    got: list[bytes] = []

    def talk(ws):
        assert begin.wait(LONG)
        got.extend(ws)

    server = start_server(conversing(talk, ping_interval=None))
    with opened(server) as client:
        (connection,) = server.listener.connections
        conversation = connection._conversation
        sender = threading.Thread(target=client.sendall, args=(masked(Opcode.BINARY, message) * 60_000,))
        sender.start()
        wait_until(lambda: conversation._held_back)
        assert conversation._inbox.qsize() < 40_000
        begin.set()
        wait_until(lambda: len(got) == 60_000)
        sender.join(LONG)


def test_a_message_in_any_number_of_empty_parts_costs_nothing(start_server):
    """They are forgotten at once."""
    server = start_server(conversing(lambda ws: ws.send(ws.receive()), ping_interval=None))
    with opened(server) as client:
        (connection,) = server.listener.connections
        client.sendall(masked(Opcode.TEXT, b"a", fin=False))
        for _ in range(20):
            client.sendall(masked(Opcode.CONT, b"", fin=False) * 1000)
        client.sendall(masked(Opcode.PING, b"") + masked(Opcode.CONT, b"b", fin=False) + masked(Opcode.PING, b""))
        assert [read_frame(client)[0] for _ in range(2)] == [Opcode.PONG] * 2
        assert connection._conversation._parts == b"ab"
        client.sendall(masked(Opcode.CONT, b"c"))
        assert read_frame(client) == (Opcode.TEXT, b"abc")


def test_a_handshake_may_have_a_line_as_long_as_any_request(start_server):
    """Cookies: the bound is the server's own."""
    with connect(start_server(echo)) as client:
        client.sendall(HANDSHAKE.replace(b"Host: h", b"Host: h\r\nCookie: " + b"x" * 12_000))
        assert response_of(client)[0] == 101


def test_a_refused_handshake_is_no_error_of_the_application(start_server, caplog):
    """The client is told, and the log has a line without its bytes and without a traceback."""
    caplog.set_level(logging.INFO, "manyhands.server")
    with connect(start_server(echo)) as client:
        client.sendall(HANDSHAKE.replace(b"Host: h", b"Host: h\r\nSec-WebSocket-Protocol: \x9b2J"))
        assert response_of(client)[0] == 400

    def records():
        return [record for record in caplog.records if record.name == "manyhands.server"]

    wait_until(records)
    (record,) = records()
    assert record.levelname == "INFO"
    line = record.getMessage()
    assert line.startswith("GET / HTTP/1.1: refused: no WebSocket: invalid Sec-WebSocket-Protocol header")
    assert line.isascii()
    assert line.isprintable()


def test_a_small_message_that_unpacks_to_a_long_one_is_refused(start_server):
    """1009, and the memory of one message at most."""
    with client_of(start_server(conversing(lambda ws: ws.receive(), max_size=10_000))) as client:
        client.send("x" * 1_000_000)
        with pytest.raises(ConnectionClosedError) as closed:
            client.recv(LONG)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_a_goodbye_of_the_client_ends_the_iteration_behind_what_came_before(start_server):
    """And the code is told to who asks."""
    got: list[Any] = []
    begin, over = threading.Event(), threading.Event()

    def talk(ws):
        assert begin.wait(LONG)
        got.extend(ws)
        try:
            ws.receive()
        except WebSocketClosed as closed:
            got.extend([closed.code, closed.reason, ws.closed])
        with pytest.raises(WebSocketClosed):
            ws.send("too late")
        over.set()

    with opened(start_server(conversing(talk))) as client:
        client.sendall(masked(Opcode.TEXT, b"one") + masked(Opcode.TEXT, b"two"))
        client.sendall(masked(Opcode.CLOSE, Close(1001, "leaving").serialize()))
        begin.set()
        assert over.wait(LONG)
        assert read_frame(client)[0] == Opcode.CLOSE
    assert got == ["one", "two", 1001, "leaving", True]


def test_a_view_that_goes_on_after_the_goodbye_is_stopped_in_the_end(start_server, monkeypatch):
    """It has a time to come to its end; a client that has gone is not worked for."""
    monkeypatch.setattr("manyhands.server._websocket.CLOSE_TIMEOUT", 0.05)
    stopped = threading.Event()

    def talk(ws):
        try:
            mh.sleep_blocking(60)
        except mh.JobStopped:
            stopped.set()
            raise

    with client_of(start_server(conversing(talk))):
        pass
    assert stopped.wait(LONG)


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_goes_without_a_word_stops_the_view(start_server, access, how):
    """In `receive`, as in any stoppable call. The log says 101: it was a conversation."""
    stopped = threading.Event()

    def talk(ws):
        try:
            ws.receive()
        except mh.JobStopped:
            stopped.set()
            raise

    server = start_server(conversing(talk))
    with opened(server) as client:
        client.reset() if how == "reset" else client.close()
    assert stopped.wait(LONG)
    wait_until(lambda: server.connections == 0)


@pytest.mark.parametrize(("error", "code"), [(None, 1000), (ZeroDivisionError, 1011)])
def test_the_server_says_goodbye_when_the_view_ends(start_server, error, code, caplog):
    """1000, or 1011 if it raised, which the log tells."""

    def talk(ws):
        ws.send("last")
        if error is not None:
            raise error

    with client_of(start_server(conversing(talk))) as client:
        assert client.recv(LONG) == "last"
        with pytest.raises(ConnectionClosedOK if error is None else ConnectionClosedError):
            client.recv(LONG)
        assert client.close_code == code
    assert any("the application raised" in record.getMessage() for record in caplog.records) is (error is not None)
    caplog.clear()  # the record has the view's frames, and so the connection


def test_whoever_writes_has_the_lock(start_server):
    """The view, another thread, the strand and the end: or two would write the same bytes."""
    owned: list[bool] = []

    def talk(ws):
        push = ws._push

        def checked(**options: Any) -> None:
            owned.append(ws._lock._is_owned())
            push(**options)

        ws._push = checked
        ws.send(ws.receive())

    with opened(start_server(conversing(talk))) as client:
        client.sendall(masked(Opcode.PING, b"") + masked(Opcode.TEXT, b"x"))
        assert [read_frame(client)[0] for _ in range(3)] == [Opcode.PONG, Opcode.TEXT, Opcode.CLOSE]
        client.shutdown(socket.SHUT_WR)
        client.rest()
    assert len(owned) >= 3
    assert all(owned)


def test_what_is_left_at_the_end_of_a_view_is_written_by_one_thread(start_server):
    """The strand writes as there is room, while the view ends: each byte once, and the goodbye."""
    sizes = [100_000 + number for number in range(40)]

    def talk(ws):
        for size in sizes:
            with contextlib.suppress(TimeoutError):
                ws.send(b"x" * size, timeout=0)

    server = start_server(conversing(talk, compress=False))
    with client_of(server, max_queue=1) as client:
        assert [len(data) for data in client] == sizes
        assert client.close_code == 1000


def test_without_a_with_block_too(start_server):
    """The end of the view is the end of the conversation."""

    def app(environ, start_response):
        websocket(environ).send("all")
        start_response("500 Oops", [])
        return [b"thrown away"]

    with client_of(start_server(app)) as client:
        assert list(client) == ["all"]
        assert client.close_code == 1000


def test_any_thread_may_push(start_server):
    """Four at once: each one's in its order, none torn."""
    done = threading.Event()

    def talk(ws):
        threads = [threading.Thread(target=push, args=(ws, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        done.set()

    def push(ws, number):
        for count in range(100):
            ws.send(f"{number} {count} " + "x" * (count * 10))

    with client_of(start_server(conversing(talk))) as client:
        got = [text.split()[:2] for text in client]
    assert done.is_set()
    for number in range(4):
        assert [int(count) for who, count in got if int(who) == number] == list(range(100))


def test_send_waits_for_a_client_that_reads_slowly_and_says_when_it_has_had_enough(start_server):
    """In bounded memory; everything arrives when it reads at last."""
    sizes: list[int] = []
    waited = threading.Event()

    def talk(ws):
        for _ in range(200):
            try:
                ws.send(b"x" * 50_000, timeout=0 if not waited.is_set() else LONG)
            except TimeoutError:
                waited.set()
            sizes.append(len(ws._unsent))

    with client_of(start_server(conversing(talk, compress=False)), max_queue=1) as client:
        assert waited.wait(LONG)
        got = [len(data) for data in client]
    assert got == [50_000] * 200
    assert max(sizes) < (1 << 18) + 2 * 50_100


def test_a_client_that_sends_ahead_is_read_no_further_than_the_bound(start_server):
    """TCP tells it to wait; then everything comes, in order."""
    begin = threading.Event()
    got: list[bytes] = []

    def talk(ws):
        assert begin.wait(LONG)
        got.extend(ws)

    server = start_server(conversing(talk, compress=False))
    with opened(server) as client:
        (connection,) = server.listener.connections
        client.settimeout(0.2)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 1000:
                client.sendall(masked(Opcode.BINARY, b"%05d" % sent + b"x" * 30_000))
                sent += 1
        assert 10 < sent < 1000
        assert connection._conversation._inbox_bytes < (1 << 20) + 100_000
        begin.set()
        wait_until(lambda: len(got) >= sent)
        assert [int(data[:5]) for data in got[:sent]] == list(range(sent))


def test_receive_has_a_timeout(start_server):
    """And goes on after it."""

    def talk(ws):
        with pytest.raises(TimeoutError):
            ws.receive(timeout=0.01)
        ws.send("now")
        ws.send(ws.receive(timeout=LONG))

    with client_of(start_server(conversing(talk))) as client:
        assert client.recv(LONG) == "now"
        client.send("late")
        assert client.recv(LONG) == "late"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Upgrade: websocket\r\n", b""), 426),
        ((b"Version: 13", b"Version: 8"), 400),
        ((b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), 400),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
        ((b"GET ", b"PUT "), 405),
        ((b"Host: h\r\n", b"Host: h\r\nOrigin: https://evil.example\r\n"), 403),
    ],
)
def test_a_request_that_cannot_be_a_websocket_is_told_why(start_server, change, status):
    """Whatever the view returns; and nothing is left of it."""
    refused = []

    def app(environ, start_response):
        try:
            websocket(environ, origins=["https://good.example", None])
        except HandshakeRefused as error:
            refused.append(int(error.status))
        start_response("200 OK", [])
        return [b"thrown away"]

    with connect(start_server(app)) as client:
        client.sendall(HANDSHAKE.replace(*change))
        assert response_of(client)[0] == status
        assert client.rest() == b""
    assert refused == [status]


def test_it_cannot_be_opened_twice_or_when_the_response_has_begun_or_elsewhere(start_server):
    """RuntimeError says which."""
    said = []

    def twice(environ, start_response):
        with websocket(environ):
            try:
                websocket(environ)
            except RuntimeError as error:
                said.append(str(error))
        return []

    with client_of(start_server(twice)) as client, pytest.raises(ConnectionClosedOK):
        client.recv(LONG)

    def begun(environ, start_response):
        start_response("200 OK", [("Content-Length", "1")])(b"x")
        try:
            websocket(environ)
        except RuntimeError as error:
            said.append(str(error))
        return []

    with pytest.raises(InvalidStatus):
        client_of(start_server(begun))
    with pytest.raises(RuntimeError, match="serve the application by `manyhands serve`"):
        websocket({})
    wait_until(lambda: said == ["the response to this request has begun"] * 2)


def test_a_subprotocol_is_agreed_on(start_server):
    """The view's best that the client knows."""
    agreed = []
    app = conversing(lambda ws: agreed.append(ws.subprotocol), subprotocols=["v2", "v1"])
    with client_of(start_server(app), subprotocols=["v1", "v0"]) as client:
        assert client.subprotocol == "v1"
    wait_until(lambda: agreed == ["v1"])


def test_through_tls(start_server):
    """The same. The client has one thread: websockets' has two on one TLS connection, and at times hears nothing."""
    server = start_server(echo, tls=certified.server_context())
    client = ClientProtocol(parse_uri(f"wss://localhost:{server.address[1]}/"))

    def hear() -> Any:
        while not (events := client.events_received()):
            client.receive_data(sock.recv(65_536))
        return events[0]

    with (
        socket.create_connection(server.address, LONG) as plain,
        certified.client_context().wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        client.send_request(client.connect())
        sock.sendall(b"".join(client.data_to_send()))
        assert hear().status_code == 101
        client.send_text(b"x" * 100_000)
        sock.sendall(b"".join(client.data_to_send()))
        assert hear().data == b"x" * 100_000
        client.send_close()
        sock.sendall(b"".join(client.data_to_send()))


def test_a_server_that_stops_says_goodbye(start_server):
    """At once, with 1001, and waits for no grace: the view comes to the end of its loop."""
    server = Server(echo, threads=1)
    server.start()
    with client_of(server) as client:
        client.send("on")
        assert client.recv(LONG) == "on"
        assert server.stop(grace=100 * LONG) == []
        with pytest.raises(ConnectionClosedOK):
            client.recv(LONG)
        assert client.close_code == 1001


def test_a_conversation_that_begins_while_the_server_stops_hears_so_too(start_server):
    """It was not there when the others were told."""
    with Gate() as gate:

        def view(environ, start_response):
            gate()
            return echo(environ, start_response)

        server = start_server(view, threads=1)
        with connect(server) as sock:
            sock.sendall(HANDSHAKE)
            gate.wait_entered()
            stopping = threading.Thread(target=server.stop, args=(LONG,))
            stopping.start()
            wait_until(lambda: server.stopping)
            gate.open()
            heard = b""
            while not heard.endswith(b"\x88\x02\x03\xe9"):  # a close frame with 1001
                heard += sock.recv(1)
            sock.close()
            stopping.join(LONG)
            assert not stopping.is_alive()


@pytest.mark.parametrize("managed", [True, False], ids=["with", "without"])
def test_a_view_that_is_stopped_says_that_the_server_goes_away(start_server, managed):
    """1001, and not that it has failed (1011) or is content (1000)."""
    jobs = []

    def view(environ, start_response):
        jobs.append(mh.current_job())
        ws = websocket(environ)
        with ws if managed else contextlib.nullcontext():
            ws.send("on")
            mh.sleep_blocking(100 * LONG)

    server = start_server(view, threads=1)
    with client_of(server) as client:
        assert client.recv(LONG) == "on"
        jobs[0].stop()
        with pytest.raises(ConnectionClosedOK):
            client.recv(LONG)
        assert client.close_code == 1001
