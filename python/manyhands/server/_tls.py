"""TLS on a connection's socket: reads and writes as a socket that does not block.

The connection sees `recv` and `send` and `BlockingIOError`, as without TLS; the handshake happens in the first of them, on
the connection's strand, within the time that its head may take. Source: OpenSSL's SSL_read(3), "non-blocking".

A record is decrypted whole, and what of it was not asked for is no longer in the kernel, so that no readiness would tell of
it: `recv` gives all of it.

Two threads may be in a connection, the strand that reads and the job that writes, and an SSL object allows one: `_lock`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

__all__ = ["TLSSocket"]


class TLSSocket:
    """The server's end of a TLS connection.

    Args:
        sock: A connected socket that does not block. It is taken over.
        context: The server's certificate, and what else is asked of a client.

    Raises:
        OSError: the peer has gone already.
    """

    __slots__ = ("_lock", "_shut", "_ssl")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._lock = threading.RLock()  # reentrant: a finalizer may close a forgotten loop, and so this
        self._shut = False
        try:
            self._ssl = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self._ssl.getpeername()  # of a socket that is not connected it would make one without TLS
        except BaseException:
            sock.close()
            raise

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._ssl.fileno()

    def setsockopt(self, level: int, name: int, value: int) -> None:
        """As `socket.setsockopt`."""
        self._ssl.setsockopt(level, name, value)

    def recv(self, size: int) -> bytes:
        """Read what has come: at least one byte, and more than `size` if it is of the same record.

        Raises:
            BlockingIOError: nothing has come.
            OSError: the peer does not speak TLS, or not as it should (`ssl.SSLError`), or the connection is broken.
        """
        with self._lock:
            try:
                data = self._ssl.recv(size)
                while more := self._ssl.pending():
                    data += self._ssl.recv(more)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                raise BlockingIOError from error
            return data

    def send(self, data: bytes | memoryview) -> int:
        """Write what the socket takes; how much that is.

        Raises:
            BlockingIOError: it takes nothing now. Call it again with the same bytes.
            OSError: as `recv`.
        """
        with self._lock:
            try:
                return self._ssl.send(data)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                raise BlockingIOError from error

    def drop_urgent(self) -> None:
        """Take TCP's urgent byte out, which is beside what TLS protects.

        Raises:
            OSError: there is none.
        """
        socket.socket.recv(self._ssl, 1, socket.MSG_OOB)

    def shutdown(self, how: int) -> None:
        """Say close_notify, and shut the socket, as `socket.shutdown`."""
        self._say_goodbye()
        self._ssl.shutdown(how)

    def close(self) -> None:
        """Say close_notify if there is room for it, and close the socket."""
        self._say_goodbye()
        self._ssl.close()

    def _say_goodbye(self) -> None:
        with self._lock:
            if not self._shut:
                self._shut = True
                with contextlib.suppress(OSError, ValueError):  # in the midst of the handshake, or the socket is broken
                    self._ssl.unwrap()
