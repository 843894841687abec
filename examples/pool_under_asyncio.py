"""The pool under an asyncio program: as its default executor, and for jobs that a cancelled `await` stops.

asyncio's own executor cannot stop a call that has begun, hides how many wait, and takes as many as come. Here the same
program has the pool below it.

What to look for:
* `set_default_executor(pool.executor())` and nothing else: every `asyncio.to_thread`, `run_in_executor` and name look-up goes
  to the pool, with its thread names and its bound, and context variables travel as before;
* `await asyncio.wrap_future(pool.enqueue(...))`: cancelling the await, here by a timeout, stops the job at its next check-in;
* a job past its deadline is no cancellation: it raises `JobAborted`, a TimeoutError, and a TaskGroup sees it;
* a full queue is refused at once with `QueueFull`, where waiting would stop the event loop.

    python examples/pool_under_asyncio.py
"""

import asyncio
import contextvars
import threading
import time

import manyhands as mh

request_id = contextvars.ContextVar("request_id", default="none")


def where() -> str:
    """A blocking call of the program as it was."""
    return f"{threading.current_thread().name}, request {request_id.get()}"


def count_slowly(ended: threading.Event) -> int:
    """A job of ten seconds that checks in every 10 ms."""
    try:
        for _ in range(1000):
            mh.sleep_blocking(0.01)
    finally:
        ended.set()
    return 1000


async def the_program_as_it_was() -> None:
    """`to_thread` knows nothing of the pool."""
    request_id.set("17")
    print("to_thread ran on", await asyncio.to_thread(where), flush=True)


async def a_timeout_stops_the_job(pool: mh.ThreadPool) -> None:
    """What asyncio gives up is stopped, not left behind."""
    ended = threading.Event()
    job = pool.enqueue(count_slowly, ended, name="count slowly")
    try:
        await asyncio.wait_for(asyncio.wrap_future(job), timeout=0.1)
    except TimeoutError:
        print("the await timed out", flush=True)
    await asyncio.to_thread(ended.wait, 10)
    while not job.done():
        await asyncio.sleep(0.001)
    assert job.reason is not None
    print(f"the job is {job.status.name}, by its {job.reason.name}", flush=True)


async def a_deadline_is_no_cancellation(pool: mh.ThreadPool) -> None:
    """A TaskGroup swallows cancellations; this one it must not swallow."""
    job = pool.enqueue(count_slowly, threading.Event(), deadline=mh.now() + 0.1, name="count slowly")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_await(job))
    except* mh.JobAborted as raised:
        error = raised.exceptions[0]
        assert isinstance(error, mh.JobAborted)
        print(
            f"the TaskGroup raised JobAborted, {error.reason.name}; a TimeoutError: {isinstance(error, TimeoutError)}"
        )


async def _await(job: "mh.Job[int]") -> int:
    return await asyncio.wrap_future(job)


async def a_full_queue_refuses() -> None:
    """A pool of one thread and one place: the third call is refused, and the event loop goes on."""
    small = mh.ThreadPool(1, max_queue_depth=1, name="small")
    executor = small.executor()
    loop = asyncio.get_running_loop()
    gate = threading.Event()
    calls = [loop.run_in_executor(executor, gate.wait, 10) for _ in range(2)]
    try:
        loop.run_in_executor(executor, gate.wait, 10)
    except mh.QueueFull as refused:
        print(f"refused: {refused}", flush=True)
    gate.set()
    await asyncio.gather(*calls)
    small.shutdown()


async def main() -> None:
    """Put the pool below this event loop, then do what such programs do."""
    pool = mh.ThreadPool(4, name="async", max_queue_depth=100)
    asyncio.get_running_loop().set_default_executor(pool.executor())
    started = time.monotonic()
    await the_program_as_it_was()
    await a_timeout_stops_the_job(pool)
    await a_deadline_is_no_cancellation(pool)
    await a_full_queue_refuses()
    stats = pool.stats()
    print(
        f"{stats.submitted} jobs in {time.monotonic() - started:.1f} s: {stats.finished} finished, {stats.stopped} stopped"
    )
    await asyncio.get_running_loop().shutdown_default_executor()
    pool.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
