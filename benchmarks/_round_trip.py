"""The frame of the questions that make one call after the other and time the way there and back.

The two that use it differ in whose calls they make, and in whom the target names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks._process import ALL_CORES, CORES, SERVER_CORES, has_module, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, figure_columns, find, ratio_targets

CALLS = 10_000
WARM_UP = 500

Measured = dict[str, float]
Engine = Callable[[int], Measured]
"""Makes so many calls. Returns microseconds of each, on the clock and of CPU."""


@dataclass(frozen=True)
class Case:
    """Whose call, and where."""

    engine: str
    cores: int


def measure_round_trips(
    run: Callable[[str, int], Measured], plan: Plan, needs: Mapping[str, str | None], rival: str, limit: float
) -> Report:
    """Measure each engine on one core and on two, each time in a child of its own.

    Args:
        run: Called in the child as `run(engine, calls)`.
        plan: How often, and by which interpreter.
        needs: Engine -> the module that it needs.
        rival: Whom manyhands is compared with.
        limit: What share of the rival's time it may take.
    """
    missing = [name for name, module in needs.items() if module and not has_module(module, plan.python)]
    engines = [name for name in needs if name not in missing]
    cases = [Case(engine, cores) for cores in ((1, 2) if len(CORES) > 1 else (1,)) for engine in engines]
    rows = {case: Row(vars(case)) for case in cases}
    calls = CALLS // (10 if plan.quick else 1)
    for case in alternate(cases, plan.rounds):
        cores = SERVER_CORES if case.cores == 1 else ALL_CORES
        rows[case].add(**in_child(run, python=plan.python, cores=cores, engine=case.engine, calls=calls))
    columns: list[Column] = [*figure_columns("us each", "us"), Column("CPU us", "cpu_us")]
    notes = [f"not installed: {', '.join(missing)}"] if missing else []
    targets = _targets(list(rows.values()), rival, limit)
    return Report(list(rows.values()), columns, targets, notes, {"calls": calls})


def _targets(rows: list[Row], rival: str, limit: float) -> list[Target]:
    targets: list[Target] = []
    for cores in (1, 2):
        ours, theirs = (find(rows, engine=engine, cores=cores) for engine in ("manyhands", rival))
        if ours and theirs:
            targets += ratio_targets(f"manyhands / {rival}, cores: {cores}", ours, theirs, "us", limit)
    return targets


# ---- in the child ----


def timed(call: Callable[[], object], calls: int) -> Measured:
    """Make the calls on this thread."""
    for _ in range(WARM_UP):
        call()
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    return _figures(started, cpu, calls)


async def timed_in_task(call: Callable[[], Coroutine[Any, Any, object]], calls: int) -> Measured:
    """Make the calls in this task."""
    for _ in range(WARM_UP):
        await call()
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        await call()
    return _figures(started, cpu, calls)


def _figures(started: float, cpu: float, calls: int) -> Measured:
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    return {"us": wall / calls * 1e6, "cpu_us": used / calls * 1e6}


def with_asyncio(calls: int) -> Measured:
    """`asyncio.to_thread`."""
    import asyncio

    return asyncio.run(timed_in_task(lambda: asyncio.to_thread(int), calls))


def with_anyio(calls: int) -> Measured:
    """`anyio.to_thread.run_sync`."""
    import anyio
    import anyio.to_thread

    return anyio.run(timed_in_task, lambda: anyio.to_thread.run_sync(int), calls)


def with_trio(calls: int) -> Measured:
    """`trio.to_thread.run_sync`."""
    import trio

    measured: Measured = trio.run(timed_in_task, lambda: trio.to_thread.run_sync(int), calls)
    return measured
