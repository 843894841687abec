"""Operation: something that was asked for, and that completes once.

Whoever carries it out (`_socket_operations`, `_file_ring`, `_file_threads`) settles it, from any thread; here it is decided
that this happens once, and who is told. Nothing here takes a lock: an operation may be cancelled by a finalizer, wherever it
interrupts.
What has to happen once is a list with one element, and whoever takes that out has the right to it.
"""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from manyhands import _core
from manyhands.errors import ClosedResourceError, OperationCancelled, WouldDeadlock

if TYPE_CHECKING:
    from manyhands._loop import EventLoop

__all__ = ["Operation"]

T = TypeVar("T")

Handler = Callable[["Operation[Any]"], object]


class Operation(Generic[T]):
    """Something that was asked of a `Proactor`, and that completes once: with a result or with an error.

    Three ways to learn of it: the handler that was given to the call; `result()`, from a thread that serves no loop; `await`,
    in a task.

    Attributes:
        done: Whether it has completed.
        transferred: Bytes that were moved; of a `send_all` also while it goes on, else 0 until it has completed.

    Threads: any.
    """

    __slots__ = (
        "__weakref__",
        "_abort",
        "_arguments",
        "_cancelled",
        "_closing",
        "_context",
        "_done",
        "_error",
        "_fd",
        "_handler",
        "_kind",
        "_loop",
        "_right",
        "_source",
        "_strand",
        "_token",
        "_value",
        "_waiters",
        "transferred",
    )

    def __init__(
        self,
        kind: str,
        source: object,
        fd: int,
        loop: EventLoop,
        strand: _core.Strand,
        handler: Handler | None,
        abort: Callable[[Operation[Any]], None],
    ) -> None:
        if handler is not None and not callable(handler):
            raise TypeError(f"handler must be callable or None, and got {handler!r}")
        self._kind = kind
        self._fd = fd
        self.transferred = 0
        # Kept until the end, so that the collector does not close what is being used.
        self._source: object = source
        self._loop = loop
        self._strand = strand
        self._handler = handler
        self._context = contextvars.copy_context() if handler is not None else None
        self._abort = abort
        # Of whoever carries it out.
        self._token = 0
        self._arguments: tuple[Any, ...] = ()
        self._cancelled = False
        self._closing = False
        self._right = [None]
        self._waiters: list[Callable[[], object]] = []
        self._done = False
        self._value: T | None = None
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether it has completed."""
        return self._done

    def result(self, timeout: float | None = None) -> T:
        """Wait until it has completed, and return what it gave or raise what it failed with.

        Args:
            timeout: Seconds; None for ever, 0 only looks.

        Raises:
            TimeoutError: it has not completed in time; it goes on.
            WouldDeadlock: it has not completed, and the calling thread is lent: this might be the thread that it needs.
            OperationCancelled: it was cancelled before it was done.
            ClosedResourceError: the socket, the file or the proactor was closed by this program.
            IncompleteRead: a `receive_exactly` met the end; `partial` has what came.
            BrokenResourceError: the connection was lost; its `__cause__` is what the kernel said.
            OSError: what else the kernel said.

        Blocks: until a joined thread has taken the completion from the kernel.
        """
        error = self.exception(timeout)
        if error is not None:
            try:
                raise error
            finally:
                # What is raised has this frame in its traceback.
                del error
        return cast("T", self._value)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait as `result` does, and return what it failed with, or None.

        Raises:
            TimeoutError, WouldDeadlock: as `result`.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds, 0 or more (None for ever), and got {timeout!r}")
        if not self._done and not self._wait(timeout):
            raise TimeoutError(f"{self!r} has not completed after {timeout} s")
        return self._error

    def cancel(self) -> bool:
        """Ask for its end. It still completes once: with OperationCancelled, or with its result if that was first.

        Nothing is lost by it: what has not been received is received by the next operation.

        Returns:
            True if it had not completed: it does soon. False if it had.

        Blocks: never.
        """
        if self._done:
            return False
        self._cancelled = True
        self._abort(self)
        return True

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for it in a task. A cancellation of the task cancels the operation; its buffer is free when it has completed."""
        if not self._done:
            wait = _core.Wait()
            self._waiters.append(wait.complete)
            if self._done:
                wait.complete()
            try:
                yield from wait.__await__()
            except BaseException:
                # Nobody waits for it any more; what it uses is free when it has completed.
                with contextlib.suppress(ValueError):
                    self._waiters.remove(wait.complete)
                self.cancel()
                raise
        return self.result(0)

    # For whoever carries it out.

    def _settle(self, value: T | None, error: BaseException | None, transferred: int = 0) -> bool:
        """Complete it, unless somebody has; True if this call did. Its handler is queued, not run."""
        try:
            self._right.pop()
        except IndexError:
            return False
        self._value = value
        self._error = error
        self.transferred = transferred
        self._source = None
        self._arguments = ()
        self._done = True
        # A waiter that comes after this looks at `_done` once more before it waits.
        while self._waiters:
            with contextlib.suppress(IndexError):
                self._waiters.pop()()
        handler, self._handler = self._handler, None
        context, self._context = self._context, None
        if handler is not None and context is not None:
            self._strand._complete(context, handler, self)
        return True

    def _ended_by(self) -> BaseException:
        """Make the error of one whose end was asked for."""
        if self._closing:
            return ClosedResourceError(f"what {self._text()} uses")
        return OperationCancelled(self._text())

    def _wait(self, timeout: float | None) -> bool:
        if timeout == 0:
            return False
        if _core.is_lent():
            raise WouldDeadlock.about(
                f"waiting for {self!r} would block a thread that is lent to a loop or a job, and perhaps the one that it "
                "needs: give it a handler"
            )
        # Of a closed loop, or in a forked child, nobody would complete it.
        self._loop._check_open()
        return self._wait_anywhere(timeout)

    def _wait_anywhere(self, timeout: float | None) -> bool:
        latch = _thread.allocate_lock()
        latch.acquire()
        release = latch.release
        self._waiters.append(release)
        if self._done:
            return True
        deadline = None if timeout is None or timeout >= _thread.TIMEOUT_MAX else time.monotonic() + timeout
        latch.acquire(timeout=-1 if deadline is None else max(0.0, deadline - time.monotonic()))
        if not self._done:
            with contextlib.suppress(ValueError):
                self._waiters.remove(release)
        return self._done

    def _text(self) -> str:
        return f"{self._kind} of descriptor {self._fd}"

    def __repr__(self) -> str:
        state = "pending" if not self._done else "failed" if self._error is not None else "done"
        return f"<manyhands.Operation {self._text()} {state}>"
