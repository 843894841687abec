"""What many tests need and that is no fixture."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable

LONG = 10.0 * float(os.environ.get("MANYHANDS_TEST_PATIENCE", "1"))
"""Seconds. A limit for waits that end at once when the code is right; reaching it is the failure.

Where everything is slow (ThreadSanitizer), MANYHANDS_TEST_PATIENCE multiplies it.
"""

OWN_THREADS = frozenset({"mh-monitor", "mh-reports"})
"""Threads of the library that outlive a test by design, and end by themselves: one looks, one writes what it saw."""


def xoptions() -> list[str]:
    """The options of this interpreter that another one needs to be the same."""
    return [f"-X{name}={value}" for name, value in sys._xoptions.items() if name == "gil"]


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


def wait_collected(*refs: Callable[[], object], timeout: float = LONG) -> None:
    """Wait until these weak references are dead.

    Once need not be enough: a collection beside another one does nothing, and the monitor holds the frames of a handler
    that it has found slow while it writes them down, as it finds any on a machine that is busy enough.

    Raises:
        TimeoutError: something else holds what one of them refers to.
    """

    def collected() -> bool:
        gc.collect()
        return all(ref() is None for ref in refs)

    wait_until(collected, timeout)
