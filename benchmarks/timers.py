"""What do timers cost that are set and cancelled again, in time and in memory?

The commonest life of a timeout: it is set, and the answer comes long before. Two shapes:

* `each at once`: set one, cancel it, and so on; the loop turns every 1,000. A million of them, so that memory that
  stays behind would show;
* `all, then all`: 200,000 are set, then all are cancelled, then the loop turns.

`end MiB` is the growth of resident memory when all are gone, `100k MiB` what it was after the first 100,000 (the two
must be the same), `peak MiB` the most at any time. All peers do the same on their own thread, `manyhands` by
`run_ready()`;
`manyhands, joined` sets and cancels from one thread while another has joined the loop.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._process import has_module, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, figure_columns

QUESTION = "a million timers set and cancelled, and 200,000 set and then cancelled"

FAR = 3600.0
"""Seconds: no timer here is ever due."""
CHUNK = 1000
COUNTS = {"each at once": 1_000_000, "all, then all": 200_000}
GROWTH_MIB = 4.0
SECONDS_LIMIT = 0.3

Set = Callable[[], Any]
Turn = Callable[[], object]


def measure(plan: Plan) -> Report:
    """Measure each engine and shape in a child of its own."""
    engines = ["manyhands", "manyhands, joined"] if has_module("manyhands", plan.python) else []
    engines += ["asyncio", *(["uvloop"] if has_module("uvloop", plan.python) else [])]
    counts = {shape: count // (5 if plan.quick else 1) for shape, count in COUNTS.items()}
    cases = [(engine, shape) for shape in COUNTS for engine in engines]
    rows = {case: Row({"engine": case[0], "shape": case[1], "timers": counts[case[1]]}) for case in cases}
    rounds = plan.rounds if plan.quick else max(3, plan.rounds // 2)
    for engine, shape in alternate(cases, rounds):
        rows[engine, shape].add(**in_child(run, python=plan.python, engine=engine, shape=shape, count=counts[shape]))
    columns: list[Column] = [*figure_columns("CPU ns each", "cpu_ns", 0), Column("seconds", "seconds")]
    columns += [Column("100k MiB", "early_mib"), Column("end MiB", "end_mib"), Column("peak MiB", "peak_mib")]
    return Report(list(rows.values()), columns, _targets(list(rows.values())), settings={"rounds": rounds})


def _targets(rows: list[Row]) -> list[Target]:
    targets = []
    for row in rows:
        engine, shape, count = row.labels.values()
        if not str(engine).startswith("manyhands"):
            continue
        name = f"{engine}, {count} {shape}"
        targets.append(Target(f"{name}: growth in MiB, median", row.median("end_mib"), GROWTH_MIB))
        if shape == "all, then all":
            seconds = row.median("seconds") / int(count) * COUNTS[str(shape)]
            targets.append(Target(f"{name}: seconds per 200,000, median", seconds, SECONDS_LIMIT))
    return targets


# ---- in the child ----


def run(engine: str, shape: str, count: int) -> dict[str, float]:
    """Set and cancel `count` timers. Returns the times and the growth of resident memory."""
    work = _each_at_once if shape == "each at once" else _all_then_all
    return ENGINES[engine](lambda setter, turn: _measured(work, setter, turn, count))


def _measured(
    work: Callable[[Set, Turn, int, list[float]], Spent], setter: Set, turn: Turn, count: int
) -> dict[str, float]:
    # Once before: pools and tables that are made once are not growth.
    work(setter, turn, CHUNK, [])
    gc.collect()
    before = _resident_mib()
    marks: list[float] = []
    spent = work(setter, turn, count, marks)
    gc.collect()
    growth = [mark - before for mark in (*marks, _resident_mib())]
    figures = {"seconds": spent.wall, "cpu_ns": spent.cpu / count * 1e9, "end_mib": growth[-1], "peak_mib": max(growth)}
    return figures | ({"early_mib": growth[0]} if work is _each_at_once else {})


@dataclass
class Spent:
    """Seconds on the clock, and of CPU in all threads, between `start()` and `stop()`, summed."""

    wall: float = 0.0
    cpu: float = 0.0

    def start(self) -> None:
        """Begin to count."""
        self.wall -= time.perf_counter()
        self.cpu -= time.process_time()

    def stop(self) -> None:
        """Stop counting."""
        self.cpu += time.process_time()
        self.wall += time.perf_counter()


def _each_at_once(setter: Set, turn: Turn, count: int, marks: list[float]) -> Spent:
    spent = Spent()
    for number in range(count // CHUNK):
        spent.start()
        for _ in range(CHUNK):
            setter().cancel()
        turn()
        spent.stop()
        if number % 100 == 99:
            marks.append(_resident_mib())
    return spent


def _all_then_all(setter: Set, turn: Turn, count: int, marks: list[float]) -> Spent:
    spent = Spent()
    spent.start()
    timers = [setter() for _ in range(count)]
    spent.stop()
    marks.append(_resident_mib())
    spent.start()
    for timer in timers:
        timer.cancel()
    timers.clear()
    timer = None
    turn()
    spent.stop()
    return spent


def _never() -> None:
    raise AssertionError("a cancelled timer ran")


Body = Callable[[Set, Turn], dict[str, float]]


def _with_manyhands(body: Body) -> dict[str, float]:
    import manyhands as mh

    loop = mh.EventLoop()
    return body(lambda: loop.call_later(FAR, _never), loop.run_ready)


def _with_manyhands_joined(body: Body) -> dict[str, float]:
    import manyhands as mh

    loop = mh.EventLoop()
    joined = threading.Thread(target=loop.join)
    joined.start()
    try:
        return body(lambda: loop.call_later(FAR, _never), lambda: None)
    finally:
        loop.request_stop()
        joined.join()


def _with_asyncio(body: Body, new_loop: Callable[[], Any] = asyncio.new_event_loop) -> dict[str, float]:
    """Do the work between the loop's turns; a turn runs what is due and returns."""
    loop = new_loop()

    def turn() -> None:
        loop.call_soon(loop.stop)
        loop.run_forever()

    return body(lambda: loop.call_later(FAR, _never), turn)


def _with_uvloop(body: Body) -> dict[str, float]:
    import uvloop

    return _with_asyncio(body, uvloop.new_event_loop)


ENGINES: dict[str, Callable[[Body], dict[str, float]]] = {
    "manyhands": _with_manyhands,
    "manyhands, joined": _with_manyhands_joined,
    "asyncio": _with_asyncio,
    "uvloop": _with_uvloop,
}


def _resident_mib() -> float:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no Rss in /proc/self/smaps_rollup")
