"""How many queued no-ops does a pool run in a second?

10,000 are handed over as fast as one thread can, and then each one's result is read: a batch that is much longer than
the pool has threads. What counts is the rate from the first call to the last result. Handing over, running and reading
back overlap or not, as the pool and the kernel like; wake-ups that a pool saves while there is a queue are saved here.

`cores` is where the process may run, `threads` how many the pool has. `two queues` is a thread with two
`queue.SimpleQueue`s and nothing else: no future, no context, no name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks._process import ALL_CORES, CORES, SERVER_CORES, has_module, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, find, ratio_targets

QUESTION = "10,000 queued no-ops: how many in a second, beside other pools"

LIMIT = 3.0
JOBS = 10_000
REPEATS = 5
"""Batches in one child; the best counts, the first being the one that starts the threads."""
THREADS = {
    "two queues": (1,),
    "ThreadPoolExecutor": (1, 4),
    "manyhands": (1, 4),
    "gevent": (4,),
    "asyncio.to_thread": (4,),
}
NEEDS = {"manyhands": "manyhands", "gevent": "gevent"}


@dataclass(frozen=True)
class Case:
    """Whose pool, how large, and where."""

    engine: str
    threads: int
    cores: int


def measure(plan: Plan) -> Report:
    """Measure each case in a child of its own."""
    missing = [name for name, module in NEEDS.items() if not has_module(module, plan.python)]
    cases = [
        Case(engine, threads, cores)
        for cores in ((1, 2) if len(CORES) > 1 else (1,))
        for engine, counts in THREADS.items()
        for threads in counts
        if engine not in missing
    ]
    rows = {case: Row(vars(case)) for case in cases}
    jobs = JOBS // (10 if plan.quick else 1)
    for case in alternate(cases, plan.rounds):
        cores = SERVER_CORES if case.cores == 1 else ALL_CORES
        rate = in_child(run, python=plan.python, cores=cores, engine=case.engine, threads=case.threads, jobs=jobs)
        rows[case].add(rate=rate)
    columns = [Column("jobs/s max", "rate", "maximum", 0), Column("median", "rate", digits=0)]
    columns += [Column("spread", "rate", "spread")]
    notes = [f"not installed: {', '.join(missing)}"] if missing else []
    return Report(list(rows.values()), columns, _targets(list(rows.values())), notes, {"jobs": jobs})


def _targets(rows: list[Row]) -> list[Target]:
    targets: list[Target] = []
    for cores in (1, 2):
        for threads in (1, 4):
            ours, theirs = (
                find(rows, engine=engine, threads=threads, cores=cores)
                for engine in ("manyhands", "ThreadPoolExecutor")
            )
            if ours and theirs:
                name = f"manyhands / ThreadPoolExecutor, threads: {threads}, cores: {cores}"
                targets += ratio_targets(name, ours, theirs, "rate", LIMIT, at_most=False)
    return targets


# ---- in the child ----


def run(engine: str, threads: int, jobs: int) -> float:
    """Run batches of `jobs` jobs. Returns the best rate, in jobs per second."""
    return ENGINES[engine](threads, jobs)


def _best(batch: Callable[[], object], jobs: int) -> float:
    rates = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        batch()
        rates.append(jobs / (time.perf_counter() - started))
    return max(rates)


def _with_queues(threads: int, jobs: int) -> float:
    import queue
    import threading

    there: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
    back: queue.SimpleQueue[object] = queue.SimpleQueue()

    def serve() -> None:
        while (function := there.get()) is not None:
            back.put(function())

    def batch() -> None:
        for _ in range(jobs):
            there.put(int)
        for _ in range(jobs):
            back.get()

    workers = [threading.Thread(target=serve) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        return _best(batch, jobs)
    finally:
        for _ in workers:
            there.put(None)
        for worker in workers:
            worker.join()


def _with_executor(threads: int, jobs: int) -> float:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        return _best(lambda: [future.result() for future in [pool.submit(int) for _ in range(jobs)]], jobs)


def _with_manyhands(threads: int, jobs: int) -> float:
    import manyhands as mh

    with mh.ThreadPool(threads, max_queue_depth=None) as pool:
        return _best(lambda: [job.result() for job in [pool.submit(int) for _ in range(jobs)]], jobs)


def _with_gevent(threads: int, jobs: int) -> float:
    from gevent.threadpool import ThreadPool

    pool = ThreadPool(threads)
    try:
        return _best(lambda: [result.get() for result in [pool.spawn(int) for _ in range(jobs)]], jobs)
    finally:
        pool.kill()


def _with_to_thread(threads: int, jobs: int) -> float:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def batches() -> float:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
        rates = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            await asyncio.gather(*(asyncio.to_thread(int) for _ in range(jobs)))
            rates.append(jobs / (time.perf_counter() - started))
        return max(rates)

    return asyncio.run(batches())


ENGINES: dict[str, Callable[[int, int], float]] = {
    "two queues": _with_queues,
    "ThreadPoolExecutor": _with_executor,
    "manyhands": _with_manyhands,
    "gevent": _with_gevent,
    "asyncio.to_thread": _with_to_thread,
}
