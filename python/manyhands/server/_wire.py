"""A connection's socket, as the strand and the job use it: TCP, a Unix socket, or TLS on either.

Threads: `read`, `drop_urgent` and `shut_down` are the strand's; writing is the job's while there is one, else the strand's.
`close` may come while the job writes: the connection closes under the lock that `write` takes, and else only when the job has
ended, which alone sends files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from typing import Final

from manyhands.server._tls import TLSSocket

__all__ = ["FILE_READ", "GONE", "Wire"]

GONE: Final = -1
"""What writing gives when there is nobody left to read."""

FILE_READ: Final = 65_536
"""Bytes of a file that are read at once where the kernel cannot send it."""

UNSENT_BYTES: Final = 131_072
"""Bytes of a stream that the kernel keeps for a client beyond those on their way. By itself it keeps megabytes: of a thousand
slow readers more than there is memory, and made by views that have nobody to read what they make."""

NO_SENDFILE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""A file that the kernel does not send by itself fails like this, and is read. Source: sendfile(2)."""


class Wire:
    """What bytes go over.

    Args:
        sock: Connected, and does not block. It is taken over.
        lock: Held while bytes are written, so that nobody closes it meanwhile.
    """

    __slots__ = ("_bounded", "_lock", "_socket")

    def __init__(self, sock: socket.socket | TLSSocket, lock: threading.RLock) -> None:
        self._socket = sock
        self._lock = lock
        self._bounded = False  # Touched by the job alone.

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def read(self, size: int) -> bytes | None:
        """Read what has come; b"" at the end of the input, None if nothing has come.

        Raises:
            OSError: the connection is broken.
        """
        try:
            return self._socket.recv(size)
        except BlockingIOError:
            return None

    def drop_urgent(self) -> None:
        """Take the client's urgent byte out, which would be reported again and again."""
        with contextlib.suppress(OSError):  # there is none
            if isinstance(self._socket, TLSSocket):
                self._socket.drop_urgent()
            else:
                self._socket.recv(1, socket.MSG_OOB)

    def write(self, data: bytes | memoryview) -> int:
        """Write what the socket takes; how much that is, or GONE."""
        with self._lock:
            try:
                return self._socket.send(data)
            except BlockingIOError:
                return 0
            except OSError:
                return GONE

    def bound_unsent(self) -> None:
        """Have the kernel take no more than a piece or two ahead of the client, from here on."""
        if not self._bounded:
            self._bounded = True
            with contextlib.suppress(OSError):  # not TCP, or gone: writing will say so
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send part of a file, as much as the socket takes; how much that is, or GONE.

        Raises:
            OSError: the file cannot be read.
        """
        if isinstance(self._socket, TLSSocket):
            return self.write(os.pread(fd, min(count, FILE_READ), offset))
        try:
            return os.sendfile(self._socket.fileno(), fd, offset, count)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno in NO_SENDFILE:
                return self.write(os.pread(fd, min(count, FILE_READ), offset))
            if error.errno == errno.EIO:
                raise
            return GONE

    def shut_down(self) -> None:
        """Send nothing more.

        Raises:
            OSError: the connection is broken.
        """
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()
