"""Do two joined threads run handlers of pure Python nearly twice as fast as one, on a free-threaded interpreter?

The handlers are fed inside the process, so that no client competes for the cores: by `posts`, each handler posting
itself to its strand again, or by `sockets`, each handler reading a byte from its watched socket and writing the next
one into the other end. A handler computes for about 50 us (calibrated once per run of this question, with the
interpreter that is measured, so that every case does the same work).

What the strands share decides. `own`: all code is compiled afresh per strand, so that nothing is shared but the loop.
`shared`: one module-level handler function for all. `closure`: one nested handler function for all, to which CPython
counts references as to any object. `bare` rows are two plain threads that call the same functions with no event loop:
what the machine and the interpreter allow.
"""

from __future__ import annotations

import socket
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks._process import ALL_CORES, CORES, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, find, ratio_targets

QUESTION = "one handler of 50 us of pure Python on 1 and on 2 joined threads (free-threaded)"

HANDLER_US = 50
STRANDS = 8
LIMITS = {"own": 1.7, "shared": 1.5, "closure": 1.5}
FEEDS = ("posts", "sockets", "bare")
# The computation is written out in each, so that a handler shares nothing that is not its own.
SOURCE = """
class Chain:
    def __init__(self, **state):
        self.__dict__.update(state)

    def fileno(self):
        return self.ours.fileno()

def compute(iterations):
    total = 0
    for number in range(iterations):
        total += number & 7
    return total

def on_message(chain):
    total = 0
    for number in range(chain.iterations):
        total += number & 7
    chain.left -= 1
    if chain.left:
        chain.strand.post(chain.on_message, chain)
    else:
        chain.end()

def on_event(watch, events):
    chain = watch.source
    chain.ours.recv(1)
    total = 0
    for number in range(chain.iterations):
        total += number & 7
    chain.left -= 1
    if chain.left:
        chain.theirs.send(b"x")
    else:
        chain.end()
"""

Names = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One way to run the handlers."""

    feed: str
    shape: str
    threads: int


def measure(plan: Plan) -> Report:
    """Measure all cases, each a fresh process on both cores."""
    if plan.free_threaded is None:
        return Report([], [], notes=["skipped: no free-threaded interpreter with manyhands (see --free-threaded)"])
    if len(CORES) < 2:
        return Report([], [], notes=["skipped: needs two cores"])
    python = plan.free_threaded
    iterations = in_child(calibrate, python=python)
    handlers = int((0.15 if plan.quick else 0.4) / (HANDLER_US * 1e-6) / STRANDS)
    feeds, shapes = (FEEDS[:2], ("own", "shared")) if plan.quick else (FEEDS, tuple(LIMITS))
    cases = [Case(feed, shape, threads) for feed in feeds for shape in shapes for threads in (1, 2)]
    rows = {case: Row(vars(case)) for case in cases}
    for case in alternate(cases, plan.rounds):
        seconds, cpu = in_child(
            run_case, python=python, cores=ALL_CORES, handlers=handlers, iterations=iterations, **vars(case)
        )
        rows[case].add(rate=handlers * STRANDS / seconds, cpu_us=cpu / (handlers * STRANDS) * 1e6)
    for case in cases:
        one = rows[Case(case.feed, case.shape, 1)]
        rows[case].add(speedup=rows[case].median("rate") / one.median("rate"))
    columns = [Column("handlers/s max", "rate", "maximum", 0), Column("median", "rate", "median", 0)]
    columns += [
        Column("spread", "rate", "spread"),
        Column("CPU us each min", "cpu_us", "minimum"),
        Column("x 1 thread", "speedup"),
    ]
    settings: dict[str, object] = {"strands": STRANDS, "handlers_per_strand": handlers, "iterations": iterations}
    return Report(list(rows.values()), columns, _targets(list(rows.values())), settings=settings, python=python)


def _targets(rows: list[Row]) -> list[Target]:
    targets: list[Target] = []
    for feed, (shape, limit) in product(FEEDS[:2], LIMITS.items()):
        one, two = (find(rows, feed=feed, shape=shape, threads=threads) for threads in (1, 2))
        if one and two:
            name = f"2 threads / 1, fed by {feed}, {shape} handler"
            targets += ratio_targets(name, two, one, "rate", limit, at_most=False)
    return targets


# ---- in the child ----


def calibrate() -> int:
    """How many iterations of `compute` take HANDLER_US on this interpreter, by the best of many tries."""
    compute, iterations = namespaces("own", 1)[0]["compute"], 1000
    best = min(_timed(compute, iterations) for _ in range(200))
    return round(iterations * HANDLER_US * 1e-6 / best)


def _timed(compute: Callable[[int], int], iterations: int) -> float:
    started = time.perf_counter()
    compute(iterations)
    return time.perf_counter() - started


def namespaces(shape: str, count: int) -> list[Names]:
    """SOURCE's names `count` times: compiled and run afresh for each of `own`, else one and the same."""
    if shape == "own":
        return [_run_source(SOURCE) for _ in range(count)]
    if shape == "shared":
        return [_run_source(SOURCE)] * count
    factory = f"def factory():\n{textwrap.indent(SOURCE, '    ')}\n    return locals()"
    return [_run_source(factory)["factory"]()] * count


def _run_source(source: str) -> Names:
    names: Names = {}
    exec(source, names)
    return names


def run_case(feed: str, shape: str, threads: int, handlers: int, iterations: int) -> tuple[float, float]:
    """Run `handlers` handlers on each of STRANDS strands. Returns seconds from the start to the last, and of CPU."""
    strands = namespaces(shape, STRANDS)
    if feed == "bare":
        return _run_threads([_bare(strands[number::threads], handlers, iterations) for number in range(threads)])
    import manyhands as mh

    loop = mh.EventLoop()
    countdown = _Countdown(loop, STRANDS)
    for names in strands:
        chain = names["Chain"](left=handlers, iterations=iterations, end=countdown.end_one)
        if feed == "posts":
            chain.strand, chain.on_message = loop.strand(), names["on_message"]
            chain.strand.post(chain.on_message, chain)
        else:
            chain.ours, chain.theirs = socket.socketpair()
            chain.ours.setblocking(False)
            loop.add(chain, mh.Events.READ, names["on_event"])
            chain.theirs.send(b"x")
    return _run_threads([loop.join] * threads)


def _run_threads(targets: list[Callable[[], object]]) -> tuple[float, float]:
    threads = [threading.Thread(target=target) for target in targets]
    started, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started, time.process_time() - cpu


def _bare(strands: list[Names], handlers: int, iterations: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(handlers):
            for names in strands:
                names["compute"](iterations)

    return run


class _Countdown:
    """Stops the loop when every strand has said that it has ended."""

    def __init__(self, loop: Any, count: int) -> None:
        self._loop, self._left, self._lock = loop, count, threading.Lock()

    def end_one(self) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._loop.request_stop()
