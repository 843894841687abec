"""The echo server itself: one watch for the listener, one for every connection.

It knows the loop and sockets, and nothing of options, signals or terminals; `echo.py` does. Who turns the loop, and
with how many threads, is not its business either: everything of a connection happens on the strand of its watch, so no
connection needs a lock. The books are the one thing that all of them share, and are written when a connection comes
and when it goes, never per message.

Memory is bounded: a connection holds at most one message that its peer has not taken (`READ_BYTES`), because it does
not read the next one before. Accepting is bounded too: `ACCEPTS_PER_PASS` connections, then everybody else's turn.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import manyhands as mh
from manyhands._accept import PASSING, SHORTAGE
from manyhands.cli._echo_books import Books

READ_BYTES = 65_536
"""The most that is read at once, and so the most that one connection can hold. nginx and Go's io.Copy take 32 KiB,
asyncio 256; from 64 on the cost of a call no longer shows."""

ACCEPTS_PER_PASS = 64
"""Connections accepted before the listener gives its thread back, so that a storm of them delays nobody for long."""

BACK_OFF = 0.1
"""Seconds without accepting when there is no descriptor left, as long as trio's; the backlog of the kernel holds them."""

NOTHING = memoryview(b"")


class Connection:
    """One client: what it sent and has not taken back, and its part of the books. Touched only on its watch's strand."""

    __slots__ = ("_server", "_socket", "_unsent", "bytes", "messages")

    def __init__(self, server: EchoServer, sock: socket.socket) -> None:
        self._server = server
        self._socket = sock
        self._unsent = NOTHING
        self.messages = 0
        self.bytes = 0

    def on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        """Read once and send it back; or, if there is an unsent rest, send that first. Closes at the end or an error.

        A reset shows itself in recv() or send(), a half-close in an empty recv(), so the events need no look.
        """
        if self._unsent:
            self._send(watch, self._unsent)
            return
        try:
            message = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            watch.remove()
            return
        self.messages += 1
        self.bytes += len(message)
        self._send(watch, message)

    def on_removed(self, watch: mh.Watch, reason: mh.RemovalReason) -> None:
        """Hand the figures over to the books. The watch has closed the socket."""
        self._server.books.left(self)

    def _send(self, watch: mh.Watch, message: bytes | memoryview) -> None:
        """Send what fits. While a rest is left the watch waits for room instead of for more: no more is read."""
        try:
            sent = self._socket.send(message)
        except BlockingIOError:
            sent = 0
        except OSError:
            watch.remove()
            return
        if sent < len(message):
            if not self._unsent:
                watch.modify(mh.Events.WRITE)
            self._unsent = memoryview(message)[sent:]
        elif self._unsent:
            self._unsent = NOTHING
            watch.modify(mh.Events.READ)


class EchoServer:
    """A listener on a loop, and the connections that it accepted."""

    def __init__(self, loop: mh.EventLoop, listener: socket.socket, say: Callable[[str], None]) -> None:
        """Put the listener on the loop; nothing is accepted before a thread joins it.

        Args:
            loop: serves the listener and the connections. Closing it closes all of them.
            listener: listening and non-blocking; it belongs to the watch from here on.
            say: called on a joined thread with a sentence for the person who watches the server.
        """
        self._loop = loop
        self._listener = listener
        self._say = say
        self._short = False  # Touched only on the listener's strand.
        self.books = Books()
        loop.add(listener, mh.Events.READ, self._on_ready, name="listener", close=True)

    def _on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        """Accept what waits, within the budget. The level-triggered watch comes back for the rest."""
        for _ in range(ACCEPTS_PER_PASS):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in PASSING:
                    continue
                if error.errno not in SHORTAGE:
                    raise
                self._back_off(watch, f"{error.strerror}; to serve more at once, start it with a higher `ulimit -n`")
                return
            try:
                self._serve(sock)
            except mh.NotPollable as error:
                sock.close()
                self._back_off(
                    watch, f"select takes no descriptor {error.fd}; to serve more at once, use --poller epoll"
                )
                return
        self._short = False

    def _serve(self, sock: socket.socket) -> None:
        """Give a new connection its watch."""
        connection = Connection(self, sock)
        self.books.came(connection)
        try:
            sock.setblocking(False)
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                with contextlib.suppress(OSError):  # the peer has gone already: the first recv() will say so
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._loop.add(sock, mh.Events.READ, connection.on_ready, close=True, on_removed=connection.on_removed)
        except BaseException:
            self.books.left(connection)
            raise

    def _back_off(self, watch: mh.Watch, reason: str) -> None:
        """Stop accepting for a moment, and say so once for as long as the shortage lasts."""
        watch.pause()
        watch.strand.call_later(BACK_OFF, watch.resume)
        if not self._short:
            self._short = True
            self._say(f"no new connections until one ends: {reason}")
