"""Listener: accepts a server's clients, and knows who is connected.

It is a watch of the loop. It is paused before every thread has joined, while there are as many connections as may be, and for
a moment when there is no descriptor or no memory for another one: the kernel's queue holds the clients meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from manyhands._accept import PASSING, SHORTAGE
from manyhands._events import Events
from manyhands._log import Log
from manyhands.errors import LoopClosed, WatchRemoved
from manyhands.server._connection import Connection
from manyhands.server._tls import TLSSocket

if TYPE_CHECKING:
    import ssl

    from manyhands import _core
    from manyhands.server._bind import Listening
    from manyhands.server._server import Server

__all__ = ["Listener"]

logger = Log("manyhands.server")

ACCEPTS_PER_PASS: Final = 64
"""Connections accepted before the listener gives its thread back, so that a storm of them delays nobody for long."""

NOWHERE: Final = ("", 0)
"""The address of a client that has none, as of a Unix socket's."""

BACK_OFF: Final = 0.1
"""Seconds without accepting when there is no descriptor left, as long as trio's; the kernel's queue holds the clients."""


class Listener:
    """Accepts nobody before `accept`.

    Args:
        server: Has the loop, and what its clients are served.
        listening: The socket. It is taken over.
        tls: Speak TLS.

    Attributes:
        nobody: Set when the last connection has left a server that stops.
    """

    def __init__(self, server: Server, listening: Listening, tls: ssl.SSLContext | None) -> None:
        self.nobody = threading.Event()
        self._server = server
        self._listening = listening
        self._tls = tls
        self._books = threading.RLock()  # reentrant: a finalizer may ask for `connections`
        self._open: set[Connection] = set()  # GUARDED BY: _books
        self._accepting = True  # GUARDED BY: _books; not while there are as many connections as may be
        self._short = False  # Touched only on its strand.
        self._watch = server.loop.add(listening, Events.READ, self._on_ready, name="listener", close=True)
        self._watch.pause()

    def __len__(self) -> int:
        """How many clients are connected."""
        with self._books:
            return len(self._open)

    @property
    def connections(self) -> list[Connection]:
        """Those that are connected."""
        with self._books:
            return list(self._open)

    def accept(self) -> None:
        """Accept clients from now on."""
        with contextlib.suppress(WatchRemoved, LoopClosed):
            self._watch.resume()

    def close(self) -> None:
        """Accept nobody any more, and close the socket."""
        self._watch.remove()

    def left_over(self) -> list[Connection]:
        """Those that are connected still to a server that stops; `nobody` is set if that is nobody."""
        with self._books:
            if not self._open:
                self.nobody.set()
            return list(self._open)

    def left(self, connection: Connection) -> None:
        """Take a connection that has ended off the books. Called by the connection."""
        server = self._server
        with self._books:
            self._open.discard(connection)
            accept = not self._accepting and not server.stopping and len(self._open) < server.limits.connections
            if accept:
                self._accepting = True
            if server.stopping and not self._open:
                self.nobody.set()
        if accept:
            self.accept()

    def _on_ready(self, watch: _core.Watch, events: Events) -> None:  # noqa: ARG002 - a handler's signature
        """Accept what waits, within the budget. The level-triggered watch comes back for the rest."""
        for _ in range(ACCEPTS_PER_PASS):
            with self._books:
                if len(self._open) >= self._server.limits.connections:
                    self._accepting = False
                    watch.pause()
                    return
            try:
                sock, remote = self._listening.socket.accept()
            except BlockingIOError:
                break
            except MemoryError as error:
                self._back_off(watch, error)
                return
            except OSError as error:
                if error.errno in PASSING:
                    continue
                if error.errno not in SHORTAGE:
                    raise
                self._back_off(watch, error)
                return
            # If something goes wrong this client is lost. The listener is not: an error of its handler would end it.
            try:
                self._take(sock, remote)
            except (OSError, MemoryError) as error:
                self._back_off(watch, error)
                return
            except Exception:
                logger.exception("server %r: a client could not be served", self._server.name)
        self._short = False

    def _take(self, sock: Any, remote: Any) -> None:
        sock.setblocking(False)
        if self._listening.tcp:
            with contextlib.suppress(OSError):  # the peer has gone already: the first read will say so
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            try:
                sock = TLSSocket(sock, self._tls)
            except OSError:
                return
        connection: Connection | None = None
        try:
            connection = Connection(self._server, sock, remote[:2] if self._listening.tcp else NOWHERE)
            with self._books:
                self._open.add(connection)
            connection.start()
        except BaseException:
            sock.close()
            if connection is not None:
                self.left(connection)
            raise

    def _back_off(self, watch: _core.Watch, error: OSError | MemoryError) -> None:
        """Stop accepting for a moment, and say so once for as long as the shortage lasts."""
        try:
            watch.strand.call_later(BACK_OFF, watch.resume)
        except MemoryError:
            return  # it comes back at once; paused it would not come back at all
        watch.pause()
        if not self._short:
            self._short = True
            shortage = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
            logger.warning(
                "server %r: no new connections until one ends: %s%s",
                self._server.name,
                (isinstance(error, OSError) and error.strerror) or "there is no memory left",
                "; to serve more at once, raise `ulimit -n`" if shortage else "",
            )
