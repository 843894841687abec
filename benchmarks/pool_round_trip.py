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

from collections.abc import Callable

from benchmarks._report import Plan, Report
from benchmarks._round_trip import (
    Engine,
    Measured,
    measure_round_trips,
    timed,
    timed_in_task,
    with_anyio,
    with_asyncio,
    with_trio,
)

QUESTION = "submit().result() of a no-op, one at a time, beside other pools"

LIMIT = 0.7
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


def measure(plan: Plan) -> Report:
    """Measure each engine beside `ThreadPoolExecutor`."""
    return measure_round_trips(run, plan, NEEDS, "ThreadPoolExecutor", LIMIT)


# ---- in the child ----


def run(engine: str, calls: int) -> Measured:
    """Make `calls` calls. Returns microseconds of each, on the clock and of CPU."""
    return ENGINES[engine](calls)


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
        return timed(call, calls)
    finally:
        there.put(None)
        worker.join()


def _with_executor(calls: int) -> Measured:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        return timed(lambda: pool.submit(int).result(), calls)


def _with_manyhands(calls: int) -> Measured:
    import manyhands as mh

    with mh.ThreadPool(4) as pool:
        return timed(lambda: pool.submit(int).result(), calls)


def _with_gevent(calls: int) -> Measured:
    import gevent

    pool = gevent.get_hub().threadpool
    return timed(lambda: pool.spawn(int).get(), calls)


def _with_asyncio_over_manyhands(calls: int) -> Measured:
    import asyncio

    import manyhands as mh

    async def call() -> object:
        return await asyncio.wrap_future(pool.submit(int))

    with mh.ThreadPool(4) as pool:
        return asyncio.run(timed_in_task(call, calls))


ENGINES: dict[str, Engine] = {
    "two queues": _with_queues,
    "ThreadPoolExecutor": _with_executor,
    "manyhands": _with_manyhands,
    "gevent": _with_gevent,
    "asyncio.to_thread": with_asyncio,
    "asyncio over manyhands": _with_asyncio_over_manyhands,
    "AnyIO": with_anyio,
    "trio": with_trio,
}
