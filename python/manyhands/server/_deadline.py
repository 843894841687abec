"""Deadline: until when a connection waits for what it waits for.

A connection's deadline moves with every request. To move it back costs nothing: the timer is left as it is, finds out when it
rings, and is set anew.

Threads: the strand's. `move_back` alone may be called by another thread while nothing of the strand's runs that reads it: a
store and a comparison.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

from manyhands.errors import LoopClosed, StrandClosed

if TYPE_CHECKING:
    from manyhands import _core

__all__ = ["Deadline"]

AGAIN: Final = 1.0
"""Seconds until it is asked again, if asking raised."""


class Deadline:
    """A time on a strand.

    Args:
        on_passed: Called on the strand when it has passed. Returns seconds after which it is to be asked again, or None.
    """

    __slots__ = ("_on_passed", "_rings", "_strand", "_timer", "_when")

    _strand: _core.Strand

    def __init__(self, on_passed: Callable[[], float | None]) -> None:
        self._on_passed = on_passed
        self._when = 0.0
        self._rings = 0.0  # when the timer looks
        self._timer: _core.Timer | None = None

    @property
    def is_set(self) -> bool:
        """Whether it was ever set."""
        return self._timer is not None

    @property
    def left(self) -> float:
        """Seconds until it has passed."""
        return self._when - monotonic()

    def set(self, strand: _core.Strand, seconds: float) -> None:
        """Put it so far into the future, whatever it was."""
        self._strand = strand
        self._when = monotonic() + seconds
        if self._timer is None or self._rings > self._when:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._ring_in(seconds)

    def move_back(self, seconds: float) -> bool:
        """Put it so far into the future, if that is not before the timer looks; False as well if there is no timer yet."""
        when = monotonic() + seconds
        later = self._timer is not None and when >= self._rings
        if later:
            self._when = when
        return later

    def end(self) -> None:
        """Refer to nobody any more."""
        self._on_passed = _never

    def _ring_in(self, seconds: float) -> None:
        self._rings = monotonic() + seconds
        with contextlib.suppress(StrandClosed, LoopClosed):
            self._timer = self._strand.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        left: float | None = self.left
        if left is not None and left <= 0:
            try:
                left = self._on_passed()
            except BaseException:
                self._ring_in(AGAIN)  # what waits must not wait for ever
                raise
        if left is not None and self._timer is None:
            self._ring_in(left)


def _never() -> None:
    """Nobody waits."""
