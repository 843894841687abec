"""Cancel scopes: a part of a program that can be told to stop, and how long it may take.

Cancellation is level-triggered, as in trio: once a scope is cancelled every `await` inside it that would wait raises
`Cancelled`, until the scope is left. A scope's exit swallows the `Cancelled` that is its own, and no other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from manyhands import _core
from manyhands.errors import Cancelled

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from manyhands._loop import EventLoop

__all__ = ["CancelScope", "current_loop", "fail_after", "fail_at", "move_on_after", "move_on_at"]


def current_loop() -> EventLoop:
    """The loop of the running task.

    Raises:
        RuntimeError: the caller is not in a task.
    """
    task = _core.running_task()
    if task is None:
        raise RuntimeError("this is to be called by a task: run it inside of manyhands.run()")
    loop: EventLoop = task.group.owner  # type: ignore[assignment]
    return loop


class CancelScope(_core.Scope):
    """A part of a task, with everything it waits for, that can be cancelled as one.

    ```python
    with manyhands.CancelScope() as scope:
        ...  # scope.cancel(), from any task or thread, makes whatever this waits for raise Cancelled
    if scope.cancelled_caught:
        ...
    ```

    Args:
        deadline: Absolute, on the loop's clock (`current_time()`); infinity for none.
        shield: Whether cancellations from outside pass it by.

    Threads: entered and left by one task; `cancel`, `deadline` and `shield` may be used from any thread.
    """

    cancelled_caught: bool
    """Whether the scope's exit has swallowed a `Cancelled`."""

    def __init__(self, *, deadline: float = math.inf, shield: bool = False) -> None:
        self.cancelled_caught = False
        self._deadline = _checked("deadline", deadline)
        self._timer: _core.Timer | None = None
        self._loop: EventLoop | None = None
        if shield:
            self.shield = True

    @property
    def deadline(self) -> float:
        """When it is cancelled by itself, on the loop's clock. May be moved while it is entered."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._deadline = _checked("deadline", deadline)
        if self._loop is not None:
            self._set_timer(self._loop)

    def _set_timer(self, loop: EventLoop) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._deadline != math.inf and not self.cancel_called:
            if self._deadline <= loop.now():
                self.cancel()
            else:
                self._timer = loop.call_at(self._deadline, self._expire)

    def _expire(self) -> None:
        # Two threads that move the deadline at once may leave a timer behind: only the deadline itself counts.
        loop = self._loop
        if loop is not None and self._deadline <= loop.now():
            self.cancel()

    def cancel(self) -> None:
        """Cancel what runs inside. Idempotent; also before the scope is entered: then it begins cancelled.

        Threads: any.
        """
        self.set_cancelled()

    def __enter__(self) -> Self:
        self.enter()
        if self._deadline != math.inf:
            self._loop = current_loop()
            self._set_timer(self._loop)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._loop = None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if isinstance(exc, GeneratorExit) and not self.innermost:
            # The coroutine, or the async generator, is closed from outside of its task: that must not fail. What this
            # leaves open is told when the task ends.
            return False
        self.leave()
        if exc is None or not self.cancel_called or self.parent_stopping:
            return False
        if isinstance(exc, Cancelled):
            self.cancelled_caught = True
            return True
        if not isinstance(exc, BaseExceptionGroup):
            return False
        cancelled, rest = exc.split(Cancelled)
        if cancelled is None:
            return False
        self.cancelled_caught = True
        if rest is None:
            return True
        context = rest.__context__
        try:
            raise rest
        finally:
            rest.__context__ = context
            del rest, exc

    def __repr__(self) -> str:
        state = "cancelled" if self.cancel_called else "active"
        deadline = "" if self._deadline == math.inf else f" deadline={self._deadline:.3f}"
        return f"<manyhands.CancelScope {state}{deadline}{' shield' if self.shield else ''}>"


def left_open(task: _core.Task, scope: _core.Scope) -> RuntimeError:
    """Called by the core when a task has ended inside of scopes that it entered and did not leave.

    What runs inside of them is cancelled, and the loop holds it from now on: nobody waits for it any more.
    """
    loop: EventLoop = task.group.owner  # type: ignore[assignment]
    innermost: _core.Scope | None = scope
    own = task.group.scope
    while innermost is not None and innermost is not own:
        if innermost.group is not None:
            loop._strays.append(innermost.group)  # noqa: SLF001 - the loop holds its tasks: see crates/py/src/task.rs
        innermost.set_cancelled()
        innermost = innermost.parent
    return RuntimeError(
        f"task {task.name!r} has ended inside of a cancel scope or a task group that it did not leave: use them in a "
        "`with` block, and do not yield inside of one in an async generator"
    )


def _checked(name: str, seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, and got {seconds!r}")
    if math.isnan(seconds):
        raise ValueError(f"{name} must be a number of seconds, and got nan")
    return float(seconds)


def _delay(name: str, seconds: Any) -> float:
    checked = _checked(name, seconds)
    if checked < 0:
        raise ValueError(f"{name} must be 0 or more seconds, and got {seconds}")
    return checked


def move_on_at(deadline: float, *, shield: bool = False) -> CancelScope:
    """A scope that is cancelled at a time of the loop's clock. Its exit says so by `cancelled_caught` and raises nothing."""
    return CancelScope(deadline=deadline, shield=shield)


def move_on_after(delay: float | None, *, shield: bool = False) -> CancelScope:
    """A scope that is cancelled after so many seconds; None for never.

    Raises:
        ValueError: the delay is negative or nan.
    """
    deadline = math.inf if delay is None else current_loop().now() + _delay("delay", delay)
    return CancelScope(deadline=deadline, shield=shield)


class _Failing(CancelScope):
    """A scope whose exit raises when its deadline ended it."""

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        loop = self._loop
        swallowed = super().__exit__(exc_type, exc, traceback)
        if self.cancelled_caught and loop is not None and loop.now() >= self._deadline:
            raise TimeoutError("the deadline of fail_after() or fail_at() has passed")
        return swallowed


def fail_at(deadline: float, *, shield: bool = False) -> CancelScope:
    """As `move_on_at`, and its exit raises TimeoutError if the deadline ended what ran inside."""
    return _Failing(deadline=deadline, shield=shield)


def fail_after(delay: float | None, *, shield: bool = False) -> CancelScope:
    """As `move_on_after`, and its exit raises TimeoutError if the deadline ended what ran inside.

    Raises:
        ValueError: the delay is negative or nan.
    """
    deadline = math.inf if delay is None else current_loop().now() + _delay("delay", delay)
    return _Failing(deadline=deadline, shield=shield)
