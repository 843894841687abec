"""Random frames of WebSocket conversations: what is a message, what ends it and with which code. Source: RFC 6455, 5 and 7.

The frames are judged by a reader of their fields that is written here, and shares no code with `websockets`. `make fuzz` goes
on longer.
"""

from __future__ import annotations

import socket
import struct
import zlib
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from fuzzing import complaints, cut, examples
from manyhands.server import WebSocketClosed, websocket
from serving import Client, connect
from support import wait_until

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
MAX_SIZE = 300

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Sent(NamedTuple):
    """The fields of a frame."""

    fin: bool
    reserved: int
    opcode: int
    masked: bool
    payload: bytes

    def data(self, form: int = 0) -> bytes:
        """As it goes over the wire; with `form` 1 or 2 its length takes more bytes than it needs."""
        length = len(self.payload)
        form = max(form, 0 if length < 126 else 1 if length < 65_536 else 2)
        head = bytes([self.fin << 7 | self.reserved << 4 | self.opcode])
        head += bytes([self.masked << 7 | (length, 126, 127)[form]])
        head += (b"", struct.pack("!H", length & 0xFFFF), struct.pack("!Q", length))[form]
        if not self.masked:
            return head + self.payload
        mask = b"\x01\xf2\x00\x7e"
        return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(self.payload))


def echo(environ, start_response):
    """Say what was said."""
    with websocket(environ, max_size=MAX_SIZE, ping_interval=None) as ws:
        for message in ws:
            ws.send(message)
    return []


TEXTS = st.one_of(st.text(max_size=40).map(str.encode), st.just(b"x" * 126), st.just(b"y" * MAX_SIZE))
ANY = st.one_of(TEXTS, st.binary(max_size=40), st.just(b"z" * (MAX_SIZE + 1)), st.just(b"\xff\xfe"))
GOOD = st.one_of(
    st.builds(Sent, st.booleans(), st.just(0), st.sampled_from([TEXT, BINARY, CONT, CONT]), st.just(True), TEXTS),
    st.builds(Sent, st.just(True), st.just(0), st.sampled_from([PING, PONG]), st.just(True), st.binary(max_size=125)),
)
ODD = st.builds(
    Sent,
    st.booleans(),
    st.sampled_from([0, 0, 0, 1, 4, 7]),
    st.integers(0, 15),
    st.sampled_from([True, True, False]),
    ANY,
)
GOODBYE = st.sampled_from([b"", b"\x03\xe8", b"\x03\xe9bye", b"\x03", b"\x03\xee", b"\x00\x00", b"\x03\xe8\xff"]).map(
    lambda payload: Sent(True, 0, CLOSE, True, payload)
)


class Judge:
    """A reader of the fields of frames, and what it has made of them.

    Attributes:
        messages: Whole ones, with their kind.
        pings: Those that are to be answered.
        code: What ends the conversation, None as long as nothing does. A goodbye's own; 1005 for one without.
        long: What ended it is longer than it may be as well, which is 1009.
    """

    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes]] = []
        self.pings: list[bytes] = []
        self.code: int | None = None
        self.long = False
        self._kind, self._parts = 0, b""

    def hear(self, frames: list[Sent]) -> None:
        """Read until something ends it."""
        for frame in frames:
            if self.code is not None:
                return
            self.long = len(self._parts) + len(frame.payload) > MAX_SIZE
            if frame.reserved or frame.opcode not in (CONT, TEXT, BINARY, CLOSE, PING, PONG) or not frame.masked:
                self.code = 1002
            elif frame.opcode >= CLOSE:
                self._control(frame)
            else:
                self._part(frame)

    def _control(self, frame: Sent) -> None:
        if len(frame.payload) > 125 or not frame.fin:
            self.code = 1002
        elif frame.opcode == CLOSE:
            self.code = goodbye(frame.payload, self._kind)
        elif frame.opcode == PING:
            self.pings.append(frame.payload)

    def _part(self, frame: Sent) -> None:
        if (frame.opcode == CONT) != bool(self._kind):
            self.code = 1002
            return
        self._kind, self._parts = self._kind or frame.opcode, self._parts + frame.payload
        if len(self._parts) > MAX_SIZE:
            self.code = 1009
        elif frame.fin and self._kind == TEXT and not is_text(self._parts):
            self.code = 1007
        elif frame.fin:
            self.messages.append((self._kind, self._parts))
            self._kind, self._parts = 0, b""


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def goodbye(payload: bytes, kind: int) -> int:
    """The code that answers a goodbye; `kind` is that of a message that is not complete."""
    if not payload:
        return 1002 if kind else 1005
    if len(payload) < 2 or payload[:2] not in (b"\x03\xe8", b"\x03\xe9"):
        return 1002
    if not is_text(payload[2:]):
        return 1007
    (code,) = struct.unpack("!H", payload[:2])
    return 1002 if kind else code


def received(data: bytes) -> list[tuple[int, bytes]]:
    """Frames of the server: no mask, no reserved bits, the shortest lengths, whole."""
    found = []
    while data:
        assert data[0] & 0x70 == 0
        assert data[0] & 0x80
        length, start = data[1], 2
        assert length < 128, "masked"
        if length == 126:
            (length,), start = struct.unpack("!H", data[2:4]), 4
            assert length > 125
        assert len(data) >= start + length
        found.append((data[0] & 15, data[start : start + length]))
        data = data[start + length :]
    return found


def converse(client: Client, pieces: list[bytes], more: bytes = b"") -> bytes:
    """Shake hands, send all of it and nothing more, and read to the end."""
    client.sendall(HANDSHAKE + more + b"\r\n")
    assert client.response()[0] == 101
    try:
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it has ended the conversation
    try:
        return client.rest()
    except ConnectionResetError:
        return b""


def check_quiet(server, caplog) -> None:
    wait_until(lambda: server.connections == 0)
    wait_until(lambda: server.pool.stats().busy == 0)
    assert complaints(caplog) == []


def test_random_frames_are_read_as_the_rfc_says(start_server, caplog):
    """Messages in order, a pong for each ping, and the code of whatever ends it; then nothing, and the connection ends."""
    server = start_server(echo)

    @examples(200)
    @given(st.lists(GOOD, max_size=6), st.one_of(st.none(), ODD, GOODBYE), st.lists(GOOD, max_size=1), st.data())
    def check(before, odd, after, data):
        frames = [*before, *([odd] if odd is not None else []), *after, Sent(True, 0, CLOSE, True, b"\x03\xe8")]
        judge = Judge()
        judge.hear(frames)
        messages, code, pings = judge.messages, judge.code, judge.pings
        stream = b"".join(frame.data() for frame in frames)
        with connect(server) as client:
            got = received(converse(client, cut(data, stream, 3)))
        assert code is not None
        assert got, "it ended without a goodbye"
        kind, last = got.pop()
        assert kind == CLOSE
        # A message that is wrong as a whole may be read together with a frame that is wrong or the last.
        whole = code in (1007, 1009)
        said_code = struct.unpack("!H", last[:2])[0] if last else 1005
        assert said_code == code or whole or (judge.long and said_code == 1009)
        pongs = [payload for kind, payload in got if kind == PONG]
        assert pongs[: len(pings)] == pings
        assert pongs == pings or whole
        said = [(kind, payload) for kind, payload in got if kind != PONG]
        # What the view says when the client has said goodbye already is not heard.
        assert said == messages[: len(said)]

    check()
    check_quiet(server, caplog)


def test_damaged_frames_end_the_conversation_and_nothing_else(start_server, caplog):
    """Bytes replaced, lengths in long forms, ends missing, compressed or not: what comes back is frames, and an end."""
    server = start_server(echo)

    @examples(150)
    @given(st.lists(st.one_of(GOOD, ODD, GOODBYE), max_size=5), st.booleans(), st.data())
    def check(frames, deflate, data):
        stream = bytearray(b"".join(frame.data(data.draw(st.sampled_from([0, 0, 0, 1, 2]))) for frame in frames))
        for _ in range(data.draw(st.integers(0, 3))):
            if stream:
                stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
        stream = stream[: data.draw(st.integers(0, len(stream)))]
        with connect(server) as client:
            got = converse(client, cut(data, bytes(stream), 3), DEFLATE if deflate else b"")
        if not deflate:
            received(got)

    check()
    check_quiet(server, caplog)


def test_what_is_inflated_is_bounded(start_server, caplog):
    """Deflated messages, whole, cut, damaged and followed by others: what is longer than it may be is 1009."""
    seen: list[int] = []

    def view(environ, start_response):
        with websocket(environ, max_size=MAX_SIZE, ping_interval=None) as ws:
            try:
                for message in ws:
                    seen.append(len(message))
            except WebSocketClosed:
                pass
        return []

    server = start_server(view)

    @examples(100)
    @given(st.integers(0, 200_000), st.integers(0, 8), st.booleans(), st.data())
    def check(size, level, damage, data):
        packer = zlib.compressobj(level, wbits=-15)
        packed = bytearray(packer.compress(b"x" * size) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        if damage and packed:
            packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
        parts = cut(data, bytes(packed), 2) or [b""]
        frames = [
            Sent(index == len(parts) - 1, 4 if index == 0 else 0, CONT if index else BINARY, True, part)
            for index, part in enumerate(parts)
        ]
        with connect(server) as client:
            got = converse(client, [frame.data() for frame in frames], DEFLATE)
        if size > MAX_SIZE and not damage:
            assert struct.unpack("!H", received(got)[-1][1][:2]) == (1009,)

    check()
    check_quiet(server, caplog)
    assert max(seen, default=0) <= MAX_SIZE
