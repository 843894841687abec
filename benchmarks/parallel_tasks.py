"""Do two threads run tasks of pure Python nearly twice as fast as one, on a free-threaded interpreter?

As `parallel_handlers.py`, for tasks: each of 8 tasks reads a byte from its stream, computes for about 50 us and writes
the byte to the other end, which it reads again. Everything is fed inside the process, so that no client competes for the
cores. `own`: the code is compiled afresh for each task; `shared`: one async function for all.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from benchmarks._process import ALL_CORES, CORES, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, find, ratio_targets
from benchmarks.parallel_handlers import HANDLER_US, calibrate

QUESTION = "a message of 50 us of pure Python in tasks on 1 and on 2 threads (free-threaded)"

TASKS = 8
LIMITS = {"own": 1.7, "shared": 1.5}
SOURCE = """
async def serve(ours, theirs, messages, iterations):
    await theirs.send(b"x")
    for _ in range(messages):
        byte = await ours.receive()
        total = 0
        for number in range(iterations):
            total += number & 7
        await theirs.send(byte)
"""


def measure(plan: Plan) -> Report:
    """Measure all cases, each a fresh process on both cores."""
    if plan.free_threaded is None:
        return Report([], [], notes=["skipped: no free-threaded interpreter with manyhands (see --free-threaded)"])
    if len(CORES) < 2:
        return Report([], [], notes=["skipped: needs two cores"])
    python = plan.free_threaded
    iterations = in_child(calibrate, python=python)
    messages = int((0.15 if plan.quick else 0.6) / (HANDLER_US * 1e-6) / TASKS)
    cases = [(shape, threads) for shape in LIMITS for threads in (1, 2)]
    rows = {case: Row({"shape": case[0], "threads": case[1]}) for case in cases}
    for shape, threads in alternate(cases, plan.rounds):
        seconds, cpu = in_child(
            run_case,
            python=python,
            cores=ALL_CORES,
            shape=shape,
            threads=threads,
            messages=messages,
            iterations=iterations,
        )
        rows[shape, threads].add(rate=messages * TASKS / seconds, cpu_us=cpu / (messages * TASKS) * 1e6)
    columns = [Column("messages/s max", "rate", "maximum", 0), Column("median", "rate", "median", 0)]
    columns += [Column("spread", "rate", "spread"), Column("CPU us each min", "cpu_us", "minimum")]
    settings: dict[str, object] = {"tasks": TASKS, "messages_per_task": messages, "iterations": iterations}
    return Report(list(rows.values()), columns, _targets(list(rows.values())), settings=settings, python=python)


def _targets(rows: list[Row]) -> list[Target]:
    targets: list[Target] = []
    for shape, limit in LIMITS.items():
        one, two = (find(rows, shape=shape, threads=threads) for threads in (1, 2))
        if one and two:
            targets += ratio_targets(f"2 threads / 1, {shape} code", two, one, "rate", limit, at_most=False)
    return targets


# ---- in the child ----


def run_case(shape: str, threads: int, messages: int, iterations: int) -> tuple[float, float]:
    """Run `messages` messages in each of TASKS tasks. Returns seconds from the start to the last, and of CPU."""
    import manyhands as mh

    sources = [_compiled() for _ in range(TASKS)] if shape == "own" else [_compiled()] * TASKS

    async def main() -> tuple[float, float]:
        loop = mh.current_task().group.owner
        started, cpu = time.perf_counter(), time.process_time()
        async with mh.create_task_group() as group:
            for serve in sources:
                ends = socket.socketpair()
                for end in ends:
                    end.setblocking(False)
                ours, theirs = (mh.SocketStream(loop, end.detach(), tcp=False) for end in ends)
                group.start_soon(_serve, serve, ours, theirs, messages, iterations)
        return time.perf_counter() - started, time.process_time() - cpu

    return mh.run(main, threads=threads)


async def _serve(serve: Any, ours: Any, theirs: Any, messages: int, iterations: int) -> None:
    async with ours, theirs:
        await serve(ours, theirs, messages, iterations)


def _compiled() -> Any:
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    return names["serve"]
