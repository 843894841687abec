"""Checkpoints and time: where a task lets others run, notices that it was cancelled, or waits for a while."""

from __future__ import annotations

from collections.abc import Awaitable

from manyhands import _core
from manyhands._tasks._scope import _checked, _delay, current_loop

__all__ = [
    "cancel_shielded_checkpoint",
    "checkpoint",
    "checkpoint_if_cancelled",
    "current_effective_deadline",
    "current_time",
    "sleep",
    "sleep_forever",
    "sleep_until",
]

_CHECKPOINT = _core.Checkpoint(abortable=True)
_SHIELDED = _core.Checkpoint(abortable=False)


def checkpoint() -> Awaitable[None]:
    """Let others run, at the tail of the queue, and raise `Cancelled` if the task is to stop."""
    return _CHECKPOINT


def cancel_shielded_checkpoint() -> Awaitable[None]:
    """Let others run, also when the task is to stop."""
    return _SHIELDED


async def checkpoint_if_cancelled() -> None:
    """Raise `Cancelled` if the task is to stop; else go on at once."""
    task = _core.running_task()
    if task is not None and task.scope is not None and task.scope.stopping:
        await _CHECKPOINT


def current_time() -> float:
    """The time of the loop's clock, in seconds: what deadlines are on."""
    return current_loop().now()


def current_effective_deadline() -> float:
    """The nearest deadline that applies to the running task; -inf if it is to stop already, inf for none."""
    task = _core.running_task()
    if task is None:
        raise RuntimeError("only a task has a deadline: call this inside of manyhands.run()")
    nearest = float("inf")
    scope = task.scope
    while scope is not None:
        if scope.cancel_called:
            return -float("inf")
        nearest = min(nearest, getattr(scope, "deadline", nearest))
        if scope.shield:
            break
        scope = scope.parent
    return nearest


async def sleep(delay: float) -> None:
    """Wait for so many seconds; 0 is a checkpoint.

    Raises:
        ValueError: the delay is negative or nan.
        Cancelled: the task is to stop.
    """
    if _delay("delay", delay) == 0:
        await _CHECKPOINT
        return
    if delay == float("inf"):
        await sleep_forever()
    wait = _core.Wait()
    timer = current_loop().call_later(delay, wait.complete)
    try:
        await wait
    finally:
        timer.cancel()


async def sleep_until(deadline: float) -> None:
    """Wait until a time of the loop's clock; one that has passed is a checkpoint."""
    await sleep(max(0.0, _checked("deadline", deadline) - current_time()))


async def sleep_forever() -> None:
    """Wait until the task is cancelled."""
    await _core.Wait()
