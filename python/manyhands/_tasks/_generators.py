"""Async generators that were begun and not ended.

One that is forgotten half-way (its `async for` was left by `break`) has cleanup that may await, and a finalizer cannot.
So Python tells whoever runs it, through two hooks of the thread: it was begun; it was forgotten. A forgotten one is ended
by a task of its own, and what is left at the end of the program is ended before `run` returns. asyncio does the same.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from manyhands import _core
from manyhands._log import Log
from manyhands._tasks._event import Event
from manyhands._tasks._scope import CancelScope

__all__ = ["Generators"]

logger = Log("manyhands.loop")


class Generators:
    """The async generators of one program.

    Threads: any. It takes no lock, since a generator may be forgotten wherever a finalizer can come by.
    """

    def __init__(self, group: _core.Group) -> None:
        self._group = group
        self._begun: dict[int, weakref.ref[AsyncGenerator[Any, Any]]] = {}
        self._ending: dict[int, Event] = {}

    @contextlib.contextmanager
    def noticed(self) -> Iterator[None]:
        """Notice those that begin on this thread."""
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._begin, self._forget)
        try:
            yield
        finally:
            sys.set_asyncgen_hooks(*before)

    def _begin(self, generator: AsyncGenerator[Any, Any]) -> None:
        key, begun = id(generator), self._begun
        begun[key] = weakref.ref(generator, lambda _: begun.pop(key, None))

    def _forget(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._begun.pop(id(generator), None)
        if not self._group.owner.closed:
            self._ending[id(generator)] = ended = Event()
            self._group.add(self._end_forgotten(generator, ended), f"the end of {generator!r}")
            return
        # Nobody is there to wait for it: what it does before its first wait is done here.
        ending = generator.aclose()
        with contextlib.suppress(StopIteration, StopAsyncIteration):
            ending.send(None)
        ending.close()

    async def _end_forgotten(self, generator: AsyncGenerator[Any, Any], ended: Event) -> None:
        try:
            await _end(generator)
        finally:
            self._ending.pop(id(generator), None)
            ended.set()

    async def end(self) -> None:
        """End all that are left, and wait for those that are ended already. Not to be cancelled."""
        if not self._begun and not self._ending:
            return
        with CancelScope(shield=True):
            for reference in list(self._begun.values()):
                generator = reference()
                if generator is not None:
                    await _end(generator)
            for ended in list(self._ending.values()):
                await ended.wait()


async def _end(generator: AsyncGenerator[Any, Any]) -> None:
    with CancelScope(shield=True):
        try:
            await generator.aclose()
        except Exception:
            logger.exception("an async generator that was left half-way raised when it was ended: %r", generator)
