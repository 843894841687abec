"""The end of a process beside threads that do not end."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn

__all__ = ["leave"]


def leave(status: int) -> NoReturn:
    """End the process as the interpreter does, but for the interpreter's own end.

    Before Python 3.14 a thread that comes back to the interpreter during its end is taken off its stack, and that
    aborts the process if compiled frames are on it, as they are of a thread that serves a loop.

    Blocks: while what was registered with `atexit` runs.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - as `multiprocessing` does
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
                stream.flush()
    os._exit(status)
