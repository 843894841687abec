"""The books of an echo server: who is connected, and what was done. Of every style of serving that has connections."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Books", "Figures"]


@dataclass(frozen=True)
class Figures:
    """What the server has done so far.

    Attributes:
        connections: accepted since the start.
        open: open now.
        messages: reads that gave bytes.
        bytes: read.
    """

    connections: int
    open: int
    messages: int
    bytes: int


class Counted(Protocol):
    """A connection that counts for itself."""

    messages: int
    bytes: int


class Books:
    """Written when a connection comes and when it goes, never per message. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Counted] = set()  # GUARDED BY: _lock
        self._accepted = self._messages = self._bytes = 0  # GUARDED BY: _lock; of those that have gone

    def figures(self) -> Figures:
        """Add up what the open connections and the ones that have gone did. The open ones go on counting."""
        with self._lock:
            messages, received = self._messages, self._bytes
            for connection in self._open:
                messages += connection.messages
                received += connection.bytes
            return Figures(self._accepted, len(self._open), messages, received)

    def came(self, connection: Counted) -> None:
        """Enter a new connection."""
        with self._lock:
            self._open.add(connection)
            self._accepted += 1

    def left(self, connection: Counted) -> None:
        """Take a connection that has ended off the list, with what it did."""
        with self._lock:
            self._open.discard(connection)
            self._messages += connection.messages
            self._bytes += connection.bytes
