"""Budget: bytes of memory that all connections of a server share, for the bodies that come in or for the responses that wait.

What one client may keep in memory is bounded by `Limits.body_memory`, and by what a view makes at once; ten thousand of them
would be gigabytes all the same. So whoever keeps more than a little asks here, and puts it into a file where the answer is no.

Threads: any. Nothing is called under the lock.
"""

from __future__ import annotations

import threading
from typing import Final

__all__ = ["FILES", "FREE", "Budget"]

FREE: Final = 16_384
"""Bytes of a body for which nobody asks: as many as a head may have."""

BODIES: Final = 128 << 20
"""Bytes of bodies in the memory of one server."""

FILES: Final = 4 << 30
"""Bytes of bodies in the temporary files of one server."""


class Budget:
    """So many bytes, to be taken and given back.

    Args:
        size: How many there are.

    Attributes:
        taken: How many are in use.
    """

    __slots__ = ("_lock", "_size", "taken")

    def __init__(self, size: int = BODIES) -> None:
        self._size = size
        self._lock = threading.Lock()
        self.taken = 0  # GUARDED BY: _lock

    def take(self, count: int) -> bool:
        """Take so many more; False if there are not so many, and nothing was taken."""
        with self._lock:
            if self.taken + count > self._size:
                return False
            self.taken += count
            return True

    def give_back(self, count: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self.taken -= count
