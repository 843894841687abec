"""What `manyhands serve` shows of the library's log, and the access log."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator
from typing import Final, cast

__all__ = ["shown"]

logger = logging.getLogger("manyhands.server")

PATIENCE: Final = 1.0
"""Seconds at the end for a terminal that takes nothing."""

MOST_WAITING: Final = 10_000
"""Records of the access log that may wait to be written."""


@contextlib.contextmanager
def shown(level: str, access: str | None) -> Iterator[None]:
    """Show the library's log, unless the application has set up logging, and the access log if it was asked for.

    The lines of the access log are written by a thread of their own: no request waits for the disk or the terminal.

    Args:
        level: What of the library's log is shown.
        access: The form of the access log: common, combined or json; None for no access log.
    """
    from manyhands.server._access import Form, Plain  # noqa: PLC0415 - an extra: the other commands work without it

    if not logging.getLogger().handlers:
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setFormatter(Plain("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.basicConfig(level=logging.WARNING, handlers=[terminal])
        logging.getLogger("manyhands").setLevel(level.upper())
    logger = logging.getLogger("manyhands.access")
    if access is None:
        logger.setLevel(logging.WARNING)
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Form(access))
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(MOST_WAITING)
    later = _Later(waiting)
    listener = _Writer(waiting, handler, later)
    logger.addHandler(later)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    listener.start()
    try:
        yield
    finally:
        listener.stop()


class _Later(logging.handlers.QueueHandler):
    """Hands records on as they are: they are written in the same process. What is too much is dropped, and counted."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Nothing is formatted here."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Leave a record to the thread that writes."""
        try:
            super().enqueue(record)
        except queue.Full:
            self.dropped += 1  # what is logged within a handler is lost, since Python 3.13


class _Writer(logging.handlers.QueueListener):
    """Writes them, and says how many were dropped."""

    def __init__(self, waiting: queue.Queue[logging.LogRecord], handler: logging.Handler, later: _Later) -> None:
        super().__init__(waiting, handler)
        self._waiting = waiting
        self._later = later

    def handle(self, record: logging.LogRecord) -> None:
        """Write one."""
        super().handle(record)
        dropped, self._later.dropped = self._later.dropped, 0
        if dropped:
            logger.warning("%d records of the access log were dropped: nobody took it for a while", dropped)

    def enqueue_sentinel(self) -> None:
        """Have it end behind what waits."""
        cast("queue.Queue[None]", self._waiting).put(None, timeout=PATIENCE)

    def stop(self) -> None:
        """Write what waits. A terminal that takes nothing is no reason to stay."""
        with contextlib.suppress(queue.Full):
            super().stop()
