"""Waiting for a descriptor that is not a stream: a device, a pipe, a socket that another library reads and writes.

A task may wait to read a descriptor while another waits to write it. The two share a watch, since the kernel has a descriptor
once; it reports what either wants, each of them is told once, and it is gone when nobody waits.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import threading
from typing import TYPE_CHECKING

from manyhands import _core
from manyhands._events import Events, RemovalReason
from manyhands._tasks._scope import current_loop
from manyhands.errors import BusyResourceError, ClosedResourceError, WatchExists, WatchRemoved

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

    from manyhands._loop import EventLoop

__all__ = ["notify_closing", "wait_readable", "wait_writable"]

OVER = Events.HANGUP | Events.ERROR
"""What ends both waits."""


async def wait_readable(fd: FileDescriptorLike) -> None:
    """Wait until a descriptor can be read: bytes, a connection, the end, a hang-up or an error.

    Another task may `wait_writable` for the same descriptor meanwhile.

    Args:
        fd: A number, or an object with `fileno()`; non-blocking, since the readiness may be gone when it is read.

    Raises:
        BusyResourceError: another task waits to read it, or it has a watch or a stream on this loop.
        ClosedResourceError: `notify_closing` was called.
        BadDescriptor, NotPollable: it is not open; it is a regular file.
    """
    await _ready(fd, Events.READ)


async def wait_writable(fd: FileDescriptorLike) -> None:
    """Wait until a descriptor can be written to, or never will be: a hang-up or an error.

    Another task may `wait_readable` for the same descriptor meanwhile.

    Args:
        fd: As `wait_readable`.

    Raises:
        BusyResourceError: another task waits to write to it, or it has a watch or a stream on this loop.
        ClosedResourceError, BadDescriptor, NotPollable: as `wait_readable`.
    """
    await _ready(fd, Events.WRITE)


async def _ready(fd: FileDescriptorLike, events: Events) -> None:
    loop = current_loop()
    number = _core.descriptor(fd)
    # Never more than the process may open, so none is taken out.
    waited = loop._waited.get(number) or loop._waited.setdefault(number, _Waited())  # noqa: SLF001 - the loop's seam
    wait = _core.Wait()
    waited.begin(loop, number, events, wait)
    try:
        await wait
    finally:
        waited.forget(events, wait)


class _Waited:
    """Who waits for one descriptor number: at most one task to read it, and one to write it."""

    def __init__(self) -> None:
        # Held for moments, and nothing of a user's runs under it. A finalizer may come in on the thread that holds it.
        self._lock = threading.RLock()
        self._process = os.getpid()
        # GUARDED BY: _lock. Who waits, and by which watch: another is made when the number has become another file's.
        self._waits: dict[Events, tuple[_core.Wait, _core.Watch]] = {}
        self._watch: _core.Watch | None = None  # GUARDED BY: _lock

    def begin(self, loop: EventLoop, fd: int, events: Events, wait: _core.Wait) -> None:
        with self._lock:
            watch = self._watch
            # Asked even if the place is taken: the kernel says whether this is still the file that is waited for.
            if watch is not None and self._tell(watch, events):
                if events in self._waits:
                    raise BusyResourceError("waiting for")
            else:
                try:
                    watch = loop.add(fd, events, self._on_ready, on_removed=self._on_removed)
                except WatchExists:
                    raise BusyResourceError("waiting for") from None
                self._watch = watch
            before, _ = self._waits.get(events, (None, None))
            self._waits[events] = wait, watch
        if before is not None:  # of a file that is gone, and not told yet
            before.fail(ClosedResourceError())

    def forget(self, events: Events, wait: _core.Wait) -> None:
        """The wait is over, however it ended."""
        if self._process != os.getpid():
            return  # whoever has the lock does not exist here
        with self._lock:
            found, watch = self._waits.get(events, (None, None))
            if found is wait and watch is not None:
                del self._waits[events]
                self._tell(watch)

    def _tell(self, watch: _core.Watch, *more: Events) -> bool:
        """Have reported what is waited for by this watch, and `more`; False if it has ended."""
        wanted = [*more, *(events for events, (_, of) in self._waits.items() if of is watch)]
        if wanted:
            with contextlib.suppress(WatchRemoved):
                watch.modify(functools.reduce(operator.or_, wanted))
        else:
            watch.remove()
        if watch.removed and self._watch is watch:
            self._watch = None
        return not watch.removed

    def _take(self, watch: _core.Watch, events: Events) -> list[_core.Wait]:
        taken = []
        for each in (Events.READ, Events.WRITE):
            wait, of = self._waits.get(each, (None, None))
            if wait is not None and of is watch and events & (each | OVER):
                del self._waits[each]
                taken.append(wait)
        return taken

    def _on_ready(self, watch: _core.Watch, events: Events) -> None:
        with self._lock:
            ready = self._take(watch, events)
            # First: the task, on another thread, may wait for it again at once.
            self._tell(watch)
        for wait in ready:
            wait.complete()

    def _on_removed(self, watch: _core.Watch, reason: RemovalReason) -> None:  # noqa: ARG002 - a callback's signature
        """Whoever still waits by it, waits for what is gone."""
        with self._lock:
            if self._watch is watch:
                self._watch = None
            left = self._take(watch, OVER)
        for wait in left:
            wait.fail(ClosedResourceError())


def notify_closing(fd: FileDescriptorLike) -> bool:
    """Say that a descriptor is about to be closed by you. What waits for it on this loop gets ClosedResourceError.

    Its watch ends with `RemovalReason.FD_GONE`; a stream on it is closed, and leaves the descriptor to you.

    Args:
        fd: A number, or an object with `fileno()`, that is still open.

    Returns:
        Whether anything of this loop had it.
    """
    return current_loop()._notify_closing(fd if isinstance(fd, int) else fd.fileno())  # noqa: SLF001 - the loop's seam
