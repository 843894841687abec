"""serve(): a server until Ctrl-C."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from manyhands import _guards
from manyhands._events import Events
from manyhands._loop import EventLoop
from manyhands.server._server import Server
from manyhands.server._supervisor import Line

if TYPE_CHECKING:
    from manyhands._job import JobSnapshot
    from manyhands.server._bind import Bind
    from manyhands.server._limits import Limits
    from manyhands.server._wsgi import Application

__all__ = ["serve"]

logger = logging.getLogger("manyhands.server")


def serve(
    app: Application,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    bind: str | Bind | None = None,
    tls: ssl.SSLContext | None = None,
    trusted_proxies: Iterable[str] = (),
    threads: int | None = None,
    limits: Limits | None = None,
    max_queue_depth: int = 1024,
    half_close: Literal["gone", "finish"] = "gone",
    grace: float = 10.0,
    on_started: Callable[[Server], object] | None = None,
) -> list[JobSnapshot]:
    """Serve a WSGI application until SIGINT (Ctrl-C) or SIGTERM, and end in order. The second signal ends the process at once.

    Args:
        app: A WSGI application.
        host: Name or address to listen on.
        port: 0 takes a free one.
        bind: Where to listen instead of at host and port: see `Server`.
        tls: Speak TLS, with this server's certificate.
        trusted_proxies: See `Server`.
        threads: How many requests run at once; None for 8, or more without the GIL.
        limits: What a client may ask for.
        max_queue_depth: Requests that may wait for a thread.
        half_close: What a client that closes its half of the connection is: see `Server`.
        grace: Seconds that requests in hand have to finish after the signal: see `Server.stop`.
        on_started: Called with the `Server` when it serves.

    Returns:
        The requests that did not stop.

    Raises:
        OSError: it cannot listen there.
        RuntimeError: called on another than the main thread, which alone gets signals: use `Server` there.

    Threads: the main thread only.
    """
    if not _guards.on_main_thread():
        raise RuntimeError("serve() waits for signals, which only the main thread gets: use Server in another thread")
    line = Line.take()
    # The main thread serves no client: it waits in a loop of its own, which a signal's handler can end.
    with EventLoop(name="main") as until_signal:
        server = Server(
            app,
            host,
            port,
            bind=bind,
            tls=tls,
            trusted_proxies=trusted_proxies,
            threads=threads,
            limits=limits,
            max_queue_depth=max_queue_depth,
            half_close=half_close,
        )
        with _guards.Ending(until_signal) as ending:
            try:
                server.start()
                logger.info("serving on %s", server.url)
                if line is not None:
                    until_signal.add(line.socket, Events.READ, lambda *_: until_signal.request_stop(), close=True)
                    line.say_ready()
                if on_started is not None:
                    on_started(server)
                until_signal.join()
            finally:
                logger.info("ended by %s", ending.signal_name or ("the end of its supervisor" if line else "an error"))
                left = server.stop(grace)
    return left
