"""Reply: the answer to a message, before and after it is there."""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import InvalidStateError
from typing import Any, NoReturn

from manyhands import _core, _guards
from manyhands._threads import LOOK
from manyhands.errors import WouldDeadlock

__all__ = ["Reply", "refuse_to_wait", "wait_for"]


class Reply(concurrent.futures.Future[Any]):
    """What an actor answers to one message. Made by `Actor.ask`.

    It is a `concurrent.futures.Future`: `result`, `exception`, `add_done_callback`, `concurrent.futures.wait` and
    `asyncio.wrap_future` work with it. In a task of manyhands, await it: a task that is cancelled meanwhile cancels it.

    It is done exactly once: with what `process()` returned or raised, cancelled, or with `ActorStopped` if the actor ended
    before it came to the message.

    Threads: any. Done callbacks run on the thread that ends it: one that serves the loop, or the one that calls `cancel()`
    or `Actor.stop()`.
    """

    def __init__(self, strand: _core.Strand, loop: str) -> None:
        super().__init__()
        self._strand = strand
        self._loop = loop

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer, and return or raise it.

        Args:
            timeout: Seconds; None waits for ever, 0 only looks.

        Raises:
            ActorStopped: the actor ended before it came to the message.
            CancelledError: it was cancelled (the one of `concurrent.futures`).
            TimeoutError: it is not there in time; it may still come.
            WouldDeadlock: it is not there yet, and the calling thread serves a loop. In a job you may wait; there
                `manyhands.blocking.wait(reply)` is a wait that a stop ends.
        """
        self._wait("result()", timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the answer, and return the exception that it is, or None.

        Raises:
            CancelledError, TimeoutError, WouldDeadlock: as `result`.
        """
        self._wait("exception()", timeout)
        return super().exception(0)

    def __await__(self) -> Generator[Any, Any, Any]:
        """In a task: wait for the answer without holding a thread."""
        wait = _core.Wait()
        self.add_done_callback(lambda _: wait.complete())
        try:
            yield from wait.__await__()
        except BaseException:
            self.cancel()  # the task was cancelled: nobody will look at the answer
            raise
        return self.result(0)

    def _wait(self, call: str, timeout: float | None) -> None:
        if self.done():
            return
        _ = self._strand.state  # in a forked child nobody answers: ForkedError
        if timeout != 0:
            refuse_to_wait(f"{call} of a reply of actor {self._strand.name!r}", call, self._loop)
        if not wait_for(self._wait_once, timeout):
            raise TimeoutError(f"actor {self._strand.name!r} has not answered after {timeout} s")

    def _wait_once(self, timeout: float | None) -> bool:
        with self._condition:
            return self._condition.wait_for(self.done, timeout)

    # Whoever claims it ends it: the thread that processes its message, or one that stops the actor.

    def _claim(self) -> bool:
        """Begin it; False if it was cancelled, or somebody has begun it."""
        with self._condition:
            return self._state in ("PENDING", "CANCELLED") and super().set_running_or_notify_cancel()

    def _answer(self, value: object) -> None:
        super().set_result(value)

    def _fail(self, error: BaseException) -> None:
        # It may have ended: by a second thread that stops the actor, or an answer whose done callback was interrupted.
        with contextlib.suppress(InvalidStateError):
            super().set_exception(error)

    def set_running_or_notify_cancel(self) -> NoReturn:
        """Not for a reply: its actor does that."""
        raise InvalidStateError("an actor begins its replies: this is for executors")

    def set_result(self, result: object) -> NoReturn:  # noqa: ARG002
        """Not for a reply: what `process()` returns is the answer."""
        raise InvalidStateError("a reply's result is what process() returns")

    def set_exception(self, exception: object) -> NoReturn:  # noqa: ARG002
        """Not for a reply: what `process()` raises is its exception."""
        raise InvalidStateError("a reply's exception is what process() raises")

    def __repr__(self) -> str:
        return f"<manyhands.Reply of actor {self._strand.name!r}: {self._state.lower().replace('_', ' ')}>"


def refuse_to_wait(what: str, call: str, loop: str) -> None:
    """Refuse a wait that may be for the calling thread itself.

    A job may wait, though its thread is lent: a loop that runs one in place always keeps another thread to serve it.

    Raises:
        WouldDeadlock: the thread serves a loop.
    """
    if _core.is_lent() and _core.current_job() is None:
        raise WouldDeadlock(
            call,
            loop,
            f"{what} would wait, and this thread is serving a loop: await it in a task, let a done callback send on what "
            "comes, or wait from a thread that has not joined",
        )


def wait_for(wait: Callable[[float | None], bool], timeout: float | None) -> bool:
    """Wait by `wait(seconds)`; on the main thread in slices, so that no Ctrl-C is missed (see `_threads`).

    Returns:
        What `wait` said last: False after `timeout`.

    Raises:
        ValueError: the timeout makes no sense.
    """
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds, 0 or more (None for ever), and got {timeout!r}")
    limit = math.inf if timeout is None else timeout
    slice_ = LOOK if _guards.on_main_thread() else threading.TIMEOUT_MAX
    deadline = time.monotonic() + limit
    while not wait(min(slice_, limit)):
        limit = max(0.0, deadline - time.monotonic())
        if limit == 0:
            return wait(0)
    return True
