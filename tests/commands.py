"""Runs the `manyhands` command, and the examples, in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

START = 60.0
"""Seconds. A limit for whole processes, interpreter start included, on a machine that is busy with other tests."""

COMMAND = [sys.executable, "-W", "error", "-m", "manyhands"]


def run_command(*arguments: str, max_descriptors: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run `manyhands` with these arguments to its end; with a limit of open files if one is given."""
    command = [*COMMAND, *arguments]
    if max_descriptors is not None:
        command = with_descriptors(max_descriptors, command)
    return subprocess.run(command, capture_output=True, text=True, timeout=START, check=False)


def with_descriptors(limit: int, command: list[str]) -> list[str]:
    """Write the command line that runs `command` with at most `limit` open files."""
    return ["sh", "-c", 'ulimit -n "$1"; shift; exec "$@"', "sh", str(limit), *command]


def run_example(name: str, *arguments: str) -> str:
    """Run an example to its end and return what it printed; it must end with status 0 and without complaint."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", *arguments],
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_no_complaint(done.stderr)
    return done.stdout


def assert_no_complaint(printed: str) -> None:
    """Check what a program printed on its standard error: nothing, or that a handler was slow, as on a busy machine."""
    found = re.search(r"Traceback|Warning|Exception ignored|never ran", printed)
    assert found is None, printed
