"""The echo server in the style of tasks: one for every connection, which reads and sends back.

The same promises as the one of watches (`_echo_server.py`): a connection holds at most one message that its peer has not
taken, and the books are written when a connection comes and when it goes. What to do without descriptors is the
listener's business.
"""

from __future__ import annotations

import socket
import threading

import manyhands as mh
from manyhands.cli._echo_server import READ_BYTES, Figures


class Counts:
    """What one connection did."""

    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0


class EchoTasks:
    """A listener, and a task for every connection that it took."""

    def __init__(self) -> None:
        self._books = threading.Lock()
        self._open: set[Counts] = set()  # GUARDED BY: _books
        self._accepted = self._messages = self._bytes = 0  # GUARDED BY: _books; of those that have gone

    async def serve(self, listening: socket.socket) -> None:
        """Take connections until the task is cancelled; then all of them are closed."""
        async with mh.Listener(mh.current_task().group.owner, listening.detach()) as listener:
            await listener.serve(self._echo)

    def figures(self) -> Figures:
        """Add up what the open connections and the ones that have gone did. Any thread; the open ones go on counting."""
        with self._books:
            messages, received = self._messages, self._bytes
            for counts in self._open:
                messages += counts.messages
                received += counts.bytes
            return Figures(self._accepted, len(self._open), messages, received)

    async def _echo(self, stream: mh.SocketStream) -> None:
        counts = Counts()
        with self._books:
            self._open.add(counts)
            self._accepted += 1
        try:
            while True:
                message = await stream.receive(READ_BYTES)
                counts.messages += 1
                counts.bytes += len(message)
                await stream.send(message)
        except (mh.EndOfStream, mh.BrokenResourceError):
            pass
        finally:
            with self._books:
                self._open.discard(counts)
                self._messages += counts.messages
                self._bytes += counts.bytes
