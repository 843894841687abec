"""TLS on streams: both ways at once, its end, and peers that do not behave."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import IO, Any

import pytest

import certified
import manyhands as mh
from manyhands._streams import _tls
from support import LONG

Pair = tuple[mh.TLSStream, mh.TLSStream]


def run(main: Callable[[], Coroutine[Any, Any, object]], *, threads: int = 1) -> None:
    """Run it within `LONG` seconds."""

    async def limited() -> None:
        with mh.fail_after(LONG):
            await main()

    mh.run(limited, threads=threads)


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[tuple[mh.SocketStream, mh.SocketStream]]:
    """A client's end and a server's."""
    async with (
        await mh.create_tcp_listener() as listener,
        await mh.connect_tcp("127.0.0.1", listener.port) as client,
        await listener.accept() as server,
    ):
        yield client, server


@contextlib.asynccontextmanager
async def tls_pair(
    *,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    wrapped: Callable[[Any], Any] = lambda stream: stream,
    **options: Any,
) -> AsyncIterator[Pair]:
    """The two ends of a TLS session."""
    async with connection() as (client, server):
        async with mh.create_task_group() as group:
            accepting = group.create_task(
                mh.TLSStream.wrap(wrapped(server), server_side=True, ssl_context=certified.server_context(), **options)
            )
            near = await mh.TLSStream.wrap(
                wrapped(client),
                hostname="localhost",
                ssl_context=certified.client_context(newest=newest),
                **options,
            )
            far = await accepting
        async with mh.create_task_group() as group:
            try:
                yield near, far
            finally:
                # Both at once: each waits for the other's end.
                group.start_soon(near.aclose)
                await far.aclose()


async def wrap_both(
    near: mh.SocketStream,
    far: mh.SocketStream,
    *,
    client: ssl.SSLContext | None = None,
    server: ssl.SSLContext | None = None,
) -> Pair:
    """Shake hands on a connection."""
    async with mh.create_task_group() as group:
        wrapping = group.create_task(
            mh.TLSStream.wrap(far, server_side=True, ssl_context=server or certified.server_context())
        )
        context = client or certified.client_context()
        return await mh.TLSStream.wrap(near, hostname="localhost", ssl_context=context), await wrapping


async def error_of(action: Awaitable[object]) -> Exception:
    """What it raises."""
    try:
        await action
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


class ByteByByte:
    """A connection that gives one byte at a time."""

    def __init__(self, stream: mh.SocketStream) -> None:
        self.stream = stream

    def receive(self, max_bytes: int = 1) -> Awaitable[bytes]:
        return self.stream.receive(1)

    def send(self, data: bytes) -> Awaitable[None]:
        return self.stream.send(data)

    async def aclose(self) -> None:
        await self.stream.aclose()


class Gated(ByteByByte):
    """A connection that counts what is sent, and sends nothing while it is stuck."""

    def __init__(self, stream: mh.SocketStream) -> None:
        super().__init__(stream)
        self.stuck = False
        self.sent = 0

    def receive(self, max_bytes: int = 65536) -> Awaitable[bytes]:
        return self.stream.receive(max_bytes)

    async def send(self, data: bytes) -> None:
        if self.stuck:
            await mh.sleep_forever()
        await self.stream.send(data)
        self.sent += 1


# Data.


@pytest.mark.parametrize("threads", [1, 3])
def test_both_ways_at_once_carry_every_byte(threads: int) -> None:
    """Three megabytes each way, from four tasks on as many threads as there are."""
    data = bytes(range(256)) * 12_000

    async def check(stream: mh.TLSStream) -> None:
        assert await stream.receive_exactly(len(data)) == data

    async def main() -> None:
        async with tls_pair() as pair, mh.create_task_group() as group:
            for stream in pair:
                group.start_soon(stream.send, data)
                group.start_soon(check, stream)

    run(main, threads=threads)


def test_a_session_comes_through_byte_by_byte() -> None:
    """Handshake, data and end."""

    async def main() -> None:
        async with tls_pair(wrapped=ByteByByte) as (near, far):
            await near.send(b"hello")
            assert await far.receive_exactly(5) == b"hello"
            await near.send_eof()
            assert [chunk async for chunk in far] == []

    run(main)


def test_a_reader_that_waits_for_the_network_does_not_hold_a_writer_up() -> None:
    """The reader waits first, and what it waits for comes only after the writer has sent."""

    async def main() -> None:
        async with tls_pair() as (near, far), mh.create_task_group() as group:
            reading = group.create_task(near.receive())
            await mh.checkpoint()
            await near.send(b"ask")
            assert await far.receive() == b"ask"
            assert not reading.done()
            await far.send(b"answer")
            assert await reading == b"answer"

    run(main)


def test_a_writer_whose_peer_does_not_read_does_not_hold_a_reader_up() -> None:
    """A send that cannot end, and a receive beside it."""

    async def main() -> None:
        async with tls_pair() as (near, far), mh.create_task_group() as group:
            sending = group.create_task(near.send(bytes(50_000_000)))
            await far.receive(1)  # it has begun
            for number in range(50):
                await far.send(b"%d" % number)
                assert await near.receive() == b"%d" % number
            assert not sending.done()
            sending.cancel()

    run(main)


def test_reading_exactly_and_up_to_a_delimiter() -> None:
    """What was read and not asked for is there for the next."""

    async def main() -> None:
        async with tls_pair() as (near, far):
            await near.send(b"one\r\ntwo\r\nthree")
            assert await far.receive_until(b"\r\n") == b"one\r\n"
            assert await far.receive(1) == b"t"
            with pytest.raises(mh.DelimiterNotFound):
                await far.receive_until(b"\n", 3)
            assert await far.receive_exactly(4) == b"wo\r\n"
            await near.send_eof()
            with pytest.raises(mh.IncompleteRead) as until:
                await far.receive_until(b"\r\n")
            assert until.value.partial == b"three"
            with pytest.raises(mh.IncompleteRead) as exactly:
                await far.receive_exactly(1)
            assert exactly.value.partial == b""

    run(main)


def test_a_cancelled_receive_takes_nothing() -> None:
    """Half of what was to be read came before the cancellation; the next one gets it."""

    async def main() -> None:
        async with tls_pair() as (near, far):
            await near.send(b"half")
            assert await far.receive(1) == b"h"
            with mh.move_on_after(0.01) as scope:
                await far.receive_exactly(8)
            assert scope.cancelled_caught
            with mh.move_on_after(0.01) as scope:
                await far.receive_until(b"!")
            assert scope.cancelled_caught
            await near.send(b" and half!")
            assert await far.receive_until(b"!") == b"alf and half!"

    run(main)


def test_a_second_reader_and_a_second_writer_are_refused() -> None:
    """The first one goes on."""

    async def main() -> None:
        async with tls_pair() as (near, far), mh.create_task_group() as group:
            reading = group.create_task(near.receive())
            writing = group.create_task(near.send(bytes(50_000_000)))
            await far.receive(1)
            for action in (near.receive(), near.receive_exactly(1), near.receive_until(b"x"), near.send(b"x")):
                with pytest.raises(mh.BusyResourceError):
                    await action
            await far.send(b"for the first")
            assert await reading == b"for the first"
            writing.cancel()

    run(main)


def test_many_sessions_on_several_threads() -> None:
    """Twenty at once, each with a reader and a writer on both sides: an SSLObject that two threads enter breaks it."""
    data = bytes(range(256)) * 400

    async def talk(group: mh.TaskGroup, stream: mh.TLSStream) -> None:
        writing = group.create_task(stream.send(data))
        assert await stream.receive_exactly(len(data)) == data
        await writing

    async def session() -> None:
        async with tls_pair() as (near, far), mh.create_task_group() as group:
            other = group.create_task(talk(group, far))
            await talk(group, near)
            await other

    async def main() -> None:
        async with mh.create_task_group() as group:
            for _ in range(20):
                group.start_soon(session)

    run(main, threads=4)


# The end.


def test_the_end_of_a_session_is_the_end_of_the_stream() -> None:
    """By `aclose`, for a reader that waits; and whoever uses it afterwards on this side is refused."""

    async def main() -> None:
        async with tls_pair() as (near, far), mh.create_task_group() as group:
            reading = group.create_task(error_of(far.receive_exactly(5)))
            await near.send(b"last")
            group.start_soon(near.aclose)
            ended = await reading
            assert isinstance(ended, mh.IncompleteRead) and ended.partial == b"last"
            await far.aclose()
            for action in (far.receive(), far.receive_exactly(1), far.send(b"x"), far.send_eof()):
                with pytest.raises(mh.ClosedResourceError):
                    await action

    run(main)


def test_what_was_left_of_a_record_is_not_read_after_the_close() -> None:
    """Use after close is refused, whatever is still there."""

    async def main() -> None:
        async with tls_pair() as (near, far), mh.create_task_group() as group:
            await near.send(b"line and rest")
            assert await far.receive_until(b" ") == b"line "
            group.start_soon(near.aclose)
            await far.aclose()
            with pytest.raises(mh.ClosedResourceError):
                await far.receive()

    run(main)


@pytest.mark.parametrize("lenient", [False, True])
def test_a_connection_that_ends_without_the_end_of_the_session(lenient: bool) -> None:
    """It is an error, unless the protocol inside knows its own end."""

    async def main() -> None:
        async with tls_pair(standard_compatible=not lenient) as (near, far):
            await far.send(b"part")
            await far.transport.aclose()
            assert await near.receive() == b"part"
            if lenient:
                with pytest.raises(mh.EndOfStream):
                    await near.receive()
                return
            for _ in range(2):
                with pytest.raises(mh.BrokenResourceError, match="something may be missing") as lost:
                    await near.receive()
                assert isinstance(lost.value.__cause__, ssl.SSLEOFError)

    run(main)


def test_a_part_is_not_taken_for_the_whole_when_a_send_was_cut() -> None:
    """Later sends are refused, and `aclose` does not say that this was the end, though nothing was lost yet."""

    async def main() -> None:
        async with tls_pair(wrapped=Gated) as (near, far):
            near.transport.stuck = True
            with mh.move_on_after(0.01):
                await near.send(b"part")
            near.transport.stuck = False
            with pytest.raises(mh.BrokenResourceError, match="cancelled half-way"):
                await near.send(b"more")
            await near.aclose()
            with pytest.raises(mh.BrokenResourceError):
                while True:
                    await far.receive()

    run(main)


def test_a_peer_that_never_answers_the_end_delays_aclose_by_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reads nothing, one that says nothing, and both while the task is to stop."""
    monkeypatch.setattr(_tls, "CLOSE_TIMEOUT", 0.02)

    async def main() -> None:
        async with tls_pair() as (near, far):
            await near.aclose()
            assert near.closed
            await far.transport.aclose()
        async with connection() as (client, server):
            # Nothing is read: what is to be sent fills the kernel's buffers first.
            near, far = await wrap_both(client, server)
            with mh.CancelScope() as scope:
                scope.cancel()
                await near.aclose()
            assert client.closed
            with pytest.raises(mh.EndOfStream):
                await far.receive()  # it was told, though the task was to stop
            await far.aclose()

    run(main)


def test_one_way_ends_and_the_other_goes_on() -> None:
    """Data that came before, and data that comes after, are read as always."""

    async def main() -> None:
        async with tls_pair() as (near, far):
            await far.send(b"before")
            await far.send(b" and")
            await near.receive(1)  # the rest of one record, and another one, have come too
            await near.send_eof()
            with pytest.raises(mh.ClosedResourceError, match="the sending side is closed"):
                await near.send(b"x")
            with pytest.raises(mh.EndOfStream):
                await far.receive()
            await far.send(b" after")
            assert await near.receive_exactly(15) == b"efore and after"
            await far.send_eof()
            with pytest.raises(mh.EndOfStream):
                await near.receive()

    run(main)


def test_one_way_cannot_end_alone_before_tls_1_3() -> None:
    """The error says what to do."""

    async def main() -> None:
        async with tls_pair(newest=ssl.TLSVersion.TLSv1_2) as (near, far):
            with pytest.raises(NotImplementedError, match="TLSv1.2: use aclose"):
                await near.send_eof()
            await near.send(b"goes on")
            assert await far.receive() == b"goes on"

    run(main)


def test_a_session_is_taken_off_and_the_connection_goes_on() -> None:
    """What the peer sends behind the end of its session is given back."""

    async def take_off_and_send(stream: mh.TLSStream) -> None:
        plain, _ = await stream.unwrap()
        await plain.send(b"plain text")

    async def main() -> None:
        async with tls_pair() as (near, far), mh.create_task_group() as group:
            group.start_soon(take_off_and_send, far)
            plain, rest = await near.unwrap()
            assert plain is near.transport
            while rest != b"plain text":
                rest += await plain.receive()
            with pytest.raises(mh.ClosedResourceError):
                await near.send(b"x")
            await plain.aclose()
            await far.transport.aclose()

    run(main)


def test_new_keys_in_the_middle() -> None:
    """As `openssl s_client` asks for them at a K; both ways go on with the new ones."""
    command = ["openssl", "s_client", "-CAfile", certified.certificate(), "-verify_return_error", "-connect"]

    async def main(printed: IO[bytes]) -> None:
        async with await mh.create_tcp_listener() as listener:
            address = f"127.0.0.1:{listener.port}"
            with subprocess.Popen(
                [*command, address], stdin=subprocess.PIPE, stdout=printed, stderr=printed
            ) as program:
                assert program.stdin is not None
                async with await mh.TLSStream.wrap(
                    await listener.accept(), server_side=True, ssl_context=certified.server_context()
                ) as stream:
                    for number in range(3):
                        line = b"line %d\n" % number
                        program.stdin.write(line)
                        program.stdin.flush()
                        assert await stream.receive_exactly(len(line)) == line
                        await stream.send(b"heard " + line)
                        program.stdin.write(b"K\n")  # a command only if it is all that it reads
                        program.stdin.flush()
                        while Path(printed.name).read_bytes().count(b"KEYUPDATE") <= number:
                            await mh.sleep(0.005)
                assert program.wait(LONG) == 0

    with tempfile.NamedTemporaryFile() as printed:
        run(lambda: main(printed))
        heard = re.findall(rb"^heard line \d|KEYUPDATE", Path(printed.name).read_bytes(), re.MULTILINE)
    assert heard == [b"heard line 0", b"KEYUPDATE", b"heard line 1", b"KEYUPDATE", b"heard line 2", b"KEYUPDATE"]


def test_a_task_that_only_reads_answers_what_the_peer_asks_of_tls_itself() -> None:
    """A server that wants the client's certificate in the middle of the session, and waits for it before it sends more."""
    server, client = certified.server_context(), certified.client_context()
    server.post_handshake_auth = client.post_handshake_auth = True
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certified.certificate())
    client.load_cert_chain(certified.certificate(), certified.key())

    async def read(stream: mh.TLSStream) -> None:
        heard.append(b"".join([chunk async for chunk in stream]))
        await stream.aclose()

    heard: list[bytes] = []

    async def main() -> None:
        async with connection() as ends:
            near, far = await wrap_both(*ends, client=client, server=server)
            async with mh.create_task_group() as group:
                group.start_soon(read, near)
                assert far.ssl_object.getpeercert() in (None, {})
                far.ssl_object.verify_client_post_handshake()
                await far.send(b"before ")
                with mh.move_on_after(0.05):
                    await far.receive()
                assert far.ssl_object.getpeercert()["subject"] == ((("commonName", "localhost"),),)
                await far.send(b"and after")
                await far.aclose()
        assert heard == [b"before and after"]

    run(main)


# Peers that do not behave.


def hang_up(sock: socket.socket) -> None:
    """End a connection by a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", r"the peer does not speak TLS \(http request\)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n" * 20, r"the peer does not speak TLS"),
        (bytes(range(256)) * 100, r"handshake failed"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", r"handshake failed"),
        (b"\x16\x03", r"hung up during the TLS handshake"),
        (b"", r"hung up during the TLS handshake"),
        (None, r"lost"),
    ],
    ids=["http", "ssh", "garbage", "short hello", "piece", "nothing", "reset"],
)
def test_what_is_no_handshake_ends_the_connection_with_an_error_that_says_so(sent: bytes | None, says: str) -> None:
    """On the server's side; the connection is closed."""

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener:
            peer = socket.create_connection(("127.0.0.1", listener.port), LONG)
            server = await listener.accept()
            if sent is None:
                hang_up(peer)
            else:
                peer.sendall(sent)
                peer.shutdown(socket.SHUT_WR)
            with contextlib.closing(peer), pytest.raises(mh.BrokenResourceError, match=says) as refused:
                await mh.TLSStream.wrap(server, server_side=True, ssl_context=certified.server_context())
            assert server.closed
            if "handshake failed" in str(refused.value):
                assert isinstance(refused.value.__cause__, ssl.SSLError)

    run(main)


def test_a_peer_that_says_nothing_has_so_much_time_and_no_more() -> None:
    """The connection is closed; a cancellation from outside is not taken for the timeout."""

    async def main() -> None:
        async with connection() as (client, server):
            with pytest.raises(TimeoutError, match=r"not over after 0\.02 s"):
                await mh.TLSStream.wrap(
                    server, server_side=True, ssl_context=certified.server_context(), handshake_timeout=0.02
                )
            assert server.closed
            with pytest.raises(mh.EndOfStream):
                await client.receive()
        async with connection() as (client, server):
            with mh.move_on_after(0.01) as scope:
                await mh.TLSStream.wrap(client, hostname="localhost", ssl_context=certified.client_context())
            assert scope.cancelled_caught and client.closed

    run(main)


@pytest.mark.parametrize(
    ("context", "name", "says"),
    [
        (certified.client_context, "example.org", "certificate was refused: Hostname mismatch"),
        (ssl.create_default_context, "localhost", "certificate was refused: self-signed certificate"),
    ],
    ids=["another name", "unknown authority"],
)
def test_a_certificate_that_is_not_accepted(context: Callable[[], ssl.SSLContext], name: str, says: str) -> None:
    """The client says what is wrong with it, and tells the server."""

    async def serve(listener: mh.Listener) -> None:
        with pytest.raises(mh.BrokenResourceError, match="the peer says: "):
            stream = await mh.TLSStream.wrap(
                await listener.accept(), server_side=True, ssl_context=certified.server_context()
            )
            async with stream:  # with TLS 1.3 a server is done before the client has looked
                await stream.receive()

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            group.start_soon(serve, listener)
            with pytest.raises(mh.BrokenResourceError, match=says) as refused:
                await mh.connect_tcp("127.0.0.1", listener.port, tls=context(), server_hostname=name)
            assert isinstance(refused.value.__cause__, ssl.SSLCertVerificationError)

    run(main)


def test_garbage_in_the_middle_of_a_session() -> None:
    """An error for the reader, and the peer is told."""

    async def main() -> None:
        async with tls_pair() as (near, far):
            await near.transport.send(b"\x17\x03\x03\x00\x20" + bytes(32))
            with pytest.raises(mh.BrokenResourceError, match="the TLS connection was lost") as lost:
                await far.receive()
            assert isinstance(lost.value.__cause__, ssl.SSLError)
            with pytest.raises(mh.BrokenResourceError, match="the peer says: "):
                await near.receive()

    run(main)


def test_a_reset_in_the_middle_of_a_session() -> None:
    """For a reader that waits and a writer that waits, each an error with the system's."""

    async def main() -> None:
        async with tls_pair() as (near, far), mh.create_task_group() as group:
            reading = group.create_task(error_of(far.receive()))
            writing = group.create_task(error_of(far.send(bytes(50_000_000))))
            await near.receive(1)
            near.transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await near.transport.aclose()
            for lost in (await reading, await writing):
                assert isinstance(lost, mh.BrokenResourceError) and isinstance(lost.__cause__, OSError)

    run(main)


def test_what_cannot_work_is_refused_at_the_call() -> None:
    """And the stream is closed, as by every handshake that fails."""

    async def main() -> None:
        for options, says in (
            ({"server_side": True}, "a server needs an ssl_context"),
            ({}, "a server needs an ssl_context"),
            (
                {"server_side": True, "hostname": "x", "ssl_context": certified.server_context()},
                "hostname is what a client",
            ),
            ({"server_side": False}, "hostname must be given"),
        ):
            async with connection() as (client, _):
                with pytest.raises(ValueError, match=says):
                    await mh.TLSStream.wrap(client, **options)
                assert client.closed
        async with await mh.create_tcp_listener() as listener:
            with pytest.raises(ValueError, match="server_hostname is for TLS"):
                await mh.connect_tcp("127.0.0.1", listener.port, server_hostname="x")
            with pytest.raises(ValueError, match="max_handshakes must be"):
                mh.TLSListener(listener, certified.server_context(), max_handshakes=0)

    run(main)


# The listener.


async def echo(stream: mh.TLSStream) -> None:
    """Send back what comes."""
    async for chunk in stream:
        await stream.send(chunk)


@contextlib.asynccontextmanager
async def serving(
    handler: Callable[[mh.TLSStream], Awaitable[object]], **options: Any
) -> AsyncIterator[mh.TLSListener]:
    """A listener that serves while the block runs."""
    listener = mh.TLSListener(await mh.create_tcp_listener(), certified.server_context(), **options)
    async with listener, mh.create_task_group() as group:
        group.start_soon(listener.serve, handler)
        yield listener
        group.cancel_scope.cancel()


async def ask(listener: mh.TLSListener, question: bytes = b"hello") -> None:
    """Be a client that behaves."""
    async with await mh.connect_tcp(
        "127.0.0.1", listener.port, tls=certified.client_context(), server_hostname="localhost"
    ) as stream:
        await stream.send(question)
        assert await stream.receive_exactly(len(question)) == question


def test_a_listener_goes_on_whatever_comes(logged: pytest.LogCaptureFixture) -> None:
    """Garbage, silence, resets and a handler that fails, forty of them; at most one record a second of handshakes."""
    logged.set_level(logging.INFO, "manyhands.loop")

    async def handle(stream: mh.TLSStream) -> None:
        if await stream.receive_exactly(5) == b"fail!":
            raise RuntimeError("deliberate")
        await stream.send(b"hello")

    async def main() -> None:
        async with serving(handle, handshake_timeout=LONG) as listener:
            with contextlib.ExitStack() as stack:
                for number in range(40):
                    peer = socket.create_connection(("127.0.0.1", listener.port), LONG)
                    stack.callback(peer.close)
                    if number % 4 == 0:
                        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    elif number % 4 == 1:
                        peer.sendall(b"\x16\x03\x01")
                    elif number % 4 == 2:
                        hang_up(peer)
                async with await mh.connect_tcp(
                    "127.0.0.1", listener.port, tls=certified.client_context(), server_hostname="localhost"
                ) as stream:
                    await stream.send(b"fail!")
                    with pytest.raises(mh.EndOfStream):
                        await stream.receive()
                await ask(listener)
                assert listener.handshakes == 20  # the silent ones

    run(main)
    failed = [record for record in logged.records if "a handshake failed" in record.getMessage()]
    assert 1 <= len(failed) <= 3 and {record.levelname for record in failed} == {"INFO"}
    assert sum("the handler of a connection" in record.getMessage() for record in logged.records) == 1


def test_no_more_handshakes_at_once_than_were_asked_for() -> None:
    """Two peers that say nothing take both places; a third is served when their time is over, or one of them goes."""

    async def main() -> None:
        async with serving(echo, max_handshakes=2, handshake_timeout=LONG) as listener:
            with contextlib.ExitStack() as stack:
                silent = [
                    stack.enter_context(socket.create_connection(("127.0.0.1", listener.port), LONG)) for _ in range(2)
                ]
                with mh.move_on_after(0.05) as scope:
                    await ask(listener)
                assert scope.cancelled_caught and listener.handshakes == 2
                silent[0].close()
                await ask(listener)
        async with serving(echo, max_handshakes=2, handshake_timeout=0.05) as listener:
            with contextlib.ExitStack() as stack:
                for _ in range(4):
                    stack.enter_context(socket.create_connection(("127.0.0.1", listener.port), LONG))
                await ask(listener)

    run(main)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_talks_to_a_listener() -> None:
    """A handler that answers HTTP, asked by somebody else's TLS; the name is checked."""

    async def answer(stream: mh.TLSStream) -> None:
        await stream.receive_until(b"\r\n\r\n")
        await stream.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello")

    async def main() -> None:
        async with serving(answer) as listener:
            command = ["curl", "-sS", "--cacert", certified.certificate(), f"https://localhost:{listener.port}/"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as curl:
                assert curl.stdout is not None and curl.stderr is not None
                while curl.poll() is None:
                    await mh.sleep(0.005)
                assert (curl.stdout.read(), curl.stderr.read()) == (b"hello", b"")

    run(main)
