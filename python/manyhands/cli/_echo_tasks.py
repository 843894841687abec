"""The echo server in the style of tasks: one for every connection, which reads and sends back.

The same promises as the one of watches (`_echo_server.py`): a connection holds at most one message that its peer has not
taken, and the books are written when a connection comes and when it goes. What to do without descriptors is the
listener's business.
"""

from __future__ import annotations

import socket

import manyhands as mh
from manyhands.cli._echo_books import Books
from manyhands.cli._echo_server import READ_BYTES


class Counts:
    """What one connection did."""

    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0


class EchoTasks:
    """A listener, and a task for every connection that it took."""

    def __init__(self) -> None:
        self.books = Books()

    async def serve(self, listening: socket.socket) -> None:
        """Take connections until the task is cancelled; then all of them are closed."""
        async with mh.Listener(mh.current_task().group.owner, listening.detach()) as listener:
            await listener.serve(self._echo)

    async def _echo(self, stream: mh.SocketStream) -> None:
        counts = Counts()
        self.books.came(counts)
        try:
            while True:
                message = await stream.receive(READ_BYTES)
                counts.messages += 1
                counts.bytes += len(message)
                await stream.send(message)
        except (mh.EndOfStream, mh.BrokenResourceError):
            pass
        finally:
            self.books.left(counts)
