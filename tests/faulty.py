"""Sockets and files that do less than they are asked, and sometimes nothing: what a kernel may do at any time.

`MANYHANDS_TEST_FAULTS=short` puts them under every server of the tests in tests/server: see `conftest.py` there, and
`test_server_faults.py`, which runs the others so.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest

from manyhands.server import _listener


def part(chance: random.Random, asked: int) -> int:
    """How many of the bytes a call takes: any number of digits of it is as likely."""
    return max(1, min(asked, 1 << chance.randrange(20)))


class ShortSocket:
    """A connection's socket: a third of the calls find nothing ready, and the others read or write a part."""

    def __init__(self, sock: Any, chance: random.Random) -> None:
        self._sock = sock
        self._chance = chance

    def _count(self, asked: int) -> int:
        if self._chance.random() < 0.33:
            raise BlockingIOError
        return part(self._chance, asked)

    def recv(self, size: int) -> bytes:
        return self._sock.recv(self._count(size))

    def send(self, data: bytes | memoryview) -> int:
        return self._sock.send(memoryview(data)[: self._count(len(data))])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Put them under all connections that are made from now on, and under what is sent from files or kept in them."""
    chance = random.Random(0)
    make = _listener.Connection
    sendfile, pwrite, pread = os.sendfile, os.pwrite, os.pread

    def connection(server: Any, sock: Any, remote: Any) -> Any:
        return make(server, ShortSocket(sock, chance) if isinstance(sock, socket.socket) else sock, remote)

    def sendfile_short(out: int, fd: int, offset: int, count: int) -> int:
        if chance.random() < 0.33:
            raise BlockingIOError
        return sendfile(out, fd, offset, part(chance, count))

    def cut_short(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(fd: int, data: Any, offset: int) -> Any:
            size = part(chance, data if isinstance(data, int) else len(data))
            return call(fd, size if isinstance(data, int) else data[:size], offset)

        return called

    patch.setattr(_listener, "Connection", connection)
    patch.setattr(os, "sendfile", sendfile_short)
    patch.setattr(os, "pwrite", cut_short(pwrite))
    patch.setattr(os, "pread", cut_short(pread))
