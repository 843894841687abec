"""The library's own lines in the log of the program, whose handlers and filters may fail.

A line is never a reason to end a thread of a loop, a connection or a listener. What `logging.Handler.handleError` does not
catch (a filter that raises, an `emit` of the program's own) is told as an error that ends a thread is told, and the caller
goes on.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from typing import Any

__all__ = ["Log", "tell"]


def tell() -> None:
    """Have the error that is being handled told by `threading.excepthook`, which may fail as well."""
    with contextlib.suppress(Exception):
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger that never raises for what the program's logging does.

    Args:
        name: The logger's.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As `logging.Logger.log`; what it raises is told, unless it is to end the program."""
        try:
            # This frame is not the one that has something to say.
            self.logger.log(level, msg, *args, **{**kwargs, "stacklevel": kwargs.get("stacklevel", 1) + 1})
        except Exception:  # noqa: BLE001
            tell()
