"""An async iterable as the body of a response: a task of the server's loop runs it, one piece ahead of the client."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any, Final

from manyhands._log import Log
from manyhands._tasks._event import Event
from manyhands._tasks._root import Root
from manyhands._tasks._scope import CancelScope
from manyhands._threads import ThreadedEventLoop
from manyhands.errors import ClosedResourceError, TaskCancelled
from manyhands.server._source import Source, answer_here

__all__ = ["is_async", "iter_async"]

logger = Log("manyhands.server")

PATIENCE: Final = 5.0
"""Seconds for a loop of its own to end in."""


def iter_async(pieces: AsyncIterable[bytes]) -> Iterable[bytes]:
    """Return the body of a response whose pieces an async generator makes: while it awaits, the response holds no thread.

    ```python
    async def ticks():
        while True:
            await manyhands.sleep(1)
            yield b"tick"

    @app.get("/ticks")
    def view():
        return Response(manyhands.server.iter_async(ticks()))
    ```

    A task of the server's loop runs it, and makes one piece ahead at most. What it raises, the response raises. When the client
    goes, or the grace of a server that stops is over, the task is cancelled: for what has no end `Events` is better, which
    such a server ends at once. A plain WSGI application may return the async generator as it is.

    On another server and in a framework's test client the thread waits, and a loop is made for the while; in a pinned response
    the thread waits.

    Args:
        pieces: An async iterable of bytes, best an async generator. It may await what a task of `manyhands` may.

    Raises:
        TypeError: it is none.

    Threads: any; the generator runs on those of the loop, one at a time.
    """
    if not is_async(pieces):
        raise TypeError(
            f"iter_async() takes an async iterable, such as what an `async def` with `yield` returns, and got {pieces!r}"
        )
    return _Pulled(pieces)


def is_async(pieces: object) -> bool:
    """Whether it can be iterated, but only by `async for`."""
    return hasattr(pieces, "__aiter__") and not hasattr(pieces, "__iter__")


class _Pulled(Source):
    """What `iter_async` returns."""

    _closed_as = "the response of this async iterable"

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        super().__init__(1)
        self._iterable = pieces
        self._scope = CancelScope()
        self._room = Event()  # a new one for each piece: set when that was taken
        self._error: BaseException | None = None
        self._own: Root | None = None  # where there is no server

    def __repr__(self) -> str:
        return f"<iter_async of {self._iterable!r}>"

    def close(self) -> None:
        """Cancel the task, if it has not ended. Called by the server, once."""
        self._put_end()
        self._scope.cancel()
        own, self._own = self._own, None
        if own is not None:
            loop = own.loop
            own.end(PATIENCE)
            if loop.stop(PATIENCE):
                loop.close()
                own.abandon()
            else:
                logger.error("%r does not end, and is left with its thread", self)

    def _begin(self) -> bytes:
        answer = answer_here()
        if answer is not None:
            tasks = answer.tasks
        else:
            loop = ThreadedEventLoop(1, name="iter-async")
            loop.start()
            tasks = self._own = Root(loop)
        tasks.add(self._pull(), getattr(self._iterable, "__qualname__", None))
        return b""

    def _on_taken(self) -> None:
        self._room.set()

    def _end(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    async def _pull(self) -> None:
        error: BaseException | None = TaskCancelled(repr(self._iterable))
        try:
            with self._scope:
                await self._pull_all()
                error = None
        except ClosedResourceError:
            error = None  # the client has gone
        except Exception as raised:  # noqa: BLE001 - the response raises it
            error = raised
        finally:
            if self._closed:
                if error is not None and not isinstance(error, TaskCancelled):
                    logger.error("%r raised when its client had gone", self, exc_info=error)
            else:
                self._error = error
                self._put_end()

    async def _pull_all(self) -> None:
        pieces: Any = aiter(self._iterable)
        async for piece in pieces:
            room = self._room = Event()
            try:
                self._put(piece)
                await room.wait()
            except GeneratorExit:  # given up: nobody runs this any more
                raise
            except BaseException:
                if hasattr(pieces, "aclose"):
                    await pieces.aclose()
                raise
