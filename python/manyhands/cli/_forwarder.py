"""The port forwarder itself: two tasks for every connection, one for each way.

It knows streams, and nothing of options, signals or terminals; `forward.py` does. Each way holds one chunk: what its
reader does not take is not read from the other side, so a slow reader slows its writer down and costs no memory.

An end is passed on as an end: the other way goes on. What was lost is passed on as a reset, so that nobody takes a part
for the whole.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import manyhands as mh

CHUNK = 65_536
"""The most that is read at once, and so the most that each way of a connection holds."""

REACH = 10.0
"""Seconds for a connection to the target, and for a handshake with a client."""

LAST_WORDS = 1.0
"""Seconds in which what a peer sent before it went can still be read, once nothing can be sent to it."""

SWEEPS = 4
"""How often in an idle timeout the idle ones are looked for: one is ended a quarter too late at most."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: the kernel ends the connection with a reset."""

Stream = mh.SocketStream | mh.TLSStream


@dataclass(frozen=True)
class Figures:
    """What the forwarder has done so far.

    Attributes:
        connections: taken since the start.
        open: open now.
        failed: ended before anything could be forwarded: no handshake, or the target not reached.
        to_target: bytes.
        to_clients: bytes.
    """

    connections: int
    open: int
    failed: int
    to_target: int
    to_clients: int


class Link:
    """One client, the target, and the two ways between them."""

    def __init__(self) -> None:
        self.scope = mh.CancelScope()
        self.to_target = 0
        self.to_client = 0
        self.moved_at = mh.current_time()
        self._lost = False

    async def carry(self, client: Stream, target: Stream) -> None:
        """Forward until both have ended, one is lost, or the scope is cancelled."""
        with self.scope:
            async with mh.create_task_group() as group:
                group.start_soon(self._carry_to_target, client, target)
                await self._carry(target, client, self._count_to_client)
        if self._lost:
            reset(client)
            reset(target)

    async def _carry_to_target(self, client: Stream, target: Stream) -> None:
        await self._carry(client, target, self._count_to_target)

    def _count_to_target(self, count: int) -> None:
        self.to_target += count

    def _count_to_client(self, count: int) -> None:
        self.to_client += count

    async def _carry(self, source: Stream, sink: Stream, count: Callable[[int], None]) -> None:
        try:
            while chunk := await _next(source):
                self.moved_at = mh.current_time()
                if not await self._send(sink, chunk):
                    return
                count(len(chunk))
            await self._send_end(sink)
        except mh.BrokenResourceError:
            self._lost = True
            self.scope.cancel()

    async def _send(self, sink: Stream, chunk: bytes) -> bool:
        try:
            await sink.send(chunk)
        except mh.BrokenResourceError:
            # What it sent before it went may still be on its way: the other task reads it, and comes to the end too.
            self._lost = True
            self.scope.deadline = mh.current_time() + LAST_WORDS
            return False
        return True

    async def _send_end(self, sink: Stream) -> None:
        try:
            await sink.send_eof()
        except NotImplementedError:
            # TLS 1.2 has one end for both ways. For a server's it is the time; a client still waits for its answer.
            if isinstance(sink, mh.TLSStream) and sink.ssl_object.server_side:
                self.scope.cancel()


async def _next(source: Stream) -> bytes:
    try:
        return await source.receive(CHUNK)
    except mh.EndOfStream:
        return b""


def reset(stream: Stream) -> None:
    """Close it with a reset, where there are such."""
    connection = stream.transport if isinstance(stream, mh.TLSStream) else stream
    assert isinstance(connection, mh.SocketStream)
    with contextlib.suppress(OSError, mh.ClosedResourceError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


class Forwarder:
    """A listener, a target, and the connections between them."""

    def __init__(
        self,
        reach: Callable[[], Awaitable[Stream]],
        target: str,
        say: Callable[[str], None],
        *,
        limit: int,
        tls: ssl.SSLContext | None = None,
        idle_timeout: float | None = None,
    ) -> None:
        """Nothing is taken before `serve`.

        Args:
            reach: Connects to the target.
            target: What it is called.
            say: Called with a sentence for the person who watches the forwarder; on any thread.
            limit: Connections at once; when there are as many the others wait in the kernel.
            tls: What to speak TLS with clients with; None for no TLS.
            idle_timeout: Seconds without a byte either way after which a connection is ended; None for never.
        """
        self._reach = reach
        self._target = target
        self._say = say
        self._limit = limit
        self._tls = tls
        self._idle_timeout = idle_timeout
        self._books = threading.Lock()
        self._open: set[Link] = set()  # GUARDED BY: _books
        self._taken = self._failed = self._to_target = self._to_clients = (
            0  # GUARDED BY: _books; of those that have gone
        )
        self._room = mh.Event()  # GUARDED BY: _books

    def figures(self) -> Figures:
        """Add up what the open connections and the ones that have gone did. Any thread; the open ones go on counting."""
        with self._books:
            return Figures(
                self._taken,
                len(self._open),
                self._failed,
                self._to_target + sum(link.to_target for link in self._open),
                self._to_clients + sum(link.to_client for link in self._open),
            )

    async def serve(self, listener: mh.Listener) -> None:
        """Take connections until the scope is cancelled; then the listener is closed, and the connections end in order."""
        async with mh.create_task_group() as group:
            if self._idle_timeout is not None:
                group.start_soon(self._sweep, self._idle_timeout)
            async with listener:
                while True:
                    await self._wait_for_room()
                    client = await listener.accept()
                    link = Link()
                    with self._books:
                        self._taken += 1
                        self._open.add(link)
                    group.start_soon(self._forward, link, client)

    async def _wait_for_room(self) -> None:
        while True:
            with self._books:
                if len(self._open) < self._limit:
                    return
                self._room = room = mh.Event()
            await room.wait()

    async def _forward(self, link: Link, client: mh.SocketStream) -> None:
        failed = True
        try:
            stream = await self._shake_hands(client)
            if stream is None:
                return
            async with stream:
                target = await self._reach_target(stream)
                if target is None:
                    return
                failed = False
                async with target:
                    await link.carry(stream, target)
        finally:
            with self._books:
                self._failed += failed
                self._open.discard(link)
                self._to_target += link.to_target
                self._to_clients += link.to_client
                room = self._room
            room.set()

    async def _shake_hands(self, client: mh.SocketStream) -> Stream | None:
        if self._tls is None:
            return client
        try:
            return await mh.TLSStream.wrap(client, server_side=True, ssl_context=self._tls, handshake_timeout=REACH)
        except (mh.ManyhandsError, OSError) as error:
            self._say(f"a client was closed: {error}")
            return None

    async def _reach_target(self, client: Stream) -> Stream | None:
        try:
            with mh.fail_after(REACH):
                return await self._reach()
        except TimeoutError:
            self._say(f"cannot reach {self._target} within {REACH:.0f} s; the client was closed")
        except (mh.ManyhandsError, OSError) as error:
            why = getattr(error, "strerror", None) or error
            self._say(f"cannot reach {self._target} ({why}); the client was closed")
        reset(client)
        return None

    async def _sweep(self, timeout: float) -> None:
        while True:
            await mh.sleep(timeout / SWEEPS)
            before = mh.current_time() - timeout
            with self._books:
                idle = [link for link in self._open if link.moved_at <= before]
            for link in idle:
                link.scope.cancel()
