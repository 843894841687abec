"""`manyhands demo jobs`: blocking work under control, in one command and a few seconds.

Runs the digest server (`_digest_server.py`, which is `examples/digest_server.py`) on a directory made for it, with real
clients (`_digest_clients.py`): some read at once, some slowly, and one hangs up again and again. Meanwhile it shows the
pool's jobs: as a table that is redrawn on a terminal, as lines elsewhere. Ends by itself, or at a Ctrl-C; if a digest was
wrong or a job outlived its client, with status 1.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from select import POLLOUT, poll
from typing import Any

import manyhands as mh
from manyhands._guards import Ending
from manyhands.cli._digest_clients import Clients, Tree
from manyhands.cli._digest_server import DigestServer
from manyhands.cli._failure import Failure, require_descriptors

FAST, SLOW = 2, 3
"""Clients beside the one that hangs up. Two threads of the pool for all of them: the slow ones need none while they wait."""

POOL_THREADS = 2

DESCRIPTORS = 64
"""What the demo needs: its clients twice, the loop's own, and files that are hashed."""

REFRESH, LINES = 0.2, 1.0
"""Seconds between two tables on a terminal, and between two groups of lines elsewhere."""

PROMISE = 1.0
"""Seconds within which the job of a client that hung up must have ended, on a machine that is busy with other things."""

END_TIMEOUT = 5.0

COLUMNS = "{:>4} {:<12} {:<8} {:>6} {:<9} {:<15} {}"
"""Of a table that fits 80 columns, the end of the last one apart."""


def run(seconds: float) -> int:
    """Run the demo.

    Raises:
        Failure: a digest was wrong, or a job outlived its client or the pool.
    """
    require_descriptors(DESCRIPTORS, "this demo")
    with tempfile.TemporaryDirectory(prefix="manyhands-demo-") as directory:
        tree = Tree(Path(directory))
        ends = Ends()
        loop = mh.EventLoop(
            name="demo", slow_handler=PROMISE
        )  # the table is drawn in a handler, and a terminal may be slow
        pool = mh.ThreadPool(POOL_THREADS, name="demo", max_queue_depth=100, on_end=ends.on_end)
        with Ending(loop) as ending:
            try:
                server = DigestServer(loop, pool, directory)
                clients = Clients(server.address, tree, FAST, SLOW)
                ends.hang_ups = clients.hang_ups
                print(
                    f"hashing for {FAST} fast clients, {SLOW} slow ones, one that hangs up; {seconds:g} s, or Ctrl-C",
                    flush=True,
                )
                sight = Sight(pool)
                loop.call_every(REFRESH if sight.live else LINES, sight.show)
                loop.call_later(seconds, loop.request_stop)
                started = time.monotonic()
                clients.start()
                _serve(loop)
                took = time.monotonic() - started
                clients.over.set()
            finally:
                loop.close()
            left = pool.destroy(END_TIMEOUT)
            clients.wait()
        stats = pool.stats()
        check(clients, ends, left)
        print(summary(ending.signal_name, took, clients, ends, stats, sight), flush=True)
    return 0


def check(clients: Clients, ends: Ends, left: list[mh.JobSnapshot]) -> None:
    """Compare what came out with what was promised.

    Raises:
        Failure: it differs.
    """
    if clients.wrong:
        raise Failure(f"{clients.wrong[0]}.")
    if left:
        raise Failure(f"job {left[0].name!r} did not end within {END_TIMEOUT:g} s: {left[0].status.name}.")
    if ends.latencies and max(ends.latencies) > PROMISE:
        raise Failure(f"a job went on for {max(ends.latencies):.1f} s after its client had hung up.")


class Ends:
    """How jobs ended, and how long after their client had hung up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.hang_ups: dict[str, float] = {}
        self.latencies: list[float] = []
        self.reasons: dict[str, int] = {}

    def on_end(self, job: mh.Job[Any]) -> None:
        """Note it. Called on the thread on which the job ended."""
        now = time.monotonic()
        with self._lock:
            if job.reason is not None:
                self.reasons[job.reason.name] = self.reasons.get(job.reason.name, 0) + 1
            if (hung_up := self.hang_ups.get(job.user.peer)) is not None:
                self.latencies.append(now - hung_up)


class Sight:
    """The table of jobs. Called by a timer, so never twice at a time."""

    def __init__(self, pool: mh.ThreadPool) -> None:
        self._pool = pool
        self._started = time.monotonic()
        self._height = 0
        self.live = sys.stdout is not None and sys.stdout.isatty()
        self.parked = 0

    def show(self) -> None:
        """Show what the jobs do now."""
        jobs, stats = self._pool.jobs(), self._pool.stats()
        self.parked = max(self.parked, stats.syncing_parked)
        if self.live:
            self._redraw([_headline(stats), COLUMNS.format(*TITLES), *map(_line, jobs)])
        else:
            print(f"{time.monotonic() - self._started:4.1f} s  {_headline(stats)}")
            print("".join(f"  {_line(job)}\n" for job in jobs), end="", flush=True)

    def _redraw(self, lines: list[str]) -> None:
        """Put the lines over those of the last time. A terminal that takes nothing (Ctrl-S) misses some."""
        room = poll()
        room.register(sys.stdout.fileno(), POLLOUT)
        if not room.poll(0):
            return
        width, height = shutil.get_terminal_size()
        lines = [line[: width - 1] for line in lines[: height - 1]]
        lines += [""] * (self._height - len(lines))
        up = f"\x1b[{self._height}A" if self._height else ""
        sys.stdout.write(up + "".join(f"\r\x1b[K{line}\n" for line in lines))
        sys.stdout.flush()
        self._height = len(lines)


TITLES = ("JOB", "NAME", "STATE", "AGE", "THREAD", "OWNER", "PROGRESS")


def _headline(stats: mh.PoolStats) -> str:
    return (
        f"threads busy {stats.busy}/{stats.threads}; queued {stats.queued}, waiting for clients {stats.syncing_parked}, "
        f"finished {stats.finished}, stopped {stats.stopped}"
    )


def _line(job: mh.JobSnapshot) -> str:
    owner = job.owner.name.removeprefix("client ") if isinstance(job.owner, mh.Watch) else "-"
    age = f"{job.age:.1f} s"
    return COLUMNS.format(job.id, job.name, job.status.name, age, job.thread or "-", owner, _progress(job)).rstrip()


def _progress(job: mh.JobSnapshot) -> str:
    if job.progress is None:
        return ""
    done, total, note = job.progress
    share = done / total if total else 0.0
    bar = "#" * round(share * 10)
    return f"[{bar:.<10}] {share:4.0%} {note}"


def summary(
    ended_by: str | None, seconds: float, clients: Clients, ends: Ends, stats: mh.PoolStats, sight: Sight
) -> str:
    """Write down what was seen."""
    reasons = ", ".join(f"{name} {count}" for name, count in sorted(ends.reasons.items())) or "none"
    latency = "nobody hung up"
    if ends.latencies:
        median = statistics.median(ends.latencies)
        latency = f"{median * 1e3:.1f} ms (median), {max(ends.latencies) * 1e3:.1f} ms (worst)"
    return "\n".join(
        (
            f"ended {'by ' + ended_by if ended_by else 'by itself'} after {seconds:.1f} s",
            f"  jobs             {stats.submitted} accepted: {stats.finished} finished, {stats.stopped} stopped",
            f"  digests          {clients.digests:,}, every one as it must be",
            f"  told to stop     {reasons}",
            f"  after a hang-up  {latency}",
            f"  waiting          {sight.parked} jobs at once for their clients, on no thread",
        )
    )


def _serve(loop: mh.EventLoop) -> None:
    """Turn the loop with this thread and another one until it is stopped."""
    helper = threading.Thread(target=loop.join, name="demo-1")
    helper.start()
    try:
        loop.join()
    finally:
        with contextlib.suppress(mh.LoopClosed):
            loop.request_stop()
        helper.join()
