"""SignalWatch: a signal's callback on a loop, and the handler that was there before."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from manyhands._log import Log
from manyhands.errors import LoopClosed, LoopStopped

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from manyhands._loop import EventLoop

__all__ = ["SignalWatch"]

logger = Log("manyhands.loop")


class SignalWatch:
    """A signal's callback on a loop. Made by `EventLoop.on_signal`.

    Attributes:
        signum: The signal's number.
        removed: Whether `remove()` was called.
    """

    signum: int
    removed: bool

    def __init__(self, loop: EventLoop, signum: int, callback: Callable[[int], object]) -> None:
        self.signum = signum
        self.removed = False
        self._loop = loop
        self._callback = callback
        self._previous = signal.signal(signum, self._handle)
        loop._signal_watches[id(self)] = self  # noqa: SLF001 - the loop removes what is left when it is closed

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's own signature
        try:
            self._loop._post_signal(self._callback, signum)  # noqa: SLF001
        except (LoopClosed, LoopStopped):
            logger.warning("loop %r: signal %d came after the loop had ended", self._loop.name, signum)

    def remove(self) -> None:
        """Put the handler back that was there before. Idempotent.

        Raises:
            ValueError: called on another than the main thread.
        """
        if self.removed:
            return
        if signal.getsignal(self.signum) == self._handle:
            signal.signal(self.signum, signal.SIG_DFL if self._previous is None else self._previous)
        self.removed = True
        self._loop._signal_watches.pop(id(self), None)  # noqa: SLF001
