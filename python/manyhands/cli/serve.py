"""`manyhands serve`: a WSGI application, served from the command line until Ctrl-C.

What serves is `manyhands.server.serve()` and what that is made of. Here are the options, the sentences, the logs and the
dashboard.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import threading
from typing import TYPE_CHECKING

import manyhands as mh
from manyhands.cli import _logs
from manyhands.cli._failure import Failure, complain_of, make_room, require_descriptors
from manyhands.cli._output import say
from manyhands.cli._serve_failures import cannot_serve, still_running
from manyhands.cli._serve_options import configure
from manyhands.cli.echo import DESCRIPTORS
from manyhands.debug._dashboard import TOKEN_VARIABLE, check_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from manyhands.debug._summed_page import SummedPage
    from manyhands.server import Server, Supervisor
    from manyhands.server._bind import Bind
    from manyhands.server._settings import Settings

__all__ = ["configure", "run"]

GRACE = 10.0
"""Seconds that requests in hand have after the first signal."""

OTHER_DESCRIPTORS = 1024
"""Beside those of the clients: for what the application opens, and for temporary files."""

SOON = 0.5
"""Seconds after which it is said what the end waits for."""


def run(options: argparse.Namespace) -> int:
    """Serve until a signal.

    Raises:
        Failure: the application cannot be loaded, or the server cannot listen.
    """
    try:
        from manyhands.server import Limits, NoApplication, WorkerFailed  # noqa: PLC0415 - an extra: the other commands work without it
    except ImportError as error:
        if error.name not in ("httptools", "websockets"):
            raise
        raise Failure(f"{error}.") from error
    if options.access_log_format is not None and not options.access_log:
        raise Failure("--access-log-format is of no use without --access-log.")
    bind = _where(options)
    settings = _settings(options)
    token = None if options.dashboard is None else _check_dashboard(options, bind)
    make_room(Limits().connections + OTHER_DESCRIPTORS)
    require_descriptors(DESCRIPTORS, "the server")
    left = False
    with _logs.shown(options.log_level, _access(options)):
        try:
            if options.workers > 1 or options.reload:
                _supervise(options, bind, settings, token)
            else:
                left = _serve(options, bind, settings, token)
        except NoApplication as error:
            complain_of(error)
            raise Failure(str(error)) from error
        except WorkerFailed as error:
            raise Failure(f"{error}; see above.") from error
        except OSError as error:
            raise cannot_serve(options, bind, error) from error
    if left:
        from manyhands.server._leaving import leave  # noqa: PLC0415 - as above

        leave(0)
    return 0


def _where(options: argparse.Namespace) -> Bind:
    """Say where to listen: --bind, or --host and --port, or $PORT, as platforms that run programs set it."""
    from manyhands.server._bind import Bind  # noqa: PLC0415 - as above
    from manyhands.server._serve import PORT  # noqa: PLC0415
    from manyhands.server._server import HOST  # noqa: PLC0415

    if options.bind is not None:
        if options.host is not None or options.port is not None:
            raise Failure("give --bind, or --host and --port, and not both.")
        try:
            return Bind.parse(options.bind)
        except ValueError as error:
            raise Failure(f"{error}.") from error
    host, port = options.host, options.port
    given = os.environ.get("PORT")
    if port is None and given is not None:
        if not given.isascii() or not given.isdigit() or len(given) > 5:
            raise Failure(f"$PORT is {given!r}, which is no port: set it to a number, or give --port.")
        host, port = "" if host is None else host, int(given)
    port = PORT if port is None else port
    if not 0 <= port <= 65_535:
        raise Failure(f"there is no port {port}: choose one from 1 to 65535, or 0 for any that is free.")
    return Bind(HOST if host is None else host, port)


def _settings(options: argparse.Namespace) -> Settings:
    """Gather how to serve.

    Raises:
        Failure: the certificate cannot be used, or a proxy is no address.
    """
    from manyhands.server import Limits  # noqa: PLC0415 - as above
    from manyhands.server._proxies import Proxies  # noqa: PLC0415
    from manyhands.server._settings import Settings, load_certificate  # noqa: PLC0415

    proxies = tuple(address.strip() for address in options.trusted_proxies.split(",") if address.strip())
    if options.tls_cert is None and options.tls_key is not None:
        raise Failure("--tls-key is of no use without --tls-cert.")
    try:
        Proxies(proxies)
        if options.tls_cert is not None:
            load_certificate(options.tls_cert, options.tls_key)
    except ValueError as error:
        raise Failure(f"{error}.") from error
    return Settings(
        tls=None if options.tls_cert is None else (options.tls_cert, options.tls_key),
        trusted_proxies=proxies,
        threads=options.threads,
        limits=Limits(request_timeout=options.request_timeout),
        max_queue_depth=options.max_queue_depth,
        grace=GRACE,
    )


def _access(options: argparse.Namespace) -> str | None:
    return (options.access_log_format or "common") if options.access_log else None


def _serve(options: argparse.Namespace, bind: Bind, settings: Settings, token: str | None) -> bool:
    """Serve in this process; whether some requests run still."""
    from manyhands.server._application import load  # noqa: PLC0415 - as above
    from manyhands.server._serve import serve_here  # noqa: PLC0415

    app = load(options.application)
    _logs.settle()

    def on_started(server: Server) -> None:
        page = None
        if options.dashboard is not None:
            with _dashboard_refusals(options.dashboard):
                page = mh.debug.dashboard(server, mh.default_pool(), port=options.dashboard, token=token)
            ended.enter_context(page)
        _announce(options.application, server.url, f"requests at once: {server.pool.threads}", page)

    def on_ending(server: Server) -> None:
        _soon(ended, _say_what_is_waited_for, server)

    with contextlib.ExitStack() as ended:
        left = serve_here(app, bind, settings, on_started=on_started, on_ending=on_ending)
    if left:
        say(still_running(left))
    else:
        say("manyhands serve: ended, every request was answered or stopped")
    return bool(left)


def _supervise(options: argparse.Namespace, bind: Bind, settings: Settings, token: str | None) -> None:
    from manyhands.debug._summed_page import SummedPage  # noqa: PLC0415 - as above
    from manyhands.server._serve import supervise  # noqa: PLC0415
    from manyhands.server._sources import Sources  # noqa: PLC0415

    def on_started(supervisor: Supervisor) -> None:
        processes = supervisor.processes
        word = "process" if len(processes) == 1 else "processes"
        _announce(options.application, supervisor.url, f"{word}: {', '.join(map(str, processes))}", page)

    def on_ending(supervisor: Supervisor) -> None:
        _soon(ended, _say_who_is_waited_for, supervisor)

    with contextlib.ExitStack() as ended:
        page: SummedPage | None = None
        if options.dashboard is not None:
            with _dashboard_refusals(options.dashboard):
                page = ended.enter_context(SummedPage(options.application, port=options.dashboard, token=token))
        access = _access(options)
        supervise(
            options.application,
            bind,
            settings,
            options.workers,
            module="manyhands.cli._serve_worker",
            arguments=["--log-level", options.log_level, *(["--access-log", access] if access else [])],
            changed=Sources(os.getcwd()).changed if options.reload else None,
            page=None if page is None else page.process,
            on_started=on_started,
            on_ending=on_ending,
        )
    say("manyhands serve: ended, with all of its processes")


def _check_dashboard(options: argparse.Namespace, bind: Bind) -> str | None:
    """Refuse a dashboard that cannot be, before anything is started.

    Returns:
        The token, taken out of the environment: neither the application nor what it starts has to do with it.

    Raises:
        Failure: its port is none, or the server's; its token is none.
    """
    port = options.dashboard
    if not 0 <= port <= 65_535:
        raise Failure(
            f"cannot open the dashboard: there is no port {port}: choose one from 1 to 65535, or 0 for any that is free."
        )
    if port and port == bind.port:
        raise Failure(f"cannot open the dashboard on port {port}, where the server is: choose another, or 0 for any.")
    token = os.environ.pop(TOKEN_VARIABLE, None)
    try:
        check_token(token)
    except ValueError as error:
        raise Failure(f"cannot open the dashboard: {TOKEN_VARIABLE} in the environment: {error}.") from error
    return token


@contextlib.contextmanager
def _dashboard_refusals(port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failure(
            f"cannot open the dashboard on port {port} of 127.0.0.1 ({error.strerror}): choose another port, or 0 for any "
            "that is free."
        ) from error


def _soon(ended: contextlib.ExitStack, say_what: Callable[..., None], ending: Server | Supervisor) -> None:
    """Say what the end waits for, unless it has come by then."""
    timer = threading.Timer(SOON, say_what, [ending])
    timer.start()
    ended.callback(timer.cancel)


def _say_what_is_waited_for(server: Server) -> None:
    states = server.connection_states()
    clients = states.get("busy", 0) + states.get("writing", 0)
    if clients:
        what = f"the requests of {clients} clients have" if clients > 1 else "the request of a client has"
        say(f"manyhands serve: {what} {GRACE:.0f} s to finish; Ctrl-C ends at once")


def _say_who_is_waited_for(supervisor: Supervisor) -> None:
    count = len(supervisor.processes)
    if count:
        who = f"{count} processes have" if count > 1 else "one process has"
        say(f"manyhands serve: {who} {GRACE:.0f} s to finish requests; Ctrl-C ends at once")


def _announce(application: str, url: str, how: str, page: mh.debug.Dashboard | SummedPage | None) -> None:
    say(f"manyhands serve: {application} on {url} ({how}); Ctrl-C ends it")
    if page is not None:
        say(f"manyhands serve: dashboard on {page.url}")
