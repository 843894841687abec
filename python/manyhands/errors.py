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
│   └── ActorStopped                 the actor takes no more messages
├── BadDescriptor (OSError)          no open descriptor has this number
├── NotPollable (OSError)            the descriptor cannot be waited for
├── PoolFinished (RuntimeError)      the pool takes no more jobs
├── WouldBlock                       what was asked for would have to be waited for
├── EndOfStream                      the peer has sent its last byte
│   └── IncompleteRead               it came before all that was asked for
├── DelimiterNotFound                the delimiter is not where it had to be
├── BusyResourceError                another task is at it
├── ClosedResourceError              it was closed here
├── BrokenResourceError              the other side is lost
├── TaskCancelled                    the task was cancelled by its handle
├── JobCancelled (CancelledError)    the job was stopped by its caller
├── JobAborted                       the job was stopped by its owner's end, its deadline, its pool, ...
├── OperationPending                 the descriptor has an operation in this direction already
└── OperationCancelled               the operation was cancelled before it was done
Cancelled (BaseException)            raised inside a task that is to stop
JobStopped (BaseException)           raised inside a job that was told to stop
```

Every error carries what it is about as attributes, and its text says what was expected, what came and what to do.
"""

from __future__ import annotations

import concurrent.futures
import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manyhands._core import Strand, Watch
    from manyhands._events import RemovalReason
    from manyhands._job import StopReason
    from manyhands._pool import ThreadPool

__all__ = [
    "ActorStopped",
    "BadDescriptor",
    "BrokenResourceError",
    "BusyResourceError",
    "Cancelled",
    "ClosedResourceError",
    "DelimiterNotFound",
    "EndOfStream",
    "ForkedError",
    "IncompleteRead",
    "JobAborted",
    "JobCancelled",
    "JobStopped",
    "LoopClosed",
    "LoopStopped",
    "ManyhandsError",
    "NotPollable",
    "OperationCancelled",
    "OperationPending",
    "PoolFinished",
    "QueueFull",
    "StrandClosed",
    "TaskCancelled",
    "WatchExists",
    "WatchRemoved",
    "WouldBlock",
    "WouldDeadlock",
]


class ManyhandsError(Exception):
    """The base of every error that is the library's own."""


class LoopClosed(ManyhandsError, RuntimeError):
    """The loop was closed: nothing can be asked of it any more."""

    loop: str

    def __init__(self, loop: str, text: str | None = None) -> None:
        super().__init__(text or f"loop {loop!r} is closed: make a new EventLoop")
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

    def __init__(self, call: str, loop: str, text: str | None = None) -> None:
        super().__init__(
            text
            or f"{call} of loop {loop!r} would wait, and this thread is serving a loop: "
            "use request_stop() here, and wait from a thread that has not joined"
        )
        self.call = call
        self.loop = loop

    @classmethod
    def about(cls, text: str) -> WouldDeadlock:
        """Make the error of a wait that is not for a loop."""
        return cls("", "", text)


class QueueFull(ManyhandsError, RuntimeError):
    """A strand holds as many messages, or a pool as many jobs, as it may; the one at hand was not taken."""

    strand: Strand | None
    pool: ThreadPool | None
    limit: int

    def __init__(self, strand: Strand | None, limit: int, text: str | None = None) -> None:
        name = strand.name if strand is not None else None
        super().__init__(
            text
            or f"strand {name!r} has max_pending={limit} messages waiting and took no other: "
            "post fewer, make max_pending larger, or wait for the strand"
        )
        self.strand = strand
        self.pool = None
        self.limit = limit

    @classmethod
    def of_pool(cls, pool: ThreadPool, limit: int) -> QueueFull:
        """Make the error of a pool."""
        error = cls(
            None,
            limit,
            f"pool {pool.name!r} has max_queue_depth={limit} jobs waiting and took no other: enqueue fewer, give it more "
            "threads or a longer queue, or let the caller wait (when_full='wait')",
        )
        error.pool = pool
        return error


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

    def __init__(self, strand: Strand | None = None, text: str | None = None) -> None:
        name = f" {strand.name!r}" if strand is not None else ""
        super().__init__(text or f"strand{name} takes nothing more: it was closed, or its terminal message is in")
        self.strand = strand


class ActorStopped(StrandClosed):
    """The actor was stopped, or its loop closed: it takes no message, or had not come to the one that was asked."""

    actor: str

    def __init__(self, strand: Strand, *, taken: bool = False) -> None:
        super().__init__(
            strand,
            f"actor {strand.name!r} was stopped before it came to this message: stop(drain=True) would have let it"
            if taken
            else f"actor {strand.name!r} was stopped and takes no message: make a new one",
        )
        self.actor = strand.name


class PoolFinished(ManyhandsError, RuntimeError):
    """The pool is finished, or being so; the job was not taken."""

    pool: str

    def __init__(self, pool: str, text: str | None = None) -> None:
        super().__init__(
            text or f"cannot schedule new futures after shutdown: pool {pool!r} is finished, make a new ThreadPool"
        )
        self.pool = pool


class JobStopped(BaseException):
    """The job was told to stop: raised by a check-in inside the job, which cleans up and lets it go.

    Attributes:
        reason: A `StopReason`.
    """

    reason: StopReason | None

    def __init__(self, reason: StopReason | None = None) -> None:
        super().__init__(f"the job was told to stop: {reason.value if reason is not None else 'nobody did'}")
        self.reason = reason


class JobCancelled(ManyhandsError, concurrent.futures.CancelledError):
    """The job was stopped by `stop()` or `cancel()`."""

    reason: StopReason | None

    def __init__(self, reason: StopReason | None = None) -> None:
        super().__init__("the job was stopped by its caller")
        self.reason = reason


class JobAborted(ManyhandsError):
    """The job was stopped, and not by its caller: `reason` says why.

    Of a deadline or the time limit of a sync it is a `TimeoutError` too.
    """

    reason: StopReason

    def __init__(self, reason: StopReason) -> None:
        super().__init__(f"the job was stopped: {reason.value}")
        self.reason = reason

    @classmethod
    def of(cls, reason: StopReason) -> JobAborted:
        """Make the error for a reason."""
        return (_JobTimedOut if reason.name in ("DEADLINE", "SYNC_TIMEOUT") else cls)(reason)


class _JobTimedOut(JobAborted, TimeoutError):
    """Time was the reason."""


# What a user sees is the public name: whoever wants to know asks whether it is a TimeoutError.
_JobTimedOut.__name__ = _JobTimedOut.__qualname__ = "JobAborted"


class OperationPending(ManyhandsError):
    """The descriptor has an operation in this direction under way; that one goes on."""

    fd: int
    direction: str

    def __init__(self, fd: int, direction: str) -> None:
        super().__init__(
            f"descriptor {fd} has an operation under way that {direction}s: wait until it has completed, or cancel it"
        )
        self.fd = fd
        self.direction = direction


class OperationCancelled(ManyhandsError):
    """The operation was cancelled before it was done; its `transferred` says how much of it was."""

    def __init__(self, what: str = "the operation") -> None:
        super().__init__(f"{what} was cancelled before it was done")


class ClosedResourceError(ManyhandsError):
    """What was to be used was closed by this program, before or meanwhile."""

    def __init__(self, what: str = "the resource") -> None:
        super().__init__(f"{what} is closed: nothing can be asked of it any more")


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


class Cancelled(BaseException):
    """Raised in a task, by what it awaits, when it is told to stop. Let it pass: the cancel scope's exit swallows it.

    It is a BaseException, so that `except Exception` does not swallow it. Whoever catches it raises it again.
    """

    def __init__(self) -> None:
        super().__init__("the task was cancelled: let this pass, after cleaning up")


class TaskCancelled(ManyhandsError):
    """What awaiting a task's handle raises if the task was cancelled."""

    task: str

    def __init__(self, task: str) -> None:
        super().__init__(f"task {task!r} was cancelled and has no result")
        self.task = task


class WouldBlock(ManyhandsError):
    """What was asked for is not there now, and the call does not wait."""

    def __init__(self, text: str = "it is not there now: use the call that waits") -> None:
        super().__init__(text)


class EndOfStream(ManyhandsError):
    """The peer has sent its last byte."""

    def __init__(self, text: str = "the peer has sent its last byte") -> None:
        super().__init__(text)


class IncompleteRead(EndOfStream):
    """The peer has sent its last byte before all that was asked for had come."""

    partial: bytes

    def __init__(self, partial: bytes = b"") -> None:
        super().__init__(f"the peer has sent its last byte, and only {len(partial)} bytes of what was asked for came")
        self.partial = partial


class DelimiterNotFound(ManyhandsError):
    """The delimiter is not among the first bytes; they are still to be read."""

    max_bytes: int

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the delimiter is not among the first {max_bytes} bytes; they are still to be read")
        self.max_bytes = int(max_bytes)


class BusyResourceError(ManyhandsError):
    """Another task is doing this, and only one may."""

    def __init__(self, action: str = "using") -> None:
        super().__init__(f"another task is {action} it already: one at a time")
        self.action = action


class BrokenResourceError(ManyhandsError):
    """The other side is lost; `__cause__` has the system's error, if it was one."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text or "the connection was lost")
