"""Server-sent events. Source: WHATWG HTML, 9.2, *Server-sent events*."""

from __future__ import annotations

import math
from collections.abc import Callable

from manyhands._arguments import check_int, check_number
from manyhands._log import Log
from manyhands.server._source import Source

__all__ = ["Events"]

logger = Log("manyhands.server")

COMMENT = b":\n\n"
"""What a client ignores: so that it sees the response begin, and that the connection is alive."""


class Events(Source):
    """A response of server-sent events that any thread may feed, and that holds none while there is nothing to send.

    A view returns it as its body, with the content type `text/event-stream`:

    ```python
    @app.get("/news")
    def news():
        events = Events(on_close=readers.discard)
        readers.add(events)
        return Response(events, mimetype="text/event-stream")

    for events in list(readers):  # on any thread
        events.send("it rains", event="weather")
    ```

    Args:
        keep_alive: Seconds; after as many without an event a comment is sent, which clients ignore: proxies between
            do not take the connection for a dead one, and the kernel finds out, in its time, who is gone without a word. None
            for never.
        capacity: How many events may wait for a client that does not take them.
        on_close: Called as `on_close(events)` once, when it is closed: by `close()`, or by the server because the client has
            gone. It runs on the thread that closes.

    The request's deadline (`Limits.request_timeout`) counts for it as for any other. A server that stops ends it behind what
    was sent, and the client comes back by itself. Behind a proxy that buffers, the response needs `X-Accel-Buffering: no`.
    On another server, in a framework's test client, and in a pinned response it waits with its thread.

    Threads: any.
    """

    _closed_as = "the response of these events"

    def __init__(
        self,
        *,
        keep_alive: float | None = 15.0,
        capacity: int = 256,
        on_close: Callable[[Events], object] | None = None,
    ) -> None:
        if keep_alive is not None:
            check_number("keep_alive", keep_alive, "above 0 seconds", lambda seconds: 0 < seconds < math.inf)
        check_int("capacity", capacity, at_least=1)
        if on_close is not None and not callable(on_close):
            raise TypeError(f"on_close must be callable, and got {on_close!r}")
        super().__init__(capacity, keep_alive)
        self._on_close = on_close

    def __repr__(self) -> str:
        return f"<manyhands.server.Events {'closed' if self._closed else 'open'}, {len(self._pieces)} waiting>"

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._closed

    def send(self, data: str, *, event: str | None = None, id: str | None = None, retry: int | None = None) -> None:  # noqa: A002 - the field's own name
        """Send an event. It does not wait: the event goes out when the client takes it.

        Args:
            data: Text of any number of lines. Each line break, of whatever kind, comes out as a line feed.
            event: Its type; without one it is a "message".
            id: What a client that comes back says in its `Last-Event-ID` header.
            retry: Milliseconds after which a client that lost the connection comes back.

        Raises:
            ClosedResourceError: it was closed, or the client has gone.
            WouldBlock: `capacity` events wait for the client already; this one was not sent.
            ValueError: a line break in `event` or `id`, a null in `id`, a `retry` below 0.
        """
        self._put(_encode(data, event, id, retry))

    def close(self) -> None:
        """End the response behind what was sent. Idempotent."""
        if self._put_end() and self._on_close is not None:
            try:
                self._on_close(self)
            except Exception:
                logger.exception("on_close %r of %r raised", self._on_close, self)

    def _begin(self) -> bytes:
        return COMMENT

    def _on_quiet(self) -> bytes:
        return COMMENT

    def on_server_stopping(self) -> None:
        """End it: it may have no end of its own."""
        self.close()


def _encode(data: str, event: str | None, identity: str | None, retry: int | None) -> bytes:
    if not isinstance(data, str):
        raise TypeError(f"data must be str, and got {data!r}: bytes of another form can be sent as base64 or JSON")
    lines = []
    if event is not None:
        lines.append("event: " + _line("event", event))
    if identity is not None:
        line = _line("id", identity)
        if "\0" in line:
            raise ValueError(f"id must hold no null, which a client would ignore, and got {identity!r}")
        lines.append("id: " + line)
    if retry is not None:
        check_int("retry", retry, at_least=0)
        lines.append(f"retry: {retry}")
    # A carriage return ends a line too, and nothing else does that `splitlines` knows.
    lines += ["data: " + line for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


def _line(name: str, text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be str, and got {text!r}")
    if "\n" in text or "\r" in text:
        raise ValueError(f"{name} must be one line, and got {text!r}")
    return text
