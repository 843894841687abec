"""What `manyhands serve` shows of the library's log, and the access log."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator
from typing import Final, TextIO, cast

__all__ = ["settle", "shown"]

logger = logging.getLogger("manyhands.server")

PATIENCE: Final = 1.0
"""Seconds at the end for a terminal that takes nothing."""

MOST_WAITING: Final = 10_000
"""Records of the access log that may wait to be written."""


@contextlib.contextmanager
def shown(level: str, access: str | None) -> Iterator[None]:
    """Show the library's log, unless the application sets up logging, and the access log if it was asked for.

    The application is imported within, and its own `logging.basicConfig()` must find nothing there: until `settle` this is the
    handler of last resort.

    The lines of the access log are written by a thread of their own: no request waits for the disk or the terminal.

    Args:
        level: What of the library's log is shown.
        access: The form of the access log: common, combined or json; None for no access log.
    """
    from manyhands.server._access import Plain  # noqa: PLC0415 - an extra: the other commands work without it

    root = logging.getLogger()
    if root.handlers:
        with _access_shown(access):
            yield
        return
    terminal = _Terminal(sys.stderr)
    terminal.setFormatter(Plain("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before, logging.lastResort = logging.lastResort, terminal
    logging.getLogger("manyhands").setLevel(level.upper())
    try:
        with _access_shown(access):
            yield
    finally:
        root.removeHandler(terminal)
        logging.lastResort = before


def settle() -> None:
    """The application is there: unless it has set up logging, what its loggers say is shown from now on."""
    root = logging.getLogger()
    if not root.handlers and isinstance(logging.lastResort, _Terminal):
        root.addHandler(logging.lastResort)


@contextlib.contextmanager
def _access_shown(access: str | None) -> Iterator[None]:
    from manyhands.server._access import Form  # noqa: PLC0415 - as above

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


class _Terminal(logging.StreamHandler[TextIO]):
    """Shows what nobody else has shown: some loggers have a terminal of their own, as Django's has while DEBUG is set."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be shown here."""
        if self is not logging.lastResort or _is_shown_by_its_own(record):
            return False
        return bool(super().filter(record))


def _is_shown_by_its_own(record: logging.LogRecord) -> bool:
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        for handler in logger.handlers:
            if (
                isinstance(handler, logging.StreamHandler)
                and record.levelno >= handler.level
                and handler.filter(record)
            ):
                return True
        logger = logger.parent if logger.propagate else None
    return False


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
