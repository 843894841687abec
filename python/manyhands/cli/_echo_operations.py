"""The echo server in the style of operations: a handler starts what comes next, and nobody asks whether anything is ready.

The same promises as the one of watches (`_echo_server.py`): a connection holds at most one message that its peer has not
taken, since it receives the next one when all of that is sent; the books are written when a connection comes and when it
goes. All handlers of a connection run on the strand of its descriptor, one at a time, so it needs no lock.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import manyhands as mh
from manyhands._accept import PASSING, SHORTAGE
from manyhands.cli._echo_books import Books
from manyhands.cli._echo_server import BACK_OFF, READ_BYTES


class Connection:
    """One client, and its part of the books."""

    __slots__ = ("_proactor", "_server", "_socket", "bytes", "messages")

    def __init__(self, server: EchoOperations, proactor: mh.Proactor, sock: socket.socket) -> None:
        self._server = server
        self._proactor = proactor
        self._socket = sock
        self.messages = 0
        self.bytes = 0

    def receive(self) -> None:
        """Ask for the next message."""
        self._proactor.receive(self._socket, READ_BYTES, self._received)

    def _received(self, operation: mh.Operation[bytes]) -> None:
        """Send it back; the end, an error and the end of the server all end the connection."""
        message = b"" if operation.exception(0) else operation.result(0)
        if not message:
            self._end()
            return
        self.messages += 1
        self.bytes += len(message)
        self._go_on(lambda: self._proactor.send_all(self._socket, message, self._sent))

    def _sent(self, operation: mh.Operation[None]) -> None:
        if operation.exception(0):
            self._end()
        else:
            self._go_on(self.receive)

    def _go_on(self, start: Callable[[], object]) -> None:
        try:
            start()
        except (mh.ClosedResourceError, mh.LoopClosed):
            # The server has ended, and this is one of the handlers that it owed.
            self._end()

    def _end(self) -> None:
        self._proactor.close(self._socket)
        self._server.books.left(self)


class EchoOperations:
    """A listener of a proactor, and the connections that it accepted."""

    def __init__(self, loop: mh.EventLoop, listener: socket.socket, say: Callable[[str], None]) -> None:
        """Ask for the first connection; nothing is accepted before a thread joins the loop.

        Args:
            loop: runs the operations and their handlers. Closing it closes the connections.
            listener: listening and non-blocking; the caller closes it, after the loop.
            say: called on a joined thread with a sentence for the person who watches the server.
        """
        self._proactor = mh.Proactor(loop)
        self._loop = loop
        self._listener = listener
        self._say = say
        self._short = False  # Touched only on the listener's strand, and by its timer when nothing is under way.
        self.books = Books()
        self._accept()

    def _accept(self) -> None:
        with contextlib.suppress(mh.ClosedResourceError, mh.LoopClosed):
            self._proactor.accept(self._listener, self._on_accepted)

    def _on_accepted(self, operation: mh.Operation[tuple[socket.socket, Any]]) -> None:
        error = operation.exception(0)
        if error is None:
            sock, _ = operation.result(0)
            try:
                self._serve(sock)
            except mh.NotPollable as refused:
                sock.close()
                self._back_off(f"select takes no descriptor {refused.fd}; to serve more at once, use --poller epoll")
                return
            self._short = False
        elif isinstance(error, mh.ClosedResourceError):
            return
        elif isinstance(error, OSError) and error.errno in SHORTAGE:
            self._back_off(f"{error.strerror}; to serve more at once, start it with a higher `ulimit -n`")
            return
        elif not isinstance(error, OSError) or error.errno not in PASSING:
            raise error
        self._accept()

    def _serve(self, sock: socket.socket) -> None:
        """Begin a new connection."""
        connection = Connection(self, self._proactor, sock)
        self.books.came(connection)
        try:
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                with contextlib.suppress(OSError):  # the peer has gone already: the first receive will say so
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.receive()
        except BaseException:
            self.books.left(connection)
            raise

    def _back_off(self, reason: str) -> None:
        """Accept again in a moment, and say so once for as long as the shortage lasts."""
        if not self._short:
            self._short = True
            self._say(f"no new connections until one ends: {reason}")
        with contextlib.suppress(mh.LoopClosed):
            self._loop.call_later(BACK_OFF, self._accept)
