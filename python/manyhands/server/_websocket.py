"""A WebSocket conversation of blocking code with one client. Source: RFC 6455; frames by `websockets`.

Theory of operation. The view runs in its request's job, and stays there while the conversation lasts: it holds a thread.
What comes from the client is read on the connection's strand, which answers pings and puts whole messages into `_inbox`; the
view takes them out. What goes to the client may be sent by any thread. All of it is guarded by the connection's own lock: no
code of a user runs under it.

| | in hand | bound | beyond it |
|---|---|---|---|
| messages that nobody has received | `_inbox` | `INBOX_BYTES` of memory, and one read | TCP tells the client to wait |
| what the client has not taken | `_unsent` | `UNSENT_BYTES`, and one message | `send` waits; of pings the last is answered |

The end. When the client has said goodbye, `receive` gives what is left, then raises `WebSocketClosed`; the job has
`CLOSE_TIMEOUT` to come to its end, then it is told to stop. A client that is gone without a word is as with any request: the
job is told to stop at once. When the view returns, the server says goodbye if nobody has.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections.abc import Iterator
from sys import getsizeof
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from manyhands import _core, blocking
from manyhands._events import Events
from manyhands.errors import JobStopped, LoopClosed, StrandClosed
from manyhands.server._errors import WebSocketClosed
from manyhands.server._spool import Spool
from manyhands.server._wire import GONE

if TYPE_CHECKING:
    from typing import Self

    from websockets.server import ServerProtocol

    from manyhands.server._connection import Connection

__all__ = ["WebSocket"]

READ: Final = 8192
"""Bytes read at once. Compressed ones may become a thousand times as many before the next look at `INBOX_BYTES`."""

INBOX_BYTES: Final = 1 << 20
UNSENT_BYTES: Final = 1 << 18

PONG: Final = b"\x8a"
"""How a pong begins. Of several pings the last may be answered alone: RFC 6455, 5.5.3."""

STOP_IS_NEAR: Final = 1.0
"""Seconds; a client that has gone without a word ends the job, by way of its owner, the connection. The end of the input may
be here first."""

CLOSE_TIMEOUT: Final = 10.0
"""Seconds that the view of a client that has said goodbye may go on."""

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
ABNORMAL: Final = 1006
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
"""RFC 6455, 7.4.1."""


class WebSocket:
    """A conversation with one client. Made by `websocket`.

    Closed at the end of its `with` block, and when the view ends.

    Attributes:
        subprotocol: The one that was agreed on, None for none.

    Threads: any may send and close; receiving is for one at a time, usually the view.
    """

    def __init__(self, connection: Connection, protocol: ServerProtocol, max_size: int, ping_timeout: float) -> None:
        self.subprotocol: str | None = protocol.subprotocol
        self._connection = connection
        self._protocol = protocol  # GUARDED BY: _lock, as all that follows
        self._lock = connection.lock
        self._inbox: queue.SimpleQueue[str | bytes | None] = queue.SimpleQueue()  # None: the end
        self._inbox_bytes = 0
        self._parts: bytes | bytearray = b""  # of a message that is not complete
        self._text = False  # what they are
        self._max_size = max_size
        self._held_back = False  # the client is not read on
        self._unsent = Spool()
        self._pong = b""  # to the last ping of a client that takes nothing
        self._room = threading.Event()  # `_unsent` is below its bound
        self._room.set()
        self._over = False  # nothing more comes in
        self._heard = monotonic()
        self._asked = 0.0  # when a ping was sent that nothing has come since; 0: none
        self._ping_timeout = ping_timeout
        self._timers: list[_core.Timer] = []

    def __repr__(self) -> str:
        return f"<manyhands.server.WebSocket {self._protocol.state.name} of {self._connection!r}>"

    # For the view.

    @property
    def closed(self) -> bool:
        """Whether either side has said goodbye, or the connection is lost."""
        return self._protocol.state is not State.OPEN

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Wait for the next message: str for text, bytes for binary.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            TimeoutError: none came in time.
            WebSocketClosed: the conversation is over, and everything that came was received.
            JobStopped: the client has gone, or somebody else stopped the request.
        """
        try:
            message = blocking.get(self._inbox, timeout)
        except queue.Empty:
            raise TimeoutError(f"no message came within {timeout} s") from None
        if message is None:
            self._inbox.put(None)  # whoever asks again
            closed = self._closed()
            if closed.code == ABNORMAL and _core.current_job() is not None:
                _core.sleep_blocking(STOP_IS_NEAR)
            try:
                raise closed
            finally:
                del closed  # its traceback has this frame
        with self._lock:
            self._inbox_bytes -= getsizeof(message)
            read_on = self._held_back and self._inbox_bytes <= INBOX_BYTES // 2
            if read_on:
                self._held_back = False
        if read_on:
            self._post(self._arm)
        return message

    def __iter__(self) -> Iterator[str | bytes]:
        """Each message, until the client says goodbye.

        Raises:
            WebSocketClosed: it ended otherwise than with 1000 or 1001.
        """
        while True:
            try:
                yield self.receive()
            except WebSocketClosed as closed:
                if closed.code in (NORMAL, GOING_AWAY):
                    return
                raise

    def send(self, message: str | bytes, timeout: float | None = None) -> None:
        """Send a message: str as text, bytes as binary. It waits while the client takes less than it is given.

        Args:
            message: What to send.
            timeout: Seconds that it may wait for room, behind the message; None for ever.

        Raises:
            WebSocketClosed: the conversation is over; the message was not sent.
            TimeoutError: the message waits in memory still, and will be sent if the client takes it.
            JobStopped: as `receive`.

        Threads: any.
        """
        if not isinstance(message, str | bytes):
            raise TypeError(f"a message must be str or bytes, and got {type(message).__name__}")
        if self._lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 - threading.Condition asks so too
            # A signal's handler or a finalizer, within what this thread does here: it is sent behind that.
            self._post(functools.partial(self._send_soon, message))
            return
        self._give(message)
        if not self._room.is_set() and not blocking.wait(self._room, timeout):
            raise TimeoutError(f"the client has not taken what was sent within {timeout} s")

    def _give(self, message: str | bytes) -> None:
        with self._lock:
            if self.closed:
                raise self._closed()
            if isinstance(message, str):
                self._protocol.send_text(message.encode())
            else:
                self._protocol.send_binary(message)
            self._push()

    def _send_soon(self, message: str | bytes) -> None:
        with contextlib.suppress(WebSocketClosed):
            self._give(message)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye. Idempotent; what the client sent before it heard so can still be received.

        Args:
            code: 1000, or one from 3000 to 4999 that the application gives a meaning (RFC 6455, 7.4.2).
            reason: For the other side's log; at most 123 bytes.

        Raises:
            ValueError: a code that may not be sent, or a reason that is too long.

        Threads: any.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 - as in `send`
            self._post(functools.partial(self.close, code, reason))
            return
        with self._lock:
            if not self.closed:
                try:
                    self._protocol.send_close(code, reason)
                except ProtocolError as error:
                    raise ValueError(f"cannot close with code {code} and reason {reason!r}: {error}") from error
                self._push()
                self._give_time()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc: object) -> None:
        if exc_type is None or issubclass(exc_type, WebSocketClosed):
            self.close()
        else:
            self.close(GOING_AWAY if issubclass(exc_type, JobStopped) else INTERNAL_ERROR)

    def _closed(self) -> WebSocketClosed:
        said = self._protocol.close_rcvd or self._protocol.close_sent
        return WebSocketClosed(ABNORMAL, "") if said is None else WebSocketClosed(said.code, said.reason)

    # For the connection: on its strand.

    def begin(self, ping_interval: float | None) -> None:
        """On the view's thread: send the answer, and take over what the client has sent ahead."""
        with self._lock:
            self._push()
            self.take_in(self._connection.take_rest())
        self._post(self._arm)
        if ping_interval is not None:
            with contextlib.suppress(StrandClosed, LoopClosed):
                self._timers.append(self._connection.strand.call_every(ping_interval, self._ping))

    def on_ready(self, events: Events) -> bool:
        """Read and write what can be; False if the client has gone."""
        with self._lock:
            self._push()
            if self._held_back or self._over:
                return not events & (Events.HANGUP | Events.ERROR)
        try:
            data = self._connection.wire.read(READ)
        except OSError:
            data = b""
        if data is None:
            return True
        with self._lock:
            if not data:
                return self._on_end_of_input()
            if not self._over:  # the view has ended meanwhile
                self.take_in(data)
            return True

    def go_away(self) -> None:
        """The server stops: say so, and let the view come to its end. Any thread."""
        self.close(GOING_AWAY)

    def end(self, *, failed: bool, stopped: bool) -> Spool:
        """The view has ended: say goodbye if nobody has; what is left to send. On its thread."""
        with self._lock:
            if not self.closed:
                self._protocol.send_close(INTERNAL_ERROR if failed else GOING_AWAY if stopped else NORMAL)
            self._push(arm=False)
            if not self._over:
                self._over = True  # a pong would come in the midst of what is left
                self._inbox.put(None)
            for timer in self._timers:
                timer.cancel()
            self._timers.clear()
            self._room.set()
            unsent, self._unsent = self._unsent, Spool()
            return unsent

    def take_in(self, data: bytes) -> None:
        """What the client sent. The lock is held."""
        if data:
            self._heard = monotonic()
            self._asked = 0.0
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                if not self._take_frame(event):
                    break  # what was read with it is not heard any more
            self._push()
        if self.closed and not self._over:
            self._over = True
            self._inbox.put(None)
            self._give_time()
            self._post(self._arm)
        elif not self._held_back and self._inbox_bytes > INBOX_BYTES:
            self._held_back = True
            self._post(self._arm)

    def _take_frame(self, frame: Any) -> bool:
        """Take a frame; False if it ends the conversation with an error."""
        assert isinstance(frame, Frame)
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return True
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        data = bytes(frame.data)
        if len(self._parts) + len(data) > self._max_size:
            self._protocol.fail(TOO_BIG, f"a message may have {self._max_size} bytes")
            return False
        if self._parts or not frame.fin:
            # A bytearray grows in place, and of empty parts nothing is left: a message may come in any number of them.
            self._parts = bytearray(self._parts) if isinstance(self._parts, bytes) else self._parts
            self._parts += data
            if not frame.fin:
                return True
            data, self._parts = bytes(self._parts), b""
        try:
            message = data.decode() if self._text else data
        except UnicodeDecodeError as error:
            self._protocol.fail(INVALID_DATA, f"{error.reason} at position {error.start}")
            return False
        self._inbox_bytes += getsizeof(message)
        self._inbox.put(message)
        return True

    def _on_end_of_input(self) -> bool:
        said_goodbye = self.closed
        self._protocol.receive_eof()
        self._protocol.data_to_send()
        if not self._over:
            self._over = True
            self._inbox.put(None)
        self._room.set()
        self._post(self._arm)  # the end stays readable
        return said_goodbye

    def _push(self, *, arm: bool = True) -> None:
        """Write what the protocol has to say, as far as the client takes it. The lock is held."""
        had = not self._room.is_set()
        for data in self._protocol.data_to_send():
            if had and data[:1] == PONG:
                self._pong = data
            else:
                self._unsent.append(data)  # an empty one is the end of the stream, which is the connection's to say
        if self._unsent and self._unsent.write_to(self._connection.wire.write) == GONE:
            self._unsent.close()
        if self._pong and not self.closed and len(self._unsent) <= UNSENT_BYTES:
            self._unsent.append(self._pong)
            self._pong = b""
        if len(self._unsent) > UNSENT_BYTES:
            self._room.clear()
        elif had:
            self._room.set()
        if arm and self._unsent:
            self._post(self._arm)

    def _arm(self) -> None:
        """On the strand: wait for what can be used."""
        with self._lock:
            events = Events.PRIORITY if self._held_back or self._over else Events.READ
            if self._unsent:
                events |= Events.WRITE
        self._connection.wait_for(events)

    def _ping(self) -> None:
        with self._lock:
            if self.closed or self._held_back:
                return
            lost = self._asked and monotonic() - self._asked >= self._ping_timeout
            if not lost and not self._asked:
                self._asked = monotonic()
                self._protocol.send_ping(b"")
                self._push()
        if lost:
            self._connection.abandon()

    def _give_time(self) -> None:
        with contextlib.suppress(StrandClosed, LoopClosed):
            self._timers.append(self._connection.strand.call_later(CLOSE_TIMEOUT, self._connection.abandon))

    def _post(self, callback: Any) -> None:
        with contextlib.suppress(StrandClosed, LoopClosed):
            self._connection.strand.post(callback)
