"""Source: bytes of a response that come from elsewhere, in their own time, and hold no thread until then.

Theory of operation. WSGI asks for the next piece, and has no word for "not yet" but the empty piece, which middleware passes
on (PEP 3333, *Middleware Handling of Block Boundaries*). So a source with nothing to give leaves word with the answer that it
is in (`Answer.park`) and gives an empty piece; the answer then lets its thread go until the source says otherwise.
Where that is not possible the thread waits here: on another server or in a test client; when the response is pinned; in
middleware that reads more than one piece before it gives one, or that reads the response before it returns it.

Threads: one at a time takes; any puts and closes. No code of a user runs under the lock.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from manyhands import _core, blocking
from manyhands.errors import ClosedResourceError, LoopClosed, StrandClosed, WouldBlock

if TYPE_CHECKING:
    from manyhands._core import Watch
    from manyhands._job import Job
    from manyhands.server._answer import Answer

__all__ = ["Source", "answer_here"]


def answer_here() -> Answer | None:
    """The answer that this thread makes."""
    job = _core.current_job()
    # Whose connection owns the job; an application's own jobs may have other owners.
    connection = None if job is None else getattr(job.owner, "source", None)
    answer_of = getattr(connection, "answer_of", None)
    return None if answer_of is None else cast("Answer | None", answer_of(job))


class Source:
    """The iterable of a response whose pieces come from elsewhere.

    Args:
        capacity: How many pieces may wait to be taken.
        quiet: Seconds; after as many without a piece `_on_quiet` gives one. None for never.
    """

    _closed_as = "the source"

    def __init__(self, capacity: int, quiet: float | None = None) -> None:
        self._lock = threading.RLock()  # reentrant: a signal's handler may put
        self._pieces: deque[bytes] = deque()  # GUARDED BY: _lock, as what follows
        self._capacity = capacity
        self._quiet = quiet
        self._wake: Callable[[], object] | None = None  # the one who waits
        self._was_quiet = False  # for so long
        self._closed = False
        self._taken = False  # iterated

    def __iter__(self) -> Iterator[bytes]:
        """The pieces, and empty ones for "not yet".

        Raises:
            RuntimeError: somebody iterates it, or has: a piece is given once.
        """
        if self._taken:
            raise RuntimeError(f"{self!r} is the body of one response, and was iterated before: make one for each")
        self._taken = True
        return self._run()

    # What a subclass says.

    def _begin(self) -> bytes:
        """What comes first, on the thread that iterates; may be empty."""
        return b""

    def _on_quiet(self) -> bytes:
        return b""

    def _end(self) -> None:
        """Nothing more will come, and all was taken: raise if the response is not whole."""

    def on_server_stopping(self) -> None:
        """The server stops, and nothing is there to be taken."""

    # The producer's side. Any thread.

    def _put(self, piece: bytes) -> None:
        with self._lock:
            if self._closed:
                raise ClosedResourceError(self._closed_as)
            if len(self._pieces) >= self._capacity:
                raise WouldBlock(
                    f"{len(self._pieces)} wait already, and the client takes none: close it, or drop this one"
                )
            self._pieces.append(piece)
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def _put_end(self) -> bool:
        """Take no more; False if it was so before."""
        with self._lock:
            if self._closed:
                return False
            self._closed = True
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()
        return True

    def _on_timer(self) -> None:
        with self._lock:
            self._was_quiet = True
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    # The response's side. Its job's thread, whichever it is.

    def _run(self) -> Iterator[bytes]:
        first = self._begin()
        if first:
            yield first
        while True:
            with self._lock:
                closed = self._closed  # before the pieces: nothing comes behind it
                pieces = []
                while self._pieces:  # one by one: a signal's handler may put in between
                    pieces.append(self._pieces.popleft())
                was_quiet, self._was_quiet = self._was_quiet, False
            if pieces:
                self._on_taken()
                yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
            elif closed:
                self._end()
                return
            elif was_quiet:
                yield self._on_quiet()
            else:
                answer = answer_here()
                if answer is not None and answer.park(self):
                    yield b""
                else:
                    self._wait_here(answer)

    def _on_taken(self) -> None:
        """What was there was taken."""

    def _tell(self, wake: Callable[[], object]) -> bool:
        """Have this called when there is something; False if there is by now."""
        with self._lock:
            if self._pieces or self._closed:
                return False
            self._wake = wake
            return True

    def _wait_here(self, answer: Answer | None) -> None:
        """Wait, with the thread, until there is something, or it was quiet for too long."""
        woken = threading.Event()
        if not self._tell(woken.set):
            return
        if answer is not None:
            answer.wait_with(self)
        try:
            if not blocking.wait(woken, self._quiet):
                self._on_timer()
        finally:
            if answer is not None:
                answer.wait_with(None)

    def arm(self, job: Job[Any]) -> None:
        """On the strand of the job's connection: answer the job when there is something, or it was quiet for too long."""
        timer = None
        if self._quiet is not None:
            with contextlib.suppress(StrandClosed, LoopClosed):  # the connection has ended, and the job is told so
                timer = cast("Watch", job.owner).strand.call_later(self._quiet, self._on_timer)
        wake = functools.partial(_wake_job, job, timer)
        if not self._tell(wake):
            wake()


def _wake_job(job: Job[Any], timer: _core.Timer | None) -> None:
    if timer is not None:
        timer.cancel()
    with contextlib.suppress(RuntimeError):  # it was told to stop meanwhile
        job.answer()
