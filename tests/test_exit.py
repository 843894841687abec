"""The process ends when its program ends, whoever is still inside a loop."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

PRELUDE = """
import atexit, logging, os, signal, socket, sys, threading, time
import manyhands as mh

signal.alarm(20)  # a program that hangs dies by the signal, and its status says so

def echo(watch, events):
    try:
        data = watch.source.recv(100)
    except BlockingIOError:  # readiness may be spurious
        return
    watch.source.send(data)

def load(loop):
    "Work that never ends: messages, timers and echoes that make the next one."
    def again(strand):
        strand.post(again, strand)
    for _ in range(4):
        strand = loop.strand()
        strand.post(again, strand)
        loop.call_every(0.0005, int)
        a, b = socket.socketpair()
        for sock in (a, b):
            sock.setblocking(False)
            loop.add(sock, mh.Events.READ, echo)
        a.send(b"x")

def crew(loop, threads, daemon):
    for _ in range(threads):
        threading.Thread(target=loop.join, daemon=daemon).start()
    while loop.joined < threads:
        threading.Event().wait(0.001)

def over():
    "Say when the main program ended, on the clock that every process shares."
    print(time.monotonic(), flush=True)
"""

PROGRAMS = {
    "four daemon threads under load": (
        0,
        """
loop = mh.EventLoop(slow_handler=10)
load(loop)
crew(loop, 4, daemon=True)
over()
""",
    ),
    "four threads under load, none of them a daemon": (
        0,
        """
loop = mh.EventLoop(slow_handler=10)
load(loop)
crew(loop, 4, daemon=False)
over()
""",
    ),
    "idle daemon threads": (
        0,
        """
loop = mh.EventLoop(slow_handler=10)
crew(loop, 4, daemon=True)
over()
""",
    ),
    "an owned-threads loop that nobody stopped": (
        0,
        """
loop = mh.ThreadedEventLoop(threads=4, slow_handler=10)
load(loop)
loop.start()
over()
""",
    ),
    "the monitor at work": (
        0,
        """
logging.getLogger("manyhands").setLevel(logging.CRITICAL)
loop = mh.EventLoop(slow_handler=0.001)
load(loop)
inside = threading.Event()
def slow():
    inside.set()
    threading.Event().wait(0.05)
loop.post(slow)
crew(loop, 4, daemon=True)
inside.wait(10)
over()
""",
    ),
    "sys.exit in a handler of the main thread": (
        7,
        """
loop = mh.EventLoop(slow_handler=10)
load(loop)
crew(loop, 3, daemon=True)
leave = threading.Event()
def poll_for_main():
    if threading.current_thread() is threading.main_thread():
        over()
        sys.exit(7)
timer = loop.call_every(0.0005, poll_for_main)
loop.join()
""",
    ),
    "an exception in main": (
        1,
        """
loop = mh.EventLoop(slow_handler=10)
load(loop)
crew(loop, 4, daemon=True)
over()
raise LookupError("the program's own")
""",
    ),
    "atexit registered before the import, closing the loop": (
        0,
        """
loop = mh.EventLoop(slow_handler=10)
load(loop)
crew(loop, 4, daemon=True)
logging.getLogger("manyhands").setLevel(logging.CRITICAL)  # the messages that never ran are counted, rightly
atexit_first.append(loop.close)
over()
""",
    ),
    "atexit registered after the loop, closing the loop": (
        0,
        """
loop = mh.EventLoop(slow_handler=10)
load(loop)
crew(loop, 4, daemon=True)
logging.getLogger("manyhands").setLevel(logging.CRITICAL)
atexit.register(loop.close)
over()
""",
    ),
    "a handler blocked past the end of the process": (
        0,
        """
loop = mh.EventLoop(slow_handler=10)
inside = threading.Event()
def block():
    inside.set()
    threading.Event().wait(1000)
loop.post(block)
crew(loop, 2, daemon=True)
inside.wait(10)
over()
""",
    ),
    "posters from threads of their own": (
        0,
        """
loop = mh.EventLoop(slow_handler=10)
load(loop)
crew(loop, 2, daemon=True)
def keep_posting():
    try:
        while True:
            loop.post(int)
            if loop.stats().ready > 1000:
                threading.Event().wait(0.001)
    except (mh.LoopClosed, mh.LoopStopped):
        pass
for _ in range(2):
    threading.Thread(target=keep_posting, daemon=True).start()
over()
""",
    ),
    "a loop that was never joined or closed": (
        0,
        """
loop = mh.EventLoop(slow_handler=10)
load(loop)
over()
""",
    ),
}

QUIET = "import atexit; atexit_first = []; atexit.register(lambda: [call() for call in atexit_first])\n"


def exit_once(code: str) -> tuple[int, str, float]:
    """Run the program; return its status, what it wrote to stderr, and the seconds from the end of main to the end."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore::ResourceWarning"}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    end = time.monotonic()
    said = ended.stdout.split()
    return ended.returncode, ended.stderr, end - float(said[0]) if said else -1.0


def check_exits(name: str, times: int, *, quick: bool) -> None:
    # A hang ends by the alarm, and its status says so. How quick an exit is, is asked where nothing else is running.
    status, code = PROGRAMS[name]
    with ThreadPoolExecutor(2) as executor:
        exits = list(executor.map(exit_once, [QUIET + PRELUDE + code] * times))
    for got, stderr, seconds in exits:
        assert got == status, (got, stderr)
        assert seconds >= 0, "main did not come to its end"
        if status == 1:
            assert stderr.rstrip().endswith("LookupError: the program's own")
            assert stderr.count("Traceback") == 1, stderr
        elif name == "a handler blocked past the end of the process":
            assert "FATAL" not in stderr.upper()
        else:
            assert stderr == ""
    if quick:
        limit = 2.5 if name == "a handler blocked past the end of the process" else 1.0
        assert statistics.median(seconds for _, _, seconds in exits) < limit


@pytest.mark.fault
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_process_ends_with_threads_joined_and_no_stop(name):
    """T98. Interpreter exit with threads joined and no stop: the process ends, with its own status, in silence.

    FAULT 25, ten exits of each program.
    """
    check_exits(name, 10, quick=False)


@pytest.mark.fault
@pytest.mark.stress
@pytest.mark.parametrize("name", PROGRAMS)
def test_two_hundred_of_two_hundred_exits_are_clean(name):
    """FAULT 25. The same, 200 of 200."""
    check_exits(name, 200, quick=True)


@pytest.mark.fault
def test_a_handler_that_blocks_at_the_exit_is_named(subprocess_python):
    """FAULT 25. What could not be ended is said: which handler of which loop still ran when the process left."""
    ended = subprocess_python(
        PRELUDE
        + """
loop = mh.EventLoop(name="mill")
inside = threading.Event()
def a_function_that_blocks():
    inside.set()
    threading.Event().wait(1000)
loop.post(a_function_that_blocks)
crew(loop, 2, daemon=True)
inside.wait(10)
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert "mill" in ended.stderr
    assert "a_function_that_blocks" in ended.stderr
