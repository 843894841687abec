"""The clocks that timers follow: the monotonic one, and the one that tests move."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tokenize
from pathlib import Path

import pytest

import manyhands as mh
from gate import Gate
from manyhands.testing import MockClock, wait_all_idle
from support import LONG, wait_until

READ = mh.Events.READ

ROOT = Path(__file__).resolve().parent.parent


def nothing(*_args: object) -> None:
    pass


# --------------------------------------------------------------------------------------------------------------- clocks


def test_now_is_the_monotonic_clock(make_loop):
    """`loop.now()` is comparable with `time.monotonic()`."""
    loop = make_loop()
    before = time.monotonic()
    now = loop.now()
    assert before <= now <= time.monotonic()
    assert isinstance(now, float)


def test_now_of_a_mock_clock_is_what_it_says(make_loop):
    """A loop with a clock asks that one, and timers follow it."""
    clock = MockClock(100.0)
    loop = make_loop(clock=clock)
    assert clock.now() == 100.0
    assert loop.now() == 100.0
    clock.advance(2.5)
    assert loop.now() == 102.5
    assert loop.call_later(1, nothing).when == 103.5


@pytest.mark.parametrize(("seconds", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_a_mock_clock_does_not_go_back(seconds, error):
    """It is monotonic: advance() takes a number >= 0."""
    clock = MockClock(5.0)
    with pytest.raises(error):
        clock.advance(seconds)
    assert clock.now() == 5.0


def test_one_mock_clock_wakes_every_loop_that_uses_it(make_loop, joined):
    """`advance()` is seen by all loops of the clock."""
    clock = MockClock()
    loops = [make_loop(clock=clock) for _ in range(3)]
    ran = [threading.Event() for _ in loops]
    with contextlib.ExitStack() as stack:
        for loop, event in zip(loops, ran, strict=True):
            stack.enter_context(joined(loop))
            loop.call_later(1.0, event.set)
        wait_until(lambda: all(loop.joined == 1 for loop in loops))
        wait_all_idle(*loops)
        clock.advance(1.0)
        assert all(event.wait(LONG) for event in ran)


def test_autojump_jumps_from_timer_to_timer(make_loop):
    """When every joined thread waits the clock goes to the next timer: hours pass in no time."""
    clock = MockClock(autojump=True)
    loop = make_loop(clock=clock)
    ran = []
    for hours in (3, 1, 2):
        loop.call_later(hours * 3600.0, lambda: ran.append(clock.now()))
    loop.call_later(4 * 3600.0, loop.request_stop)
    started = time.monotonic()

    assert loop.join() == 4
    assert ran == [3600.0, 7200.0, 10800.0]
    assert clock.now() == 4 * 3600.0
    assert time.monotonic() - started < LONG


def test_autojump_serves_a_periodic_timer(make_loop):
    """A hundred ticks of a minute."""
    clock = MockClock(autojump=True)
    loop = make_loop(clock=clock)
    ticks = []

    def tick() -> object:
        ticks.append(clock.now())
        if len(ticks) == 100:
            loop.request_stop()
        return None

    loop.call_every(60.0, tick)
    loop.join()
    assert ticks == [60.0 * number for number in range(1, 101)]


def test_autojump_waits_for_a_thread_inside_a_handler(make_loop, joined):
    """Somebody is busy, so no time passes; when the handler has ended it does."""
    clock = MockClock(autojump=True)
    loop = make_loop(clock=clock, handover=0)
    ran = threading.Event()
    with joined(loop, 2), Gate() as gate:
        wait_until(lambda: loop.joined == 2)
        loop.post(gate)
        gate.wait_entered()
        loop.call_later(10.0, ran.set)
        other = threading.Event()
        loop.post(other.set)
        assert other.wait(LONG)
        with pytest.raises(TimeoutError):
            wait_all_idle(loop, timeout=0.05)
        assert clock.now() == 0.0
        gate.open()
        assert ran.wait(LONG)
        assert clock.now() == 10.0


def test_autojump_waits_for_what_is_ready_in_the_kernel(make_loop, pair):
    """A descriptor that is readable is handled at the time that it is, not after the next timer."""
    clock = MockClock(autojump=True)
    loop = make_loop(clock=clock)
    a, b = pair()
    when = []

    def handler(watch, _events) -> None:
        watch.source.recv(10)
        when.append(("watch", clock.now()))

    loop.add(a, READ, handler)
    b.send(b"x")
    loop.call_later(10.0, lambda: when.append(("timer", clock.now())))
    assert loop.join(max_handlers=2) == 2
    assert when == [("watch", 0.0), ("timer", 10.0)]


def test_autojump_of_two_loops_waits_for_both(make_loop, joined):
    """The clock of two loops jumps when the threads of both wait."""
    clock = MockClock(autojump=True)
    one, two = make_loop(clock=clock), make_loop(clock=clock)
    ran = threading.Event()
    with joined(one), joined(two), Gate() as gate:
        two.post(gate)
        gate.wait_entered()
        one.call_later(5.0, ran.set)
        with pytest.raises(TimeoutError):
            wait_all_idle(two, timeout=0.05)
        assert clock.now() == 0.0
        gate.open()
        assert ran.wait(LONG)


# ----------------------------------------------------------------------------------------------------------- clock jumps


WALL_CLOCK = re.compile(
    r"SystemTime|UNIX_EPOCH|CLOCK_REALTIME|ClockId::Realtime|clock_gettime_realtime|gettimeofday"
    r"|\btime\.time(_ns)?\b|from time import .*\btime\b|datetime\.now|\butcnow\b"
)


def code_of(path: Path) -> list[str]:
    """The lines of a file without what is comment, docstring or other text."""
    lines = path.read_text().splitlines()
    if path.suffix != ".py":
        return [line.partition("//")[0] for line in lines]
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                (first, start), (last, end) = token.start, token.end
                for row in range(first, last + 1):
                    line = lines[row - 1]
                    left, right = start if row == first else 0, end if row == last else len(line)
                    lines[row - 1] = line[:left] + " " * (right - left) + line[right:]
    return lines


def wall_clocks(path: Path) -> list[int]:
    """The numbers of the lines that ask the wall clock."""
    return [number for number, line in enumerate(code_of(path), 1) if WALL_CLOCK.search(line)]


def test_no_timing_code_asks_the_wall_clock():
    """FAULT 13. Neither the core nor the seam nor the Python layer looks at a clock that somebody can set."""
    files = [
        *ROOT.glob("crates/core/src/**/*.rs"),
        *ROOT.glob("crates/py/src/**/*.rs"),
        *ROOT.glob("python/manyhands/**/*.py"),
    ]
    assert len(files) > 5, "the sources are not where this test looks for them"
    assert [f"{path.relative_to(ROOT)}:{number}" for path in files for number in wall_clocks(path)] == []


def test_the_gate_against_the_wall_clock_can_close(tmp_path):
    """FAULT 13. The pattern finds what it is meant to find, and not the monotonic clock."""
    rust = tmp_path / "clock.rs"
    rust.write_text("let now = SystemTime::now(); // SystemTime\n// SystemTime\nlet then = Instant::now();\n")
    python = tmp_path / "clock.py"
    python.write_text(
        '"""time.time()"""\nnow = time.time()\nthen = time.monotonic()  # time.time()\nfrom time import time\n'
    )
    assert wall_clocks(rust) == [1]
    assert wall_clocks(python) == [2, 4]


JUMPING_CLOCK = r"""
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long offset;
void jump(long seconds) { offset = seconds; }
int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += offset;
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec spec;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &spec);
    now->tv_sec = spec.tv_sec;
    now->tv_usec = spec.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *out) {
    struct timespec spec;
    clock_gettime(CLOCK_REALTIME, &spec);
    if (out) *out = spec.tv_sec;
    return spec.tv_sec;
}
"""

JUMP = """
import ctypes, threading, time
import manyhands as mh

jump = ctypes.CDLL(None).jump
loop = mh.EventLoop()
for day in (86400, -86400):
    wall, started = time.time(), time.monotonic()
    loop.call_later(0.05, loop.request_stop)
    loop.post(jump, day)
    loop.join()
    took = time.monotonic() - started
    assert abs(time.time() - wall) > 80000, "the wall clock did not jump"
    assert 0.05 <= took < 5, took
    jump(0)
    loop.restart()
loop.close()
"""


@pytest.mark.fault
def test_a_jump_of_the_wall_clock_moves_no_timer(subprocess_python, tmp_path):
    """FAULT 13. The wall clock jumps by a day, forward and back, under a timer of 50 ms."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, library = tmp_path / "jump.c", tmp_path / "jump.so"
    source.write_text(JUMPING_CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    done = subprocess_python(JUMP, env={**os.environ, "LD_PRELOAD": str(library)})
    assert done.returncode == 0, done.stderr


SUSPENDED = """
import sys, time
import manyhands as mh

loop = mh.EventLoop()
ticks = []

def tick():
    ticks.append(time.monotonic())
    if len(ticks) == 3:
        print("ready", flush=True)
    gaps = [later - earlier for earlier, later in zip(ticks, ticks[1:])]
    late = [number for number, gap in enumerate(gaps, 1) if gap > 0.8]
    if late and len(ticks) > late[0] + 3:
        # The tick that comes with the waking, and one of the old rate that may stand close behind it.
        assert ticks[late[0] + 2] - ticks[late[0]] >= 0.025, ticks
        loop.request_stop()

loop.call_every(0.05, tick)
assert loop.join(25)
assert loop.stopped, "no gap was seen"
loop.close()
print("collapsed")
"""


@pytest.mark.fault
def test_a_suspended_process_fires_a_periodic_timer_once():
    """FAULT 13. After SIGSTOP for twenty intervals and SIGCONT the timer runs once, and then at its rate."""
    with subprocess.Popen(
        [sys.executable, "-c", SUSPENDED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGSTOP)
            threading.Event().wait(1.0)
            process.send_signal(signal.SIGCONT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "collapsed\n"), err
