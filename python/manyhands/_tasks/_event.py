"""An event: something that has happened, or has not yet."""

from __future__ import annotations

import collections
import contextlib

from manyhands import _core
from manyhands._tasks._sleep import checkpoint

__all__ = ["Event"]


class Event:
    """Something that happens once; tasks wait for it.

    Threads: `set` from any thread, also in finalizers.
    """

    # Nothing here takes a lock of its own: a waiter puts itself in before it looks at the flag again, and `set` raises the flag
    # before it takes the waiters out, so one of the two sees the other. On a machine that lets a load overtake a store this
    # needs an order between the two, and the deque gives it: without the GIL its methods are critical sections on it, also
    # `popleft` of an empty one. If the `append` comes first, `popleft` finds the waiter. If the `popleft` comes first, what
    # was stored before it is seen after the `append`.
    # Source: deque_append and deque_popleft in CPython's Modules/_collectionsmodule.c, 3.13 and later.

    __slots__ = ("_flag", "_waits")

    def __init__(self) -> None:
        self._flag = False
        self._waits: collections.deque[_core.Wait] = collections.deque()

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._flag

    def set(self) -> None:
        """Let everybody who waits go on. Idempotent."""
        self._flag = True
        with contextlib.suppress(IndexError):
            while True:
                self._waits.popleft().complete()

    async def wait(self) -> None:
        """Wait until it has happened."""
        if self._flag:
            await checkpoint()
            return
        wait = _core.Wait()
        self._waits.append(wait)
        if self._flag:
            self.set()
        try:
            await wait
        except BaseException:
            with contextlib.suppress(ValueError):
                self._waits.remove(wait)
            raise

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._waits)
