"""Proactor: operations that complete, instead of descriptors that are ready.

Here a call is checked and gets its `Operation` and its strand; who carries it out is behind that: for sockets a task on their
strand (`_socket_operations`); for files the kernel's ring (`_file_ring`) or, where there is none, threads (`_file_threads`).
What is refused is refused at the call; what the world refuses is the operation's error.

Nothing here takes a lock: `dict` operations are one step each, and an operation may be started by a finalizer.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from manyhands import _core, _socket_operations
from manyhands._arguments import MAX_BYTES, byte_count, check_buffer, file_number, file_place, socket_number
from manyhands._default_pool import default_pool
from manyhands._file_ring import RingFiles
from manyhands._file_threads import ThreadFiles
from manyhands._log import Log
from manyhands._loop import EventLoop
from manyhands._operation import Operation
from manyhands._socket_operations import READ, WRITE, SocketOperations
from manyhands.errors import ClosedResourceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from _typeshed import FileDescriptorLike
    from typing_extensions import Buffer

    from manyhands._operation import Handler

__all__ = ["Proactor"]

logger = Log("manyhands.loop")

FILES_VARIABLE = "MANYHANDS_FILES"
"""Says in the environment what `files=` says, where that says nothing."""

BACKENDS = ("io_uring", "threads")

CLOSE_TIMEOUT = 1.0
"""Seconds that a close waits for what the kernel, or a thread, is doing at that moment."""


class Proactor:
    """Starts operations that complete: on sockets and on files.

    ```python
    proactor = manyhands.Proactor(loop)
    proactor.read(file, 4096, 0, lambda operation: print(operation.result()))
    ```

    A handler is called as `handler(operation)` on a joined thread, never inside the call that started the operation, in a
    copy of that call's context. The handlers of one descriptor run one at a time, on a strand of theirs, in the order in which
    the operations complete. What a handler raises goes to the loop's `on_error`.

    Files are read and written by the kernel's ring (io_uring), so that no thread waits; where the kernel has none for this
    process, which is logged, by threads: the own lane of the loop's pool.

    Args:
        loop: Its joined threads take completions and run handlers.
        files: "io_uring" or "threads", and no other; None for what the environment variable MANYHANDS_FILES says, or for what
            there is.

    Raises:
        ValueError: `files`, or the variable, is something else.
        OSError: files="io_uring", and the kernel has none for this process.
        LoopClosed: the loop was closed.

    Threads: any.
    """

    def __init__(self, loop: EventLoop, *, files: str | None = None) -> None:
        if not isinstance(loop, EventLoop):
            raise TypeError(f"loop must be an EventLoop, and got {loop!r}")
        name, choice = ("files", files) if files is not None else (FILES_VARIABLE, os.environ.get(FILES_VARIABLE))
        if choice and choice not in BACKENDS:
            raise ValueError(f'{name} must be "io_uring" or "threads" (None for what there is), and got {choice!r}')
        loop._check_open()
        self._loop = loop
        self._closed = False
        # Operations on files that have not completed.
        self._pending: dict[Operation[Any], None] = {}
        # By descriptor. Never more than the process may open, so none is taken out before the end.
        self._strands: dict[int, _core.Strand] = {}
        self._files = self._open_files(choice or None)
        self._sockets = SocketOperations(loop)

    def _open_files(self, choice: str | None) -> RingFiles | ThreadFiles:
        if choice != "threads":
            try:
                return RingFiles(self._loop, self._pending, self.close)
            except OSError as error:
                if choice is not None:
                    raise
                logger.info(
                    "loop %r: file operations run on threads, since io_uring is not to be had (%s)",
                    self._loop.name,
                    error,
                )
        return ThreadFiles(self._loop, self._loop.pool or default_pool(), self._pending, self.close)

    @property
    def loop(self) -> EventLoop:
        """The loop that was given to it."""
        return self._loop

    @property
    def backend(self) -> str:
        """Who carries out file operations: "io_uring" or "threads"."""
        return self._files.backend

    @property
    def closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._closed

    # Sockets.

    def accept(
        self, sock: socket.socket, handler: Handler | None = None, *, strand: _core.Strand | None = None
    ) -> Operation[tuple[socket.socket, Any]]:
        """Take a connection off a listening socket.

        Args:
            sock: A socket that does not block; so for all of these.
            handler: Called as `handler(operation)` when it has completed; None for nothing.
            strand: Where, instead of on the descriptor's strand.

        Returns:
            An operation whose result is the connection, which does not block, and its peer's address.

        Raises:
            ClosedResourceError: the proactor was closed.
            OperationPending: the socket has an operation in this direction; that one goes on.
            WatchExists: the socket is watched, or a stream has it.
            ValueError: the socket blocks, or is closed.

        Blocks: never.
        """
        return self._start_socket("accept", sock, handler, strand, READ, _socket_operations.accept)

    def connect(
        self, sock: socket.socket, address: Any, handler: Handler | None = None, *, strand: _core.Strand | None = None
    ) -> Operation[None]:
        """Connect a socket. The operation's error is the kernel's OSError.

        Args:
            sock: As for `accept`.
            address: As `socket.connect` takes it; a name is looked up in the call: give the address.
            handler: As for `accept`.
            strand: As for `accept`.
        """

        def begin() -> int:
            return sock.connect_ex(address)

        return self._start_socket("connect", sock, handler, strand, WRITE, _socket_operations.connect, begin)

    def receive(
        self, sock: socket.socket, max_bytes: int, handler: Handler | None = None, *, strand: _core.Strand | None = None
    ) -> Operation[bytes]:
        """Receive what there is, at least one byte and at most `max_bytes`; b"" at the end of the stream. See `accept`."""
        act = _socket_operations.receive(byte_count("max_bytes", max_bytes, MAX_BYTES, 1))
        return self._start_socket("receive", sock, handler, strand, READ, act)

    def receive_into(
        self, sock: socket.socket, buffer: Buffer, handler: Handler | None = None, *, strand: _core.Strand | None = None
    ) -> Operation[int]:
        """Receive what there is into a buffer; how many bytes, 0 at the end of the stream. See `accept`.

        The buffer cannot change its size until the operation has completed, and is free when the handler is called.
        """
        if not check_buffer("buffer", buffer, writable=True):
            raise ValueError(f"buffer must have room for at least one byte, and got {buffer!r:.80}")
        return self._start_socket("receive_into", sock, handler, strand, READ, _socket_operations.receive_into(buffer))

    def receive_exactly(
        self, sock: socket.socket, count: int, handler: Handler | None = None, *, strand: _core.Strand | None = None
    ) -> Operation[bytes]:
        """Receive so many bytes. At the end of the stream the error is IncompleteRead with what came. See `accept`."""
        act = _socket_operations.receive_exactly(byte_count("count", count, MAX_BYTES, 1))
        return self._start_socket("receive_exactly", sock, handler, strand, READ, act)

    def send(
        self, sock: socket.socket, data: Buffer, handler: Handler | None = None, *, strand: _core.Strand | None = None
    ) -> Operation[int]:
        """Send what the kernel takes at once of a buffer; how many bytes. See `accept`.

        The buffer cannot change its size until the operation has completed.
        """
        check_buffer("data", data, writable=False)
        return self._start_socket("send", sock, handler, strand, WRITE, _socket_operations.send(data))

    def send_all(
        self, sock: socket.socket, data: Buffer, handler: Handler | None = None, *, strand: _core.Strand | None = None
    ) -> Operation[None]:
        """Send all of a buffer. If it fails or is cancelled half-way, `transferred` says how much is out. See `send`."""
        check_buffer("data", data, writable=False)
        return self._start_socket("send_all", sock, handler, strand, WRITE, _socket_operations.send_all(data))

    def _start_socket(
        self,
        kind: str,
        sock: socket.socket,
        handler: Handler | None,
        strand: _core.Strand | None,
        direction: str,
        act: _socket_operations.Act,
        connect: Callable[[], int] | None = None,
    ) -> Operation[Any]:
        self._loop._check_open()
        if self._closed:
            raise ClosedResourceError(f"the Proactor of loop {self._loop.name!r}")
        fd = socket_number(sock)
        own = self._strand(fd)
        operation: Operation[Any] = Operation(kind, sock, fd, self._loop, strand or own, handler, self._sockets.abort)
        self._sockets.start(operation, sock, own, direction, act, connect)
        return operation

    def _strand(self, fd: int) -> _core.Strand:
        found = self._strands.get(fd)
        return found or self._strands.setdefault(fd, self._loop.strand(name=f"descriptor {fd}"))

    # Files.

    def read(
        self,
        file: FileDescriptorLike,
        size: int,
        offset: int,
        handler: Handler | None = None,
        *,
        strand: _core.Strand | None = None,
    ) -> Operation[bytes]:
        """Read bytes from a place in a file.

        Args:
            file: A descriptor number that stays open until the operation has completed, or an object with `fileno()`, which
                the operation keeps.
            size: Bytes, at most; 0 <= size < 2**31.
            offset: Bytes from the beginning of the file, 0 or more. The file's own position is neither used nor moved.
            handler: Called as `handler(operation)` when it has completed; None for nothing.
            strand: Where, instead of on the descriptor's strand.

        Returns:
            An operation whose result is the bytes; fewer than `size` at the end of the file, none beyond it.

        Raises:
            ClosedResourceError: the proactor was closed.
            OSError: the descriptor is not open (EBADF), or is no regular file or block device (ESPIPE, EISDIR).
            ValueError: a file object that is closed; a number out of its range.

        Blocks: never for long: what the kernel has in memory is copied in the call.
        """
        size = byte_count("size", size, MAX_BYTES)
        return self._start("read", file, handler, strand, self._files.read, size, file_place(offset))

    def read_into(
        self,
        file: FileDescriptorLike,
        buffer: Buffer,
        offset: int,
        handler: Handler | None = None,
        *,
        strand: _core.Strand | None = None,
    ) -> Operation[int]:
        """Read bytes from a place in a file into a buffer, as many as it holds.

        As `read`; the result is how many bytes there were. The buffer cannot change its size until the operation has
        completed, and is free when the handler is called.

        Raises:
            TypeError, BufferError: not a buffer, or one that cannot be written to.
        """
        check_buffer("buffer", buffer, writable=True)
        return self._start("read_into", file, handler, strand, self._files.read_into, buffer, file_place(offset))

    def write(
        self,
        file: FileDescriptorLike,
        data: Buffer,
        offset: int,
        handler: Handler | None = None,
        *,
        strand: _core.Strand | None = None,
    ) -> Operation[int]:
        """Write bytes to a place in a file.

        As `read`; the result is how many bytes were written, fewer than there are where the medium is full. The buffer
        cannot change its size until the operation has completed, and is not to be changed.

        Args:
            file: As for `read`. What is written to a file opened with O_APPEND goes to its end, wherever `offset` is.
            data: Bytes, or what gives a contiguous buffer of them; less than 2**31.
            offset: Bytes from the beginning of the file, 0 or more.
            handler: As for `read`.
            strand: As for `read`.

        Raises:
            TypeError, BufferError: not a buffer.
        """
        check_buffer("data", data, writable=False)
        return self._start("write", file, handler, strand, self._files.write, data, file_place(offset))

    def fsync(
        self, file: FileDescriptorLike, handler: Handler | None = None, *, strand: _core.Strand | None = None
    ) -> Operation[None]:
        """Have on the medium what was written by operations that have completed; those under way may be left out.

        As `read`; the result is None.
        """
        return self._start("fsync", file, handler, strand, self._files.fsync)

    def close(self, sock: FileDescriptorLike | None = None) -> None:
        """Complete what is under way, and close.

        Args:
            sock: A socket, file or descriptor: its operations complete and it is closed, by its own `close()` or `os.close`.
                None for the proactor itself: every operation completes and it takes no more; descriptors stay open. Idempotent.

        What the kernel or a thread has done by then has its result; everything else completes with ClosedResourceError.
        Afterwards every buffer is free, but for what has not come back after a second; and on a lent thread, but for a
        socket that another thread is at, or whose handler is: its operations complete when that has ended.

        A socket may be closed otherwise, if nothing of it is under way.

        Blocks: until what is being done at that moment is done, for at most a second.
        """
        deadline = time.monotonic() + CLOSE_TIMEOUT
        if sock is None:
            self._close(deadline)
            return
        fd = sock if isinstance(sock, int) else sock.fileno()
        self._sockets.end_operations(fd, deadline)
        if not isinstance(sock, socket.socket):
            for operation in list(self._pending):
                operation._closing = operation._closing or operation._fd == fd
            if not self._closed:
                self._files.end_operations(fd, deadline)
            self._complete_rest(fd)
        self._strands.pop(fd, None)
        if isinstance(sock, int):
            os.close(sock)
        else:
            sock.close()  # type: ignore[attr-defined]

    def _close(self, deadline: float) -> None:
        if self._closed:
            return
        self._closed = True
        for operation in list(self._pending):
            operation._closing = True
        self._sockets.close(deadline)
        self._files.close(deadline)
        if time.monotonic() >= deadline:
            self._complete_rest(None)
        self._strands.clear()

    def _complete_rest(self, fd: int | None) -> None:
        """What has not come back in time completes all the same; its memory stays with who uses it."""
        for operation in list(self._pending):
            if fd is None or operation._fd == fd:
                logger.warning("loop %r: %r was closed and is still under way", self._loop.name, operation)
                self._pending.pop(operation, None)
                operation._settle(None, operation._ended_by())

    def __enter__(self) -> Self:
        """Use it in a `with` statement, which closes it."""
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._pending) + self._sockets.pending} pending"
        return f"<manyhands.Proactor of loop {self._loop.name!r} files={self.backend!r} {state}>"

    def _start(
        self,
        kind: str,
        file: FileDescriptorLike,
        handler: Handler | None,
        strand: _core.Strand | None,
        begin: Callable[..., None],
        *args: Any,
    ) -> Operation[Any]:
        if self._closed:
            raise ClosedResourceError(f"the Proactor of loop {self._loop.name!r}")
        fd = file_number(file)
        operation: Operation[Any] = Operation(
            kind, file, fd, self._loop, strand or self._strand(fd), handler, self._files.abort
        )
        begin(operation, *args)
        return operation
