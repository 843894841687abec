"""Jobs that stay where a test wants them, and what became of a job."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import manyhands as mh
from gate import Gate
from support import LONG, wait_until

Q, R, Y, P, F, S = mh.JobStatus
"""QUEUED, RUNNING, SYNCING, STOPPING, FINISHED, STOPPED: for tables."""

ENDED = (F, S)

ARROWS = {Q: {R, S}, R: {Y, P, F}, Y: {R, P}, P: {S, F}, F: set(), S: set()}
"""Where a status may go to: the table of the job's life."""


class Deliberate(Exception):
    """What a job of a test raises on purpose."""


class Stoppable:
    """A job's function that goes on until the job is told to stop, and remembers why it was told.

    Args:
        then: Called with the JobStopped; may raise something else. Without it, or after it returned, the job gives up.
    """

    def __init__(self, then: Callable[[mh.JobStopped], object] | None = None) -> None:
        self.entered = threading.Event()
        self.told: list[mh.StopReason] = []
        self._then = then

    def __call__(self, *_args: object) -> None:
        self.entered.set()
        try:
            mh.sleep_blocking(3 * LONG)
        except mh.JobStopped as stopped:
            self.told.append(stopped.reason)
            if self._then is not None:
                self._then(stopped)
            raise
        raise TimeoutError("nobody stopped this job")

    def wait_entered(self, job: mh.Job | None = None) -> None:
        """Wait until it runs, or, of a job that may be stopped before that, until it has ended."""
        wait_until(lambda: self.entered.is_set() or (job is not None and job.done()))


def fail(*_args: object) -> None:
    """Raise what only a test raises."""
    raise Deliberate


@contextlib.contextmanager
def occupied(pool: mh.ThreadPool, count: int = 1) -> Iterator[list[mh.Job]]:
    """While entered, `count` threads of the pool are inside jobs that end with the block, and do not check in."""
    gates = [Gate() for _ in range(count)]
    jobs = [pool.enqueue(gate, name=f"occupied {index}") for index, gate in enumerate(gates)]
    try:
        for gate in gates:
            gate.wait_entered()
        yield jobs
    finally:
        for gate in gates:
            gate.open()


def outcome(job: mh.Job, timeout: float = LONG) -> tuple[str, Any]:
    """Wait for a job; ("returned", value), ("raised", type), ("cancelled", reason) or ("aborted", reason)."""
    try:
        return "returned", job.result(timeout)
    except mh.JobCancelled as error:
        return "cancelled", error.reason
    except mh.JobAborted as error:
        return "aborted", error.reason
    except BaseException as error:
        if not job.done():
            raise
        return "raised", type(error)


def adds_up(stats: mh.PoolStats) -> bool:
    """Say whether every job that was taken is somewhere, once."""
    return stats.submitted == (
        stats.queued
        + stats.running
        + stats.syncing_held
        + stats.syncing_parked
        + stats.stopping
        + stats.finished
        + stats.stopped
    )
