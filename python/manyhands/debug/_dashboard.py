"""dashboard(): a small web server of a program's own, on threads of its own, which shows the program."""

from __future__ import annotations

import atexit
import contextlib
import re
from typing import TYPE_CHECKING, Final

from manyhands import _core
from manyhands._arguments import check_int
from manyhands._loop import EventLoop
from manyhands._pool import ThreadPool
from manyhands.errors import ManyhandsError, WouldDeadlock

if TYPE_CHECKING:
    from typing import Self

    from manyhands.debug._sight import Sight
    from manyhands.debug._summed_sight import SummedSight
    from manyhands.server import Server
    from manyhands.server._bind import Bind

__all__ = ["TOKEN_VARIABLE", "Dashboard", "check_token", "dashboard", "serve_pages"]

HOST: Final = "127.0.0.1"
"""Nobody but this machine: the page shows names of the program's, and stops its jobs."""

THREADS: Final = 2
"""Requests at once. Looks at the program take turns, so more would only wait."""

CONNECTIONS: Final = 32
"""Pages, scrapers and terminals at once; more wait in the kernel's queue."""

TOKEN: Final = re.compile(r"[!-~]+")
"""What an Authorization header carries as it is."""

TOKEN_VARIABLE: Final = "MANYHANDS_TOKEN"  # noqa: S105 - the name of the variable
"""Where commands take the token from: on a command line everybody on the machine could read it."""


class Dashboard:
    """A dashboard that is open. Made by `dashboard()`; usable in a `with` statement, whose end closes it.

    Attributes:
        url: Its address, for a browser or `manyhands top`.
    """

    url: str

    def __init__(self, server: Server) -> None:
        self._server = server
        self.url = "http://{}:{}/".format(*server.address)
        atexit.register(self._end_with_process)

    def _end_with_process(self) -> None:
        # Its threads have left by now. A child that was forked has none, and no loop that could be closed.
        with contextlib.suppress(ManyhandsError, TimeoutError):
            self._server.loop.close(0)

    def close(self) -> None:
        """End the server and its threads. Idempotent.

        Raises:
            WouldDeadlock: the calling thread serves a loop or runs a job.
        """
        self._server.stop(grace=0)
        atexit.unregister(self._end_with_process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<manyhands.debug.Dashboard {self.url}>"


def dashboard(*sources: EventLoop | ThreadPool | Server, port: int = 0, token: str | None = None) -> Dashboard:
    """Open a page that shows, live, what loops and pools are doing, and that can stop jobs.

    It is served by threads of its own, on 127.0.0.1, so it answers also when every thread of the program is stuck.
    `/metrics` is for Prometheus (the extra `manyhands[prometheus]`), `/data.json` for programs, `/health` for whoever
    asks whether the process lives. `manyhands top` shows the same in a terminal.

    Args:
        sources: `EventLoop`s, `ThreadPool`s and `manyhands.server.Server`s. A loop brings its `pool` along, a server its
            loop, its pool and its connections. None at all: every loop and every pool of the process, also those that
            are made later.
        port: 0 takes a free one.
        token: Who has it may look and stop jobs; long and hard to guess (`secrets.token_urlsafe()`). None lets everybody
            look who can connect: whoever has an account on this machine.

    Returns:
        The open `Dashboard`. It stays open until it is closed or the process ends, also if nobody holds it.

    Raises:
        ImportError: something is missing that the extra `manyhands[server]` brings.
        OSError: the port is taken.
        TypeError, ValueError: an argument that makes no sense.
        WouldDeadlock: the calling thread serves a loop or runs a job.
    """
    try:
        from manyhands.server import Server  # noqa: PLC0415 - an extra: the rest of the library works without it
    except ImportError as error:
        if error.name not in ("httptools", "websockets"):
            raise
        raise ImportError(
            f"manyhands.debug.dashboard() needs {error.name} to serve its page: install it with "
            "`pip install 'manyhands[server]'`",
            name=error.name,
        ) from error
    from manyhands.debug._sight import Sight  # noqa: PLC0415 - who opens no dashboard does not pay for it
    from manyhands.server._bind import Bind  # noqa: PLC0415

    for source in sources:
        if not isinstance(source, EventLoop | ThreadPool | Server):
            raise TypeError(f"dashboard() shows EventLoops, ThreadPools and Servers, and got {source!r}")
    check_int("port", port, at_least=0, at_most=65_535)
    check_token(token)
    if _core.is_lent():
        raise WouldDeadlock.about(
            "dashboard() starts threads and waits for them, and this thread serves a loop or runs a job: open it before, or on "
            "another thread"
        )
    return Dashboard(serve_pages(Sight(sources), token, Bind(HOST, port)))


def check_token(token: str | None) -> None:
    """Check that it can be sent in a header.

    Raises:
        TypeError, ValueError: it cannot.
    """
    if token is not None and not isinstance(token, str):
        raise TypeError(f"token must be a str or None, and got {type(token).__name__}")
    if token is not None and TOKEN.fullmatch(token) is None:
        raise ValueError("token must be one or more visible ASCII characters without a space: it is sent in a header")


def serve_pages(sight: Sight | SummedSight, token: str | None, bind: Bind) -> Server:
    """Start a server of the page on threads of its own."""
    from manyhands.debug._pages import Pages  # noqa: PLC0415 - as above
    from manyhands.server import Limits, Server  # noqa: PLC0415

    server = Server(
        Pages(sight, token),
        bind=bind,
        threads=THREADS,
        limits=Limits(
            head_bytes=8192, headers=64, body_bytes=1024, keep_alive=30.0, request_timeout=10.0, connections=CONNECTIONS
        ),
        name="dashboard",
        access_log=False,
    )
    sight.leave_out(server.loop, server.pool)
    try:
        server.start()
    except BaseException:
        server.stop(grace=0)
        raise
    return server
