"""TLS on any stream: the standard library's `ssl`, which waits for nothing itself, and tasks that do.

Two roles, each of one task at a time: who hears the peer, and who sends to it. A reader has the first while it waits for
the network, and a writer then goes on: what it encrypts it sends itself. A task that needs what another is about to do
(a writer that must hear the peer first, `aclose` beside a reader) waits until that one is done, and looks again.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from typing import TYPE_CHECKING, Any

from manyhands import _core
from manyhands._streams._buffered import Buffered, ByteStream
from manyhands._streams._tls_context import context_for
from manyhands._streams._tls_engine import CHUNK, Engine
from manyhands._streams._turn import Turn
from manyhands._tasks._scope import move_on_after
from manyhands._tasks._sleep import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled
from manyhands.errors import (
    BrokenResourceError,
    BusyResourceError,
    ClosedResourceError,
    EndOfStream,
    ManyhandsError,
)

if TYPE_CHECKING:
    from typing import Self

__all__ = ["HANDSHAKE_TIMEOUT", "ByteStream", "TLSStream"]

CLOSE_TIMEOUT = 1.0
"""Seconds that `aclose` gives the peer to take our end, and to send its own. Other libraries wait 30, or for ever."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds. asyncio has 60: a peer that says nothing costs a place among the handshakes for as long."""


class TLSStream(Buffered):
    """TLS on a stream. Made by `TLSStream.wrap`, `connect_tcp(..., tls=True)` or `TLSListener`.

    It is used as a `SocketStream` is: one task reads while another writes, two readers are refused, `async for` reads to
    the end, `async with` closes it.

    Threads: any task of its loop, on any thread.
    """

    ssl_object: ssl.SSLObject
    """For looking only, as in `ssl_object.version()`, `.cipher()`, `.getpeercert()`, `.selected_alpn_protocol()`."""

    transport: ByteStream
    """What it is on."""

    def __init__(self, stream: ByteStream, engine: Engine) -> None:
        """Not to be called: `wrap` is."""
        super().__init__()
        self.transport = stream
        self.ssl_object = engine.object
        self._engine = engine
        self._hearing = Turn()
        self._telling = Turn()
        self._writer = threading.Lock()  # never waited for
        self._closed = False
        self._refused = ""  # why nothing more can be sent, if it is not closed
        self._ended = False

    @classmethod
    async def wrap(
        cls,
        stream: ByteStream,
        *,
        server_side: bool | None = None,
        hostname: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        standard_compatible: bool = True,
        handshake_timeout: float | None = HANDSHAKE_TIMEOUT,
    ) -> Self:
        """Shake hands with the peer. If that fails, or is cancelled, the stream is closed.

        Args:
            stream: A connection; TLS owns it from here on.
            server_side: Which side this is; None: a server if there is no `hostname`.
            hostname: What the peer's certificate must be for; a client's.
            ssl_context: None for the default of a client: the system's authorities, and names checked.
            standard_compatible: Whether a peer that hangs up without the end of its TLS session (close_notify) has broken
                the connection. False for peers that do, where the protocol inside says how much is to come, as most of
                HTTP does.
            handshake_timeout: Seconds; None for as long as it takes.

        Raises:
            BrokenResourceError: the handshake failed: no TLS, no common version, a certificate that is not accepted (the
                cause is then an `ssl.SSLError`); or the connection was lost.
            TimeoutError: it took too long.
            ValueError: a server without a context, a client that is to check a name and got none.
        """
        try:
            if server_side is None:
                server_side = hostname is None
            engine = Engine(
                context_for(ssl_context, hostname, server_side=server_side),
                server_side=server_side,
                hostname=hostname,
                truncation_is_the_end=not standard_compatible,
            )
            made = cls(stream, engine)
            await made._shake_hands_within(handshake_timeout)
        except BaseException:
            await stream.aclose()
            raise
        return made

    async def _shake_hands_within(self, timeout: float | None) -> None:
        with move_on_after(timeout) as scope:
            await self._shake_hands()
        if scope.cancelled_caught:
            raise TimeoutError(f"the TLS handshake was not over after {timeout} s")

    async def _shake_hands(self) -> None:
        while True:
            seen = self._engine.fed
            try:
                done = self._engine.shake_hands()
            except BrokenResourceError:
                await self._say_why()
                raise
            await self._tell()
            if done:
                return
            await self._hear(seen)

    async def _say_why(self) -> None:
        """Send the alert that says what is wrong, if it can be sent."""
        with move_on_after(CLOSE_TIMEOUT), contextlib.suppress(ManyhandsError):
            await self._tell()

    async def _hear(self, seen: int) -> None:
        """Wait until more than `seen` came."""
        while self._engine.fed == seen:
            if not self._hearing.take():
                await self._hearing.wait()
                continue
            try:
                if self._engine.fed == seen:
                    self._engine.feed(await self.transport.receive(CHUNK))
            except EndOfStream:
                self._engine.hang_up()
            finally:
                self._hearing.give_back()

    async def _tell(self, *, wait: bool = True) -> None:
        """Send what is to be sent; or leave it to the task that is sending."""
        while self._engine.unsent:
            if self._telling.take():
                try:
                    ciphertext = self._engine.ciphertext()
                    if ciphertext:
                        await self.transport.send(ciphertext)
                    self._engine.sent()
                finally:
                    self._telling.give_back()
            elif wait:
                await self._telling.wait()
            else:
                return

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedResourceError("the TLS stream")

    async def _receive_some(self, max_bytes: int) -> bytes:
        engine = self._engine
        while True:
            self._check_open()
            seen = engine.fed
            if not engine.dry:
                try:
                    data = engine.read(max_bytes)
                except BrokenResourceError:
                    await self._say_why()
                    raise
                if data is not None:
                    return data
            if engine.owes:
                # New keys, for instance: they are answered. A writer that is sending does it.
                await self._tell(wait=False)
            if not self._hearing.take():
                await self._hear(seen)
                continue
            try:
                if engine.fed == seen:
                    engine.feed(await self.transport.receive(CHUNK))
            except EndOfStream:
                engine.hang_up()
            finally:
                self._hearing.give_back()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and write all of a buffer; waits while the peer does not read.

        Raises:
            BusyResourceError: another task sends to it.
            BrokenResourceError: the connection was lost, or an earlier send was cancelled half-way.
            ClosedResourceError: it was closed here, or `send_eof()` was called.
            Cancelled: the task is to stop; if a part was encrypted, every later send is refused.
        """
        self._begin_writing()
        try:
            if type(data) is bytes and 0 < len(data) <= CHUNK:
                if _core.told_to_stop():
                    await checkpoint()
                try:
                    sent = await self._send_some(data)
                    if sent == len(data):
                        return
                    await self._send_all(memoryview(data)[sent:])
                except BaseException as error:
                    self._cut(error)
                    raise
                return
            with memoryview(data) as view, view.cast("B") as plaintext:
                if not plaintext:
                    await checkpoint()
                    return
                await checkpoint_if_cancelled()
                try:
                    await self._send_all(plaintext)
                except BaseException as error:
                    self._cut(error)
                    raise
        finally:
            self._writer.release()

    async def _send_all(self, plaintext: memoryview) -> None:
        done = 0
        while done < len(plaintext):
            with plaintext[done : done + CHUNK] as chunk:
                done += await self._send_some(chunk)

    def _cut(self, error: BaseException) -> None:
        """A send has ended before its end: no other can follow."""
        lost = isinstance(error, BrokenResourceError)
        self._refused = str(error) if lost else "an earlier send was cancelled half-way"

    async def _send_some(self, plaintext: bytes | memoryview) -> int:
        engine = self._engine
        while True:
            seen = engine.fed
            if self._telling.take():
                try:
                    count, ciphertext = engine.seal(plaintext)
                    if ciphertext:
                        await self.transport.send(ciphertext)
                    engine.sent()
                finally:
                    self._telling.give_back()
            else:
                count = engine.write(plaintext)
            if engine.unsent:
                await self._tell()
            if count is not None:
                return count
            await self._hear(seen)

    def _begin_writing(self) -> None:
        """Be the one writer, who gives `_writer` back."""
        if not self._writer.acquire(blocking=False):
            raise BusyResourceError("sending to")
        try:
            self._check_sending()
        except BaseException:
            self._writer.release()
            raise

    def _check_sending(self) -> None:
        self._check_open()
        if self._ended:
            raise ClosedResourceError("the sending side")
        if self._refused:
            raise BrokenResourceError(self._refused)

    @contextlib.contextmanager
    def _writing(self) -> Any:
        self._begin_writing()
        try:
            yield
        finally:
            self._writer.release()

    async def send_eof(self) -> None:
        """Tell the peer that no more comes; it may go on sending.

        Raises:
            NotImplementedError: the session's version is older than TLS 1.3, where a peer that hears it hangs up.
            Otherwise as `send`.
        """
        version = self.ssl_object.version()
        if version != "TLSv1.3":
            raise NotImplementedError(f"send_eof() needs TLSv1.3, and this session is {version}: use aclose()")
        with self._writing():
            self._ended = True
            self._engine.end_writing()
            await self._tell()
            await cancel_shielded_checkpoint()

    async def unwrap(self) -> tuple[ByteStream, bytes]:
        """End the TLS session on both sides and keep the connection.

        Returns:
            The connection, and what came behind the end of the session.

        Raises:
            BusyResourceError: another task uses it.
            BrokenResourceError: the peer has sent data instead of its end, or the connection was lost.
        """
        with self._reading(), self._writing():
            if self._left:
                raise BrokenResourceError("there is data of the peer's that was not received yet")
            while True:
                seen = self._engine.fed
                done = self._engine.unwrap()
                await self._tell()
                if done:
                    break
                await self._hear(seen)
            self._closed = True
            return self.transport, self._engine.rest()

    async def aclose(self) -> None:
        """End the session and close the connection. Idempotent; whoever waits for it gets ClosedResourceError.

        The peer is told, also if the task is to stop, and gets a second to take that; then it has another one to end its
        side, which is not waited for if the task is to stop. What it sends meanwhile is dropped. After a send that was cut
        the peer is told nothing: it must not take a part for the whole.

        Blocks: two seconds at most.
        """
        if self._closed:
            await cancel_shielded_checkpoint()
            return
        self._closed = True
        try:
            if not self._refused and self._writer.acquire(blocking=False):
                try:
                    await self._end()
                finally:
                    self._writer.release()
        except ManyhandsError:
            pass  # the peer has gone, or makes no sense: there is nobody to tell
        finally:
            await self.transport.aclose()

    async def _end(self) -> None:
        self._engine.end_writing()
        with move_on_after(CLOSE_TIMEOUT, shield=True) as scope:
            await self._tell()
        if scope.cancelled_caught:
            return
        # Closed with something unread (a server's tickets for later sessions are enough), the kernel would send a reset,
        # which may overtake what was sent.
        with move_on_after(CLOSE_TIMEOUT):
            while True:
                seen = self._engine.fed
                if self._engine.read(CHUNK) is None:
                    await self._hear(seen)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    @property
    def closed(self) -> bool:
        """Whether it was closed, or unwrapped."""
        return self._closed

    @property
    def local_address(self) -> Any:
        """The connection's own."""
        return getattr(self.transport, "local_address", None)

    @property
    def remote_address(self) -> Any:
        """The connection's own."""
        return getattr(self.transport, "remote_address", None)

    def __repr__(self) -> str:
        state = "closed" if self._closed else self.ssl_object.version() or "handshake"
        return f"<manyhands.TLSStream {state} on {self.transport!r}>"
