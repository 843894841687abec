"""What manyhands raises.

```
ManyhandsError
├── LoopClosed (RuntimeError)        the loop was closed
├── LoopStopped (RuntimeError)       the loop drains, or has drained, and takes nothing from outside
├── ForkedError (RuntimeError)       the object was made in a parent process
├── WouldDeadlock (RuntimeError)     a lent thread was asked to wait for a loop
├── QueueFull (RuntimeError)         a strand holds as many messages as it may
├── WatchExists                      the descriptor has a watch already
├── WatchRemoved                     the watch was removed
├── StrandClosed                     the strand takes nothing more
├── BadDescriptor (OSError)          no open descriptor has this number
└── NotPollable (OSError)            the descriptor cannot be waited for
```

Every error carries what it is about as attributes, and its text says what was expected, what came and what to do.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manyhands._core import Strand, Watch
    from manyhands._events import RemovalReason

__all__ = [
    "BadDescriptor",
    "ForkedError",
    "LoopClosed",
    "LoopStopped",
    "ManyhandsError",
    "NotPollable",
    "QueueFull",
    "StrandClosed",
    "WatchExists",
    "WatchRemoved",
    "WouldDeadlock",
]


class ManyhandsError(Exception):
    """The base of every error that is the library's own."""


class LoopClosed(ManyhandsError, RuntimeError):
    """The loop was closed: nothing can be asked of it any more."""

    loop: str

    def __init__(self, loop: str) -> None:
        super().__init__(f"loop {loop!r} is closed: make a new EventLoop")
        self.loop = loop


class LoopStopped(ManyhandsError, RuntimeError):
    """The loop drains, or has drained: until `restart()` it takes messages from its own handlers only."""

    loop: str

    def __init__(self, loop: str) -> None:
        super().__init__(f"loop {loop!r} was drained and takes no message from outside: call restart() first")
        self.loop = loop


class ForkedError(ManyhandsError, RuntimeError):
    """The object belongs to the process that this one was forked from."""

    parent: int

    def __init__(self, what: str, parent: int) -> None:
        super().__init__(f"{what} was made in process {parent}, before a fork: make a new one in this process")
        self.parent = parent


class WouldDeadlock(ManyhandsError, RuntimeError):
    """A thread that is inside a `join()` was asked to wait for a loop: it might wait for itself."""

    call: str
    loop: str

    def __init__(self, call: str, loop: str) -> None:
        super().__init__(
            f"{call} of loop {loop!r} would wait, and this thread is serving a loop: "
            "use request_stop() here, and wait from a thread that has not joined"
        )
        self.call = call
        self.loop = loop


class QueueFull(ManyhandsError, RuntimeError):
    """The strand holds as many messages as it may; the one posted was not taken."""

    strand: Strand
    limit: int

    def __init__(self, strand: Strand, limit: int) -> None:
        super().__init__(
            f"strand {strand.name!r} has max_pending={limit} messages waiting and took no other: "
            "post fewer, make max_pending larger, or wait for the strand"
        )
        self.strand = strand
        self.limit = limit


class WatchExists(ManyhandsError):
    """The descriptor has a watch on this loop already; it goes on working."""

    fd: int
    watch: Watch | None

    def __init__(self, fd: int, watch: Watch | None = None) -> None:
        of = f" ({watch.name!r})" if watch is not None else ""
        super().__init__(f"descriptor {fd} has a watch on this loop already{of}: modify or remove that one")
        self.fd = fd
        self.watch = watch


class WatchRemoved(ManyhandsError):
    """The watch was removed, by whom or what `reason` says."""

    fd: int
    reason: RemovalReason

    def __init__(self, fd: int, reason: RemovalReason) -> None:
        super().__init__(f"the watch of descriptor {fd} was removed ({reason.name}): add the descriptor again")
        self.fd = fd
        self.reason = reason


class StrandClosed(ManyhandsError):
    """The strand's terminal message is in, or it was closed; what was posted was not taken."""

    strand: Strand | None

    def __init__(self, strand: Strand | None = None) -> None:
        name = f" {strand.name!r}" if strand is not None else ""
        super().__init__(f"strand{name} takes nothing more: it was closed, or its terminal message is in")
        self.strand = strand


class BadDescriptor(ManyhandsError, OSError):
    """No open descriptor has this number (`errno` is EBADF)."""

    fd: int

    def __init__(self, fd: int) -> None:
        super().__init__(errno.EBADF, f"descriptor {fd} is not open: add it before it is closed")
        self.fd = fd


class NotPollable(ManyhandsError, OSError):
    """The descriptor cannot be waited for (`errno` is EPERM)."""

    fd: int

    def __init__(self, fd: int, why: str = "regular files and directories are always ready") -> None:
        super().__init__(errno.EPERM, f"descriptor {fd} cannot be watched: {why}; read it on a thread")
        self.fd = fd
