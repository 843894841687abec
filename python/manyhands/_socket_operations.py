"""Operations on sockets: each is a task on its descriptor's strand, which does it and settles it.

So there is one way to wait for a socket, and what holds for tasks holds here: no two threads are inside, a cancellation and
the data have one winner, and what completes at once gives the thread back now and then. One operation per descriptor and
direction: the second is refused at the call.

To end a descriptor is to pause its strand, give up its tasks where they are, and let the strand go on: with nobody inside,
every buffer is free when that returns. Nothing here takes a lock: an operation may be started by a finalizer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from manyhands import _core
from manyhands._tasks._scope import CancelScope
from manyhands.errors import (
    Cancelled,
    EndOfStream,
    IncompleteRead,
    LoopClosed,
    ManyhandsError,
    OperationCancelled,
    OperationPending,
    WatchExists,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from manyhands._loop import EventLoop
    from manyhands._operation import Operation

__all__ = ["SocketOperations"]

T = TypeVar("T")

Act = Callable[[_core.StreamCore, "Operation[Any]"], Awaitable[Any]]

READ = "receive"
WRITE = "send"


TRIES = 10
"""How often a thread looks whether another one has just made what it wanted to make."""


class _Slot(_core.Group):
    """One descriptor: its registration, and the operation under way in each direction."""

    core: _core.StreamCore
    strand: _core.Strand
    under_way: dict[str, Operation[Any]]
    owner_of_number: weakref.ref[socket.socket]
    inode: int

    def is_of(self, sock: socket.socket) -> bool:
        """Whether its number still is the descriptor that it was made for: a socket closed elsewhere gives it away."""
        if self.core.closed:
            return False
        if self.owner_of_number() is not sock:
            if _inode(sock) != self.inode:
                return False
            self.owner_of_number = weakref.ref(sock)
        return True

    def _member_failed(self, task: _core.Task, error: BaseException) -> None:  # noqa: ARG002 - the seam passes it
        """An operation that could not even be settled: it is written to stderr, as a finalizer's error is."""
        raise error


class SocketOperations:
    """Carries out operations on the sockets of one proactor."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, _Slot] = {}
        # Ended, with operations that have not: nothing else holds these.
        self._leaving: dict[_Slot, None] = {}
        self._closed = False

    @property
    def pending(self) -> int:
        """Operations that have not completed."""
        return sum(len(slot.under_way) for slot in list(self._slots.values()))

    def start(
        self,
        operation: Operation[Any],
        sock: socket.socket,
        strand: _core.Strand,
        direction: str,
        act: Act,
        connect: Callable[[], int] | None = None,
    ) -> None:
        """Begin it, on the descriptor's strand.

        Args:
            operation: What is to be settled.
            sock: The descriptor's owner.
            strand: The descriptor's, whatever the handler's is.
            direction: READ or WRITE.
            act: What is done.
            connect: Begins a connection and gives the kernel's number; whatever was known of the descriptor is forgotten.

        Raises:
            OperationPending: the descriptor has one in this direction.
            WatchExists: it is watched, or a stream has it.
        """
        slot = self._slot(operation, sock, strand, connect)
        if slot.under_way.setdefault(direction, operation) is not operation:
            raise OperationPending(operation._fd, direction)
        scope = CancelScope()
        operation._arguments = (scope,)
        try:
            slot.add(self._carry_out(slot, operation, direction, scope, act), repr(operation))
        except BaseException:
            self._over(slot, operation, direction)
            raise
        # In this order, and the ends the other way round: one of the two sees the other.
        if slot.core.closed:
            self._keep(slot)
        elif self._closed:
            self.end_operations(operation._fd, 0.0)

    def _slot(
        self, operation: Operation[Any], sock: socket.socket, strand: _core.Strand, connect: Callable[[], int] | None
    ) -> _Slot:
        fd = operation._fd
        slot = self._slots.get(fd)
        if slot is not None:
            same = slot.is_of(sock)
            if same and connect is None:
                return slot
            if same and slot.under_way:
                raise OperationPending(fd, next(iter(slot.under_way)))
            self._slots.pop(fd, None)
            self._end(slot, 0.0)
        slot = _Slot(self._loop, strand, None)
        tcp = sock.family in {socket.AF_INET, socket.AF_INET6} and sock.type == socket.SOCK_STREAM
        for tries in range(TRIES):
            try:
                slot.core = _core.StreamCore(self._loop, fd, tcp=tcp, tried=connect is None, owned=False)
                break
            except WatchExists:
                if tries == TRIES - 1:
                    raise
            time.sleep(0)
            made = self._slots.get(fd)
            if made is not None and connect is None:
                return made
        if connect is not None:
            # The kernel calls a socket that is not connected writable. So it is registered once more when it is on its way.
            slot.core.close()
            operation._token = connect()
            slot.core = _core.StreamCore(self._loop, fd, tcp=tcp, tried=False, owned=False)
        slot.strand = strand
        slot.under_way = {}
        slot.owner_of_number = weakref.ref(sock)
        slot.inode = _inode(sock)
        slot.adopt()
        self._slots[fd] = slot
        return slot

    async def _carry_out(
        self, slot: _Slot, operation: Operation[Any], direction: str, scope: CancelScope, act: Act
    ) -> None:
        value: Any = None
        error: BaseException | None = None
        try:
            with scope:
                value = await act(slot.core, operation)
        except Cancelled:
            error = LoopClosed(self._loop.name)
        except (KeyboardInterrupt, SystemExit) as stop:
            # It was meant for the thread that happened to be here.
            error = ManyhandsError(f"{operation._text()} was interrupted")
            error.__cause__ = stop
            self._loop.post_urgent(_raise, stop)
        except BaseException as failure:  # noqa: BLE001 - it is the operation's error, whatever it is
            error = failure.with_traceback(None)
        else:
            if scope.cancelled_caught:
                error = operation._ended_by()
        if operation._closing and not isinstance(error, (type(None), OperationCancelled)):
            error = operation._ended_by()
        self._over(slot, operation, direction)
        operation._settle(value, error, operation.transferred)

    def _over(self, slot: _Slot, operation: Operation[Any], direction: str) -> None:
        # Before it is settled: its handler may begin the next one.
        if slot.under_way.get(direction) is operation:
            del slot.under_way[direction]
        if not slot.under_way:
            self._leaving.pop(slot, None)

    def _keep(self, slot: _Slot) -> None:
        self._leaving[slot] = None
        if not slot.under_way:
            self._leaving.pop(slot, None)

    def abort(self, operation: Operation[Any]) -> None:
        """Complete it soon, if it has not completed."""
        for scope in operation._arguments:
            scope.cancel()

    def end_operations(self, fd: int, deadline: float) -> None:
        """Complete every operation of a descriptor with ClosedResourceError, and forget the descriptor.

        One that another thread is at, or whose handler is, completes when that has ended; waits for it until a deadline,
        on a thread that is not lent.
        """
        slot = self._slots.pop(fd, None)
        if slot is not None and not self._end(slot, deadline):
            # So that no call under way meets the number's next owner.
            self._loop._notify_closing(fd)

    def close(self, deadline: float) -> None:
        """Complete every operation, and forget every descriptor."""
        self._closed = True
        while self._slots:
            with contextlib.suppress(StopIteration, RuntimeError):
                self.end_operations(next(iter(self._slots)), deadline)

    def _end(self, slot: _Slot, deadline: float) -> bool:
        """Whether everything has completed; else it does soon, by itself."""
        for operation in list(slot.under_way.values()):
            operation._closing = True
        try:
            vacant = slot.strand.pause(max(0.0, deadline - time.monotonic()))
        except LoopClosed:
            vacant = True
        try:
            self._keep(slot)
            slot.core.close()
            if vacant:
                for task in slot.tasks():
                    task.abandon()
                # What had not begun has nobody who would settle it.
                for direction, operation in list(slot.under_way.items()):
                    self._over(slot, operation, direction)
                    operation._settle(None, operation._ended_by(), operation.transferred)
        finally:
            with contextlib.suppress(LoopClosed):
                slot.strand.resume()
        return vacant


def _inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def _raise(error: BaseException) -> None:
    raise error


# What is done, each a coroutine of the operation's task.


def receive(max_bytes: int) -> Act:
    """Bytes, b"" at the end."""

    async def act(core: _core.StreamCore, operation: Operation[Any]) -> bytes:
        try:
            data = await core.receive(max_bytes)
        except EndOfStream:
            return b""
        operation.transferred = len(data)
        return data

    return act


def receive_into(buffer: Buffer) -> Act:
    """How many bytes, 0 at the end."""

    async def act(core: _core.StreamCore, operation: Operation[Any]) -> int:
        try:
            operation.transferred = await core.receive_into(buffer)
        except EndOfStream:
            return 0
        return operation.transferred

    return act


def receive_exactly(count: int) -> Act:
    """So many bytes; IncompleteRead at the end."""

    async def act(core: _core.StreamCore, operation: Operation[Any]) -> bytes:
        try:
            data = await core.receive_exactly(count)
        except IncompleteRead as error:
            operation.transferred = len(error.partial)
            raise
        operation.transferred = count
        return data

    return act


def send(data: Buffer) -> Act:
    """How many bytes the kernel has taken."""

    async def act(core: _core.StreamCore, operation: Operation[Any]) -> int:
        operation.transferred = await core.send_some(data)
        return operation.transferred

    return act


def send_all(data: Buffer) -> Act:
    """Everything."""

    async def act(core: _core.StreamCore, operation: Operation[Any]) -> None:
        with memoryview(data) as whole, whole.cast("B") as view:
            while operation.transferred < len(view):
                with view[operation.transferred :] as rest:
                    operation.transferred += await core.send_some(rest)

    return act


async def accept(core: _core.StreamCore, operation: Operation[Any]) -> tuple[socket.socket, Any]:  # noqa: ARG001
    """A connection and its peer's address, as `socket.accept` gives them; the connection does not block."""
    connection = socket.socket(fileno=await core.accept())
    try:
        connection.setblocking(False)
        return connection, connection.getpeername()
    except OSError as error:
        connection.close()
        if error.errno == errno.ENOTCONN:
            # It was reset already; the next read says so.
            raise ConnectionAbortedError(errno.ECONNABORTED, "the connection was lost before it was taken") from None
        raise


async def connect(core: _core.StreamCore, operation: Operation[Any]) -> None:
    """Nothing; OSError if it was refused. The kernel has been asked: its answer is the operation's token."""
    code = operation._token
    if code == errno.EINPROGRESS:
        await core.wait_ready(write=True)
        code = core.take_error()
    if code:
        raise OSError(code, os.strerror(code))
