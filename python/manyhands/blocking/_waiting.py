"""Waiting for another thread: a queue, an event, a condition, a future, a lock."""

from __future__ import annotations

import concurrent.futures
import queue as queues
import threading
from typing import Any, Protocol, TypeVar

from manyhands import _core
from manyhands.blocking._patience import Patience

__all__ = ["acquire", "get", "wait"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Queue(Protocol[T_co]):
    def get(self, block: bool, timeout: float | None, /) -> T_co: ...  # noqa: FBT001 - the queues' own


class _Event(Protocol):
    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = ...) -> bool: ...


class _Lock(Protocol):
    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...  # noqa: FBT001 - the locks' own


def get(queue: _Queue[T], timeout: float | None = None) -> T:
    """Take an item from a queue: `queue.get()` that a stop ends.

    Args:
        queue: A `queue.Queue`, `SimpleQueue` or another one with their `get(block, timeout)`.
        timeout: Seconds; None waits for ever, 0 only looks.

    Returns:
        The item.

    Raises:
        Empty: nothing came in time (the one of `queue`).
        JobStopped: the job was told to stop; no item was taken.

    Blocks: until an item comes, `timeout`, or the stop.
    """
    if not callable(getattr(queue, "get", None)):
        raise TypeError(f"queue must have a get() as queue.Queue has, and got {queue!r}")
    patience = Patience(timeout)
    if _core.current_job() is None:
        return queue.get(True, timeout)
    while True:
        pause = patience.turn()
        try:
            return queue.get(pause > 0, pause)
        except queues.Empty:
            if patience.over:
                raise


def wait(
    what: _Event | threading.Condition | concurrent.futures.Future[Any],
    timeout: float | None = None,
) -> bool:
    """Wait for an event, a condition or a future.

    Args:
        what: An event (anything with `is_set()` and `wait(timeout)`), a `threading.Condition` that the calling thread
            holds, or a `concurrent.futures.Future` such as a `Job`.
        timeout: Seconds; None waits for ever, 0 only looks.

    Returns:
        True when the event is set, the condition was notified, or the future is done, whatever came of it; False after
        `timeout`.

    Raises:
        JobStopped: the job was told to stop. A condition's lock is held again.
        RuntimeError: the condition is not held.
        WouldDeadlock: the future is a job of the caller's own pool, and no thread is left to run it.

    Blocks: until then, or the stop.
    """
    patience = Patience(timeout)
    if isinstance(what, concurrent.futures.Future):
        return _wait_for_future(what, patience)
    if isinstance(what, threading.Condition):
        return _wait_for_condition(what, patience)
    if not callable(getattr(what, "is_set", None)) or not callable(getattr(what, "wait", None)):
        raise TypeError(f"expected an event, a threading.Condition or a concurrent.futures.Future, and got {what!r}")
    if _core.current_job() is None:
        return what.wait(timeout)
    while True:
        if what.wait(patience.turn()):
            return True
        if patience.over:
            return False


def _wait_for_future(future: concurrent.futures.Future[Any], patience: Patience) -> bool:
    in_job = _core.current_job() is not None
    while True:
        try:
            future.exception(patience.turn() if in_job else patience.timeout())
        except concurrent.futures.CancelledError:
            return True
        except TimeoutError:
            if future.done():
                return True
            if patience.over:
                return False
        else:
            return True


def _wait_for_condition(condition: threading.Condition, patience: Patience) -> bool:
    """Wait as `Condition.wait` does, in slices but with one place in the condition's queue.

    Calling `condition.wait(LOOK)` again and again would lose a notification: one that comes between the end of a slice and
    the moment at which the lock is held again has chosen this thread, and `wait` says False all the same.
    """
    if _core.current_job() is None:
        return condition.wait(patience.timeout())
    inside: Any = condition  # its queue and its way to release a lock of any kind: CPython 3.11 to 3.14 have the same
    if not inside._is_owned():  # noqa: SLF001
        raise RuntimeError("cannot wait on a condition that is not held: acquire it first")
    _core.check_in()
    place = threading.Lock()
    place.acquire()
    inside._waiters.append(place)  # noqa: SLF001
    held = inside._release_save()  # noqa: SLF001
    notified, leaving = False, True
    try:
        while True:
            pause = patience.slice()
            notified = place.acquire(timeout=pause) if pause > 0 else place.acquire(blocking=False)
            if notified or patience.over:
                break
            _core.check_in()
        leaving = False
    finally:
        inside._acquire_restore(held)  # noqa: SLF001
        if not notified:
            try:
                inside._waiters.remove(place)  # noqa: SLF001
            except ValueError:
                notified = True
                if leaving:
                    condition.notify()  # one was meant for a waiter, and this one goes with an error
    return notified


def acquire(lock: _Lock, timeout: float | None = None) -> bool:
    """Acquire a lock or a semaphore.

    Args:
        lock: A `threading.Lock`, `RLock`, `Semaphore`, `Condition`, or another one with their `acquire(blocking, timeout)`.
        timeout: Seconds; None waits for ever, 0 only tries.

    Returns:
        True if the caller has it now; False after `timeout`.

    Raises:
        JobStopped: the job was told to stop; the lock was not acquired.

    Blocks: until it is free, `timeout`, or the stop.
    """
    if not callable(getattr(lock, "acquire", None)):
        raise TypeError(f"lock must have an acquire() as threading.Lock has, and got {lock!r}")
    patience = Patience(timeout)
    if _core.current_job() is None and timeout is None:
        return lock.acquire()
    while True:
        pause = patience.turn()
        if lock.acquire(True, pause) if pause > 0 else lock.acquire(False):
            return True
        if patience.over:
            return False
