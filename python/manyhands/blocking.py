"""Blocking calls that a stop can end: for code below a job.

In a job that is told to stop, each of these raises `JobStopped`: those that wait for a descriptor at once, those that wait
for a queue, a lock or an event within `LOOK` seconds, `run` when its child has ended. What a call has taken it gives back
to its caller: a stop is looked for before an item, a lock, a connection or a byte is taken, never after.

Outside a job they block like the calls that they stand for; a Ctrl-C on the main thread interrupts them.

What these are not: a way to stop somebody else's call. That is `Job.on_stop` (close the socket, interrupt the query), or, for
a thread that is blocked in a plain `accept()`, `wake_accept`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import math
import os
import queue as queues
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from manyhands import _core
from manyhands.errors import BadDescriptor

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike, ReadableBuffer, StrOrBytesPath

__all__ = [
    "accept",
    "acquire",
    "connect",
    "get",
    "recv",
    "run",
    "send",
    "wait",
    "wait_readable",
    "wake_accept",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

LOOK = 0.05
"""Seconds between two looks for a stop, where nothing can wake the waiting thread: half of what a good job takes between
two check-ins."""

KILL_AFTER = 2.0
"""Seconds that a child process has between SIGTERM and SIGKILL."""

WAKE_TIMEOUT = 1.0
"""Seconds that `wake_accept` may take: the listener is on this machine."""

READ, WRITE = 1, 2
"""As `Events`, which costs 700 ns to take apart."""


class _Queue(Protocol[T_co]):
    def get(self, block: bool, timeout: float | None, /) -> T_co: ...  # noqa: FBT001 - the queues' own


class _Event(Protocol):
    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = ...) -> bool: ...


class _Lock(Protocol):
    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...  # noqa: FBT001 - the locks' own


class _Patience:
    """How long a call may still take, and how long it may wait before it looks for a stop."""

    __slots__ = ("_deadline",)

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be seconds, 0 or more, or None for no limit, and got {timeout!r}")
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout

    def left(self) -> float:
        """Return the seconds that are left, 0 or more; infinite without a limit."""
        return max(0.0, self._deadline - time.monotonic()) if self._deadline != math.inf else math.inf

    def timeout(self) -> float | None:
        """Return the seconds that are left, None without a limit: what a call takes that looks for stops itself."""
        left = self.left()
        return None if left == math.inf else left

    def turn(self) -> float:
        """Look for a stop; return the seconds to wait before the next look, or before the end.

        Raises:
            JobStopped: the job was told to stop.
        """
        _core.check_in()
        return min(LOOK, self.left())

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return self.left() <= 0


def get(queue: _Queue[T], timeout: float | None = None) -> T:
    """Take an item from a queue: `queue.get()` that a stop ends.

    Args:
        queue: A `queue.Queue`, `SimpleQueue` or another one with their `get(block, timeout)`.
        timeout: Seconds; None waits for ever, 0 only looks.

    Returns:
        The item.

    Raises:
        Empty: nothing came in time (the one of `queue`).
        JobStopped: the job was told to stop; no item was taken.

    Blocks: until an item comes, `timeout`, or the stop.
    """
    if not callable(getattr(queue, "get", None)):
        raise TypeError(f"queue must have a get() as queue.Queue has, and got {queue!r}")
    patience = _Patience(timeout)
    if _core.current_job() is None:
        return queue.get(True, timeout)
    while True:
        pause = patience.turn()
        try:
            return queue.get(pause > 0, pause)
        except queues.Empty:
            if patience.over:
                raise


def wait(
    what: _Event | threading.Condition | concurrent.futures.Future[Any],
    timeout: float | None = None,
) -> bool:
    """Wait for an event, a condition or a future.

    Args:
        what: An event (anything with `is_set()` and `wait(timeout)`), a `threading.Condition` that the calling thread
            holds, or a `concurrent.futures.Future` such as a `Job`.
        timeout: Seconds; None waits for ever, 0 only looks.

    Returns:
        True when the event is set, the condition was notified, or the future is done, whatever came of it; False after
        `timeout`.

    Raises:
        JobStopped: the job was told to stop. A condition's lock is held again.
        RuntimeError: the condition is not held.
        WouldDeadlock: the future is a job of the caller's own pool, and no thread is left to run it.

    Blocks: until then, or the stop.
    """
    patience = _Patience(timeout)
    if isinstance(what, concurrent.futures.Future):
        return _wait_for_future(what, patience)
    if isinstance(what, threading.Condition):
        return _wait_for_condition(what, patience)
    if not callable(getattr(what, "is_set", None)) or not callable(getattr(what, "wait", None)):
        raise TypeError(f"expected an event, a threading.Condition or a concurrent.futures.Future, and got {what!r}")
    if _core.current_job() is None:
        return what.wait(timeout)
    while True:
        if what.wait(patience.turn()):
            return True
        if patience.over:
            return False


def _wait_for_future(future: concurrent.futures.Future[Any], patience: _Patience) -> bool:
    in_job = _core.current_job() is not None
    while True:
        try:
            future.exception(patience.turn() if in_job else patience.timeout())
        except concurrent.futures.CancelledError:
            return True
        except TimeoutError:
            if future.done():
                return True
            if patience.over:
                return False
        else:
            return True


def _wait_for_condition(condition: threading.Condition, patience: _Patience) -> bool:
    """Wait as `Condition.wait` does, in slices but with one place in the condition's queue.

    Calling `condition.wait(LOOK)` again and again would lose a notification: one that comes between the end of a slice and
    the moment at which the lock is held again has chosen this thread, and `wait` says False all the same.
    """
    if _core.current_job() is None:
        return condition.wait(patience.timeout())
    inside: Any = condition  # its queue and its way to release a lock of any kind: CPython 3.11 to 3.14 have the same
    if not inside._is_owned():  # noqa: SLF001
        raise RuntimeError("cannot wait on a condition that is not held: acquire it first")
    _core.check_in()
    place = threading.Lock()
    place.acquire()
    inside._waiters.append(place)  # noqa: SLF001
    held = inside._release_save()  # noqa: SLF001
    notified, leaving = False, True
    try:
        while True:
            pause = min(LOOK, patience.left())
            notified = place.acquire(timeout=pause) if pause > 0 else place.acquire(blocking=False)
            if notified or patience.over:
                break
            _core.check_in()
        leaving = False
    finally:
        inside._acquire_restore(held)  # noqa: SLF001
        if not notified:
            try:
                inside._waiters.remove(place)  # noqa: SLF001
            except ValueError:
                notified = True
                if leaving:
                    condition.notify()  # one was meant for a waiter, and this one goes with an error
    return notified


def acquire(lock: _Lock, timeout: float | None = None) -> bool:
    """Acquire a lock or a semaphore.

    Args:
        lock: A `threading.Lock`, `RLock`, `Semaphore`, `Condition`, or another one with their `acquire(blocking, timeout)`.
        timeout: Seconds; None waits for ever, 0 only tries.

    Returns:
        True if the caller has it now; False after `timeout`.

    Raises:
        JobStopped: the job was told to stop; the lock was not acquired.

    Blocks: until it is free, `timeout`, or the stop.
    """
    if not callable(getattr(lock, "acquire", None)):
        raise TypeError(f"lock must have an acquire() as threading.Lock has, and got {lock!r}")
    patience = _Patience(timeout)
    if _core.current_job() is None and timeout is None:
        return lock.acquire()
    while True:
        pause = patience.turn()
        if lock.acquire(True, pause) if pause > 0 else lock.acquire(False):
            return True
        if patience.over:
            return False


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
    patience, number = _Patience(timeout), _number(fd)
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
            _core.sleep_blocking(min(LOOK, patience.left()))
        if error == errno.EINPROGRESS:
            _wait(sock, WRITE, patience)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    finally:
        sock.settimeout(before)


def run(
    args: StrOrBytesPath | Sequence[StrOrBytesPath],
    *,
    input: Any = None,  # noqa: A002 - the name in subprocess.run
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end: `subprocess.run` whose child a stop ends.

    A child whose job is told to stop gets SIGTERM, and SIGKILL if it has not ended `KILL_AFTER` seconds later. Its own
    children are its own business.

    Args:
        args: The program and its arguments, as `subprocess.run`.
        input: What it reads on its standard input.
        capture_output: Whether to collect what it prints.
        timeout: Seconds; then it is killed.
        check: Whether a status that is not 0 is an error.
        options: As `subprocess.Popen`.

    Returns:
        As `subprocess.run`.

    Raises:
        JobStopped: the job was told to stop; the child has ended.
        TimeoutExpired: it did not end in time; it was killed.
        CalledProcessError: with `check`, its status is not 0.

    Blocks: until the child has ended; after a stop for `KILL_AFTER` at most.
    """
    if input is not None:
        if options.get("stdin") is not None:
            raise ValueError("give input or stdin, not both")
        options["stdin"] = subprocess.PIPE
    if capture_output:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("give capture_output, or stdout and stderr, not both")
        options["stdout"] = options["stderr"] = subprocess.PIPE
    patience = _Patience(timeout)
    _core.check_in()
    with subprocess.Popen(args, **options) as process:
        try:
            output, errors = _communicate(process, input, patience, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        except BaseException:
            _end(process)
            raise
    status = process.returncode
    if check and status:
        raise subprocess.CalledProcessError(status, process.args, output=output, stderr=errors)
    return subprocess.CompletedProcess(process.args, status, output, errors)


def _communicate(
    process: subprocess.Popen[Any], given: Any, patience: _Patience, timeout: float | None
) -> tuple[Any, Any]:
    """Feed and read a child until it has ended.

    Raises:
        TimeoutExpired: with what it has printed so far.
        JobStopped: the child runs.
    """
    if process.stdin is process.stdout is process.stderr is None and _wait_for_end(process, patience):
        return process.communicate()
    while True:
        try:
            return process.communicate(given, timeout=patience.turn())
        except subprocess.TimeoutExpired as slice_over:
            given = None  # it is on its way; what was read is kept for the next call
            if patience.over:
                assert timeout is not None
                raise subprocess.TimeoutExpired(
                    process.args, timeout, output=slice_over.output, stderr=slice_over.stderr
                ) from None


def _wait_for_end(process: subprocess.Popen[Any], patience: _Patience) -> bool:
    """Wait without polling for a child that needs nothing from us. Returns whether it has ended."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:  # an old kernel, a strict sandbox, or it has been waited for already
        return False
    try:
        return bool(_core.wait_descriptor(pidfd, READ, patience.timeout()))
    finally:
        os.close(pidfd)


def _end(process: subprocess.Popen[Any]) -> None:
    """End a child. Looks for no stop: the one that ends it has been told already."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.terminate()
    try:
        process.wait(KILL_AFTER)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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


def _wait(sock: socket.socket, events: int, patience: _Patience) -> None:
    """Wait until a socket is ready.

    Raises:
        TimeoutError: as the socket's own call would.
    """
    if not _core.wait_descriptor(sock.fileno(), events, patience.timeout()):
        raise TimeoutError("timed out")


def _patience_of(sock: socket.socket) -> _Patience:
    """Return the patience that a socket's timeout asks for. Non-blocking ones are waited for: that is why one is here."""
    _check_socket(sock)
    return _Patience(sock.gettimeout() or None)


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
