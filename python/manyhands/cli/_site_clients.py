"""The clients of `manyhands demo serve`: tasks, one for each, which ask, trickle, talk and hang up.

What they are told they compare. What becomes of the views of those that hang up is the server's to show, and is asked for
where the server writes it down.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import manyhands as mh

PATIENCE = 20.0
"""Seconds that a client waits for an answer: much more than it takes on a machine that is busy with other things."""

FAST, PACE = 8, 0.02
"""Clients that ask for /health, and seconds between an answer and the next question of each."""

TALKERS = 2
TALK_PACE = 0.1

TRICKLE = 1.0
"""Seconds between two steps of a slow client."""

READ_BYTES, RECEIVE_BYTES = 8192, 16_384
"""What a slow reader takes at a step, and what its kernel may hold for it. The server's kernel has room for more only when
much of what it holds has gone; if that takes half a minute, the server thinks that the client takes nothing."""

UPLOAD_BYTES = 1 << 20

IDLE_STEPS = 20
"""An idle client asks again after so many steps: long before the server loses patience with it."""

HASTE = 0.2
"""Seconds after which an impatient client hangs up."""

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Wrong(Exception):
    """The server did what it must not do. The text is a clause: "a client was told 500 …"."""


class Clients:
    """All of them.

    Attributes:
        health: Seconds that each answer to /health took since `health` was emptied.
        answered: Questions that were answered as they must be.
        said: Messages of conversations that came back.
        heard: Server-sent events that came.
        there: Slow clients of each kind that are at it.
        hang_ups: Who, by the tag that the request had, hung up when, on the monotonic clock, which all processes share.
        wrong: What was not as it must be.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.health: list[float] = []
        self.answered = 0
        self.said = 0
        self.heard = 0
        self.there: Counter[str] = Counter()
        self.hang_ups: dict[str, float] = {}
        self._tags = itertools.count(1)
        self.wrong: list[str] = []
        self.scope = mh.CancelScope()
        self._address = address

    async def run(self, who: str, behave: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Behave like this; what goes wrong ends the whole demo."""
        try:
            await behave(*args)
        except (OSError, mh.ManyhandsError, Wrong) as error:
            self.fail(f"{who}: {str(error) or type(error).__name__}")

    def fail(self, sentence: str) -> None:
        """Something is not as it must be: end."""
        self.wrong.append(sentence)
        self.scope.cancel()

    async def ask_health(self, number: int) -> None:
        """Ask again and again, and note how long it took."""
        await mh.sleep(PACE * number / FAST)
        async with await self._connect() as stream:
            while True:
                began = time.perf_counter()
                if (answer := await ask(stream, "/health")) != b"ok\n":
                    raise Wrong(f"/health answered {answer[:100]!r}")
                self.health.append(time.perf_counter() - began)
                self.answered += 1
                await mh.sleep(PACE)

    async def talk(self, number: int) -> None:
        """Talk by WebSocket: blocking code, so on a thread of the pool."""
        await mh.run_job(self._talk, number, name=f"talker {number}")

    def _talk(self, number: int) -> None:
        from websockets.exceptions import WebSocketException  # noqa: PLC0415 - an extra
        from websockets.sync.client import connect  # noqa: PLC0415

        host, port = self._address
        sock = socket.create_connection(self._address, PATIENCE)
        try:
            with connect(f"ws://{host}:{port}/talk/socket", sock=sock) as ws:
                for turn in itertools.count():
                    words = f"talker {number}: message {turn}"
                    ws.send(words)
                    while (heard := ws.recv(PATIENCE)) != words:
                        if str(heard).startswith(f"talker {number}:"):
                            raise Wrong(f"{words!r} came back as {heard!r}")
                    self.said += 1
                    try:
                        mh.sleep_blocking(TALK_PACE)
                    except mh.JobStopped:
                        ws.close()  # with a goodbye; behind an error it would be another one
                        raise
        except WebSocketException as error:
            raise Wrong(f"the conversation broke off ({error})") from error

    # The slow ones. `after`: seconds of delay, so that they do not all move at once.

    async def be_idle(self, after: float) -> None:
        """Ask once, and keep the connection for later."""
        async with await self._connect() as stream:
            while True:
                await ask(stream, "/health")
                self.there["idle"] += 1
                await mh.sleep(after + IDLE_STEPS * TRICKLE)
                self.there["idle"] -= 1

    async def upload(self, after: float) -> None:
        """Upload a byte a second."""
        async with await self._connect() as stream:
            await stream.send(f"POST /upload HTTP/1.1\r\nHost: demo\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n".encode())
            await mh.sleep(after)
            self.there["upload"] += 1
            for _ in range(UPLOAD_BYTES - 1):
                await stream.send(b".")
                await mh.sleep(TRICKLE)

    async def read_rows(self, after: float) -> None:
        """Read a table without an end, a little at a time."""
        await self._read_slowly("/rows", "rows", after, READ_BYTES)

    async def follow(self, after: float) -> None:
        """Wait for news, which come once a second."""
        async with await self._connect() as stream:
            tag = await self._ask_tagged(stream, "/news")
            with mh.fail_after(PATIENCE):
                _check_status("/news", await stream.receive_until(b"\r\n\r\n"))
                await stream.receive_until(b"data: ")
            self.there["news"] += 1
            try:
                while True:
                    with mh.fail_after(PATIENCE):
                        await stream.receive_until(b"\n\n")
                    self.heard += 1
            finally:
                self.hang_ups[tag] = time.monotonic()

    async def _read_slowly(self, path: str, kind: str, after: float, count: int) -> None:
        async with await self._connect() as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            tag = await self._ask_tagged(stream, path)
            with mh.fail_after(PATIENCE):
                _check_status(path, await stream.receive_until(b"\r\n\r\n"))
                await stream.receive(count)
            self.there[kind] += 1
            try:
                await mh.sleep(after)
                while True:
                    await mh.sleep(TRICKLE)
                    await stream.receive(count)
            finally:
                self.hang_ups[tag] = time.monotonic()

    # The impatient ones.

    async def hang_up(self, path: str) -> None:
        """Ask for what takes long, and hang up soon."""
        async with await self._connect() as stream:
            tag = await self._ask_tagged(stream, path)
            try:
                await mh.sleep(HASTE)
            finally:
                self.hang_ups[tag] = time.monotonic()

    async def _ask_tagged(self, stream: mh.SocketStream, path: str) -> str:
        """Ask, so that the server's book has a name for who did: addresses are used again."""
        tag = str(next(self._tags))
        await stream.send(_request(f"{path}?tag={tag}"))
        return tag

    async def _connect(self) -> mh.SocketStream:
        return await mh.connect_tcp(*self._address, timeout=PATIENCE)


SLOW: tuple[tuple[str, str, Callable[[Clients, float], Awaitable[None]]], ...] = (
    ("idle", "keeping an idle connection", Clients.be_idle),
    ("upload", "uploading a byte a second", Clients.upload),
    ("rows", "reading an endless table slowly", Clients.read_rows),
    ("news", "waiting for server-sent events", Clients.follow),
)
"""Kinds of slow clients: name, what they do, how."""


async def ask(stream: mh.SocketStream, path: str) -> bytes:
    """Ask for a page, and return it.

    Raises:
        Wrong: the answer is an error, or none that can be understood.
        TimeoutError, OSError, ManyhandsError: it did not come.
    """
    with mh.move_on_after(PATIENCE):
        await stream.send(_request(path))
        head = await stream.receive_until(b"\r\n\r\n")
        _check_status(path, head)
        length = LENGTH.search(head)
        if length is None:
            raise Wrong(f"the answer to {path} has no length: {head!r}")
        return await stream.receive_exactly(int(length[1])) if int(length[1]) else b""
    raise Wrong(f"{path} was not answered within {PATIENCE:g} s")


async def ask_json(address: tuple[str, int], path: str) -> Any:
    """Ask for a page of JSON.

    Raises:
        As `ask`.
    """
    async with await mh.connect_tcp(*address, timeout=PATIENCE) as stream:
        return json.loads(await ask(stream, path))


async def post(address: tuple[str, int], path: str, body: bytes) -> None:
    """Send something.

    Raises:
        As `ask`.
    """
    async with await mh.connect_tcp(*address, timeout=PATIENCE) as stream:
        with mh.fail_after(PATIENCE):
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
            await stream.send(head.encode() + body)
            _check_status(path, await stream.receive_until(b"\r\n\r\n"))


def _request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def _check_status(path: str, head: bytes) -> None:
    status = STATUS.match(head)
    if status is None or status[1] != b"200":
        raise Wrong(f"{path} was answered with {head.partition(bytes([13]))[0][:100]!r}")
