"""Do 10,000 idle watches slow down 64 busy ones, and what does an idle watch weigh?

Speed: the same 64 busy connections, alone and among 10,000 that are open and silent, on a fresh server each time.

Memory: how much the process's resident memory (Rss of smaps_rollup) grows when 10,000 descriptors that exist already
get their watch. Counted: everything the loop makes for them, which is the Watch object, its strand, the core's state
and its share of tables that grew. Not counted: the descriptor (an eventfd, a bare number here), the socket object a
real program has, the handler (one function for all), and the kernel's memory. asyncio and uvloop do the same with
`add_reader`, their nearest thing.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._process import echo_command, has_module, in_child, load, raise_file_limit, serving
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, figure_columns, ratio_targets

QUESTION = "64 busy connections alone and among 10,000 idle ones; memory of an idle watch"

BUSY = 64
IDLE = 10_000
SIZE = 1024
SPARE_FILES = 300
THROUGHPUT_LIMIT = 0.95
"""Throughput among the idle, of that alone: "as alone" within the noise of two processes."""
CPU_LIMIT = 1.05
KIB_LIMIT = 0.5


def measure(plan: Plan) -> Report:
    """Measure speed for the servers, then memory in children of their own."""
    idle = min(IDLE, raise_file_limit() - BUSY - SPARE_FILES)
    notes = [] if idle == IDLE else [f"only {idle} idle connections: `ulimit -Hn` allows no more"]
    notes.append("KiB per watch: Watch, strand and core state; neither socket object nor handler (see the file)")
    missing = {name for name in ("manyhands", "uvloop") if not has_module(name, plan.python)}
    servers = [name for name in ("watch", "uvloop", "c") if {"watch": "manyhands"}.get(name, name) not in missing]
    if plan.quick:
        servers = servers[:1]
    speed = {(name, count): Row({"what": name, "idle": count}) for name in servers for count in (0, idle)}
    for name, count in alternate(list(speed), plan.rounds):
        with serving(echo_command(name, plan.python)) as server:
            run = load(server, connections=BUSY, idle=count, size=SIZE, seconds=plan.seconds)
        speed[name, count].add(cpu_us=run.cpu_us, throughput=run.throughput, p99_us=run.latency_us["p99"])
    engines = [name for name in ("manyhands", "asyncio", "uvloop") if name not in missing]
    memory = {name: Row({"what": f"{name} memory", "idle": idle}) for name in engines}
    for name in alternate(engines, plan.rounds):
        memory[name].add(kib=in_child(weigh, python=plan.python, engine=name, count=idle))
    columns = [*figure_columns("CPU us", "cpu_us"), Column("msg/s", "throughput", digits=0)]
    columns += [Column("p99 us", "p99_us", digits=0), Column("KiB each", "kib")]
    rows = [*speed.values(), *memory.values()]
    settings: dict[str, object] = {"busy": BUSY, "idle": idle, "size": SIZE}
    return Report(rows, columns, _targets(speed, memory, idle), notes, settings)


def _targets(speed: dict[tuple[str, int], Row], memory: dict[str, Row], idle: int) -> list[Target]:
    targets: list[Target] = []
    if ("watch", 0) in speed:
        name = f"throughput of {BUSY} among {idle} idle / alone"
        among, alone = speed["watch", idle], speed["watch", 0]
        targets += ratio_targets(name, among, alone, "throughput", THROUGHPUT_LIMIT, at_most=False)
        targets += ratio_targets(f"CPU per message among {idle} idle / alone", among, alone, "cpu_us", CPU_LIMIT)
    if "manyhands" in memory:
        targets.append(Target("KiB per idle watch, median", memory["manyhands"].median("kib"), KIB_LIMIT))
    return targets


# ---- in the child ----


def weigh(engine: str, count: int) -> float:
    """Watch `count` eventfds with one handler. Returns the growth of resident memory per watch, in KiB."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    watch, keep = _watcher(engine)
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count + 1)]
    # The first one pays for what is made once; and the list must not grow while we weigh.
    kept: list[object] = [watch(fds.pop()), *([None] * count)]
    gc.collect()
    gc.disable()
    before = _resident_kib()
    for number, fd in enumerate(fds):
        kept[number] = watch(fd)
    after = _resident_kib()
    assert keep is not None
    return (after - before) / count


def _watcher(engine: str) -> tuple[Callable[[int], object], object]:
    """The function that watches a descriptor, and the loop, to be kept alive."""

    def handle(*_: object) -> None:
        raise AssertionError("an idle descriptor had an event")

    if engine == "manyhands":
        import manyhands as mh

        loop = mh.EventLoop()
        return lambda fd: loop.add(fd, mh.Events.READ, handle), loop
    peer: Any = asyncio.new_event_loop() if engine == "asyncio" else __import__("uvloop").new_event_loop()
    return lambda fd: peer.add_reader(fd, handle), peer


def _resident_kib() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise RuntimeError("no Rss in /proc/self/smaps_rollup")
