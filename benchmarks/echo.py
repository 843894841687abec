"""What does echoing a message by a watch cost, beside asyncio, uvloop, a bare epoll loop in Python, and C?

One server on one core, the load on another. What counts is CPU time of the server process per message: the load is
not the same distance from its limit for all, and threads that hide must be counted. A row is marked `load-bound`
where the load was the busier side: its throughput then says nothing, its CPU per message still does.

Connections: 64 is the case of the target. With 1, the wake-up of a sleeping core is measured, for everybody. With
1000, messages come in big batches.
"""

from __future__ import annotations

from itertools import product

from benchmarks import _machine
from benchmarks._process import echo_command, has_module, in_child, load, serving
from benchmarks._report import Column, Label, Plan, Report, Row, Target, alternate, figure_columns, find, ratio_targets

QUESTION = "CPU per echoed message: a watch beside asyncio, uvloop, select.epoll and C"

LIMITS = {True: 1.05, False: 1.20}
"""Watch against uvloop Protocol on the same interpreter, by whether it has a GIL."""
NEEDS = {"watch": "manyhands", "uvloop": "uvloop"}
REFERENCE = (1024, 64)
"""The size and the number of connections that the target is about."""


def measure(plan: Plan) -> Report:
    """Measure every server with every size and number of connections, a fresh process per server and round."""
    names = ["watch", "uvloop", "asyncio", "epoll", "c"]
    missing = [name for name in names if name in NEEDS and not has_module(NEEDS[name], plan.python)]
    servers = [name for name in names if name not in missing]
    cases = [REFERENCE] if plan.quick else list(product((1024, 10240), (1, 64, 1000)))
    rows = [Row({"size": size, "connections": count, "server": name}) for size, count in cases for name in servers]
    for name in alternate(servers, plan.rounds):
        with serving(echo_command(name, plan.python)) as server:
            for size, count in cases:
                run = load(server, connections=count, size=size, seconds=plan.seconds)
                row = _row(rows, size=size, connections=count, server=name)
                row.add(cpu_us=run.cpu_us, throughput=run.throughput, load_busy=run.load_busy)
                row.add(server_busy=run.server_busy, p50_us=run.latency_us["p50"], p99_us=run.latency_us["p99"])
    _mark_load_bound(rows)
    columns = [*figure_columns("CPU us", "cpu_us"), Column("msg/s", "throughput", digits=0)]
    columns += [Column("p50 us", "p50_us", digits=0), Column("p99 us", "p99_us", digits=0)]
    columns += [Column("server busy", "server_busy"), Column("load busy", "load_busy")]
    notes = [f"{name} is not there for this interpreter" for name in missing]
    return Report(rows, columns, _targets(plan, rows, cases), notes)


def _targets(plan: Plan, rows: list[Row], cases: list[tuple[int, int]]) -> list[Target]:
    limit = LIMITS[bool(in_child(_machine.describe_interpreter, python=plan.python)["gil"])]
    targets: list[Target] = []
    for size, count in sorted(cases, key=lambda case: case != REFERENCE):
        watch = find(rows, size=size, connections=count, server="watch")
        peer = find(rows, size=size, connections=count, server="uvloop")
        if watch and peer:
            name = f"watch / uvloop Protocol, {size} B, {count} connections"
            targets += ratio_targets(name, watch, peer, "cpu_us", limit)
    return targets


def _mark_load_bound(rows: list[Row]) -> None:
    for row in rows:
        busier = row.median("load_busy") > max(0.9, row.median("server_busy"))
        row.labels["limit"] = "load-bound" if busier else ""


def _row(rows: list[Row], **labels: Label) -> Row:
    row = find(rows, **labels)
    assert row is not None
    return row
