"""What many tests need and that is no fixture."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LONG = 10.0
"""Seconds. A limit for waits that end at once when the code is right; reaching it is the failure."""


def wait_until(predicate: Callable[[], object], timeout: float = LONG) -> None:
    """Wait until `predicate()` holds, for state that has no event to wait on.

    Raises:
        TimeoutError: it does not hold after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not predicate():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{predicate} does not hold after {timeout} s")
        pause.wait(0.001)
