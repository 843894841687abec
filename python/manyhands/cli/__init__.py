"""The command line: `manyhands serve`, `top`, `echo`, `forward`, `demo`, `doctor`, and `manyhands --version`.

A command is a module of this package with two functions: `configure(parser)` declares its options, `run(options)` does
the work and returns the exit status. What they use of the library is its public face: the commands are its first users.

Exit status: 0 done; 1 it could not be done, and one sentence on standard error says why and what to do; 2 the arguments
were wrong; 130 ended by a Ctrl-C that could not wait.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import manyhands as mh
from manyhands.cli import demo, doctor, echo, forward, serve, top
from manyhands.cli._failure import Failure as Failure
from manyhands.cli._output import to_nowhere


class Command(NamedTuple):
    """What a module of this package gives to the command line."""

    purpose: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = {
    "echo": Command(
        "send back what comes: every connection by a watch or a task of its own, or by operations, on a loop that many "
        "threads turn",
        echo.configure,
        echo.run,
    ),
    "forward": Command(
        "send what comes to a port on to another one, and what comes back, with TLS on either side",
        forward.configure,
        forward.run,
    ),
    "serve": Command(
        "serve a WSGI application, such as Flask's; what a view does stops when its client hangs up",
        serve.configure,
        serve.run,
    ),
    "top": Command(
        "show what another program's dashboard shows, in a terminal: threads, jobs, loops and pools",
        top.configure,
        top.run,
    ),
    "doctor": Command(
        "print what a bug report needs: interpreter, system, pollers, limits, versions",
        doctor.configure,
        doctor.run,
    ),
    "demo": Command(
        "show the library at work: a web application with hundreds of slow clients and others that hang up; the pool; the loop",
        demo.configure,
        demo.run,
    ),
}
"""Name on the command line -> what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `manyhands` command.

    Args:
        argv: the arguments after the program's name; None takes the process's own.

    Returns:
        The exit status (see the head of this file).

    Raises:
        SystemExit: the arguments are wrong (2), or only help or the version was asked for (0).

    Threads: `echo` ends at a signal only when called on the main thread.
    """
    options, unknown = _parser().parse_known_args(argv)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}; see manyhands {options.command} --help")
    try:
        status = COMMANDS[options.command].run(options)
        sys.stdout.flush()
    except Failure as failure:
        print(f"manyhands {options.command}: {failure}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        to_nowhere()  # as after `manyhands doctor | head -1`
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="manyhands",
        description="An event loop that any number of threads may turn together.",
        epilog="`manyhands COMMAND --help` lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"manyhands {mh.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        description = command.purpose[0].upper() + command.purpose[1:] + "."
        its_own = commands.add_parser(name, help=command.purpose, description=description)
        its_own.set_defaults(parser=its_own)
        command.configure(its_own)
    return parser
