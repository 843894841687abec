"""`manyhands serve`: a WSGI application, served from the command line until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import logging.handlers
import os
import queue
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import manyhands as mh
from manyhands.cli._application import load
from manyhands.cli._failure import OUT_OF_DESCRIPTORS, Failure, require_descriptors
from manyhands.cli._serve_options import configure
from manyhands.cli.echo import DESCRIPTORS, cannot_listen
from manyhands.cli.top import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from manyhands.server import Limits, Server
    from manyhands.server._bind import Bind

__all__ = ["configure", "run"]

GRACE = 10.0
"""Seconds that requests in hand have after the first signal."""


def run(options: argparse.Namespace) -> int:
    """Serve until a signal.

    Raises:
        Failure: the application cannot be loaded, or the server cannot listen.
    """
    try:
        from manyhands.server import Limits  # noqa: PLC0415 - an extra: the other commands work without it
    except ImportError as error:
        if error.name not in ("httptools", "websockets"):
            raise
        raise Failure(f"{error}.") from error
    bind = _where(options)
    require_descriptors(DESCRIPTORS, "the server")
    with _logging(options.log_level, options.access_log_format if options.access_log else None):
        return _run(options, bind, Limits(request_timeout=options.request_timeout))


def _run(options: argparse.Namespace, bind: Bind, limits: Limits) -> int:
    try:
        if options.workers > 1 or options.reload:
            if options.dashboard is not None:
                raise Failure("--dashboard shows one process: give it without --workers and --reload.")
            return _supervise(options, bind)
        return _serve(options, bind, limits)
    except OSError as error:
        raise _cannot_serve(bind, error) from error


def _where(options: argparse.Namespace) -> Bind:
    """Say where to listen: --bind, or --host and --port, or $PORT, as platforms that run programs set it."""
    from manyhands.server._bind import Bind  # noqa: PLC0415 - as above

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
        if not given.isascii() or not given.isdigit():
            raise Failure(f"$PORT is {given!r}, which is no port: set it to a number, or give --port.")
        host, port = "" if host is None else host, int(given)
    port = 8000 if port is None else port
    if not 0 <= port <= 65_535:
        raise Failure(f"there is no port {port}: choose one from 1 to 65535, or 0 for any that is free.")
    return Bind("127.0.0.1" if host is None else host, port)


def _serve(options: argparse.Namespace, bind: Bind, limits: Limits) -> int:
    from manyhands.server import serve  # noqa: PLC0415 - an extra: the other commands work without it

    app = load(options.application)
    quiet = "MANYHANDS_WORKER_LINE" in os.environ  # the supervisor speaks for all

    def say(server: Server) -> None:
        if not quiet:
            _announce(options.application, server.url, f"requests at once: {server.pool.threads}")
        if options.dashboard is not None:
            page = ended.enter_context(_open_dashboard(server, options.dashboard))
            print(f"manyhands serve: dashboard on {page.url}", flush=True)

    with contextlib.ExitStack() as ended:
        left = serve(
            app,
            bind=bind,
            tls=_tls(options),
            trusted_proxies=_proxies(options),
            threads=options.threads,
            limits=limits,
            max_queue_depth=options.max_queue_depth,
            grace=GRACE,
            on_started=say,
        )
    if left:
        names = ", ".join(f"{job.name} ({job.age:.1f} s)" for job in left)
        print(f"manyhands serve: ended; still running: {names}", flush=True)
    elif not quiet:
        print("manyhands serve: ended, every request was answered or stopped", flush=True)
    return 0


def _open_dashboard(server: Server, port: int) -> mh.debug.Dashboard:
    try:
        return mh.debug.dashboard(server, mh.default_pool(), port=port, token=os.environ.get(TOKEN))
    except OSError as error:
        raise Failure(
            f"cannot open the dashboard on port {port} of 127.0.0.1 ({error.strerror}): choose another port, or 0 for any "
            "that is free."
        ) from error
    except ValueError as error:
        raise Failure(f"cannot open the dashboard: {error}.") from error


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    """Load the certificate.

    Raises:
        Failure: it cannot be read, or is none, or the key is another's.
    """
    if options.tls_cert is None:
        if options.tls_key is not None:
            raise Failure("--tls-key is of no use without --tls-cert.")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key, password=_no_password)
    except OSError as error:
        files = options.tls_cert if options.tls_key is None else f"{options.tls_cert} with {options.tls_key}"
        why = error.reason if isinstance(error, ssl.SSLError) and error.reason else error.strerror or error
        raise Failure(
            f"cannot use the certificate {files}: {why}; give a PEM file, and its key with --tls-key."
        ) from error
    return context


def _proxies(options: argparse.Namespace) -> list[str]:
    """Read the list.

    Raises:
        Failure: one of them is no address.
    """
    from manyhands.server._proxies import Proxies  # noqa: PLC0415 - an extra: the other commands work without it

    addresses = [address.strip() for address in options.trusted_proxies.split(",") if address.strip()]
    try:
        Proxies(addresses)
    except ValueError as error:
        raise Failure(f"{error}.") from error
    return addresses


def _no_password() -> str:
    raise Failure("the private key has a password: give one without, that only this user may read.")


def _supervise(options: argparse.Namespace, bind: Bind) -> int:
    from manyhands.server._bind import Listening  # noqa: PLC0415 - an extra: the other commands work without it
    from manyhands.server._sources import Sources  # noqa: PLC0415
    from manyhands.server._supervisor import Supervisor, WorkerFailed  # noqa: PLC0415

    listening = Listening(bind)
    number = listening.fileno()
    supervisor = Supervisor(
        _worker_command(options, number),
        options.workers,
        [number],
        grace=GRACE,
        changed=Sources(os.getcwd()).changed if options.reload else None,
    )

    def say(processes: Sequence[int]) -> None:
        word = "process" if len(processes) == 1 else "processes"
        _announce(options.application, listening.url, f"{word}: {', '.join(map(str, processes))}")

    try:
        supervisor.run(on_ready=say)
    except WorkerFailed as error:
        raise Failure(f"{error}; see above.") from error
    finally:
        listening.close()
    print("manyhands serve: ended, with all of its processes", flush=True)
    return 0


def _worker_command(options: argparse.Namespace, listening: int) -> list[str]:
    command = [
        sys.executable,
        *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing does
        *("-m", "manyhands", "serve", options.application, "--bind", f"fd:{listening}"),
        *("--max-queue-depth", str(options.max_queue_depth), "--log-level", options.log_level),
    ]
    if options.threads is not None:
        command += ["--threads", str(options.threads)]
    if options.request_timeout is not None:
        command += ["--request-timeout", str(options.request_timeout)]
    if options.tls_cert is not None:
        command += ["--tls-cert", options.tls_cert]
    if options.tls_key is not None:
        command += ["--tls-key", options.tls_key]
    if options.access_log:
        command += ["--access-log", "--access-log-format", options.access_log_format]
    if options.trusted_proxies:
        command += ["--trusted-proxies", options.trusted_proxies]
    return command


def _announce(application: str, url: str, how: str) -> None:
    print(f"manyhands serve: {application} on {url} ({how}); Ctrl-C ends it", flush=True)


def _cannot_serve(bind: Bind, error: OSError) -> Failure:
    """Say why it cannot listen there, and what to do."""
    if error.errno in OUT_OF_DESCRIPTORS:
        return Failure(f"there is no descriptor left ({error.strerror}): raise the limit with `ulimit -n 1024`.")
    if bind.fd is not None:
        return Failure(f"cannot serve on fd:{bind.fd}: {error.strerror}; give the number of a socket that listens.")
    if bind.path is not None:
        if error.errno == errno.EADDRINUSE:
            return Failure(f"{bind.path} is in use: end the program that listens there, or choose another path.")
        return Failure(f"cannot listen on {bind.path}: {error.strerror or error}; choose another path.")
    assert bind.port is not None
    if isinstance(error.errno, int) and error.errno in errno.errorcode:
        return cannot_listen(bind.host, bind.port, error)
    return Failure(
        f"cannot find the host {bind.host!r} ({error.strerror or error}): give --host a name or an address of this "
        "machine, such as 127.0.0.1, or 0.0.0.0 for all of them."
    )


@contextlib.contextmanager
def _logging(level: str, access: str | None) -> Iterator[None]:
    """Show the library's log, unless the application has set up logging, and the access log if it was asked for.

    The lines of the access log are written by a thread of their own: no request waits for the disk or the terminal.
    """
    from manyhands.server._access import Form  # noqa: PLC0415 - an extra: the other commands work without it

    if not logging.getLogger().handlers:
        logging.basicConfig(
            stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        logging.getLogger("manyhands").setLevel(level.upper())
    logger = logging.getLogger("manyhands.access")
    if access is None:
        logger.setLevel(logging.WARNING)
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Form(access))
    waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(waiting, handler)
    logger.addHandler(_Later(waiting))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    listener.start()
    try:
        yield
    finally:
        listener.stop()


class _Later(logging.handlers.QueueHandler):
    """Hands records on as they are: they are written in the same process."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Nothing is formatted here."""
        return record
