"""Listeners: taking connections, refusing, closing, and the files of Unix sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

import pytest

import manyhands as mh
from streaming import each_kind, run, until_waiting
from support import LONG


async def echo(stream: mh.SocketStream) -> None:
    """Send back what comes."""
    async for chunk in stream:
        await stream.send(chunk)


@contextlib.contextmanager
def client(address):
    """Connect as a plain socket."""
    family = socket.AF_UNIX if isinstance(address, (str, bytes)) else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(LONG)
        sock.connect(address)
        yield sock


def round_trip(address, data: bytes = b"hello") -> None:
    """Send to an echo and get it back."""
    with client(address) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while part := sock.recv(65536):
            got += part
        assert got == data


@each_kind
def test_every_connection_is_served_in_a_task_of_its_own(poller, threads, spawn):
    """T88. Many at once, until the scope is cancelled."""

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            calls = [spawn(round_trip, listener.address, bytes([n]) * 1000) for n in range(20)]
            while not all(call.done for call in calls):
                await mh.sleep(0.001)
            for call in calls:
                call.result()
            group.cancel_scope.cancel()

    run(main, poller=poller, threads=threads)


def test_a_handler_that_fails_costs_its_connection_and_is_logged(logged, spawn):
    """Issue: bad input. The listener goes on."""

    async def handler(stream: mh.SocketStream) -> None:
        if await stream.receive(1) == b"!":
            raise ValueError("on purpose")
        await stream.send(b"fine")

    def ask(address, data: bytes) -> bytes:
        with client(address) as sock:
            sock.sendall(data)
            return sock.recv(100)

    async def main() -> list[bytes]:
        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            group.start_soon(listener.serve, handler, group)
            got = []
            for data in (b"!", b"a", b"!", b"b"):
                call = spawn(ask, listener.address, data)
                while not call.done:
                    await mh.sleep(0.001)
                got.append(call.result())
            group.cancel_scope.cancel()
        return got

    assert run(main) == [b"", b"fine", b"", b"fine"]
    records = [record for record in logged.records if "handler of a connection" in record.message]
    assert len(records) == 2
    assert all("on purpose" in str(record.exc_info) for record in records)


@each_kind
def test_a_second_accept_is_refused_and_the_first_gets_the_connection(poller, threads):
    """T85b, T87."""

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            first = group.create_task(listener.accept())
            await until_waiting(first)
            with pytest.raises(mh.BusyResourceError):
                await listener.accept()
            with client(listener.address) as sock:
                async with await first as stream:
                    assert stream.remote_address == sock.getsockname()

    run(main, poller=poller, threads=threads)


@each_kind
def test_closing_ends_an_accept_and_the_port_is_free(poller, threads):
    """T90, issue: use after close."""

    async def main() -> None:
        listener = await mh.create_tcp_listener()
        async with mh.create_task_group() as group:

            async def accept() -> None:
                with pytest.raises(mh.ClosedResourceError):
                    await listener.accept()

            await until_waiting(group.create_task(accept()))
            await listener.aclose()
            await listener.aclose()
        with pytest.raises(mh.ClosedResourceError):
            await listener.accept()
        assert "closed" in repr(listener)
        async with await mh.create_tcp_listener(port=listener.port) as again:
            assert again.port == listener.port

    run(main, poller=poller, threads=threads)


def test_a_cancelled_accept_leaves_the_connection_to_the_next():
    """T89."""

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            accepting = group.create_task(listener.accept())
            await until_waiting(accepting)
            accepting.cancel()
            with pytest.raises(mh.TaskCancelled):
                await accepting
            with client(listener.address) as sock:
                async with await listener.accept() as stream:
                    sock.sendall(b"x")
                    assert await stream.receive() == b"x"

    run(main)


def test_a_port_that_is_taken_is_refused_and_shared_if_both_ask_for_it():
    """Two listeners on one port get all connections between them."""

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener:
            with pytest.raises(OSError, match="in use"):
                await mh.create_tcp_listener(port=listener.port)
        async with contextlib.AsyncExitStack() as stack:
            one = await stack.enter_async_context(await mh.create_tcp_listener(reuse_port=True))
            two = await stack.enter_async_context(await mh.create_tcp_listener(port=one.port, reuse_port=True))
            taken = []

            async def take(listener: mh.Listener) -> None:
                while True:
                    taken.append((listener, await listener.accept()))

            async with mh.create_task_group() as group:
                group.start_soon(take, one)
                group.start_soon(take, two)
                for _ in range(64):
                    stack.enter_context(client(one.address))
                while len(taken) < 64:
                    await mh.sleep(0.001)
                group.cancel_scope.cancel()
            for _, stream in taken:
                stream.close()
            assert {listener for listener, _ in taken} == {one, two}

    run(main)


def test_what_makes_no_sense_is_refused_at_the_call():
    """Issue: bad input."""

    async def main() -> None:
        for wrong in (
            {"port": -1},
            {"port": 65536},
            {"port": "80"},
            {"port": True},
            {"backlog": 0},
            {"host": "no address"},
        ):
            with pytest.raises(ValueError, match="must be"):
                await mh.create_tcp_listener(**wrong)
        with pytest.raises(OSError, match="assign"):
            await mh.create_tcp_listener(host="203.0.113.1")
        async with await mh.create_tcp_listener(host="localhost") as listener:
            assert listener.address[0] == "127.0.0.1"
        async with await mh.create_tcp_listener(host=None) as listener:
            with client(("127.0.0.1", listener.port)):
                (await listener.accept()).close()

    run(main)


def test_a_unix_listener_makes_its_file_and_removes_it(tmp_path):
    """The permissions are as asked for; the name may be text, bytes or a path."""

    async def main() -> None:
        for name in (tmp_path / "s", str(tmp_path / "s"), os.fsencode(tmp_path / "s")):
            async with await mh.create_unix_listener(name, mode=0o600) as listener, mh.create_task_group() as group:
                status = os.stat(name)
                assert stat.S_ISSOCK(status.st_mode)
                assert stat.S_IMODE(status.st_mode) == 0o600
                connecting = group.create_task(mh.connect_unix(name))
                async with await listener.accept() as one, await connecting as other:
                    await one.send(b"x")
                    assert await other.receive() == b"x"
            assert not os.path.exists(name)

    run(main)


def test_a_socket_file_that_was_left_behind_is_replaced_and_a_live_one_is_not(tmp_path):
    """Nor is one whose backlog is full, nor a datagram socket, nor another kind of file."""
    name = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(name)

    async def main() -> None:
        async with await mh.create_unix_listener(name) as listener:
            with pytest.raises(OSError, match="in use"):
                await mh.create_unix_listener(name)
            with client(name):
                (await listener.accept()).close()
        with socket.socket(socket.AF_UNIX) as full, contextlib.ExitStack() as stack:
            full.bind(name)
            full.listen(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                    waiting.setblocking(False)
                    waiting.connect(name)
            with pytest.raises(OSError, match="in use"):
                await mh.create_unix_listener(name)
        os.unlink(name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(name)
            with pytest.raises(OSError, match="in use"):
                await mh.create_unix_listener(name)
        os.unlink(name)
        (tmp_path / "s").write_text("mine")
        with pytest.raises(OSError, match="in use"):
            await mh.create_unix_listener(name)
        assert (tmp_path / "s").read_text() == "mine"
        with pytest.raises(OSError, match="too long"):
            await mh.create_unix_listener("x" * 200)
        with pytest.raises(FileNotFoundError):
            await mh.create_unix_listener(tmp_path / "none" / "s")

    run(main)


def test_a_file_that_is_another_listeners_by_now_is_not_removed(tmp_path):
    """The old server ends after the new one has begun."""
    name = tmp_path / "s"

    async def main() -> None:
        old = await mh.create_unix_listener(name)
        os.unlink(name)
        async with await mh.create_unix_listener(name):
            await old.aclose()
            with client(str(name)):
                pass
        assert not name.exists()

    run(main)


def test_a_name_that_is_no_file_is_the_kernels():
    """A name that begins with a zero byte."""

    async def main() -> None:
        name = f"\0manyhands-{os.getpid()}"
        async with await mh.create_unix_listener(name) as listener:
            with client(name):
                (await listener.accept()).close()
            with pytest.raises(OSError, match="in use"):
                await mh.create_unix_listener(name)

    run(main)


def test_a_forked_child_leaves_the_file_to_its_parent(tmp_path):
    """T96."""
    name = tmp_path / "s"

    async def main() -> None:
        async with await mh.create_unix_listener(name) as listener:
            child = os.fork()
            if child == 0:
                listener.close()
                os._exit(0)
            os.waitpid(child, 0)
            with client(str(name)):
                (await listener.accept()).close()

    run(main)
    assert not name.exists()


def test_a_listener_that_nobody_closed_is_closed_when_it_is_collected_and_says_so():
    """T99."""

    async def main() -> None:
        kept = [await mh.create_tcp_listener()]
        address = kept[0].address
        with pytest.warns(ResourceWarning, match="was not closed"):
            kept.clear()
        with pytest.raises(ConnectionRefusedError), client(address):
            pass

    run(main)
