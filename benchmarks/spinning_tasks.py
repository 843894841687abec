"""How late is a timer beside tasks that never stop running?

Eight tasks do nothing but `await checkpoint()`. Beside them a task sleeps for 5 ms, again and again; what counts is how long
after its due time it runs. asyncio and trio do the same with their `sleep(0)` and `checkpoint()`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from benchmarks._process import has_module, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate

QUESTION = "how late is a timer beside eight tasks that spin"

SPINNERS = 8
NAP = 0.005
LIMIT_US = 2000
NEEDS = {"manyhands": "manyhands", "trio": "trio"}


def measure(plan: Plan) -> Report:
    """Measure every engine, a fresh process per round."""
    engines = [name for name in ("manyhands", "asyncio", "trio") if has_module(NEEDS.get(name, "asyncio"), plan.python)]
    rows = {name: Row({"engine": name}) for name in engines}
    naps = 60 if plan.quick else 400
    for name in alternate(engines, max(1, plan.rounds // 2)):
        late = sorted(in_child(late_by, python=plan.python, engine=name, naps=naps))
        rows[name].add(
            p50_us=late[len(late) // 2] * 1e6, p99_us=late[int(len(late) * 0.99)] * 1e6, max_us=late[-1] * 1e6
        )
    columns = [Column("p50 us", "p50_us", digits=0), Column("p99 us", "p99_us", digits=0)]
    columns.append(Column("max us", "max_us", digits=0))
    targets = [
        Target("p99 of a timer beside tasks that spin, us, median", rows["manyhands"].median("p99_us"), LIMIT_US)
    ]
    return Report(list(rows.values()), columns, targets, settings={"spinners": SPINNERS, "naps": naps, "nap": NAP})


# ---- in the child ----


def late_by(engine: str, naps: int) -> list[float]:
    """Seconds that each nap was too long."""
    return {"manyhands": _manyhands, "asyncio": _asyncio, "trio": _trio}[engine](naps)


def _manyhands(naps: int) -> list[float]:
    import manyhands as mh

    async def spin() -> None:
        while True:
            await mh.checkpoint()

    async def main() -> list[float]:
        late: list[float] = []
        async with mh.create_task_group() as group:
            for _ in range(SPINNERS):
                group.start_soon(spin)
            for _ in range(naps):
                due = time.monotonic() + NAP
                await mh.sleep(NAP)
                late.append(time.monotonic() - due)
            group.cancel_scope.cancel()
        return late

    return mh.run(main)


def _asyncio(naps: int) -> list[float]:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    async def main() -> list[float]:
        late: list[float] = []
        spinners = [asyncio.create_task(spin()) for _ in range(SPINNERS)]
        for _ in range(naps):
            due = time.monotonic() + NAP
            await asyncio.sleep(NAP)
            late.append(time.monotonic() - due)
        for spinner in spinners:
            spinner.cancel()
        return late

    return asyncio.run(main())


def _trio(naps: int) -> list[float]:
    import trio

    checkpoint: Callable[[], object] = trio.lowlevel.checkpoint

    async def spin() -> None:
        while True:
            await checkpoint()  # type: ignore[misc]

    async def main() -> list[float]:
        late: list[float] = []
        async with trio.open_nursery() as nursery:
            for _ in range(SPINNERS):
                nursery.start_soon(spin)
            for _ in range(naps):
                due = time.monotonic() + NAP
                await trio.sleep(NAP)
                late.append(time.monotonic() - due)
            nursery.cancel_scope.cancel()
        return late

    return trio.run(main)
