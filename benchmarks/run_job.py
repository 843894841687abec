"""What does it cost a task to have a blocking call made on a thread, and to wait for its answer?

One call after the other: `await` of a no-op in a thread, from a task. All that is measured is the way there and back: the
call into the pool, the wake-up of a thread, the wake-up of the loop. `cores` is as in `pool_round_trip.py`.

* `asyncio.to_thread`, `AnyIO`, `trio`: their own, with their own limit of threads.
* `manyhands`: `run_job`, of a pool of four threads; cancelling the task would stop the job, which none of the others can.
* `manyhands, 2 threads`: two threads serve the loop, so that one waits in the poller while the other runs the task.
"""

from __future__ import annotations

from benchmarks._report import Plan, Report
from benchmarks._round_trip import (
    Engine,
    Measured,
    measure_round_trips,
    timed_in_task,
    with_anyio,
    with_asyncio,
    with_trio,
)

QUESTION = "await of a no-op on a thread, one at a time, beside other libraries"

LIMIT = 0.5
NEEDS = {
    "asyncio.to_thread": None,
    "AnyIO": "anyio",
    "trio": "trio",
    "manyhands": "manyhands",
    "manyhands, 2 threads": "manyhands",
}
"""Engine -> the module that it needs."""


def measure(plan: Plan) -> Report:
    """Measure each engine beside `asyncio.to_thread`."""
    return measure_round_trips(run, plan, NEEDS, "asyncio.to_thread", LIMIT)


# ---- in the child ----


def run(engine: str, calls: int) -> Measured:
    """Make `calls` calls. Returns microseconds of each, on the clock and of CPU."""
    return ENGINES[engine](calls)


def _with_manyhands(threads: int) -> Engine:
    def measured(calls: int) -> Measured:
        import manyhands as mh

        with mh.ThreadPool(4) as pool:
            return mh.run(timed_in_task, lambda: mh.run_job(int, pool=pool), calls, threads=threads)

    return measured


ENGINES: dict[str, Engine] = {
    "asyncio.to_thread": with_asyncio,
    "AnyIO": with_anyio,
    "trio": with_trio,
    "manyhands": _with_manyhands(1),
    "manyhands, 2 threads": _with_manyhands(2),
}
