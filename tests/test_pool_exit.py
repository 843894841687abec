"""The process ends when its program ends, whatever its jobs do; and says who was left."""

from __future__ import annotations

import concurrent.futures
import os
import statistics
import subprocess
import sys
import time

import pytest

PRELUDE = """
import asyncio, concurrent.futures, logging, os, signal, sys, threading, time
import manyhands as mh
from manyhands import _guards

signal.alarm(20)  # a program that hangs dies by the signal, and its status says so

def entered(pool, count):
    "Wait until so many jobs run."
    while pool.stats().busy < count:
        threading.Event().wait(0.001)

def over():
    "Say when the main program ended, on the clock that every process shares."
    print(time.monotonic(), flush=True)
"""

WILLING = {
    "idle threads": (
        0,
        """
pool = mh.ThreadPool(4)
list(pool.map(str, range(100)))
over()
""",
    ),
    "jobs that check in": (
        0,
        """
pool = mh.ThreadPool(4)
for _ in range(4):
    pool.enqueue(mh.sleep_blocking, 60)
entered(pool, 4)
over()
""",
    ),
    "a queue full of jobs": (
        0,
        """
pool = mh.ThreadPool(2, max_queue_depth=None)
for _ in range(1000):
    pool.enqueue(mh.sleep_blocking, 60)
entered(pool, 2)
over()
""",
    ),
    "jobs under load": (
        0,
        """
pool = mh.ThreadPool(4, max_queue_depth=None)
def again():
    try:
        pool.enqueue(again)
    except mh.PoolFinished:
        pass
for _ in range(8):
    pool.enqueue(again)
threading.Event().wait(0.05)
over()
""",
    ),
    "jobs that wait in a sync, held and parked": (
        0,
        """
loop = mh.EventLoop(slow_handler=10)
threading.Thread(target=loop.join, daemon=True).start()
pool = mh.ThreadPool(2)
def steps():
    yield mh.SYNC()
strand = loop.strand()
jobs = [pool.enqueue_steps(steps, owner=strand, on_sync=lambda job, value: None) for _ in range(5)]
jobs.append(pool.enqueue(lambda: mh.current_job().sync(), owner=strand, on_sync=lambda job, value: None))
while any(job.status is not mh.JobStatus.SYNCING for job in jobs):
    threading.Event().wait(0.001)
over()
""",
    ),
    "a job in place": (
        0,
        """
loop = mh.EventLoop(slow_handler=10)
pool = mh.ThreadPool(2)
for _ in range(2):
    threading.Thread(target=loop.join, daemon=True).start()
while loop.joined < 2:
    threading.Event().wait(0.001)
loop.post(lambda: pool.enqueue(mh.sleep_blocking, 60, in_place=True))
entered(pool, 1)
over()
""",
    ),
    "the default pool": (
        0,
        """
pool = mh.default_pool()
pool.enqueue(mh.sleep_blocking, 60)
entered(pool, 1)
over()
""",
    ),
    "deadlines far away": (
        0,
        """
pool = mh.ThreadPool(1)
pool.enqueue(mh.sleep_blocking, 60, deadline=mh.now() + 1000)
entered(pool, 1)
over()
""",
    ),
    "sys.exit in main": (
        7,
        """
pool = mh.ThreadPool(1)
pool.enqueue(mh.sleep_blocking, 60)
entered(pool, 1)
over()
sys.exit(7)
""",
    ),
    "an exception in main": (
        1,
        """
pool = mh.ThreadPool(1)
pool.enqueue(mh.sleep_blocking, 60)
entered(pool, 1)
over()
raise LookupError("the program's own")
""",
    ),
    "the executor under asyncio": (
        0,
        """
pool = mh.ThreadPool(2)
async def main():
    asyncio.get_running_loop().set_default_executor(pool.executor())
    await asyncio.to_thread(str)
asyncio.run(main())
pool.enqueue(mh.sleep_blocking, 60)
entered(pool, 1)
over()
""",
    ),
    "a pool that nobody kept": (
        0,
        """
mh.ThreadPool(2).enqueue(mh.sleep_blocking, 60)
over()
""",
    ),
}
"""Programs whose jobs can be stopped -> the status that they end with, and their code."""

STUBBORN = {
    "a job in time.sleep": "stubborn = lambda: time.sleep(1000)",
    "a job that spins": """
def stubborn():
    while True:
        pass
""",
    "a job that swallows its stop": """
def stubborn():
    while True:
        try:
            mh.sleep_blocking(1000)
        except mh.JobStopped:
            pass
""",
    "a job in a lock": """
def stubborn():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
""",
}
"""Jobs that never end."""


def exit_once(code: str) -> tuple[int, str, float]:
    """Run the program; return its status, what it wrote to stderr, and the seconds from the end of main to the end."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore::ResourceWarning"}
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    end = time.monotonic()
    said = ended.stdout.split()
    return ended.returncode, ended.stderr, end - float(said[0]) if said else -1.0


def check_exits(name: str, times: int) -> None:
    status, code = WILLING[name]
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        exits = list(executor.map(exit_once, [code] * times))
    for got, stderr, seconds in exits:
        assert got == status, (got, stderr)
        assert seconds >= 0, "main did not come to its end"
        if status == 1:
            assert stderr.rstrip().endswith("LookupError: the program's own")
            assert stderr.count("Traceback") == 1, stderr
        else:
            assert stderr == ""
    assert statistics.median(seconds for _, _, seconds in exits) < 1.0, "the exit waited though every job had ended"


@pytest.mark.fault
@pytest.mark.parametrize("name", WILLING)
def test_the_process_ends_with_jobs_that_can_be_stopped(name):
    """T75d. Queued ones are stopped, running ones asked: at once, with the program's own status, in silence.

    FAULT 25, two exits of each program.
    """
    check_exits(name, 2)


@pytest.mark.fault
@pytest.mark.stress
@pytest.mark.parametrize("name", WILLING)
def test_two_hundred_of_two_hundred_exits_with_jobs_are_clean(name):
    """FAULT 25. The same, 200 of 200."""
    check_exits(name, 200)


@pytest.mark.fault
@pytest.mark.parametrize("name", STUBBORN)
def test_the_process_ends_with_a_job_that_never_checks_in_and_says_who_was_left(name):
    """T75d. Exit waits for its deadline and no longer, and names the job."""
    code = f"""
{STUBBORN[name]}
pool = mh.ThreadPool(2, name="mill")
pool.enqueue(stubborn, name="the stubborn one")
pool.enqueue(mh.sleep_blocking, 60, name="the willing one")
entered(pool, 2)
over()
"""
    status, stderr, seconds = exit_once(code)
    assert status == 0, stderr
    assert "the stubborn one" in stderr
    assert "mill" in stderr
    assert "the willing one" not in stderr
    assert "FATAL" not in stderr.upper()
    assert 0.9 < seconds < 5


@pytest.mark.fault
def test_the_cleanup_of_every_job_runs_before_the_process_ends(subprocess_python):
    """T62. Queued and running ones: what a job holds is given back at the exit as well."""
    done = subprocess_python(
        PRELUDE
        + """
pool = mh.ThreadPool(2)
def cleanup(job):
    os.write(1, b"%d " % job.id)
jobs = [pool.enqueue(mh.sleep_blocking, 60, cleanup=cleanup) for _ in range(20)]
entered(pool, 2)
os.write(1, b"%d " % len({job.id for job in jobs}))
"""
    )
    assert done.returncode == 0, done.stderr
    count, *cleaned = done.stdout.split()
    assert count == "20"
    assert len(cleaned) == len(set(cleaned)) == 20
