"""Capacity limiters: a semaphore that knows who has what."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manyhands import _core
from manyhands._arguments import check_int
from manyhands._tasks._run import current_task
from manyhands.errors import WouldBlock

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["CapacityLimiter", "CapacityLimiterStatistics"]

_UNBOUNDED = 2**62
"""Permits of a limiter without a limit."""


@dataclass(frozen=True)
class CapacityLimiterStatistics:
    """A limiter at one moment.

    Attributes:
        borrowed_tokens: How many tokens are out.
        total_tokens: How many there are.
        borrowers: Who has one.
        tasks_waiting: How many tasks wait for one.
    """

    borrowed_tokens: int
    total_tokens: float
    borrowers: tuple[object, ...]
    tasks_waiting: int


class CapacityLimiter:
    """So many tokens, each with a borrower who may have one only: for bounding what runs at a time.

    Args:
        total_tokens: How many there are, 0 or more; `math.inf` for any number.

    Threads: tasks on any; `total_tokens` and `release_on_behalf_of` from any thread.
    """

    __slots__ = ("__weakref__", "_borrowers", "_permits", "_total")

    def __init__(self, total_tokens: float) -> None:
        self._total = _check_tokens(total_tokens)
        self._permits = _core.Permits(_permits(self._total))
        # Who has a token, True, or waits for one, an object of that wait. Claimed by `setdefault`, which is one step.
        self._borrowers: dict[object, object] = {}

    @property
    def total_tokens(self) -> float:
        """How many there are. More are given to those who wait at once; fewer are taken back as they are released."""
        return self._total

    @total_tokens.setter
    def total_tokens(self, total_tokens: float) -> None:
        total_tokens = _check_tokens(total_tokens)
        before, self._total = self._total, total_tokens
        self._permits.add(_permits(total_tokens) - _permits(before))

    @property
    def borrowed_tokens(self) -> int:
        """How many are out."""
        return len(self._holders())

    @property
    def available_tokens(self) -> float:
        """How many can be borrowed now; below 0 after `total_tokens` was made smaller than what is out."""
        return math.inf if self._total == math.inf else self._permits.free

    def _holders(self) -> tuple[object, ...]:
        # The keys alone, which is one step: a list of the items may start a collection, and who is collected gives back.
        return tuple(borrower for borrower in list(self._borrowers) if self._borrowers.get(borrower) is True)

    async def acquire(self) -> None:
        """Borrow one for the running task, waiting in line for it.

        Raises:
            RuntimeError: the task has one, or waits for one, already.
            Cancelled: the task is to stop; it has none.
        """
        await self.acquire_on_behalf_of(current_task())

    def acquire_nowait(self) -> None:
        """Borrow one for the running task.

        Raises:
            WouldBlock: none is available.
            RuntimeError: as `acquire`.
        """
        self.acquire_on_behalf_of_nowait(current_task())

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Borrow one for anybody: any object that can be hashed.

        Raises:
            As `acquire`.
        """
        self._claim(borrower)
        try:
            await self._permits.acquire()
        except BaseException:
            del self._borrowers[borrower]
            raise
        self._borrowers[borrower] = True

    def acquire_on_behalf_of_nowait(self, borrower: object) -> None:
        """Borrow one for anybody.

        Raises:
            As `acquire_nowait`.
        """
        self._claim(borrower)
        if not self._permits.acquire_nowait():
            del self._borrowers[borrower]
            raise WouldBlock("every token is out: await acquire(), which waits")
        self._borrowers[borrower] = True

    def _claim(self, borrower: object) -> None:
        claim = object()
        if self._borrowers.setdefault(borrower, claim) is not claim:
            raise RuntimeError(f"{borrower!r} has one of this limiter's tokens, or waits for one, already")

    def release(self) -> None:
        """Give the running task's back.

        Raises:
            RuntimeError: it has none.
        """
        self.release_on_behalf_of(current_task())

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give somebody's back.

        Raises:
            RuntimeError: the borrower has none.
        """
        if self._borrowers.get(borrower) is not True or self._borrowers.pop(borrower, None) is not True:
            raise RuntimeError(f"{borrower!r} has none of this limiter's tokens")
        self._permits.release()

    def statistics(self) -> CapacityLimiterStatistics:
        """Say who has one and how many wait."""
        holders = self._holders()
        return CapacityLimiterStatistics(len(holders), self._total, holders, self._permits.waiting)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return (
            f"<manyhands.CapacityLimiter {self.borrowed_tokens} of {self._total} out, {self._permits.waiting} waiting>"
        )


def _check_tokens(total: Any) -> float:
    if total != math.inf:
        check_int("total_tokens", total, at_least=0)
    tokens: float = total
    return tokens


def _permits(total: float) -> int:
    return _UNBOUNDED if total == math.inf else int(total)
