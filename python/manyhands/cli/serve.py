"""`manyhands serve`: a WSGI application, served from the command line until Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import logging
import re
import sys
from typing import TYPE_CHECKING

from manyhands.cli._application import load
from manyhands.cli._failure import OUT_OF_DESCRIPTORS, Failure, require_descriptors
from manyhands.cli.echo import DESCRIPTORS, cannot_listen, thread_count

if TYPE_CHECKING:
    from manyhands.server import Server

GRACE = 10.0
"""Seconds that requests in hand have after the first signal."""

TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*(\(\))?")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "application", type=target, metavar="module:app", help="WSGI application, or module:create() for a factory"
    )
    parser.add_argument("--host", default="127.0.0.1", help="name or address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--threads",
        type=thread_count,
        metavar="N",
        help="requests that run at once; one thread more serves the connections (default: 8, more without the GIL)",
    )
    parser.add_argument("--access-log", action="store_true", help="print a line for each request on standard error")


def target(text: str) -> str:
    """Read a `module:app`, for argparse.

    Raises:
        argparse.ArgumentTypeError: it does not look like one.
    """
    if TARGET.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"expected a module and a name in it, as in package.module:app, got {text!r}")
    return text


def run(options: argparse.Namespace) -> int:
    """Serve until a signal.

    Raises:
        Failure: the application cannot be loaded, or the server cannot listen.
    """
    try:
        from manyhands.server import serve  # noqa: PLC0415 - an extra: the other commands work without it
    except ImportError as error:
        if error.name != "httptools":
            raise
        raise Failure(f"{error}.") from error
    if not 0 <= options.port <= 65_535:
        raise Failure(f"there is no port {options.port}: choose one from 1 to 65535, or 0 for any that is free.")
    require_descriptors(DESCRIPTORS, "the server")
    app = load(options.application)
    _log_to_stderr(access=options.access_log)

    def say(server: Server) -> None:
        host, port = server.address
        shown = f"[{host}]" if ":" in host else host
        print(
            f"manyhands serve: {options.application} on http://{shown}:{port}/ "
            f"(requests at once: {server.pool.threads}); Ctrl-C ends it",
            flush=True,
        )

    try:
        left = serve(app, options.host, options.port, threads=options.threads, grace=GRACE, on_started=say)
    except OSError as error:
        if error.errno in OUT_OF_DESCRIPTORS:
            raise Failure(
                f"there is no descriptor left ({error.strerror}): raise the limit with `ulimit -n 1024`."
            ) from error
        if isinstance(error.errno, int) and error.errno in errno.errorcode:
            raise cannot_listen(options.host, options.port, error) from error
        raise Failure(
            f"cannot find the host {options.host!r} ({error.strerror or error}): give --host a name or an address of this "
            "machine, such as 127.0.0.1, or 0.0.0.0 for all of them."
        ) from error
    if left:
        names = ", ".join(f"{job.name} ({job.age:.1f} s)" for job in left)
        print(f"manyhands serve: ended; still running: {names}", flush=True)
    else:
        print("manyhands serve: ended, every request was answered or stopped", flush=True)
    return 0


def _log_to_stderr(*, access: bool) -> None:
    """Show warnings of the library, and the access log if it was asked for, unless the application has set up logging."""
    if not logging.getLogger().handlers:
        logging.basicConfig(
            stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
    logger = logging.getLogger("manyhands.access")
    if not access:
        logger.setLevel(logging.WARNING)
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
