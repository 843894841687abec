"""What does it cost to hand an object from one task to another and to get one back?

Two tasks, two streams, one object under way: it goes there, comes back, and only then goes again. So every hand-over is a
task that is suspended and one that is resumed, and nothing can be amortised. `buffered` is the other extreme: one task sends
as fast as it may into a buffer of 100, the other receives.

* `asyncio.Queue`: `put` and `get`, with room for 1 (100). A hand-over through a `put` that waits is not to be had.
* `trio`: `open_memory_channel(0)` (100).
* `AnyIO`: `create_memory_object_stream(0)` (100), on asyncio.
* `manyhands`: the same names, with one and with two threads. Two do not help here: one of them is always idle, and the row
  says what a hand-over to a thread that sleeps, or does not, costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks._process import ALL_CORES, CORES, SERVER_CORES, has_module, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, figure_columns, find, ratio_targets

QUESTION = "a memory stream between two tasks: round trip, and through a buffer, beside other queues"

LIMITS = {"round trip": 0.5, "buffered": 0.7}
TURNS = 20_000
WARM_UP = 500
ROOM = 100
NEEDS = {
    "asyncio.Queue": None,
    "trio": "trio",
    "AnyIO": "anyio",
    "manyhands": "manyhands",
    "manyhands, 2 threads": "manyhands",
}
"""Engine -> the module that it needs."""


@dataclass(frozen=True)
class Case:
    """Whose stream, and how it is used."""

    engine: str
    way: str


def measure(plan: Plan) -> Report:
    """Measure each case in a child of its own."""
    missing = [name for name, module in NEEDS.items() if module and not has_module(module, plan.python)]
    engines = [name for name in NEEDS if name not in missing and (len(CORES) > 1 or "threads" not in name)]
    cases = [Case(engine, way) for way in ("round trip", "buffered") for engine in engines]
    rows = {case: Row(vars(case)) for case in cases}
    turns = TURNS // (10 if plan.quick else 1)
    for case in alternate(cases, plan.rounds):
        cores = ALL_CORES if "threads" in case.engine else SERVER_CORES
        rows[case].add(**in_child(run, python=plan.python, cores=cores, engine=case.engine, way=case.way, turns=turns))
    columns: list[Column] = [*figure_columns("us each", "us"), Column("CPU us", "cpu_us")]
    notes = [f"not installed: {', '.join(missing)}"] if missing else []
    return Report(list(rows.values()), columns, _targets(list(rows.values())), notes, {"turns": turns})


def _targets(rows: list[Row]) -> list[Target]:
    targets: list[Target] = []
    for way, limit in LIMITS.items():
        ours, theirs = (find(rows, engine=engine, way=way) for engine in ("manyhands", "asyncio.Queue"))
        if ours and theirs:
            targets += ratio_targets(f"manyhands / asyncio.Queue, {way}", ours, theirs, "us", limit)
    return targets


# ---- in the child ----


class Clock:
    """Started by the task that measures, when the other one is there."""

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, turns: int) -> None:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        self.figures = {"us": wall / turns * 1e6, "cpu_us": cpu / turns * 1e6}


def run(engine: str, way: str, turns: int) -> dict[str, float]:
    """Hand over `turns` objects. Returns microseconds of each, on the clock and of CPU."""
    clock = Clock()
    ENGINES[engine](way == "buffered", turns, clock)
    return clock.figures


def _with_asyncio(buffered: bool, turns: int, clock: Clock) -> None:  # noqa: FBT001
    import asyncio

    async def answer(there: asyncio.Queue[int | None], back: asyncio.Queue[int]) -> None:
        while (item := await there.get()) is not None:
            await back.put(item)

    async def produce(there: asyncio.Queue[int | None]) -> None:
        for number in range(turns):
            await there.put(number)

    async def main() -> None:
        there: asyncio.Queue[int | None] = asyncio.Queue(ROOM if buffered else 1)
        back: asyncio.Queue[int] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as group:
            if buffered:
                clock.start()
                group.create_task(produce(there))
                for _ in range(turns):
                    await there.get()
                clock.stop(turns)
                return
            group.create_task(answer(there, back))
            for number in range(WARM_UP + turns):
                if number == WARM_UP:
                    clock.start()
                await there.put(number)
                await back.get()
            clock.stop(turns)
            await there.put(None)

    asyncio.run(main())


def _with_trio(buffered: bool, turns: int, clock: Clock) -> None:  # noqa: FBT001
    import trio

    async def answer(there: trio.MemoryReceiveChannel[int], back: trio.MemorySendChannel[int]) -> None:
        async with there, back:
            async for item in there:
                await back.send(item)

    async def produce(there: trio.MemorySendChannel[int]) -> None:
        async with there:
            for number in range(turns):
                await there.send(number)

    async def main() -> None:
        send, there = trio.open_memory_channel[int](ROOM if buffered else 0)
        back, receive = trio.open_memory_channel[int](0)
        async with trio.open_nursery() as nursery:
            if buffered:
                clock.start()
                nursery.start_soon(produce, send)
                async for _ in there:
                    pass
                clock.stop(turns)
                return
            nursery.start_soon(answer, there, back)
            async with send:
                for number in range(WARM_UP + turns):
                    if number == WARM_UP:
                        clock.start()
                    await send.send(number)
                    await receive.receive()
                clock.stop(turns)

    trio.run(main)


def _with_anyio(buffered: bool, turns: int, clock: Clock) -> None:  # noqa: FBT001
    import anyio

    anyio.run(_like_anyio, anyio, buffered, turns, clock)


def _with_manyhands(threads: int) -> Callable[[bool, int, Clock], None]:
    def measured(buffered: bool, turns: int, clock: Clock) -> None:  # noqa: FBT001
        import manyhands as mh

        mh.run(_like_anyio, mh, buffered, turns, clock, threads=threads)

    return measured


async def _like_anyio(library: object, buffered: bool, turns: int, clock: Clock) -> None:  # noqa: FBT001
    """The names are the same."""
    create, group_of = library.create_memory_object_stream, library.create_task_group  # type: ignore[attr-defined]

    async def answer() -> None:
        with there, back:
            async for item in there:
                await back.send(item)

    async def produce() -> None:
        with send:
            for number in range(turns):
                await send.send(number)

    send, there = create(ROOM if buffered else 0)
    back, receive = create(0)
    async with group_of() as group:
        if buffered:
            with receive, there, back:
                clock.start()
                group.start_soon(produce)
                async for _ in there:
                    pass
                clock.stop(turns)
            return
        group.start_soon(answer)
        with send, receive:
            for number in range(WARM_UP + turns):
                if number == WARM_UP:
                    clock.start()
                await send.send(number)
                await receive.receive()
            clock.stop(turns)


ENGINES: dict[str, Callable[[bool, int, Clock], None]] = {
    "asyncio.Queue": _with_asyncio,
    "trio": _with_trio,
    "AnyIO": _with_anyio,
    "manyhands": _with_manyhands(1),
    "manyhands, 2 threads": _with_manyhands(2),
}
