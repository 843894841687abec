"""Looks: what was seen is good for a while, for everybody who asks."""

from __future__ import annotations

import json
import math
import threading
import time

from manyhands.debug._rows import Row

__all__ = ["Looks"]


class Looks:
    """One look is taken at a time. A subclass says how, and for how long it is good.

    Threads: any.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Row = {}  # GUARDED BY: _lock, as what follows
        self._seen_json = b""
        self._good_until = -math.inf

    def look(self) -> Row:
        """Return what there is to see; as it was a moment ago, if somebody has just looked."""
        with self._lock:
            self._refresh()
            return self._seen

    def look_json(self) -> bytes:
        """As `look`, in JSON of ASCII alone."""
        with self._lock:
            self._refresh()
            return self._seen_json

    def _look(self) -> Row:
        """Look. The lock is held."""
        raise NotImplementedError

    def _good_for(self, cost: float) -> float:
        """Seconds for which a look is good that took so many of the processor's."""
        raise NotImplementedError

    def _refresh(self) -> None:
        if time.monotonic() < self._good_until:
            return
        # Not by the clock: on a busy machine most of that is waiting, and then it is that one wants to see how it is now.
        began = time.thread_time()
        seen = self._look()
        self._seen, self._seen_json = seen, json.dumps(seen, allow_nan=False, separators=(",", ":")).encode("ascii")
        self._good_until = time.monotonic() + self._good_for(time.thread_time() - began)
