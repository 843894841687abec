"""Waiting for a descriptor: a stop ends the wait at once."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

from manyhands import _core
from manyhands.blocking._patience import Patience
from manyhands.errors import BadDescriptor

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike, ReadableBuffer

__all__ = ["READ", "WAKE_TIMEOUT", "accept", "connect", "recv", "send", "wait_readable", "wake_accept"]

WAKE_TIMEOUT = 1.0
"""Seconds that `wake_accept` may take: the listener is on this machine."""

READ, WRITE = 1, 2
"""As `Events`, which costs 700 ns to take apart."""


def wait_readable(fd: FileDescriptorLike, timeout: float | None = None) -> bool:
    """Wait until a descriptor can be read without blocking: bytes, a connection, or the end.

    Args:
        fd: A number or an object with `fileno()`; not a regular file.
        timeout: Seconds; None waits for ever, 0 only looks.

    Returns:
        True if it is readable; False after `timeout`.

    Raises:
        JobStopped: the job was told to stop, also if the descriptor is readable.
        BadDescriptor: it is not open.

    Blocks: until then; a stop ends it at once.
    """
    patience, number = Patience(timeout), _number(fd)
    try:
        return bool(_core.wait_descriptor(number, READ, patience.timeout()))
    except (OSError, ValueError) as error:
        if number < 0 or getattr(error, "errno", None) == errno.EBADF:
            raise BadDescriptor(number) from None
        raise


def accept(sock: socket.socket) -> tuple[socket.socket, Any]:
    """Accept a connection: `sock.accept()` that a stop ends at once.

    The socket's own timeout holds; a non-blocking socket is waited for as well. Several jobs may accept from one socket.

    Returns:
        The connection and the address of its peer.

    Raises:
        JobStopped: the job was told to stop; no connection was taken.
        TimeoutError: the socket has a timeout, and nobody came.
        OSError: as `sock.accept()`.

    Blocks: until a connection comes, the socket's timeout, or the stop.
    """
    patience = _patience_of(sock)
    turnstile = _turnstile(sock)
    while True:
        _wait(sock, READ, patience)
        # Of several who were told of one connection the first takes it; the others would block in accept(), for good.
        with turnstile, contextlib.suppress(BlockingIOError):
            if _core.wait_descriptor(sock.fileno(), READ, 0):
                return sock.accept()


def recv(sock: socket.socket, size: int) -> bytes:
    """Receive up to `size` bytes: `sock.recv(size)` that a stop ends at once.

    The socket's own timeout holds; a non-blocking socket is waited for as well.

    Returns:
        The bytes; `b""` at the end of the stream.

    Raises:
        JobStopped: the job was told to stop; nothing was received.
        TimeoutError: the socket has a timeout, and nothing came.
        OSError: as `sock.recv()`.

    Blocks: until bytes come, the socket's timeout, or the stop.
    """
    patience = _patience_of(sock)
    while True:
        _wait(sock, READ, patience)
        with contextlib.suppress(BlockingIOError):
            return sock.recv(size, socket.MSG_DONTWAIT)


def send(sock: socket.socket, data: ReadableBuffer) -> int:
    """Send what fits: `sock.send(data)` that a stop ends at once.

    The socket's own timeout holds; a non-blocking socket is waited for as well.

    Returns:
        How many bytes were taken: at least 1 if there were any. Send the rest with another call.

    Raises:
        JobStopped: the job was told to stop; nothing was sent.
        TimeoutError: the socket has a timeout, and there was no room.
        OSError: as `sock.send()`.

    Blocks: until there is room, the socket's timeout, or the stop.
    """
    patience = _patience_of(sock)
    while True:
        _wait(sock, WRITE, patience)
        with contextlib.suppress(BlockingIOError):
            return sock.send(data, socket.MSG_DONTWAIT)


def connect(sock: socket.socket, address: Any) -> None:
    """Connect a socket: `sock.connect(address)` that a stop ends at once.

    Args:
        sock: Not connected yet. Its own timeout holds; a non-blocking socket is waited for as well.
        address: As `sock.connect()` takes it. Give an address and not a name: looking a name up cannot be stopped.

    Raises:
        JobStopped: the job was told to stop. The socket may be connected or not: close it.
        TimeoutError: the socket has a timeout, or the network's own has passed.
        OSError: as `sock.connect()`.

    Blocks: until it is connected or refused, the socket's timeout, or the stop.
    """
    patience = _patience_of(sock)
    before = sock.gettimeout()
    _core.check_in()
    sock.setblocking(False)
    try:
        while (error := sock.connect_ex(address)) == errno.EAGAIN:
            # A Unix socket whose listener has no place left; no poller tells when it has.
            if patience.over:
                raise TimeoutError("timed out")
            _core.sleep_blocking(patience.slice())
        if error == errno.EINPROGRESS:
            _wait(sock, WRITE, patience)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    finally:
        sock.settimeout(before)


def wake_accept(sock: socket.socket) -> None:
    """End a plain `accept()` that a thread is blocked in, by connecting to its socket.

    For code that cannot be changed to call `accept` above: call it in `Job.on_stop`. The `accept()` returns a connection whose
    peer has closed it.

    Args:
        sock: Listening: TCP over IPv4 or IPv6, or a Unix socket.

    Raises:
        ValueError: it does not listen, or is of another kind.
        OSError: it is closed, or cannot be connected to.

    Blocks: for `WAKE_TIMEOUT` at most.
    """
    _check_socket(sock)
    address = sock.getsockname()
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise ValueError(f"sock must be a TCP or a Unix socket, and got {sock!r}")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError(f"sock must be a listening socket, and got {sock!r}")
    if sock.family == socket.AF_INET and address[0] == "0.0.0.0":  # noqa: S104 - it is read here, not bound
        address = ("127.0.0.1", address[1])
    elif sock.family == socket.AF_INET6 and address[0] == "::":
        address = ("::1", *address[1:])
    with socket.socket(sock.family, sock.type) as caller:
        caller.settimeout(WAKE_TIMEOUT)
        # With a full backlog there are connections to accept: nobody is blocked.
        with contextlib.suppress(TimeoutError, BlockingIOError):
            caller.connect(address)


_turnstiles: weakref.WeakKeyDictionary[socket.socket, threading.Lock] = weakref.WeakKeyDictionary()


def _turnstile(sock: socket.socket) -> threading.Lock:
    """Return the lock that lets one thread at a time accept from a socket."""
    # No lock around it: a dictionary's setdefault is one step, on every build, for keys that compare by identity.
    return _turnstiles.setdefault(sock, threading.Lock())


def _wait(sock: socket.socket, events: int, patience: Patience) -> None:
    """Wait until a socket is ready.

    Raises:
        TimeoutError: as the socket's own call would.
    """
    if not _core.wait_descriptor(sock.fileno(), events, patience.timeout()):
        raise TimeoutError("timed out")


def _patience_of(sock: socket.socket) -> Patience:
    """Return the patience that a socket's timeout asks for. Non-blocking ones are waited for: that is why one is here."""
    _check_socket(sock)
    return Patience(sock.gettimeout() or None)


def _check_socket(sock: socket.socket) -> None:
    if not isinstance(sock, socket.socket):
        raise TypeError(f"sock must be a socket.socket, and got {sock!r}")
    ssl = sys.modules.get("ssl")
    if ssl is not None and isinstance(sock, ssl.SSLSocket):
        raise TypeError(
            "sock must not be a TLS socket: it may hold bytes that its descriptor does not tell of. Call its own method, "
            "inside `with job.on_stop(...)` with a callback that shuts the connection down"
        )


def _number(fd: FileDescriptorLike) -> int:
    found: object = fd
    if not isinstance(fd, int) and callable(getattr(fd, "fileno", None)):
        found = fd.fileno()
    if isinstance(found, bool) or not isinstance(found, int):
        raise TypeError(f"fd must be a descriptor's number or have a fileno(), and got {fd!r}")
    return found
