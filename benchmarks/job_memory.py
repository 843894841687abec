"""What does a queued job weigh?

Resident memory (Rss of smaps_rollup) before and after 100,000 calls are handed to a pool whose one thread is busy.
Counted is all that the pool makes for them: the job or the work item, its future, its share of the queue, the copied
context. Not counted: the function, which is one for all, and arguments, of which there are none.

* `kept`: the caller keeps what `submit()` returned.
* `dropped`: it does not; the pool alone holds the job.
* `named, owned`: `enqueue` with a name and an owner, as a server does.
"""

from __future__ import annotations

import gc
import threading
from pathlib import Path

from benchmarks._process import has_module, in_child
from benchmarks._report import Plan, Report, Row, alternate, figure_columns

QUESTION = "bytes of memory per queued job"

JOBS = 100_000
SHAPES = {"ThreadPoolExecutor": ("kept", "dropped"), "manyhands": ("kept", "dropped", "named, owned")}


def measure(plan: Plan) -> Report:
    """Measure each shape in a child of its own."""
    engines = ["ThreadPoolExecutor", *(["manyhands"] if has_module("manyhands", plan.python) else [])]
    cases = [(engine, shape) for engine in engines for shape in SHAPES[engine]]
    rows = {case: Row({"engine": case[0], "shape": case[1]}) for case in cases}
    jobs = JOBS // (5 if plan.quick else 1)
    for engine, shape in alternate(cases, plan.rounds):
        each = in_child(weigh, python=plan.python, engine=engine, shape=shape, jobs=jobs)
        rows[engine, shape].add(bytes=each)
    return Report(list(rows.values()), figure_columns("bytes each", "bytes", 0), settings={"jobs": jobs})


# ---- in the child ----


def weigh(engine: str, shape: str, jobs: int) -> float:
    """Queue `jobs` jobs. Returns the growth of resident memory per job, in bytes."""
    return (_weigh_manyhands if engine == "manyhands" else _weigh_executor)(shape, jobs)


def _weigh_executor(shape: str, jobs: int) -> float:
    from concurrent.futures import ThreadPoolExecutor

    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(gate.wait)
        kept = [pool.submit(int)]
        before = _resident()
        if shape == "kept":
            kept += [pool.submit(int) for _ in range(jobs)]
        else:
            for _ in range(jobs):
                pool.submit(int)
        grown = _resident() - before
        gate.set()
    return grown / jobs


def _weigh_manyhands(shape: str, jobs: int) -> float:
    import manyhands as mh

    gate = threading.Event()
    loop = mh.EventLoop()
    owner = loop.strand()
    with mh.ThreadPool(1, max_queue_depth=None) as pool:
        pool.submit(gate.wait)
        kept = [pool.submit(int)]
        before = _resident()
        if shape == "kept":
            kept += [pool.submit(int) for _ in range(jobs)]
        elif shape == "dropped":
            for _ in range(jobs):
                pool.submit(int)
        else:
            for _ in range(jobs):
                pool.enqueue(int, owner=owner, name="a name", keep=False)
        grown = _resident() - before
        gate.set()
    loop.close()
    return grown / jobs


def _resident() -> int:
    gc.collect()
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Rss in /proc/self/smaps_rollup")
