"""What does a task cost that is started, yields once and ends?

All of them are started first and are there at the same time; then each is resumed in turn, twice. Nothing is computed, so
all that is measured is what a task is made of. Every runtime yields fairly here: to the tail of its queue.

* `bare coroutines`: a deque of coroutines, resumed by `send`. Nothing that is written in Python can be below it.
* `manyhands`: `start_soon` in a task group, `await checkpoint()`.
* `asyncio TaskGroup`: `create_task`, `await sleep(0)`. `trio`: `start_soon`, `await checkpoint()`.

`bytes` is what the process has grown by at its largest, per task: the coroutine, which weighs the same for all, included.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from benchmarks._process import SERVER_CORES, has_module, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, figure_columns, find

QUESTION = "start, one yield and end of a million tasks, beside other runtimes"

US_LIMIT, BYTES_LIMIT = 2.5, 600
TASKS = 1_000_000
MOST_ROUNDS = 3
"""A million tasks of the slowest runtime take 20 seconds, and the figures hardly vary."""
NEEDS = {"bare coroutines": None, "manyhands": "manyhands", "asyncio TaskGroup": None, "trio": "trio"}
"""Engine -> the module that it needs."""


@dataclass(frozen=True)
class Case:
    """Whose tasks."""

    engine: str


def measure(plan: Plan) -> Report:
    """Measure each runtime in a child of its own."""
    missing = [name for name, module in NEEDS.items() if module and not has_module(module, plan.python)]
    cases = [Case(name) for name in NEEDS if name not in missing]
    rows = {case: Row(vars(case)) for case in cases}
    tasks = TASKS // (10 if plan.quick else 1)
    for case in alternate(cases, min(plan.rounds, MOST_ROUNDS)):
        rows[case].add(**in_child(run, python=plan.python, cores=SERVER_CORES, engine=case.engine, tasks=tasks))
    columns: list[Column] = [*figure_columns("us each", "us"), Column("bytes each", "bytes")]
    notes = [f"not installed: {', '.join(missing)}"] if missing else []
    targets: list[Target] = []
    ours = find(list(rows.values()), engine="manyhands")
    if ours:
        targets += [
            Target("us per task, minimum", ours.minimum("us"), US_LIMIT),
            Target("bytes per task", ours.median("bytes"), BYTES_LIMIT),
        ]
    return Report(list(rows.values()), columns, targets, notes, {"tasks": tasks})


# ---- in the child ----


def run(engine: str, tasks: int) -> dict[str, float]:
    """Run so many tasks. Returns microseconds and bytes of each."""
    gc.collect()
    before = _resident("VmRSS")
    started = time.perf_counter()
    ended = ENGINES[engine](tasks)
    wall = time.perf_counter() - started
    if ended != tasks:
        raise RuntimeError(f"{ended} of {tasks} tasks have ended")
    return {"us": wall / tasks * 1e6, "bytes": (_resident("VmHWM") - before) / tasks}


def _resident(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def _bare(tasks: int) -> int:
    import types
    from collections import deque

    ended = 0

    @types.coroutine
    def yield_once() -> Generator[None]:
        yield

    async def task() -> None:
        nonlocal ended
        await yield_once()
        ended += 1

    ready = deque(task() for _ in range(tasks))
    while ready:
        coroutine = ready.popleft()
        try:
            coroutine.send(None)
        except StopIteration:
            continue
        ready.append(coroutine)
    return ended


def _with_manyhands(tasks: int) -> int:
    import manyhands as mh

    ended = 0

    async def task() -> None:
        nonlocal ended
        await mh.checkpoint()
        ended += 1

    async def main() -> None:
        async with mh.create_task_group() as group:
            for _ in range(tasks):
                group.start_soon(task)

    mh.run(main)
    return ended


def _with_asyncio(tasks: int) -> int:
    import asyncio

    ended = 0

    async def task() -> None:
        nonlocal ended
        await asyncio.sleep(0)
        ended += 1

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(task())

    asyncio.run(main())
    return ended


def _with_trio(tasks: int) -> int:
    import trio

    ended = 0

    async def task() -> None:
        nonlocal ended
        await trio.lowlevel.checkpoint()
        ended += 1

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(task)

    trio.run(main)
    return ended


ENGINES: dict[str, Callable[[int], int]] = {
    "bare coroutines": _bare,
    "manyhands": _with_manyhands,
    "asyncio TaskGroup": _with_asyncio,
    "trio": _with_trio,
}
