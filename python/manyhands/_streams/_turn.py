"""A role that one task at a time has."""

from __future__ import annotations

import contextlib
import threading

from manyhands import _core

__all__ = ["Turn"]


class Turn:
    """Something that one task at a time does. Others wait until it was done, and look again what there is to do.

    Threads: any. The lock is held for a few instructions, and never across an `await`.
    """

    __slots__ = ("_taken", "_waits", "_writing")

    def __init__(self) -> None:
        self._writing = threading.Lock()
        self._taken = False  # GUARDED BY: _writing
        self._waits: list[_core.Wait] = []  # GUARDED BY: _writing

    def take(self) -> bool:
        """Take it, if nobody has it."""
        with self._writing:
            taken, self._taken = self._taken, True
        return not taken

    def give_back(self) -> None:
        """Let go of it, and let everybody who waits look again."""
        with self._writing:
            self._taken = False
            waits, self._waits = self._waits, []
        for wait in waits:
            wait.complete()

    async def wait(self) -> None:
        """Wait until it is given back; return at once if nobody has it."""
        wait = _core.Wait()
        with self._writing:
            if not self._taken:
                return
            self._waits.append(wait)
        try:
            await wait
        except BaseException:
            with self._writing, contextlib.suppress(ValueError):
                self._waits.remove(wait)
            raise
