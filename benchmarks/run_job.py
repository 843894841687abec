"""What does it cost a task to have a blocking call made on a thread, and to wait for its answer?

One call after the other: `await` of a no-op in a thread, from a task. All that is measured is the way there and back: the
call into the pool, the wake-up of a thread, the wake-up of the loop. `cores` is as in `pool_round_trip.py`.

* `asyncio.to_thread`, `AnyIO`, `trio`: their own, with their own limit of threads.
* `manyhands`: `run_job`, of a pool of four threads; cancelling the task would stop the job, which none of the others can.
* `manyhands, 2 threads`: two threads serve the loop, so that one waits in the poller while the other runs the task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from benchmarks._process import ALL_CORES, CORES, SERVER_CORES, has_module, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, figure_columns, find, ratio_targets

QUESTION = "await of a no-op on a thread, one at a time, beside other libraries"

LIMIT = 0.5
CALLS = 10_000
WARM_UP = 500
NEEDS = {
    "asyncio.to_thread": None,
    "AnyIO": "anyio",
    "trio": "trio",
    "manyhands": "manyhands",
    "manyhands, 2 threads": "manyhands",
}
"""Engine -> the module that it needs."""

Measured = dict[str, float]


@dataclass(frozen=True)
class Case:
    """Whose call, and where."""

    engine: str
    cores: int


def measure(plan: Plan) -> Report:
    """Measure each case in a child of its own."""
    missing = [name for name, module in NEEDS.items() if module and not has_module(module, plan.python)]
    engines = [name for name in NEEDS if name not in missing]
    cases = [Case(engine, cores) for cores in ((1, 2) if len(CORES) > 1 else (1,)) for engine in engines]
    rows = {case: Row(vars(case)) for case in cases}
    calls = CALLS // (10 if plan.quick else 1)
    for case in alternate(cases, plan.rounds):
        cores = SERVER_CORES if case.cores == 1 else ALL_CORES
        rows[case].add(**in_child(run, python=plan.python, cores=cores, engine=case.engine, calls=calls))
    columns: list[Column] = [*figure_columns("us each", "us"), Column("CPU us", "cpu_us")]
    notes = [f"not installed: {', '.join(missing)}"] if missing else []
    return Report(list(rows.values()), columns, _targets(list(rows.values())), notes, {"calls": calls})


def _targets(rows: list[Row]) -> list[Target]:
    targets: list[Target] = []
    for cores in (1, 2):
        ours, theirs = (find(rows, engine=engine, cores=cores) for engine in ("manyhands", "asyncio.to_thread"))
        if ours and theirs:
            targets += ratio_targets(f"manyhands / asyncio.to_thread, cores: {cores}", ours, theirs, "us", LIMIT)
    return targets


# ---- in the child ----


def run(engine: str, calls: int) -> Measured:
    """Make `calls` calls. Returns microseconds of each, on the clock and of CPU."""
    return ENGINES[engine](calls)


async def _timed(call: Callable[[], Coroutine[Any, Any, object]], calls: int) -> Measured:
    for _ in range(WARM_UP):
        await call()
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        await call()
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    return {"us": wall / calls * 1e6, "cpu_us": used / calls * 1e6}


def _with_asyncio(calls: int) -> Measured:
    import asyncio

    return asyncio.run(_timed(lambda: asyncio.to_thread(int), calls))


def _with_anyio(calls: int) -> Measured:
    import anyio
    import anyio.to_thread

    return anyio.run(_timed, lambda: anyio.to_thread.run_sync(int), calls)


def _with_trio(calls: int) -> Measured:
    import trio

    measured: Measured = trio.run(_timed, lambda: trio.to_thread.run_sync(int), calls)
    return measured


def _with_manyhands(threads: int) -> Callable[[int], Measured]:
    def measured(calls: int) -> Measured:
        import manyhands as mh

        with mh.ThreadPool(4) as pool:
            return mh.run(_timed, lambda: mh.run_job(int, pool=pool), calls, threads=threads)

    return measured


ENGINES: dict[str, Callable[[int], Measured]] = {
    "asyncio.to_thread": _with_asyncio,
    "AnyIO": _with_anyio,
    "trio": _with_trio,
    "manyhands": _with_manyhands(1),
    "manyhands, 2 threads": _with_manyhands(2),
}
