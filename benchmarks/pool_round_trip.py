"""What does it cost to hand a call to a pool and wait for its answer?

One call after the other: a no-op is handed over, and the next one is not made before its result is back. Nothing is
computed, so all that is measured is the way there and back: two wake-ups of a thread, and what the pool writes down.

`cores` is where the process may run. On one core nothing has to be woken but a thread; on two the kernel may put the
worker on a core that sleeps, which costs more than anything else here and is the same for all.

* `two queues`: one thread, two `queue.SimpleQueue`s. Nothing that is written in Python can be below it.
* `ThreadPoolExecutor`, `manyhands`, `gevent`: `submit(int).result()`, or what it is called there.
* `asyncio.to_thread`, `asyncio over manyhands`, `AnyIO`, `trio`: `await` of a call in a thread, from a task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from benchmarks._process import ALL_CORES, CORES, SERVER_CORES, has_module, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, figure_columns, find, ratio_targets

QUESTION = "submit().result() of a no-op, one at a time, beside other pools"

LIMIT = 0.7
CALLS = 10_000
WARM_UP = 500
NEEDS = {
    "two queues": None,
    "ThreadPoolExecutor": None,
    "manyhands": "manyhands",
    "gevent": "gevent",
    "asyncio.to_thread": None,
    "asyncio over manyhands": "manyhands",
    "AnyIO": "anyio",
    "trio": "trio",
}
"""Engine -> the module that it needs."""

Measured = dict[str, float]


@dataclass(frozen=True)
class Case:
    """Whose pool, and where."""

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
        ours, theirs = (find(rows, engine=engine, cores=cores) for engine in ("manyhands", "ThreadPoolExecutor"))
        if ours and theirs:
            targets += ratio_targets(f"manyhands / ThreadPoolExecutor, cores: {cores}", ours, theirs, "us", LIMIT)
    return targets


# ---- in the child ----


def run(engine: str, calls: int) -> Measured:
    """Make `calls` calls. Returns microseconds of each, on the clock and of CPU."""
    return ENGINES[engine](calls)


def _timed(call: Callable[[], object], calls: int) -> Measured:
    for _ in range(WARM_UP):
        call()
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    return _figures(started, cpu, calls)


async def _timed_in_task(call: Callable[[], Coroutine[Any, Any, object]], calls: int) -> Measured:
    for _ in range(WARM_UP):
        await call()
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        await call()
    return _figures(started, cpu, calls)


def _figures(started: float, cpu: float, calls: int) -> Measured:
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    return {"us": wall / calls * 1e6, "cpu_us": used / calls * 1e6}


def _with_queues(calls: int) -> Measured:
    import queue
    import threading

    there: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
    back: queue.SimpleQueue[object] = queue.SimpleQueue()

    def serve() -> None:
        while (function := there.get()) is not None:
            back.put(function())

    def call() -> object:
        there.put(int)
        return back.get()

    worker = threading.Thread(target=serve)
    worker.start()
    try:
        return _timed(call, calls)
    finally:
        there.put(None)
        worker.join()


def _with_executor(calls: int) -> Measured:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        return _timed(lambda: pool.submit(int).result(), calls)


def _with_manyhands(calls: int) -> Measured:
    import manyhands as mh

    with mh.ThreadPool(4) as pool:
        return _timed(lambda: pool.submit(int).result(), calls)


def _with_gevent(calls: int) -> Measured:
    import gevent

    pool = gevent.get_hub().threadpool
    return _timed(lambda: pool.spawn(int).get(), calls)


def _with_to_thread(calls: int) -> Measured:
    import asyncio

    return asyncio.run(_timed_in_task(lambda: asyncio.to_thread(int), calls))


def _with_asyncio_over_manyhands(calls: int) -> Measured:
    import asyncio

    import manyhands as mh

    async def call() -> object:
        return await asyncio.wrap_future(pool.submit(int))

    with mh.ThreadPool(4) as pool:
        return asyncio.run(_timed_in_task(call, calls))


def _with_anyio(calls: int) -> Measured:
    import anyio
    import anyio.to_thread

    return anyio.run(_timed_in_task, lambda: anyio.to_thread.run_sync(int), calls)


def _with_trio(calls: int) -> Measured:
    import trio

    measured: Measured = trio.run(_timed_in_task, lambda: trio.to_thread.run_sync(int), calls)
    return measured


ENGINES: dict[str, Callable[[int], Measured]] = {
    "two queues": _with_queues,
    "ThreadPoolExecutor": _with_executor,
    "manyhands": _with_manyhands,
    "gevent": _with_gevent,
    "asyncio.to_thread": _with_to_thread,
    "asyncio over manyhands": _with_asyncio_over_manyhands,
    "AnyIO": _with_anyio,
    "trio": _with_trio,
}
