"""serve(): a server until Ctrl-C, in this process or in several."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal

from manyhands import _guards
from manyhands._arguments import check_int
from manyhands._events import Events
from manyhands._log import Log
from manyhands._loop import EventLoop
from manyhands._threads import LOOK
from manyhands.server._application import load, refuse_import
from manyhands.server._bind import Bind, Listening
from manyhands.server._line import Line, fresh_python
from manyhands.server._proxies import Proxies
from manyhands.server._server import HOST
from manyhands.server._settings import Certificate, Settings, load_certificate
from manyhands.server._supervisor import Supervisor

if TYPE_CHECKING:
    from manyhands._job import JobSnapshot
    from manyhands.server._limits import Limits
    from manyhands.server._page_process import PageProcess
    from manyhands.server._server import Server
    from manyhands.server._wsgi import Application

__all__ = ["serve", "serve_here", "supervise"]

logger = Log("manyhands.server")

PORT: Final = 8000

MAX_WORKERS = 256
"""A number beyond this one is a slip of the finger."""


def serve(
    app: Application | str,
    host: str = HOST,
    port: int = PORT,
    *,
    bind: str | Bind | None = None,
    tls: ssl.SSLContext | Certificate | None = None,
    trusted_proxies: Iterable[str] = (),
    threads: int | None = None,
    workers: int = 1,
    limits: Limits | None = None,
    max_queue_depth: int = 1024,
    half_close: Literal["gone", "finish"] = "gone",
    access_log: bool = True,
    grace: float = 10.0,
    signals: bool = True,
    on_started: Callable[[Server], object] | Callable[[Supervisor], object] | None = None,
) -> list[JobSnapshot]:
    """Serve a WSGI application until SIGINT (Ctrl-C) or SIGTERM, and end in order. The second signal ends the process at once.

    Args:
        app: A WSGI application, or its name: `"module:app"`, or `"module:create()"` for a factory. Several workers need the
            name, since each of them imports the application for itself.
        host: Name or address to listen on.
        port: 0 takes a free one.
        bind: Where to listen instead of at host and port: see `Server`.
        tls: Speak TLS: a server's context, or the files of the certificate and of its key, which several workers need.
        trusted_proxies: See `Server`.
        threads: How many requests run at once in each worker; None for 8, or more without the GIL.
        workers: How many processes serve. More than one: this process runs none of the application, looks after them, and
            starts another for one that dies. They look for modules where this process does, and set up logging as they import
            the application.
        limits: What a client may ask for.
        max_queue_depth: Requests that may wait for a thread.
        half_close: What a client that closes its half of the connection is: see `Server`.
        access_log: See `Server`.
        grace: Seconds that requests in hand have to finish after the signal: see `Server.stop`.
        signals: False leaves SIGINT and SIGTERM as they are. Then it ends by `stop()` of what `on_started` was given, called on
            another thread, or by an exception in this one, such as the KeyboardInterrupt of Python's own handler.
        on_started: Called when it serves, with the `Server`, or with the `Supervisor` of several workers. `stop()` of either
            ends this call.

    Returns:
        The requests that did not stop. Several workers name theirs on standard error, and the list is empty.

    Raises:
        NoApplication: what was named cannot be served.
        OSError: it cannot listen there.
        RuntimeError: there are signals, and this is not the main thread, which alone gets them; or it was called while an
            application is imported.
        TypeError, ValueError: an argument that makes no sense, or a certificate that cannot be used.
        WorkerFailed: one of the first workers could not serve.

    Threads: the main thread only, unless `signals` is False.
    """
    refuse_import("serve()")
    if signals and not _guards.on_main_thread():
        raise RuntimeError(
            "serve() waits for signals, which only the main thread gets: call it with signals=False in another thread, "
            "or use Server"
        )
    check_int("workers", workers, at_least=1, at_most=MAX_WORKERS)
    if on_started is not None and not callable(on_started):
        raise TypeError(f"on_started must be callable, and got {on_started!r}")
    settings = Settings(
        tls=tls,
        trusted_proxies=tuple(trusted_proxies),
        threads=threads,
        limits=limits,
        max_queue_depth=max_queue_depth,
        half_close=half_close,
        access_log=access_log,
        grace=grace,
    )
    bind = Bind.of(bind, host, port, (HOST, PORT))
    if workers == 1:
        found = load(app) if isinstance(app, str) else app
        return serve_here(found, bind, settings, signals=signals, on_started=on_started)  # type: ignore[arg-type]
    if not isinstance(app, str):
        raise TypeError(
            f"serve(workers={workers}) starts fresh processes, and each imports the application for itself: give its name, as "
            f"in serve('module:app', workers={workers}), and not {app!r}"
        )
    if app.startswith("__main__:"):
        raise ValueError(f"{app!r}: the workers have a __main__ of their own: name the file, as in 'program:app'")
    supervise(app, bind, settings, workers, path=sys.path, signals=signals, on_started=on_started)  # type: ignore[arg-type]
    return []


def serve_here(
    app: Application,
    bind: Bind,
    settings: Settings,
    *,
    signals: bool = True,
    line: Line | None = None,
    on_started: Callable[[Server], object] | None = None,
    on_ending: Callable[[Server], object] | None = None,
) -> list[JobSnapshot]:
    """Serve in this process: see `serve`. With a line it ends with the supervisor too. `on_ending` comes before its stop."""
    if not signals:
        return _serve_until_stopped(settings.server(app, bind), settings.grace, on_started)
    # The main thread serves no client: it waits in a loop of its own, which a signal's handler can end.
    with EventLoop(name="main") as until_signal:
        server = settings.server(app, bind)
        server.on_stop = until_signal.request_stop
        if line is not None:
            server.environ["wsgi.multiprocess"] = True
        with _guards.Ending(until_signal, insist=line is None) as ending:
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
                logger.info("ended by %s", ending.signal_name or ("the end of its supervisor" if line else "a call"))
                try:
                    if on_ending is not None:
                        on_ending(server)
                finally:
                    left = server.stop(settings.grace)
    return left


def _serve_until_stopped(
    server: Server, grace: float, on_started: Callable[[Server], object] | None
) -> list[JobSnapshot]:
    stopped = threading.Event()
    server.on_stop = stopped.set
    try:
        server.start()
        logger.info("serving on %s", server.url)
        if on_started is not None:
            on_started(server)
        while not stopped.wait(LOOK):
            pass
    finally:
        left = server.stop(grace)
    return left


def supervise(
    application: str,
    bind: Bind,
    settings: Settings,
    workers: int,
    *,
    module: str = "manyhands.server._worker",
    arguments: Sequence[str] = (),
    path: Sequence[str] | None = None,
    signals: bool = True,
    changed: Callable[[], bool] | None = None,
    page: PageProcess | None = None,
    on_started: Callable[[Supervisor], object] | None = None,
    on_ending: Callable[[Supervisor], object] | None = None,
) -> None:
    """Serve in several processes: see `serve`.

    Args:
        application: Its name.
        bind: Where.
        settings: How.
        workers: How many.
        module: What a worker runs; its last argument is the `Order`.
        arguments: Its arguments before that.
        path: Where the workers look for modules; None for where they do anyway.
        signals: End at SIGINT and SIGTERM.
        changed: See `Supervisor`.
        page: See `Supervisor`.
        on_started: Called with the `Supervisor` when the first ones serve.
        on_ending: Called with it when they have been told to end.
    """
    from manyhands.server._worker import Order  # noqa: PLC0415 - which imports this: it serves

    # What every worker would refuse is refused here, once.
    if isinstance(settings.tls, tuple):
        load_certificate(*settings.tls)
    Proxies(settings.trusted_proxies)
    listening = Listening(bind)
    try:
        order = Order(
            application=application,
            listening=listening.fileno(),
            settings=settings,
            path=None if path is None else list(path),
        )
        url = listening.url if settings.tls is None else listening.url.replace("http:", "https:", 1)
        supervisor = Supervisor(
            fresh_python(module, *arguments, order.to_json()),
            workers,
            listening,
            url=url,
            grace=settings.grace,
            changed=changed,
            page=page,
            signals=signals,
        )
        supervisor.run(on_started, on_ending)
    finally:
        listening.close()
