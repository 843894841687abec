"""Why `manyhands serve` cannot listen, in a sentence each, with what to do; and what runs on when it has ended."""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from manyhands.cli._failure import OUT_OF_DESCRIPTORS, Failure

if TYPE_CHECKING:
    from manyhands._job import JobSnapshot
    from manyhands.server._bind import Bind

__all__ = ["cannot_serve", "still_running"]


def still_running(left: Sequence[JobSnapshot]) -> str:
    """Say which requests run although the server has ended."""
    names = ", ".join(f"{job.name} ({job.age:.1f} s)" for job in left)
    return f"manyhands serve: ended; still running: {names}"


def cannot_serve(options: argparse.Namespace, bind: Bind, error: OSError) -> Failure:
    """Say why it cannot listen there, and what to do."""
    if error.errno in OUT_OF_DESCRIPTORS:
        return Failure(f"there is no descriptor left ({error.strerror}): raise the limit with `ulimit -n 1024`.")
    if bind.fd is not None:
        return Failure(f"cannot serve on fd:{bind.fd}: {error.strerror}; give the number of a socket that listens.")
    if bind.path is not None:
        if error.errno == errno.EADDRINUSE and not Path(bind.path).is_socket():
            return Failure(f"{bind.path} is there already and no socket: choose another path.")
        if error.errno == errno.EADDRINUSE:
            return Failure(f"{bind.path} is in use: end the program that listens there, or choose another path.")
        return Failure(f"cannot listen on {bind.path}: {error.strerror or error}; choose another path.")
    return _cannot_have_port(options, bind, error)


def _cannot_have_port(options: argparse.Namespace, bind: Bind, error: OSError) -> Failure:
    port = f"port {bind.port}" + (f" of {bind.host}" if bind.host else "")
    from_environment = options.port is None and "PORT" in os.environ
    given, host = ("$PORT" if from_environment else "--port"), "--host"
    if options.bind is not None:
        given = host = "--bind"
    if error.errno == errno.EADDRINUSE:
        return Failure(f"{port} is in use: end the program that has it, or choose another with {given}.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Failure(
            f"no permission to listen on {port}: choose a port from 1024 on with {given}, or run it with the right to use "
            "lower ones."
        )
    if error.errno in errno.errorcode and error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return Failure(f"cannot listen on {port}: {error.strerror or error}; choose another with {given}.")
    return _no_such_host(bind.host, host, error)


def _no_such_host(given: str, option: str, error: OSError) -> Failure:
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return Failure(
            f"{given} is no address of this machine ({error.strerror}): give {option} one that it has, such as 127.0.0.1, or "
            "0.0.0.0 for all of them."
        )
    return Failure(
        f"cannot find the host {given!r} ({error.strerror or error}): give {option} a name or an address of this machine, "
        "such as 127.0.0.1, or 0.0.0.0 for all of them."
    )
