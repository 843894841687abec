"""What takes TLS connections: every handshake is a task of its own, with a limit of time, and only so many at once.

A peer that says nothing, or no TLS, costs one place among the handshakes until its time is over, and nothing else: the
listener goes on taking connections while there are places.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from manyhands import _core
from manyhands._log import Log
from manyhands._streams._listener import LOG_EVERY, Listener
from manyhands._streams._tls import HANDSHAKE_TIMEOUT, TLSStream
from manyhands._tasks._group import create_task_group
from manyhands._tasks._scope import current_loop
from manyhands.errors import ManyhandsError

if TYPE_CHECKING:
    from typing import Self

    from manyhands._streams._stream import SocketStream
    from manyhands._tasks._group import TaskGroup

__all__ = ["TLSListener"]

logger = Log("manyhands.loop")


class TLSListener:
    """A listener whose connections speak TLS.

    Args:
        listener: Where connections come from; closing this one closes it.
        ssl_context: With the server's certificate.
        standard_compatible: As `TLSStream.wrap`.
        handshake_timeout: Seconds that a peer has for its handshake.
        max_handshakes: How many are shaken hands with at once. When there are as many, the others wait in the kernel.

    A handshake that fails costs its connection. It is logged on `manyhands.loop`, at the level INFO, with one record a
    second at most, which says how many there were.

    Threads: any task of its loop.
    """

    def __init__(
        self,
        listener: Listener,
        ssl_context: ssl.SSLContext,
        *,
        standard_compatible: bool = True,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        max_handshakes: int = 100,
    ) -> None:
        _check(max_handshakes)
        self.listener = listener
        self._context = ssl_context
        self._standard_compatible = standard_compatible
        self._timeout = handshake_timeout
        self._max = max_handshakes
        self._counting = threading.Lock()
        self._handshakes = 0  # GUARDED BY: _counting
        self._room: _core.Wait | None = None  # GUARDED BY: _counting
        self._failed = 0  # GUARDED BY: _counting; since the last record
        self._logged = -LOG_EVERY  # GUARDED BY: _counting

    @property
    def handshakes(self) -> int:
        """How many are going on."""
        return self._handshakes

    async def serve(
        self, handler: Callable[[TLSStream], Awaitable[object]], task_group: TaskGroup | None = None
    ) -> None:
        """Take connections for ever, each handled by `handler(stream)` in a task of its own, which closes it.

        A handler that fails costs its connection: what it raises is logged on `manyhands.loop`, and the listener goes on.

        Args:
            handler: An async function.
            task_group: Where the tasks are started; None for a group of the call's own.

        Raises:
            As `Listener.accept`.
        """
        async with contextlib.AsyncExitStack() as stack:
            group = await stack.enter_async_context(create_task_group()) if task_group is None else task_group
            while True:
                await self._wait_for_room()
                stream = await self.listener.accept()
                with self._counting:
                    self._handshakes += 1
                group.start_soon(self._handle, handler, stream)

    async def _wait_for_room(self) -> None:
        while True:
            wait = _core.Wait()
            with self._counting:
                if self._handshakes < self._max:
                    return
                self._room = wait
            await wait

    async def _handle(self, handler: Callable[[TLSStream], Awaitable[object]], stream: SocketStream) -> None:
        tls = await self._shake_hands(stream)
        if tls is None:
            return
        try:
            async with tls:
                await handler(tls)
        except Exception:
            logger.exception("the handler of a connection of %r failed; the listener goes on", self)

    async def _shake_hands(self, stream: SocketStream) -> TLSStream | None:
        try:
            return await TLSStream.wrap(
                stream,
                server_side=True,
                ssl_context=self._context,
                standard_compatible=self._standard_compatible,
                handshake_timeout=self._timeout,
            )
        except (ManyhandsError, OSError) as error:
            self._log(error)
            return None
        finally:
            with self._counting:
                self._handshakes -= 1
                room, self._room = self._room, None
            if room is not None:
                room.complete()

    def _log(self, error: Exception) -> None:
        now = current_loop().now()
        with self._counting:
            self._failed += 1
            if now - self._logged < LOG_EVERY:
                return
            self._logged = now
            failed, self._failed = self._failed, 0
        before = f" (and {failed - 1} before)" if failed > 1 else ""
        logger.info("%r: a handshake failed%s: %s", self, before, error)

    @property
    def address(self) -> Any:
        """Where it listens, as `socket.getsockname()` gives it."""
        return self.listener.address

    @property
    def port(self) -> int:
        """The TCP port."""
        return self.listener.port

    async def aclose(self) -> None:
        """Close the listener; connections go on. Idempotent."""
        await self.listener.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<manyhands.TLSListener on {self.listener!r}>"


def _check(max_handshakes: Any) -> None:
    if isinstance(max_handshakes, bool) or not isinstance(max_handshakes, int) or max_handshakes < 1:
        raise ValueError(f"max_handshakes must be a count, at least 1, and got {max_handshakes!r}")
