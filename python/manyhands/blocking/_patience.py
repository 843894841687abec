"""How long a call waits, and how long without a look for a stop."""

from __future__ import annotations

import math
import time

from manyhands import _core

__all__ = ["LOOK", "Patience"]

LOOK = 0.05
"""Seconds between two looks for a stop, where nothing can wake the waiting thread: half of what a good job takes between
two check-ins."""


class Patience:
    """How long a call may still take, and how long it may wait before it looks for a stop."""

    __slots__ = ("_deadline",)

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be seconds, 0 or more, or None for no limit, and got {timeout!r}")
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout

    def left(self) -> float:
        """Return the seconds that are left, 0 or more; infinite without a limit."""
        return max(0.0, self._deadline - time.monotonic()) if self._deadline != math.inf else math.inf

    def timeout(self) -> float | None:
        """Return the seconds that are left, None without a limit: what a call takes that looks for stops itself."""
        left = self.left()
        return None if left == math.inf else left

    def turn(self) -> float:
        """Look for a stop; return the seconds to wait before the next look, or before the end.

        Raises:
            JobStopped: the job was told to stop.
        """
        _core.check_in()
        return self.slice()

    def slice(self) -> float:
        """Return the seconds to wait before the next look, or before the end; look for nothing."""
        return min(LOOK, self.left())

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return self.left() <= 0
