"""`manyhands demo`: the library at work, in one command and a few seconds.

| | shows | is in |
|---|---|---|
| `serve`, also without its name | the server: slow clients and clients that hang up | `demo_serve.py` |
| `jobs` | the pool: the same without HTTP, with a live table of the jobs | `demo_jobs.py` |
| `echo` | the loop: many connections, every byte compared | `demo_echo.py` |

Each ends by itself, with status 1 and a sentence if anything was wrong.
"""

from __future__ import annotations

import argparse

from manyhands.cli import demo_echo, demo_jobs, demo_serve
from manyhands.cli._options import whole_number
from manyhands.cli.echo import thread_count

SECONDS = {"serve": 10.0, "jobs": 6.0, "echo": 3.0}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "what",
        nargs="?",
        choices=tuple(SECONDS),
        default="serve",
        help="serve: a Flask application with slow clients and clients that hang up; jobs: the pool, hashing for such clients; "
        "echo: the loop, serving many connections (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help="of traffic (default: {serve:g} for serve, {jobs:g} for jobs, {echo:g} for echo)".format(**SECONDS),
    )
    serve = parser.add_argument_group("serve only")
    serve.add_argument(
        "--clients", type=_count, default=500, metavar="N", help="that are slow, at once (default: %(default)s)"
    )
    serve.add_argument(
        "--keep",
        action="store_true",
        help="go on until Ctrl-C, for a look at the pages and the dashboard in a browser",
    )
    serve.add_argument(
        "--port", type=_port, default=0, metavar="PORT", help="of the application (default: any that is free)"
    )
    serve.add_argument(
        "--dashboard", type=_port, default=0, metavar="PORT", help="of its dashboard (default: any that is free)"
    )
    echo = parser.add_argument_group("echo only")
    echo.add_argument("--connections", type=_count, default=200, metavar="N", help="at once (default: %(default)s)")
    echo.add_argument(
        "--threads", type=thread_count, default=4, metavar="N", help="of the server (default: %(default)s)"
    )
    echo.add_argument("--poller", choices=("epoll", "poll", "select"), default="epoll", help="(default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run the demo and print what came out.

    Raises:
        Failure: something was not as it must be.
    """
    seconds = options.seconds or SECONDS[options.what]
    if options.what == "jobs":
        return demo_jobs.run(seconds)
    if options.what == "echo":
        return demo_echo.run(options, seconds)
    return demo_serve.run(options, seconds)


def _count(text: str) -> int:
    return whole_number(text, "a number from 1 to 60000", at_least=1, at_most=60_000)


def _port(text: str) -> int:
    return whole_number(text, "a port from 1 to 65535, or 0 for any that is free", at_least=0, at_most=65_535)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"expected seconds from just above 0 to 86400, got {text!r}")
    return seconds
