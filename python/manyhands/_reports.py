"""What the monitor has to say, written on a thread that may be held up.

Handlers of the log are the program's. One that blocks (a pipe that nobody reads, a server for logs that does not answer) must
hold up no deadline, so the monitor hands over what is to be written, as text, and goes on. There is one such thread, while
there is something to write.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

from manyhands._log import Log, tell
from manyhands.errors import ManyhandsError

__all__ = ["Reports", "going_on"]

MOST: Final = 100
"""Reports that wait to be written; those beyond are counted. They have the stacks of threads in them."""


@contextlib.contextmanager
def going_on() -> Iterator[None]:
    """Whatever goes wrong with one loop, pool or report: the others need the thread. Told as what ends a thread is told."""
    try:
        yield
    except ManyhandsError:
        pass  # closed meanwhile
    except BaseException:  # noqa: BLE001
        tell()


class Reports:
    """Warnings on their way to a log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Log, str, tuple[object, ...]]] = deque()
        self._left_out = 0
        self._thread: threading.Thread | None = None

    def warn(self, logger: Log, text: str, *values: object) -> None:
        """Have this logged, as by `logger.warning`, soon and in order."""
        with self._lock:
            if len(self._waiting) >= MOST:
                self._left_out += 1
                return
            self._waiting.append((logger, text, values))
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="mh-reports", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # none is to be had, as at the end of the interpreter
                pass
            else:
                return
        self._run()

    def join(self, timeout: float) -> None:
        """Wait until all is written, for so many seconds."""
        with self._lock:
            thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                logger, text, values = self._waiting.popleft()
                left_out, self._left_out = self._left_out, 0
            with going_on():
                logger.warning(text, *values)
            if left_out:
                with going_on():
                    logger.warning("%d more reports like this were left out: the log took them too slowly", left_out)
