"""Sums: what several processes have said of themselves, as if one had said it.

Loops, pools and servers of one name are one here: each worker has the same. Three kinds of figures:

* What is there now (threads, connections, jobs) is the sum of those that have answered.
* What only grows (jobs that ended, histograms) is the sum of all that ever were, by what each said last: were it to fall
  when a worker ends, whoever reads it would take the rest for new.
* What is listed is put together, each with its worker, as much as one process would list.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

__all__ = ["Sum", "check", "merge_listed"]

Row = dict[str, Any]

NOW: Final = {
    "loops": ("joined", "parked", "ready", "watches", "timers", "strands"),
    "pools": ("limit", "threads", "busy", "queued", "running", "syncing_held", "syncing_parked", "stopping", "done"),
    "servers": (),
}
GROWS: Final = {
    "loops": ("handled", "polls", "wakes", "standbys", "errors"),
    "pools": ("submitted", "refused", "finished", "stopped", "dropped"),
    "servers": (),
}
COUNTED: Final = {"loops": (), "pools": (), "servers": ("refused",)}
"""What only grows, by a word for what was counted."""

HISTOGRAMS: Final = {"loops": ("handler_seconds",), "pools": ("wait_seconds", "run_seconds"), "servers": ()}
KINDS: Final = ("loops", "pools", "servers")

LISTED: Final = {
    "jobs": {"id", "name", "status", "reason", "age", "pool", "owner", "thread", "progress", "can_stop"},
    "threads": {"id", "name", "kind", "of", "busy", "what", "job", "since", "at"},
}
"""What a row of a list has."""

MOST_STRANDS: Final = 10
MOST_LISTED: Final = 200
"""As one process lists."""


def check(seen: Row, beside: Sum) -> Row:
    """Return what a worker said, if it is what a worker says.

    Args:
        seen: What it said.
        beside: What it is to be added to.

    Raises:
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError: it is not.
    """
    trial = beside.copy_grown()
    trial.add(seen)
    trial.keep(seen)
    rows = trial.rows()
    for kind, fields in LISTED.items():
        rows[kind] = merge_listed([(1, 1, seen)], kind)
        if any(not fields <= row.keys() for row in rows[kind]["listed"]):
            raise ValueError(f"one of the {kind} lacks a field")
    process = seen["process"]
    rows["process"] = [float(process["cpu_seconds"]), int(process["resident_bytes"]), bool(process["gil"])]
    json.dumps(rows, allow_nan=False)
    return seen


class Sum:
    """Adds up what processes said.

    Attributes:
        cpu_seconds: Of all that ever were.
    """

    def __init__(self) -> None:
        self._now: dict[str, dict[str, list[Row]]] = {kind: {} for kind in KINDS}
        self._grown: dict[str, dict[str, Row]] = {kind: {} for kind in KINDS}
        self.cpu_seconds = 0.0

    def copy_grown(self) -> Sum:
        """Return a sum that begins with what has grown in this one."""
        fresh = Sum()
        fresh.cpu_seconds = self.cpu_seconds
        for kind in KINDS:
            fresh._grown[kind] = {key: _added(kind, None, row) for key, row in self._grown[kind].items()}
        return fresh

    def add(self, seen: Row) -> None:
        """Add what is there now in a process."""
        for kind in KINDS:
            for row in seen[kind]:
                self._now[kind].setdefault(row["key"], []).append(row)

    def keep(self, seen: Row) -> None:
        """Add what a process has done so far."""
        self.cpu_seconds += float(seen["process"]["cpu_seconds"])
        for kind in KINDS:
            for row in seen[kind]:
                self._grown[kind][row["key"]] = _added(kind, self._grown[kind].get(row["key"]), row)

    def rows(self) -> dict[str, Any]:
        """Return one row for each loop, pool and server that is there now."""
        found: dict[str, Any] = {}
        for kind in KINDS:
            found[kind] = [
                {"key": key, **_together(kind, rows), **self._grown[kind].get(key, {})}
                for key, rows in self._now[kind].items()
            ]
        return found


def _added(kind: str, sofar: Row | None, row: Row) -> Row:
    """Add up what only grows."""
    fields: Row = {field: int(row[field]) + (sofar[field] if sofar else 0) for field in GROWS[kind]}
    for field in COUNTED[kind]:
        fields[field] = _counted([row[field], sofar[field] if sofar else {}])
    for field in HISTOGRAMS[kind]:
        buckets = [(None if bound is None else float(bound), int(count)) for bound, count in row[field]]
        before = sofar[field] if sofar else [(bound, 0) for bound, _ in buckets]
        if [bound for bound, _ in before] != [bound for bound, _ in buckets]:
            raise ValueError(f"{field} has other buckets than before")
        fields[field] = [(bound, old + new) for (bound, old), (_, new) in zip(before, buckets, strict=True)]
    return fields


def _together(kind: str, rows: Sequence[Row]) -> Row:
    """Add up what is there now."""
    summed: Row = {field: sum(int(row[field]) for row in rows) for field in NOW[kind]}
    states = sorted({str(row["state"]) for row in rows})
    summed["state"] = "open" if "open" in states else states[0]
    if kind == "loops":
        summed["poller"] = str(rows[0]["poller"])
        tasks = [row["tasks"] for row in rows if row["tasks"] is not None]
        summed["tasks"] = _counted(tasks) if tasks else None
        strands = [strand for row in rows for strand in row["busiest"]]
        summed["busiest"] = heapq.nlargest(MOST_STRANDS, strands, key=lambda strand: int(strand["pending"]))
    elif kind == "pools":
        waits = [float(row["oldest_wait"]) for row in rows if row["oldest_wait"] is not None]
        summed["oldest_wait"] = max(waits, default=None)
    else:
        summed["address"] = str(rows[0]["address"])
        summed["connections"] = _counted(row["connections"] for row in rows)
    return summed


def _counted(each: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for counts in each:
        total.update({str(state): int(count) for state, count in counts.items()})
    return dict(total)


def merge_listed(seen: Sequence[tuple[int, int, Row]], kind: str) -> Row:
    """Put the jobs or the threads of several processes into one list.

    Args:
        seen: (worker, process id, what it said).
        kind: "jobs" or "threads".
    """
    rows = [
        {**row, "worker": worker, "pid": pid}
        for worker, pid, said in seen
        for row in said[kind]["listed"][:MOST_LISTED]
    ]
    order: Callable[[Row], Any] = _job_order if kind == "jobs" else _thread_order
    return {
        "counted": sum(int(said[kind]["counted"]) for _, _, said in seen),
        "listed": heapq.nsmallest(MOST_LISTED, rows, key=order),
    }


ENDED: Final = 3
RANKS: Final = {"QUEUED": 1, "SYNCING": 2, "FINISHED": ENDED, "STOPPED": ENDED}


def _job_order(row: Row) -> tuple[int, float]:
    """As `interest` has it for one process: who is at work; who waits for a thread, or for the owner; who ended."""
    rank = RANKS.get(str(row["status"]), 0)
    age = float(row["age"])
    return rank, age if rank == ENDED else -age


def _thread_order(row: Row) -> tuple[bool, int]:
    return row["kind"] == "other", int(row["worker"])
