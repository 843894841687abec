"""`manyhands forward`, run as users run it: in a process of its own, with real sockets, TLS, signals and a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

import certified
import manyhands as mh
from commands import COMMAND, START, run_command
from forwarding import carry, echo, forward, run, target
from manyhands.cli import main
from support import LONG, wait_until

pytestmark = pytest.mark.whole

TLS = ("--tls-cert", certified.certificate(), "--tls-key", certified.key())
MIB = 2**20


def reset(stream: mh.SocketStream) -> None:
    """End a connection by a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


# What it carries.


@pytest.mark.parametrize("threads", ["1", "3"])
def test_every_byte_arrives_both_ways_through_slow_readers_in_bounded_memory(threads: str) -> None:
    """FAULT 15. Sixteen mebibytes each way on two connections, whose readers begin when nothing moves any more."""

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener:
            with forward("127.0.0.1:0", f"127.0.0.1:{listener.port}", "--threads", threads) as process:
                before = process.memory()
                await carry(process, listener, 16 * MIB)
                assert process.memory() - before < 6 * MIB
                figures = process.end()
        assert figures == {"connections": 2, "failed": 0, "to_target": 32 * MIB, "to_clients": 32 * MIB}

    run(main, timeout=3 * LONG)


def test_two_hundred_connections_at_once() -> None:
    """FAULT 14. Each has its own bytes, and none is closed before all have theirs."""
    connections = 200

    async def main() -> None:
        async with target(echo) as address:
            with forward("0", address) as process:
                async with contextlib.AsyncExitStack() as stack:
                    streams = [await stack.enter_async_context(await process.connect()) for _ in range(connections)]
                    for number, stream in enumerate(streams):
                        await stream.send(b"%d" % number * 1000)
                    for number, stream in enumerate(streams):
                        expected = b"%d" % number * 1000
                        assert await stream.receive_exactly(len(expected)) == expected
                figures = process.end()
        assert figures["connections"] == connections and figures["failed"] == 0

    run(main)


def test_an_end_is_passed_on_and_the_other_way_goes_on() -> None:
    """FAULT 3. From the client, and from the target."""

    async def answer(stream: mh.SocketStream) -> None:
        question = b"".join([chunk async for chunk in stream])
        await stream.send(b"heard " + question)

    async def greet(stream: mh.SocketStream) -> None:
        await stream.send(b"hello")
        await stream.send_eof()
        heard.append(b"".join([chunk async for chunk in stream]))
        done.append(True)

    heard: list[bytes] = []
    done: list[bool] = []

    async def main() -> None:
        async with target(answer) as address:
            with forward("0", address) as process:
                async with await process.connect() as client:
                    await client.send(b"a question")
                    await client.send_eof()
                    assert b"".join([chunk async for chunk in client]) == b"heard a question"
        async with target(greet) as address:
            with forward("0", address) as process:
                async with await process.connect() as client:
                    assert b"".join([chunk async for chunk in client]) == b"hello"
                    await client.send(b"an answer")
                    await client.send_eof()
                    while not done:
                        await mh.sleep(0.005)
        assert heard == [b"an answer"]

    run(main)


def test_a_reset_is_passed_on_as_a_reset() -> None:
    """In the middle of the data, from either side; other connections go on."""

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener:
            with forward("0", f"127.0.0.1:{listener.port}") as process:
                async with await process.connect() as other, await listener.accept() as its_peer:
                    for lost in ("client", "target"):
                        async with await process.connect() as client, await listener.accept() as peer:
                            await client.send(b"x")
                            await peer.send(b"y")
                            await peer.receive()
                            await client.receive()
                            gone, left = (client, peer) if lost == "client" else (peer, client)
                            reset(gone)
                            with pytest.raises(mh.BrokenResourceError) as seen:
                                await left.receive()
                            assert isinstance(seen.value.__cause__, ConnectionResetError)
                    await other.send(b"goes on")
                    assert await its_peer.receive() == b"goes on"
                assert process.end()["connections"] == 3

    run(main)


def test_what_the_target_said_before_it_went_still_arrives() -> None:
    """It answers in the middle of what the client sends, and closes with the rest unread."""

    async def refuse(stream: mh.SocketStream) -> None:
        await stream.receive(10)
        await stream.send(b"too much")
        await stream.send_eof()
        with contextlib.suppress(mh.EndOfStream):
            for _ in range(20):
                await stream.receive()

    async def send(client: mh.SocketStream) -> None:
        with contextlib.suppress(mh.BrokenResourceError):
            await client.send(bytes(50 * MIB))

    async def main() -> None:
        async with target(refuse) as address:
            with forward("0", address) as process:
                async with await process.connect() as client, mh.create_task_group() as group:
                    group.start_soon(send, client)
                    assert await client.receive_exactly(8) == b"too much"

    run(main)


def test_unix_sockets_on_both_sides(tmp_path: Path) -> None:
    """The file of the listening side goes when the forwarder does."""

    async def main() -> None:
        async with await mh.create_unix_listener(tmp_path / "target") as listener, mh.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            with forward(f"unix:{tmp_path / 'front'}", f"unix:{tmp_path / 'target'}") as process:
                async with await mh.connect_unix(tmp_path / "front") as client:
                    await client.send(b"hello")
                    assert await client.receive_exactly(5) == b"hello"
                assert process.end()["connections"] == 1
            assert not (tmp_path / "front").exists()
            group.cancel_scope.cancel()

    run(main)


# Its bounds.


def test_beyond_the_limit_new_connections_wait() -> None:
    """The third is served when one of the first two has gone."""

    async def main() -> None:
        async with target(echo) as address:
            with forward("0", address, "--limit", "2") as process:
                async with contextlib.AsyncExitStack() as stack:
                    first, second, third = [await stack.enter_async_context(await process.connect()) for _ in range(3)]
                    for stream in (first, second, third):
                        await stream.send(b"x")
                    for stream in (first, second):
                        assert await stream.receive() == b"x"
                    with mh.move_on_after(0.05) as scope:
                        await third.receive()
                    assert scope.cancelled_caught
                    await first.aclose()
                    assert await third.receive() == b"x"

    run(main)


def test_an_idle_connection_is_ended_and_a_busy_one_is_not() -> None:
    """In order: the idle client sees the end of the stream."""

    async def keep_busy(client: mh.SocketStream) -> None:
        while True:
            await client.send(b"x")
            await client.receive()

    async def main() -> None:
        async with target(echo) as address:
            with forward("0", address, "--idle-timeout", "0.4") as process:
                async with (
                    await process.connect() as busy,
                    await process.connect() as idle,
                    mh.create_task_group() as group,
                ):
                    group.start_soon(keep_busy, busy)
                    with pytest.raises(mh.EndOfStream):
                        await idle.receive()
                    group.cancel_scope.cancel()
                assert process.end()["connections"] == 2

    run(main)


def test_a_target_that_cannot_be_reached_is_said_and_the_client_is_closed() -> None:
    """Each time, and the forwarder goes on: when the target is there the next client is served."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        with forward("0", f"127.0.0.1:{port}") as process:
            for _ in range(2):
                # The reset may come before the connection is seen to be made.
                with pytest.raises((mh.BrokenResourceError, ConnectionResetError)):
                    async with await process.connect() as client:
                        await client.receive()
            says = rf"forward: cannot reach 127.0.0.1:{port} \(Connection refused\); the client was closed\n"
            await process.says(says, times=2)
            async with await mh.create_tcp_listener(port=port) as listener, mh.create_task_group() as group:
                group.start_soon(listener.serve, echo)
                async with await process.connect() as client:
                    await client.send(b"x")
                    assert await client.receive() == b"x"
                group.cancel_scope.cancel()
            assert process.end()["failed"] == 2

    run(main)


# TLS.


async def answer_http(stream: mh.SocketStream) -> None:
    """Be a small web server, of HTTP 1.0: the end of the connection is that of the page."""
    await stream.receive_until(b"\r\n\r\n")
    await stream.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello from behind\n")


async def run_program(*command: str, sent: bytes = b"") -> tuple[int, bytes]:
    """Run a program beside the tasks; its status, and what it printed."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as program:
        assert program.stdin is not None and program.stdout is not None
        program.stdin.write(sent)
        program.stdin.flush()
        try:
            while program.poll() is None:
                await mh.sleep(0.01)
        except BaseException:
            program.kill()
            raise
        return program.returncode, program.stdout.read()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("newest", ["1.2", "1.3"])
def test_curl_talks_to_it_through_tls(newest: str) -> None:
    """The name is checked with an authority of ours, and not checked with -k."""

    async def main() -> None:
        async with target(answer_http) as address:
            with forward("0", address, *TLS) as process:
                for trust in (("--cacert", certified.certificate()), ("-k",)):
                    url = f"https://localhost:{process.port}/"
                    status, printed = await run_program("curl", "-sS", "--tls-max", newest, *trust, url)
                    assert (status, printed) == (0, b"hello from behind\n")
                assert process.end()["connections"] == 2

    run(main)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client_talks_to_it_through_tls(version: str) -> None:
    """It checks the certificate, and sees the end of the session and not just of the connection."""

    async def main() -> None:
        async with target(answer_http) as address:
            with forward("0", address, *TLS) as process:
                status, printed = await run_program(
                    "openssl", "s_client", version, "-CAfile", certified.certificate(), "-verify_return_error",
                    "-connect", f"127.0.0.1:{process.port}", "-quiet", "-no_ign_eof",
                    sent=b"GET / HTTP/1.0\r\n\r\n",
                )  # fmt: skip
                assert b"hello from behind" in printed and status == 0, printed

    run(main)


def test_tls_on_both_sides_carries_every_byte_and_passes_ends_on() -> None:
    """Client, TLS, forwarder, TLS, forwarder, target: eight mebibytes each way, each way ended by itself."""

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener:
            with (
                forward("0", f"127.0.0.1:{listener.port}", *TLS) as inner,
                forward("0", f"localhost:{inner.port}", *TLS, "--tls-to", "--ca", certified.certificate()) as outer,
            ):
                await carry(
                    outer, listener, 8 * MIB, tls=certified.client_context(), server_hostname="localhost", pairs=1
                )
                assert outer.end()["to_target"] == inner.end()["to_target"] == 8 * MIB

    run(main, timeout=2 * LONG)


def test_a_target_whose_certificate_is_not_accepted_is_not_talked_to() -> None:
    """An unknown authority, another name; with --insecure it is."""

    async def main() -> None:
        async with target(answer_http) as address:
            with forward("0", address, *TLS) as inner:
                port = inner.port
                for options, says in (
                    ((), "certificate was refused: self-signed certificate"),
                    (("--ca", certified.certificate()), None),
                    (("--insecure",), None),
                ):
                    with forward("0", f"localhost:{port}", "--tls-to", *options) as process:
                        async with await process.connect() as client:
                            await client.send(b"GET / HTTP/1.0\r\n\r\n")
                            if says is None:
                                assert b"hello from behind" in b"".join([chunk async for chunk in client])
                            else:
                                await process.says(f"cannot reach .*{says}")
                                with pytest.raises((mh.EndOfStream, mh.BrokenResourceError)):
                                    await client.receive()

    run(main)


def test_a_target_that_speaks_no_tls_is_said() -> None:
    """And one that hangs up in the handshake."""

    async def greet(stream: mh.SocketStream) -> None:
        await stream.send(b"220 mail.example.org\r\n")
        async for _ in stream:
            pass

    async def main() -> None:
        async with target(greet) as address:
            with forward("0", address, "--tls-to") as process:
                async with await process.connect():
                    await process.says("cannot reach .*the peer does not speak TLS")

    run(main)


def test_peers_that_do_not_speak_tls_cost_themselves_only() -> None:
    """Plain text, garbage, one byte at a time, nothing at all, a reset; meanwhile a client is served."""

    async def main() -> None:
        async with target(echo) as address:
            with forward("0", address, *TLS) as process:
                async with contextlib.AsyncExitStack() as stack:
                    for sent in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(1000), b"\x16\x03\x01", b""):
                        peer = await stack.enter_async_context(await process.connect())
                        if sent:
                            await peer.send(sent)
                    reset(await process.connect())
                    slow = await stack.enter_async_context(await process.connect())
                    for byte in b"\x16\x03\x01\x02\x00":
                        await slow.send(bytes([byte]))
                    client = await stack.enter_async_context(
                        await process.connect(tls=certified.client_context(), server_hostname="localhost")
                    )
                    await client.send(b"x")
                    assert await client.receive() == b"x"
                    await process.says(r"does not speak TLS \(http request\)")
                assert process.end()["failed"] == 6

    run(main)


def test_a_tls_client_that_is_cut_off_is_a_reset_for_the_target() -> None:
    """No end of the session: the target must not take a part for the whole."""

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener:
            with forward("0", f"127.0.0.1:{listener.port}", *TLS) as process:
                client = await process.connect(tls=certified.client_context(), server_hostname="localhost")
                await client.send(b"part")
                async with await listener.accept() as peer:
                    assert await peer.receive() == b"part"
                    await client.transport.send_eof()
                    with pytest.raises(mh.BrokenResourceError):
                        await peer.receive()
                await client.transport.aclose()

    run(main)


# How it ends.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("tls", [False, True])
def test_a_signal_ends_the_connections_in_order(number: signal.Signals, tls: bool) -> None:
    """Clients and target see the end of the stream; with TLS that of the session."""

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener:
            with forward("0", f"127.0.0.1:{listener.port}", *(TLS if tls else ())) as process:
                options = {"tls": certified.client_context(), "server_hostname": "localhost"} if tls else {}
                async with await process.connect(**options) as client, await listener.accept() as peer:
                    await client.send(b"x")
                    assert await peer.receive() == b"x"
                    process.process.send_signal(number)
                    for stream in (client, peer):
                        with pytest.raises(mh.EndOfStream):
                            await stream.receive()
                    with pytest.raises(OSError, match="refused"):
                        await process.connect()
                process.process.communicate(timeout=START)
                assert process.process.returncode == 0

    run(main)


def test_on_a_terminal_the_figures_are_rewritten_in_place() -> None:
    """A real terminal: the line comes once a second, and is gone at the end."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "forward", "0", "127.0.0.1:9"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    screen = ""

    def shown() -> str:
        nonlocal screen
        if select.select([ours], [], [], 0)[0]:
            with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
                screen += os.read(ours, 4096).decode()
        return screen

    try:
        wait_until(lambda: "\r\x1b[K0 open of 0 connections" in shown(), START)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: "bytes to clients" in shown() and process.poll() is not None, START)
        assert process.returncode == 0 and "\r\x1b[Kended by SIGINT" in screen
    finally:
        process.kill()
        process.wait()
        os.close(ours)


# What it refuses.


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["8080"], "required: HOST:PORT"),
        (["eighty", "host:80"], "expected PORT, HOST:PORT, *:PORT or unix:PATH, got 'eighty'"),
        (["65536", "host:80"], "expected PORT, HOST:PORT"),
        (["8080", "80"], "expected HOST:PORT or unix:PATH, got '80'"),
        (["8080", "host:0"], "expected HOST:PORT or unix:PATH, got 'host:0'"),
        (["8080", "unix:"], "expected HOST:PORT or unix:PATH, got 'unix:'"),
        (["8080", "localhost:8080"], "localhost:8080 is where it listens"),
        (["8080", "host:80", "--tls-key", "x"], "give --tls-cert too"),
        (["8080", "host:80", "--insecure"], "give --tls-to too"),
        (["8080", "host:80", "--ca", "x"], "give --tls-to too"),
        (["8080", "host:80", "--tls-to", "--ca", "x", "--insecure"], "give one of them"),
        (["8080", "unix:/x", "--tls-to"], "a Unix socket has no name to check"),
        (["8080", "host:80", "--limit", "0"], "expected a number of connections, at least 1, got '0'"),
        (["8080", "host:80", "--idle-timeout", "nan"], "expected a number of seconds above 0, got 'nan'"),
        (["8080", "host:80", "--threads", "0"], "expected a number of threads"),
    ],
)
def test_wrong_arguments_are_status_2(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And a sentence that says what was expected."""
    with pytest.raises(SystemExit) as ended:
        main(["forward", *arguments])
    complaint = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2
    assert sentence in complaint and "usage: manyhands forward" in complaint


def test_what_cannot_be_done_is_one_sentence_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port in use, a file that is not there, one that is no certificate."""
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, sentence in (
            ([str(port), "host:80"], f"127.0.0.1:{port} is in use: end the program that has it"),
            (["192.0.2.1:8080", "host:80"], "cannot listen on 192.0.2.1:8080"),
            (["no-such-host.invalid:8080", "host:80"], "cannot find the host 'no-such-host.invalid'"),
            ([f"unix:{tmp_path}/no/socket", "host:80"], "No such file or directory"),
            (["0", "host:80", "--tls-cert", str(tmp_path / "none")], "none (No such file or directory)"),
            (["0", "host:80", "--tls-cert", str(nonsense)], "a certificate and its key, in PEM"),
            (["0", "host:80", "--tls-to", "--ca", str(nonsense)], "has no certificates"),
            (["0", "host:80", "--tls-to", "--ca", str(tmp_path / "none")], "No such file or directory"),
        ):
            assert main(["forward", *arguments]) == 1
            printed = capsys.readouterr()
            assert printed.out == "" and printed.err.count("\n") == 1
            assert printed.err.startswith("manyhands forward: ") and sentence in printed.err


def test_a_limit_that_the_system_has_no_room_for_is_refused_and_the_default_is_what_it_has() -> None:
    """Two descriptors for each connection."""
    done = run_command("forward", "0", "host:80", "--limit", "5000000")
    assert (done.returncode, done.stdout) == (1, "")
    assert "a forwarder of 5,000,000 connections needs 10000024 open files" in done.stderr
    with forward("0", "host:80", max_descriptors=124) as process:
        assert "at once: 50" in process.line
