"""Waiting for a child process."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from manyhands import _core
from manyhands.blocking._patience import Patience
from manyhands.blocking._sockets import READ

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath

__all__ = ["KILL_AFTER", "run"]

KILL_AFTER = 2.0
"""Seconds that a child process has between SIGTERM and SIGKILL."""


def run(
    args: StrOrBytesPath | Sequence[StrOrBytesPath],
    *,
    input: Any = None,  # noqa: A002 - the name in subprocess.run
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end: `subprocess.run` whose child a stop ends.

    A child whose job is told to stop gets SIGTERM, and SIGKILL if it has not ended `KILL_AFTER` seconds later. Its own
    children are its own business.

    Args:
        args: The program and its arguments, as `subprocess.run`.
        input: What it reads on its standard input.
        capture_output: Whether to collect what it prints.
        timeout: Seconds; then it is killed.
        check: Whether a status that is not 0 is an error.
        options: As `subprocess.Popen`.

    Returns:
        As `subprocess.run`.

    Raises:
        JobStopped: the job was told to stop; the child has ended.
        TimeoutExpired: it did not end in time; it was killed.
        CalledProcessError: with `check`, its status is not 0.

    Blocks: until the child has ended; after a stop for `KILL_AFTER` at most.
    """
    if input is not None:
        if options.get("stdin") is not None:
            raise ValueError("give input or stdin, not both")
        options["stdin"] = subprocess.PIPE
    if capture_output:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("give capture_output, or stdout and stderr, not both")
        options["stdout"] = options["stderr"] = subprocess.PIPE
    patience = Patience(timeout)
    _core.check_in()
    with subprocess.Popen(args, **options) as process:
        try:
            output, errors = _communicate(process, input, patience, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        except BaseException:
            _end(process)
            raise
    status = process.returncode
    if check and status:
        raise subprocess.CalledProcessError(status, process.args, output=output, stderr=errors)
    return subprocess.CompletedProcess(process.args, status, output, errors)


def _communicate(
    process: subprocess.Popen[Any], given: Any, patience: Patience, timeout: float | None
) -> tuple[Any, Any]:
    """Feed and read a child until it has ended.

    Raises:
        TimeoutExpired: with what it has printed so far.
        JobStopped: the child runs.
    """
    if process.stdin is process.stdout is process.stderr is None and _wait_for_end(process, patience):
        return process.communicate()
    while True:
        try:
            return process.communicate(given, timeout=patience.turn())
        except subprocess.TimeoutExpired as slice_over:
            given = None  # it is on its way; what was read is kept for the next call
            if patience.over:
                assert timeout is not None
                raise subprocess.TimeoutExpired(
                    process.args, timeout, output=slice_over.output, stderr=slice_over.stderr
                ) from None


def _wait_for_end(process: subprocess.Popen[Any], patience: Patience) -> bool:
    """Wait without polling for a child that needs nothing from us. Returns whether it has ended."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:  # an old kernel, a strict sandbox, or it has been waited for already
        return False
    try:
        return bool(_core.wait_descriptor(pidfd, READ, patience.timeout()))
    finally:
        os.close(pidfd)


def _end(process: subprocess.Popen[Any]) -> None:
    """End a child. Looks for no stop: the one that ends it has been told already."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.terminate()
    try:
        process.wait(KILL_AFTER)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
