"""A queue that is served by nothing but a time service: what stands for a strand where there is no loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from manyhands.coroutines._task import Timer

__all__ = ["ServiceQueue", "TimeService"]


class TimeService(Protocol):
    """What can drive a `CoroutinePool` instead of an `EventLoop`."""

    def now(self) -> float:
        """Tell the time in seconds."""

    def add_timer(self, delay: float, interval: float, callback: Callable[[], object], /) -> object:
        """Call `callback()` in `delay` seconds, never inside this call.

        `interval` is 0 here: once. What is returned is cancelled by its `cancel()`, if it has one.
        """


class _NoTimer:
    """A timer that cannot be cancelled."""

    def cancel(self) -> None:
        """Do nothing: when it fires, it finds that the wait is over."""


_NO_TIMER = _NoTimer()


class ServiceQueue:
    """Runs messages one at a time and in order, in callbacks of a time service, on whichever threads that calls them.

    There is one turn. Who posts takes it, if it is there, and asks the service for a call; who has run what was there puts it
    back and looks again. A message that is appended while somebody else has the turn is therefore seen by that one.
    """

    __slots__ = ("__weakref__", "_messages", "_service", "_turn")

    def __init__(self, service: TimeService) -> None:
        self._service = service
        self._messages: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._turn = [True]

    def post(self, callback: Callable[..., object], /, *args: Any) -> None:
        """Run `callback(*args)` after what was posted before."""
        self._messages.append((callback, args))
        self._ask()

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> Timer:
        """Post `callback(*args)` in `delay` seconds by the service's clock, never earlier."""
        due = self._service.now() + delay

        def fire(*_: object) -> bool:
            left = due - self._service.now()
            if left > 0:
                self._service.add_timer(left, 0, fire)
            else:
                self.post(callback, *args)
            return False  # services that ask say so that it was the last time

        timer = self._service.add_timer(delay, 0, fire)
        return timer if callable(getattr(timer, "cancel", None)) else _NO_TIMER  # type: ignore[return-value]

    def _ask(self) -> None:
        try:
            self._turn.pop()
        except IndexError:
            return
        try:
            self._service.add_timer(0, 0, self._run)
        except BaseException:
            self._turn.append(True)
            raise

    def _run(self, *_: object) -> bool:
        try:
            for _message in range(len(self._messages)):  # what comes meanwhile has its own turn: the service is shared
                callback, args = self._messages.popleft()
                callback(*args)
        finally:
            self._turn.append(True)
            if self._messages:
                self._ask()
        return False
