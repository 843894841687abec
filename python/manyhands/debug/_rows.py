"""Rows: one loop, pool, server or job as plain values, good for JSON.

Names, notes and owners are the program's, and so perhaps its users'. Here they only become text of a bounded length; to show
them so that they do no harm is up to whoever shows them.
"""

from __future__ import annotations

import heapq
import math
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from manyhands import _core, _guards
from manyhands._job import Job, JobStatus
from manyhands._sight import tasks_below
from manyhands.server import Connection

if TYPE_CHECKING:
    from manyhands._loop import EventLoop
    from manyhands._pool import ThreadPool
    from manyhands.server import Server

__all__ = [
    "Row",
    "View",
    "interest",
    "job_row",
    "keyed",
    "loop_row",
    "pool_row",
    "process_row",
    "server_row",
    "text",
]

Row = dict[str, Any]

View = tuple[Job[Any], JobStatus, float]
"""A job, its status, its age."""

MOST_CHARACTERS: Final = 200
"""Of a name, a note or an owner."""

MOST_STRANDS: Final = 10
"""Of those with the most to do."""

ENDED: Final = (JobStatus.FINISHED, JobStatus.STOPPED)
AT_WORK: Final = (JobStatus.RUNNING, JobStatus.SYNCING, JobStatus.STOPPING)


class Named(Protocol):
    """What a key is made for."""

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


def keyed(named: Sequence[N]) -> Iterator[tuple[str, N]]:
    """Give each a key of its own: its name, with a number behind it from the second of that name on."""
    count: Counter[str] = Counter()
    for each in named:
        name = text(each.name)
        count[name] += 1
        yield name if count[name] == 1 else f"{name}#{count[name]}", each


def text(value: object) -> str:
    """Make it text that can be sent; what is no str is told by its type. Nothing of the value's own is called."""
    shown = str.__str__(value) if issubclass(type(value), str) else type(value).__name__
    if len(shown) > MOST_CHARACTERS:
        shown = shown[: MOST_CHARACTERS - 1] + "…"
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")  # half of a surrogate pair is no text


def number(value: object) -> float | None:
    """Make it a number that JSON has; None if there is none. Nothing of the value's own is called: `progress` has done so."""
    if type(value) not in (int, float):
        return None
    try:
        found = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def histogram(buckets: Sequence[tuple[float, int]]) -> list[tuple[float | None, int]]:
    """As in `stats()`; the bound that is infinite is None."""
    return [(bound if math.isfinite(bound) else None, count) for bound, count in buckets]


def process_row() -> Row:
    """Say which process this is, and what it has used."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "name": text(_program()),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "gil": _guards.gil_enabled(),
        "version": _core.__version__,
        "cpu_seconds": time.process_time(),
        "resident_bytes": resident,
        "time": time.monotonic(),
    }


def _program() -> str:
    path = sys.argv[0] if sys.argv else ""
    if os.path.basename(path) == "__main__.py":  # python -m package
        path = os.path.dirname(path)
    return os.path.basename(path) if path not in ("", "-c", "-m") else "python"


def loop_row(key: str, loop: EventLoop) -> Row:
    """What a loop has and has done.

    Raises:
        LoopClosed: it was closed.
    """
    stats = loop.stats()
    strands = loop._strands()
    tasks = Counter(task.state for task in tasks_below(loop._root)) if loop._root is not None else None
    waiting = heapq.nlargest(MOST_STRANDS, (row for row in strands if row[2]), key=lambda row: row[2])
    return {
        "key": key,
        "state": "stopped" if loop.stopped else "open",
        "poller": loop._poller,
        "joined": stats.joined,
        "parked": stats.parked,
        "ready": stats.ready,
        "watches": stats.watches,
        "timers": stats.timers,
        "strands": len(strands),
        "tasks": tasks,
        "handled": stats.handled,
        "polls": stats.polls,
        "wakes": stats.wakes,
        "standbys": stats.standbys,
        "errors": stats.errors,
        "handler_seconds": histogram(stats.handler_seconds),
        "busiest": [
            {"name": text(name), "state": text(phase), "pending": pending, "running": running}
            for name, phase, pending, running in waiting
        ],
    }


def pool_row(key: str, pool: ThreadPool) -> Row:
    """What a pool has and has done."""
    stats = pool.stats()
    return {
        "key": key,
        "state": "finished" if pool.finished else "open",
        "limit": pool.threads,
        "threads": stats.threads,
        "busy": stats.busy,
        "queued": stats.queued,
        "oldest_wait": stats.oldest_wait,
        "submitted": stats.submitted,
        "refused": stats.refused,
        "running": stats.running,
        "syncing_held": stats.syncing_held,
        "syncing_parked": stats.syncing_parked,
        "stopping": stats.stopping,
        "finished": stats.finished,
        "stopped": stats.stopped,
        "done": stats.done,
        "dropped": stats.dropped,
        "wait_seconds": histogram(stats.wait_seconds),
        "run_seconds": histogram(stats.run_seconds),
    }


def server_row(key: str, server: Server) -> Row:
    """Who is connected, and at what."""
    return {
        "key": key,
        "address": text(server.url),
        "state": "stopping" if server.stopping else "open",
        "connections": server.connection_states(),
        "refused": {str(status): count for status, count in server.refused().items()},
    }


def interest(view: View) -> tuple[int, int]:
    """Order jobs for a list that may be cut.

    Who is at work, the oldest first; who waits for a thread; who waits for the owner, of whom there may be thousands; who
    ended, the youngest first.
    """
    job, status, _ = view
    if status in ENDED:
        return 3, -job.id
    return {JobStatus.QUEUED: 1, JobStatus.SYNCING: 2}.get(status, 0), job.id


def job_row(view: View, key: str, names: dict[int | None, str]) -> Row:
    """A job of the pool with this key."""
    job, status, age = view
    thread = job._thread if status in AT_WORK else 0  # it may have gone on since its status was read
    reason = job.reason
    return {
        "id": job.id,
        "name": text(job.name),
        "status": status.name,
        "reason": reason.name if reason is not None else None,
        "age": age,
        "pool": key,
        "owner": _owner(job.owner),
        "thread": text(names.get(thread, str(thread))) if thread else None,
        "progress": _progress(job.__dict__.get("last_progress")),
        "can_stop": status not in ENDED and not job.stop_requested,
    }


def _owner(owner: object) -> str | None:
    if owner is None:
        return None
    source = getattr(owner, "source", None)
    if type(source) is Connection:  # a proxy object of the program's would be asked by isinstance()
        host, port = source.remote
        return text(f"client {host} port {port}") if port else "client"  # of a Unix socket it has no address
    kind = type(owner).__name__.lower()
    return f"{kind} {text(getattr(owner, 'name', ''))}".rstrip()


def _progress(progress: tuple[object, object, object] | None) -> Row | None:
    if progress is None:
        return None
    done, total, note = progress
    return {"done": number(done), "total": number(total), "note": text(note)}
