"""What a pooled coroutine waits for: requests, made by `wait` and `wait_until`.

A request is only a description. It does nothing until a coroutine hands it to its pool, by `await` or by `yield`, and it
may be handed over any number of times: what belongs to one suspension is in `_task.Pending`.
"""

from __future__ import annotations

import enum
import math
import numbers
import warnings
from collections.abc import Callable, Generator
from typing import Any, Final, Generic, Literal, TypeVar, overload

__all__ = ["NO_EVENT", "TIMEOUT", "Timeout", "Wait", "seconds", "wait", "wait_until"]

_T = TypeVar("_T")


class Timeout(enum.Enum):
    """What a wait for an event gives when the event did not come: see `TIMEOUT`."""

    TIMEOUT = "timeout"


TIMEOUT: Final[Literal[Timeout.TIMEOUT]] = Timeout.TIMEOUT
"""The result of `wait(event, interval)` when nobody notified within the interval."""


class _Absent:
    """Its one instance is an argument that was not given; an event that is nobody's."""

    def __repr__(self) -> str:
        return "absent"


NO_EVENT: Final = _Absent()


class Wait(Generic[_T]):
    """A request to be resumed later. Made by `wait` and `wait_until`; awaited in `async def`, yielded in a generator.

    One that is neither warns when it is dropped, as a coroutine that is never awaited does.
    """

    __slots__ = ("__weakref__", "_used", "condition", "event", "interval", "late")

    event: object
    interval: float | None
    condition: Callable[[], object] | None
    late: object

    def __init__(
        self,
        event: object,
        interval: float | None,
        late: object,
        condition: Callable[[], object] | None = None,
    ) -> None:
        self.event = event
        self.interval = interval
        self.late = late
        self.condition = condition
        self._used = False

    def __await__(self) -> Generator[Any, Any, _T]:
        result: _T = yield self
        return result

    __iter__ = __await__
    """`yield from wait(...)` means the same as `yield wait(...)`."""

    def take(self) -> None:
        """Note that a pool has got it."""
        self._used = True

    def matches(self, event: object) -> bool:
        """Whether a notify of `event` is for whoever waits so. Runs the `==` of the events."""
        return self.event is not NO_EVENT and (self.event is event or bool(self.event == event))

    def __repr__(self) -> str:
        if self.condition is not None:
            return f"wait_until({self.condition!r}, interval={self.interval!r})"
        if self.event is NO_EVENT:
            return f"wait({self.interval!r})"
        return f"wait({self.event!r}, {self.interval!r})"

    # At interpreter exit the module's names may be gone before the request is.
    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if not self._used:
            _warn(f"{self!r} was neither awaited nor yielded: it waits for nothing", RuntimeWarning, stacklevel=2)


@overload
def wait(interval: float, /) -> Wait[int]: ...  # type: ignore[overload-overlap]  # one argument is the interval
@overload
def wait(*, interval: float) -> Wait[int]: ...
@overload
def wait(event: object, interval: float | _Absent | None = ...) -> Wait[tuple[Any, ...] | Timeout]: ...
def wait(event: Any = NO_EVENT, interval: Any = NO_EVENT) -> Wait[Any]:
    """Let others run for some time, or until an event: awaited in `async def`, yielded in a generator.

    Args:
        event: What `notify` has to name, compared by `==`; with one argument only, that one is the interval.
        interval: Seconds, 0 or more; with an event also None, for ever.

    Returns:
        A request; it gives 0 after an interval, and with an event the tuple of `notify`'s values, or `TIMEOUT`.

    Raises:
        TypeError: a single argument that is no number, or an interval that is none.
        ValueError: an interval below 0.

    Threads: inside a coroutine of a pool; elsewhere it waits for nothing.
    """
    if interval is NO_EVENT:
        event, interval = NO_EVENT, event
    if event is NO_EVENT:
        if interval is NO_EVENT:
            raise TypeError("wait() needs an interval, or an event and an interval, and got nothing")
        return Wait(NO_EVENT, seconds("interval", interval, hint="; an event needs one beside it"), 0)
    return Wait(event, None if interval is None else seconds("interval", interval), TIMEOUT)


def wait_until(condition: Callable[[], _T], *, interval: float = 0.01) -> Wait[_T]:
    """Let others run until a condition is true: awaited in `async def`, yielded in a generator.

    It is asked when the wait begins, then every `interval` seconds, and besides, at most once per interval, when a
    notify was delivered or a coroutine of the pool has ended: never more than 2 x (1 + time / interval) times. It runs
    inside the coroutine, whose `running()` and `task_local` it sees; what it raises is raised by the wait.

    Args:
        condition: Called without arguments, often: it should be quick.
        interval: Seconds, above 0.

    Returns:
        A request, which gives what `condition()` gave when it was true.

    Raises:
        TypeError: `condition` cannot be called, or `interval` is no number.
        ValueError: `interval` is not above 0.
    """
    if not callable(condition):
        raise TypeError(f"condition must be callable, and got {condition!r}")
    every = seconds("interval", interval)
    if not every:
        raise ValueError(f"interval must be a number of seconds above 0, and got {interval!r}")
    return Wait(NO_EVENT, every, None, condition)


def seconds(name: str, value: Any, *, hint: str = "") -> float | None:
    """Check a span of time; None for one without an end."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number of seconds, and got {value!r}{hint}")
    span = float(value)
    if not span >= 0:
        raise ValueError(f"{name} must be a number of seconds, 0 or more, and got {value!r}")
    return None if math.isinf(span) else span
