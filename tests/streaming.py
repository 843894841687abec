"""Programs of tasks on real sockets: a stream whose other end is a plain, blocking socket in the test's hand."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import manyhands as mh
from support import LONG

KINDS = [("epoll", 1), ("epoll", 4), ("poll", 1), ("select", 4)]

each_kind = pytest.mark.parametrize(
    ("poller", "threads"), KINDS, ids=[f"{poller}-{threads}" for poller, threads in KINDS]
)
"""Every poller, and one and several threads."""


def run(main: Callable[..., Awaitable[Any]], *args: Any, threads: int = 1, poller: str = "epoll") -> Any:
    """Run a program that must end by itself."""

    async def limited() -> Any:
        with mh.fail_after(LONG):
            return await main(*args)

    return mh.run(limited, threads=threads, poller=poller)


@contextlib.asynccontextmanager
async def linked(family: str = "tcp") -> AsyncIterator[tuple[mh.SocketStream, socket.socket]]:
    """Yield a stream and its peer."""
    if family == "unix":
        listening = socket.socket(socket.AF_UNIX)
        listening.bind("")  # the kernel makes up a name that is no file
        listening.listen()
    else:
        listening = socket.create_server(("127.0.0.1", 0))
    with listening:
        name = listening.getsockname()
        if family == "unix":
            stream = await mh.connect_unix(name.decode())
        else:
            stream = await mh.connect_tcp(*name)
        peer, _ = listening.accept()
    peer.settimeout(LONG)
    with peer:
        async with stream:
            yield stream, peer


async def until_waiting(handle: mh.TaskHandle[Any]) -> None:
    """Let a task run until it waits for something."""
    while handle.task.state != "SUSPENDED":
        await mh.checkpoint()


async def fill(stream: mh.SocketStream) -> int:
    """Send until the kernel takes no more, while nobody reads; how many bytes it took."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    sent = 0
    while True:
        with mh.move_on_after(0) as scope:
            await stream.send(bytes(1))
            sent += 1
        if scope.cancelled_caught:
            return sent


def reset(peer: socket.socket) -> None:
    """Close it so that the other end gets a reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def receive_all(peer: socket.socket) -> bytes:
    """Read to the end."""
    parts = []
    while part := peer.recv(65536):
        parts.append(part)
    return b"".join(parts)
