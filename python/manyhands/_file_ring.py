"""File operations by the kernel's own ring (io_uring): no thread waits for them.

The ring says by a descriptor that something has ended; a watch on that has a joined thread take it out. See
`docs/design/ring.md` for who owns a buffer, and until when.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from manyhands import _core
from manyhands._events import Events

if TYPE_CHECKING:
    from manyhands._loop import EventLoop
    from manyhands._operation import Operation

__all__ = ["RingFiles"]

SLICE = 0.01
"""Seconds: another thread may take the completion that this one waits for, and then nothing wakes it."""


class RingFiles:
    """Carries out file operations by a ring of its own.

    Raises:
        OSError: the kernel has none for this process.
    """

    backend: Final = "io_uring"

    def __init__(self, loop: EventLoop, pending: dict[Operation[Any], None], ended: Callable[[], None]) -> None:
        self._ring = _core.Ring()
        self._pending = pending
        self._closed = False
        self._watch = loop.add(
            self._ring.signal,
            Events.READ,
            self._readable,
            name="proactor",
            on_removed=lambda _watch, _reason: ended(),
        )

    def read(self, operation: Operation[bytes], size: int, offset: int) -> None:
        """Start it."""
        self._start(operation, self._ring.read, size, offset)

    def read_into(self, operation: Operation[int], buffer: Any, offset: int) -> None:
        """Start it."""
        self._start(operation, self._ring.read_into, buffer, offset)

    def write(self, operation: Operation[int], buffer: Any, offset: int) -> None:
        """Start it."""
        self._start(operation, self._ring.write, buffer, offset)

    def fsync(self, operation: Operation[None]) -> None:
        """Start it."""
        self._start(operation, self._ring.fsync)

    def abort(self, operation: Operation[Any]) -> None:
        """Ask for its end."""
        back = self._ring.cancel(operation._token)
        if back is not None:
            self._settle(*back)

    def end_operations(self, fd: int, deadline: float) -> None:
        """Ask for the end of every operation of a descriptor, and wait for it until a deadline."""
        for back in self._ring.cancel_descriptor(fd):
            self._settle(*back)
        while any(operation._fd == fd for operation in list(self._pending)) and time.monotonic() < deadline:
            self._ring.wait(SLICE)
            self._reap()

    def close(self, deadline: float) -> None:
        """Ask for the end of everything, and wait for it until a deadline."""
        self._closed = True
        for back in self._ring.close():
            self._settle(*back)
        while self._ring.pending and time.monotonic() < deadline:
            self._ring.wait(SLICE)
            self._reap()
        self._watch.remove(timeout=0)

    def _start(self, operation: Operation[Any], submit: Callable[..., int], *args: Any) -> None:
        # Before it is submitted: it may have completed when that returns.
        self._pending[operation] = None
        try:
            operation._token = submit(operation, operation._fd, *args)
        except BaseException:
            self._pending.pop(operation, None)
            raise

    def _readable(self, _watch: _core.Watch, _events: Events) -> None:
        self._reap()

    def _reap(self) -> None:
        for ended in self._ring.reap():
            self._settle(*ended)

    def _settle(self, operation: Operation[Any], number: int, fresh: bytes | None) -> None:
        self._pending.pop(operation, None)
        # Also of one that started when the close had looked already who was pending.
        operation._closing = operation._closing or self._closed
        if number >= 0:
            moved = None if operation._kind == "fsync" else number
            operation._settle(fresh if operation._kind == "read" else moved, None, number)
        elif -number in (errno.ECANCELED, errno.EINTR) and (operation._cancelled or operation._closing):
            operation._settle(None, operation._ended_by())
        else:
            operation._settle(None, OSError(-number, os.strerror(-number)))
