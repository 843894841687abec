"""Ctrl-C in a script with jobs: once asks them all, the second time is immediate."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

PRELUDE = """
import concurrent.futures, os, signal, sys, threading, time
import manyhands as mh
from manyhands import _guards

signal.alarm(20)  # a program that hangs dies by the signal, and its status says so

def entered(pool, count):
    "Wait until so many jobs run."
    while pool.stats().busy < count:
        threading.Event().wait(0.001)
"""

SCRIPTS = {
    "result": """
job = pool.enqueue(work)
say("ready")
job.result()
""",
    "wait": """
job = pool.enqueue(work)
say("ready")
concurrent.futures.wait([job])
""",
    "the with block": """
with pool:
    job = pool.enqueue(work)
    say("ready")
    job.result()
""",
    "the end of the with block": """
with pool:
    job = pool.enqueue(work)
    say("ready")
""",
    "destroy": """
job = pool.enqueue(work)
entered(pool, 1)
say("ready")
pool.destroy()
""",
    "map": """
say("ready")
list(pool.map(lambda _: work(), range(4)))
""",
}
"""Where the main thread is when Ctrl-C comes."""


def interrupt(code: str, presses: int, pause: float = 0.2, exit_timeout: float = 30.0) -> tuple[int, str, float]:
    """Run a script, press Ctrl-C so often; return its status, its stderr and the seconds from the last press to the end."""
    program = (
        PRELUDE
        + f"_guards.EXIT_TIMEOUT = {exit_timeout}"
        + """
pool = mh.ThreadPool(2)
def say(word):
    os.write(1, word.encode())
"""
        + code
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(5) == b"ready"
            pressed = 0.0
            for _ in range(presses):
                # Nothing says from outside that main waits where it should: it is given the time of many starts.
                try:
                    process.wait(pause)
                    break
                except subprocess.TimeoutExpired:
                    pressed = time.monotonic()
                    process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    return process.returncode, stderr.decode(), time.monotonic() - pressed


@pytest.mark.fault
@pytest.mark.parametrize("where", SCRIPTS)
def test_one_ctrl_c_asks_every_job_and_the_script_ends(where):
    """T95. Jobs that check in end, and so does the process, by KeyboardInterrupt; nothing has to be pressed again."""
    work = "def work():\n    mh.sleep_blocking(60)\n"
    if where == "destroy":
        work = "def work():\n    time.sleep(0.5)\n"
    status, stderr, seconds = interrupt(work + SCRIPTS[where], presses=1)
    assert status == -signal.SIGINT, (status, stderr)
    assert "KeyboardInterrupt" in stderr
    assert seconds < 10


@pytest.mark.fault
@pytest.mark.parametrize("where", ["result", "the with block", "destroy"])
def test_the_second_ctrl_c_is_immediate(where):
    """T95. A job that does not listen: after the first press somebody waits for it, after the second nobody does.

    In a with block that is the block's end, and then the exit of the interpreter, which has its own limit.
    """
    work = "def work():\n    time.sleep(60)\n"
    exit_timeout = 1.0 if "with" in where else 30.0
    status, stderr, seconds = interrupt(work + SCRIPTS[where], presses=2, pause=0.5, exit_timeout=exit_timeout)
    assert status != 0, stderr
    assert seconds < 10
