"""The options of `manyhands serve`, and how each is read."""

from __future__ import annotations

import argparse
import os
import re

from manyhands import _guards
from manyhands.cli._options import seconds, whole_number
from manyhands.cli.echo import thread_count

__all__ = ["configure"]

TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*(\(\))?")

LEVELS = ("critical", "error", "warning", "info", "debug")

MAX_WORKERS = 256


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "application", type=target, metavar="module:app", help="WSGI application, or module:create() for a factory"
    )
    parser.add_argument("--host", help="name or address to listen on (default: 127.0.0.1, or all with $PORT)")
    parser.add_argument("--port", type=whole, help="port; 0 takes a free one (default: $PORT, or 8000)")
    parser.add_argument(
        "--bind",
        metavar="WHERE",
        help="where to listen instead: HOST:PORT, unix:PATH, or fd:NUMBER of a socket that listens already",
    )
    parser.add_argument(
        "--threads",
        type=thread_count,
        metavar="N",
        help="requests that run at once, on as many threads and one (default: 8, more without the GIL)",
    )
    parser.add_argument(
        "--workers",
        type=worker_count,
        default=1,
        metavar="N",
        help="processes; auto: one for each core if there is a GIL (default: %(default)s)",
    )
    parser.add_argument(
        "--max-queue-depth",
        type=positive,
        default=1024,
        metavar="N",
        help="requests that may wait for a thread; further ones get 503 (default: %(default)s)",
    )
    parser.add_argument(
        "--request-timeout", type=seconds, metavar="S", help="seconds after which a request is told to stop"
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="speak TLS: the certificate and its chain, PEM")
    parser.add_argument(
        "--tls-key", metavar="FILE", help="the certificate's private key, if it is in a file of its own"
    )
    parser.add_argument("--reload", action="store_true", help="start again when a .py file of this directory changes")
    parser.add_argument(
        "--dashboard",
        type=whole,
        metavar="PORT",
        help="show what every request and thread is doing on this port of 127.0.0.1; 0 takes a free one. A token that it shall "
        "ask for is taken from the environment, MANYHANDS_TOKEN",
    )
    parser.add_argument("--access-log", action="store_true", help="print a line for each request on standard error")
    parser.add_argument("--access-log-format", choices=("common", "combined", "json"), help="(default: common)")
    parser.add_argument(
        "--trusted-proxies",
        default="",
        metavar="LIST",
        help="addresses and networks, by commas, whose X-Forwarded-For and -Proto are believed; unix for a Unix socket",
    )
    parser.add_argument(
        "--log-level",
        type=str.lower,
        choices=LEVELS,
        default="warning",
        help="what of the library's log is shown (default: %(default)s)",
    )


def target(text: str) -> str:
    """Read a `module:app`, for argparse.

    Raises:
        argparse.ArgumentTypeError: it does not look like one.
    """
    if TARGET.fullmatch(text) is None:
        hint = "; a factory gets no arguments, as module:create()" if "(" in text else ""
        raise argparse.ArgumentTypeError(
            f"expected a module and a name in it, as in package.module:app, got {text!r}{hint}"
        )
    return text


def worker_count(text: str) -> int:
    """Read a number of processes, or `auto`, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    if text == "auto":
        return len(os.sched_getaffinity(0)) if _guards.gil_enabled() else 1
    expected = f"a number of processes from 1 to {MAX_WORKERS}, or auto"
    return whole_number(text, expected, at_least=1, at_most=MAX_WORKERS)


def whole(text: str) -> int:
    """Read a port, which may be none that there is, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is no whole number.
    """
    try:
        return int(text)
    except ValueError:
        words = f"expected a port, from 1 to 65535, or 0 for any that is free, got {text!r}"
        raise argparse.ArgumentTypeError(words) from None


def positive(text: str) -> int:
    """Read a whole number of 1 or more, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    return whole_number(text, "a whole number, 1 or more", at_least=1)
