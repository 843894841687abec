"""What takes connections: it goes on when one fails, and waits when there are no descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from manyhands import _core, _unix_socket
from manyhands._accept import PASSING, SHORTAGE
from manyhands._log import Log
from manyhands._streams._stream import SocketStream
from manyhands._tasks._group import create_task_group
from manyhands._tasks._scope import current_loop
from manyhands._tasks._sleep import cancel_shielded_checkpoint, sleep
from manyhands.errors import ClosedResourceError

if TYPE_CHECKING:
    from typing import Self

    from manyhands._tasks._group import TaskGroup

__all__ = ["Listener", "create_tcp_listener", "create_unix_listener"]

logger = Log("manyhands.loop")

BACKLOG = 4096
"""Connections that the kernel keeps until they are taken; it cuts it to its own limit. asyncio's is 100."""

LOST = PASSING | {errno.ECONNRESET}
"""This one connection is lost, and the next is not."""

PAUSE = 0.1
"""Seconds until a listener without descriptors tries again; trio's choice."""

LOG_EVERY = 1.0
"""Seconds between two records that say so."""


class Listener(_core.StreamCore):
    """Takes connections. Made by `create_tcp_listener` or `create_unix_listener`.

    Connections that were lost before they were taken are passed over. When the process or the system has no descriptors
    left it closes what waits (a spare descriptor makes that possible, so the peer is told at once), waits 0.1 s between two
    tries, and says so on the logger `manyhands.loop`, at most once a second.

    Threads: any task of its loop.
    """

    address: Any
    """Where it listens, as `socket.getsockname()`."""

    def __init__(
        self,
        loop: _core.LoopCore,  # noqa: ARG002 - of __new__
        fd: int,
        *,
        tcp: bool = True,
        address: Any = None,
        file: tuple[int, int] | None = None,
    ) -> None:
        self.address = address if address is not None else _name_of(fd)
        self._tcp = tcp
        self._file = file  # device and inode of a Unix socket's file
        self._logged = -LOG_EVERY
        self._spares: list[int] = []  # at most one; whoever takes it off closes it
        self._find_spare()

    def __new__(
        cls,
        loop: _core.LoopCore,
        fd: int,
        *,
        tcp: bool = True,
        address: Any = None,  # noqa: ARG004 - of __init__
        file: tuple[int, int] | None = None,  # noqa: ARG004
    ) -> Self:
        return super().__new__(cls, loop, fd, tcp=tcp)

    def _find_spare(self) -> None:
        with contextlib.suppress(OSError):
            self._spares.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        if self.closed:
            self._give_spare()

    def _give_spare(self) -> bool:
        try:
            os.close(self._spares.pop())
        except IndexError:
            return False
        return True

    async def accept(self) -> SocketStream:  # type: ignore[override]
        """Wait for the next connection.

        Raises:
            BusyResourceError: another task waits for it.
            ClosedResourceError: the listener was closed.
            OSError: it cannot take connections any more.
        """
        while True:
            try:
                return self._stream(await super().accept())
            except OSError as error:
                if error.errno in LOST:
                    continue
                if error.errno not in SHORTAGE:
                    raise
                self._shed(error)
                await sleep(PAUSE)

    def _stream(self, fd: int) -> SocketStream:
        try:
            return SocketStream(current_loop(), fd, tcp=self._tcp)
        except BaseException:
            os.close(fd)
            raise

    def _shed(self, error: OSError) -> None:
        """Without a descriptor for them: take the connections that wait, one by one with the spare, and close them."""
        loop = current_loop()
        if loop.now() - self._logged >= LOG_EVERY:
            self._logged = loop.now()
            logger.warning("%r takes no connections for now: %s (raise `ulimit -n`, or hold fewer open)", self, error)
        if self._give_spare():
            with contextlib.suppress(ClosedResourceError):
                self.shed()
        self._find_spare()

    async def serve(
        self, handler: Callable[[SocketStream], Awaitable[object]], task_group: TaskGroup | None = None
    ) -> None:
        """Take connections for ever, each handled by `handler(stream)` in a task of its own, which closes it.

        A handler that fails costs its connection: what it raises is logged on `manyhands.loop`, and the listener goes on.

        Args:
            handler: An async function.
            task_group: Where the tasks are started; None for a group of the call's own.
        """
        async with contextlib.AsyncExitStack() as stack:
            group = await stack.enter_async_context(create_task_group()) if task_group is None else task_group
            while True:
                group.start_soon(self._handle, handler, await self.accept())

    async def _handle(self, handler: Callable[[SocketStream], Awaitable[object]], stream: SocketStream) -> None:
        try:
            async with stream:
                await handler(stream)
        except Exception:
            logger.exception("the handler of a connection of %r failed; the listener goes on", self)

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.address[1])

    def close(self) -> bool:
        """Close it at once; whoever waits for a connection gets ClosedResourceError. True the first time."""
        first = super().close()
        if first:
            self._give_spare()
            if not self.inherited:
                _unix_socket.remove(self.address, self._file)
        return first

    async def aclose(self) -> None:
        """Close it. Idempotent."""
        self.close()
        await cancel_shielded_checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<manyhands.Listener{' closed' if self.closed else ''} {self.address!r}>"

    def __del__(self) -> None:
        if self.closed or sys.is_finalizing():
            return
        if not self.inherited:
            warnings.warn(f"{self!r} was not closed: use `async with`", ResourceWarning, source=self, stacklevel=2)
        self.close()


async def create_tcp_listener(
    *, host: str | None = "127.0.0.1", port: int = 0, backlog: int = BACKLOG, reuse_port: bool = False
) -> Listener:
    """Listen on a TCP port.

    Args:
        host: An address of this machine; None for all of them (both families where there are two).
        port: 0 for any free one: `listener.port` says which.
        backlog: Connections that the kernel keeps until they are taken.
        reuse_port: Let other processes listen on the same port; the kernel shares the connections out.

    Raises:
        OSError: the address is in use, not this machine's, or not allowed.
    """
    _check_backlog(backlog)
    family, address = _address(host, port)
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What is accepted has it from the listener.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host is None else 1)
        listening.bind(address)
        listening.listen(backlog)
        listener = Listener(current_loop(), listening.fileno())
    except BaseException:
        listening.close()
        raise
    listening.detach()
    return listener


def _address(host: str | None, port: Any) -> tuple[socket.AddressFamily, tuple[str, int]]:
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ValueError(f"port must be 0 to 65535, and got {port!r}")
    if host is None:
        if socket.has_dualstack_ipv6():
            return socket.AF_INET6, ("::", port)
        return socket.AF_INET, ("0.0.0.0", port)  # noqa: S104 - every address was asked for
    if host == "localhost":
        host = "127.0.0.1"
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return family, (host, port)
    raise ValueError(f"host must be an address of this machine, as 127.0.0.1 or ::1, or None for all, and got {host!r}")


async def create_unix_listener(
    path: str | os.PathLike[str], *, mode: int | None = None, backlog: int = BACKLOG
) -> Listener:
    """Listen on a Unix socket. One that a process left behind is replaced; closing the listener removes it.

    Args:
        path: Where; a name that begins with a zero byte is the kernel's own and no file.
        mode: Its permissions; None for what the umask leaves.
        backlog: Connections that the kernel keeps until they are taken.

    Raises:
        OSError: somebody listens there, it is another kind of file, or it is not allowed.
    """
    _check_backlog(backlog)
    name = os.fsdecode(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        file = _unix_socket.bind(listening, name, mode)
        try:
            listening.listen(backlog)
            listener = Listener(current_loop(), listening.fileno(), tcp=False, address=name, file=file)
        except BaseException:
            _unix_socket.remove(name, file)
            raise
    except BaseException:
        listening.close()
        raise
    listening.detach()
    return listener


def _name_of(fd: int) -> Any:
    listening = socket.socket(fileno=fd)
    try:
        return listening.getsockname()
    finally:
        listening.detach()


def _check_backlog(backlog: Any) -> None:
    if isinstance(backlog, bool) or not isinstance(backlog, int) or backlog < 1:
        raise ValueError(f"backlog must be a count of connections, at least 1, and got {backlog!r}")
