"""Waiting for a descriptor that is not a stream: a device, a pipe, a socket that another library reads and writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manyhands import _core
from manyhands._events import Events, RemovalReason
from manyhands._tasks._scope import current_loop
from manyhands.errors import BusyResourceError, ClosedResourceError, WatchExists

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["notify_closing", "wait_readable", "wait_writable"]


async def wait_readable(fd: FileDescriptorLike) -> None:
    """Wait until a descriptor can be read: bytes, a connection, the end, a hang-up or an error.

    Args:
        fd: A number, or an object with `fileno()`; non-blocking, since the readiness may be gone when it is read.

    Raises:
        BusyResourceError: another task waits for it, in either direction, or it has a watch or a stream on this loop.
        ClosedResourceError: `notify_closing` was called.
        BadDescriptor, NotPollable: it is not open; it is a regular file.
    """
    await _ready(fd, Events.READ)


async def wait_writable(fd: FileDescriptorLike) -> None:
    """Wait until a descriptor can be written to, or never will be: a hang-up or an error.

    Args:
        fd: As `wait_readable`.

    Raises:
        As `wait_readable`.
    """
    await _ready(fd, Events.WRITE)


async def _ready(fd: FileDescriptorLike, events: Events) -> None:
    wait = _core.Wait()

    def on_ready(watch: _core.Watch, _: Events) -> None:
        # First: the task, on another thread, may wait for it again at once.
        watch.remove()
        wait.complete()

    def on_removed(_: _core.Watch, reason: RemovalReason) -> None:
        if reason is not RemovalReason.REMOVED:
            wait.fail(ClosedResourceError())

    try:
        watch = current_loop().add(fd, events, on_ready, on_removed=on_removed)
    except WatchExists:
        raise BusyResourceError("waiting for") from None
    try:
        await wait
    finally:
        watch.remove()


def notify_closing(fd: FileDescriptorLike) -> bool:
    """Say that a descriptor is about to be closed by you. What waits for it on this loop gets ClosedResourceError.

    Its watch ends with `RemovalReason.FD_GONE`; a stream on it is closed, and leaves the descriptor to you.

    Args:
        fd: A number, or an object with `fileno()`, that is still open.

    Returns:
        Whether anything of this loop had it.
    """
    return current_loop()._notify_closing(fd if isinstance(fd, int) else fd.fileno())  # noqa: SLF001 - the loop's seam
