"""Semaphores between tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from manyhands import _core
from manyhands._arguments import check_int
from manyhands.errors import WouldBlock

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

__all__ = ["Semaphore", "SemaphoreStatistics"]


@dataclass(frozen=True)
class SemaphoreStatistics:
    """A semaphore at one moment.

    Attributes:
        tasks_waiting: How many tasks wait for it.
    """

    tasks_waiting: int


class Semaphore:
    """So many tasks at a time, in the order in which they came.

    Args:
        initial_value: How many may acquire it before one has to wait, 0 or more.
        max_value: A release beyond it is a ValueError; None for none.

    Threads: `release` from any thread, also in finalizers.
    """

    __slots__ = ("__weakref__", "_max_value", "_permits")

    def __init__(self, initial_value: int, *, max_value: int | None = None) -> None:
        check_int("initial_value", initial_value, at_least=0)
        if max_value is not None:
            check_int("max_value", max_value, at_least=0)
            if max_value < initial_value:
                raise ValueError(f"max_value must be at least initial_value={initial_value}, and got {max_value}")
        self._permits = _core.Permits(initial_value, max_value)
        self._max_value = max_value

    @property
    def value(self) -> int:
        """How many can acquire it now without waiting."""
        return self._permits.free

    @property
    def max_value(self) -> int | None:
        """As it was made with."""
        return self._max_value

    def acquire(self) -> Awaitable[None]:
        """Take one, waiting in line for it. To be awaited.

        Raises:
            Cancelled: the task is to stop; it took none.
        """
        return self._permits.acquire()

    def acquire_nowait(self) -> None:
        """Take one.

        Raises:
            WouldBlock: none is free.
        """
        if not self._permits.acquire_nowait():
            raise WouldBlock("the semaphore has none left: await acquire(), which waits")

    def release(self) -> None:
        """Give one to the first who waits.

        Raises:
            ValueError: there would be more than `max_value`.
        """
        if not self._permits.release():
            raise ValueError(f"the semaphore was released more often than acquired: max_value is {self._max_value}")

    def statistics(self) -> SemaphoreStatistics:
        """Say how many wait."""
        return SemaphoreStatistics(self._permits.waiting)

    def __aenter__(self) -> Awaitable[None]:
        return self._permits.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<manyhands.Semaphore value={self.value}, {self._permits.waiting} waiting>"
