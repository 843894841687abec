"""What many tests need and that is no fixture."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

LONG = 10.0 * float(os.environ.get("MANYHANDS_TEST_PATIENCE", "1"))
"""Seconds. A limit for waits that end at once when the code is right; reaching it is the failure.

Where everything is slow (ThreadSanitizer), MANYHANDS_TEST_PATIENCE multiplies it.
"""


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
