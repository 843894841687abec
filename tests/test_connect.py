"""The way to a peer: names, addresses, refusals, time limits, and what a cancellation leaves."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading

import pytest

import manyhands as mh
from manyhands._streams import _connect
from streaming import each_kind, run, until_waiting
from support import LONG


@pytest.fixture
def resolver(monkeypatch):
    """Answer names from a table, on a pool that ends with the test."""
    answers = {}
    asked = []

    def look_up(host: str, port: int):
        asked.append(host)
        answer = answers[host]
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]

    monkeypatch.setattr(_connect, "_getaddrinfo", look_up)
    with mh.ThreadPool(2, name="resolve") as pool:
        mh.set_default_pool(pool)
        try:
            yield answers, asked
        finally:
            mh.set_default_pool(None)
            pool._own_lane().destroy(LONG)


@contextlib.contextmanager
def full_listener():
    """A TCP listener that takes no more connections: the next one is neither made nor refused."""
    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()


def refused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@each_kind
def test_a_refused_connection_is_the_systems_error(poller, threads):
    """FAULT 4. And leaves no descriptor."""

    async def main() -> None:
        with pytest.raises(ConnectionRefusedError):
            await mh.connect_tcp("127.0.0.1", refused_port())
        with pytest.raises(FileNotFoundError):
            await mh.connect_unix("/nowhere/at/all")

    run(main, poller=poller, threads=threads)


@each_kind
def test_a_connection_that_is_not_answered_ends_with_the_time_limit(poller, threads):
    """T89."""

    async def main() -> None:
        with full_listener() as address:
            with pytest.raises(TimeoutError):
                await mh.connect_tcp(*address, timeout=0.02)
            with mh.move_on_after(0.01) as scope:
                await mh.connect_tcp(*address)
            assert scope.cancelled_caught

    run(main, poller=poller, threads=threads)


def test_a_cancelled_connect_leaves_nothing():
    """T85. The leak line sees a descriptor."""

    async def main() -> None:
        with full_listener() as address:
            for _ in range(5):
                async with mh.create_task_group() as group:
                    connecting = group.create_task(mh.connect_tcp(*address))
                    await until_waiting(connecting)
                    connecting.cancel()

    run(main)


def test_a_name_is_looked_up_and_its_addresses_are_tried_in_order(resolver):
    """The first that answers is taken; an address is not looked up."""
    answers, asked = resolver

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener:
            async with await mh.connect_tcp("127.0.0.1", listener.port, local_host="127.0.0.5") as stream:
                assert stream.local_address[0] == "127.0.0.5"
                (await listener.accept()).close()
            assert asked == []
            answers["good"] = ["127.0.0.1"]
            async with await mh.connect_tcp("good", listener.port):
                (await listener.accept()).close()
            assert asked == ["good"]
            # All of 127/8 is this machine, and nobody listens on the first.
            answers["both"] = ["127.0.0.9", "127.0.0.1"]
            async with await mh.connect_tcp("both", listener.port) as stream:
                assert stream.remote_address == listener.address
                (await listener.accept()).close()

    run(main)


def test_if_no_address_answers_every_error_is_told(resolver):
    """One by itself, several as a group in the cause."""
    answers, _ = resolver
    answers["one"] = ["127.0.0.9"]
    answers["two"] = ["127.0.0.9", "127.0.0.8"]
    answers["none"] = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def main() -> None:
        port = refused_port()
        with pytest.raises(ConnectionRefusedError):
            await mh.connect_tcp("one", port)
        with pytest.raises(OSError, match="no address of 'two'") as failed:
            await mh.connect_tcp("two", port)
        assert [type(error) for error in failed.value.__cause__.exceptions] == [ConnectionRefusedError] * 2
        with pytest.raises(socket.gaierror, match="not known"):
            await mh.connect_tcp("none", port)

    run(main)


def test_a_cancellation_does_not_wait_for_the_resolver(resolver):
    """T85. The task goes on at once; the look-up ends when the system's resolver does."""
    answers, _ = resolver
    begun, go_on = threading.Event(), threading.Event()

    def slow():
        begun.set()
        assert go_on.wait(LONG)
        return ["127.0.0.1"]

    answers["slow"] = slow

    async def main() -> None:
        async with mh.create_task_group() as group:
            connecting = group.create_task(mh.connect_tcp("slow", 1))
            while not begun.is_set():
                await mh.sleep(0.001)
            connecting.cancel()
            with pytest.raises(mh.TaskCancelled):
                await connecting
            with pytest.raises(TimeoutError):
                await mh.connect_tcp("slow", 1, timeout=0.01)
        go_on.set()

    try:
        run(main)
    finally:
        go_on.set()


@each_kind
def test_a_unix_listener_whose_backlog_is_full_is_waited_for(poller, threads, tmp_path):
    """FAULT 14. And the wait can be cancelled."""
    name = str(tmp_path / "s")

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as stack:
            listening.bind(name)
            listening.listen(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                    waiting.setblocking(False)
                    waiting.connect(name)
            with mh.move_on_after(0.01) as scope:
                await mh.connect_unix(name)
            assert scope.cancelled_caught
            async with mh.create_task_group() as group:
                connecting = group.create_task(mh.connect_unix(name))
                await until_waiting(connecting)
                listening.accept()[0].close()
                (await connecting).close()

    run(main, poller=poller, threads=threads)


def test_what_makes_no_sense_is_refused_at_the_call():
    """Issue: bad input."""

    async def main() -> None:
        for port in (0, -1, 65536, "80", None, True):
            with pytest.raises(ValueError, match="port must be"):
                await mh.connect_tcp("127.0.0.1", port)
        with pytest.raises(OSError, match="assign"):
            await mh.connect_tcp("127.0.0.1", refused_port(), local_host="203.0.113.1")
        with pytest.raises(OSError, match="too long"):
            await mh.connect_unix("x" * 200)

    run(main)


def test_a_connection_can_be_made_when_it_takes_the_last_descriptor():
    """FAULT 1. Making it needs one descriptor, and no second one for a moment."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            held = []
            try:
                with contextlib.suppress(OSError):
                    while True:
                        held.append(os.dup(listening.fileno()))
                os.close(held.pop())
                stream = await mh.connect_tcp(*listening.getsockname())
            finally:
                for number in held:
                    os.close(number)
            async with stream:
                listening.accept()[0].close()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        run(main)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
