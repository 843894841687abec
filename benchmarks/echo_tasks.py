"""What does echoing a message cost a task that awaits `receive` and `send`, beside callbacks and other sequential code?

As `echo.py`: one server on one core, the load on another; CPU time of the server process per message counts. uvloop's
and asyncio's Protocol are callbacks, the cheapest form that they have; what is compared with a task fairly, their
streams, trio and gevent, costs two to five times as much. 100 KiB is about copies.
"""

from __future__ import annotations

from itertools import product

from benchmarks import _machine
from benchmarks._process import echo_command, has_module, in_child, load, serving
from benchmarks._report import Column, Label, Plan, Report, Row, Target, alternate, figure_columns, find, ratio_targets

QUESTION = "CPU per echoed message: a task beside uvloop, asyncio, rloop, trio, gevent and C"

LIMITS = {True: 0.85, False: 1.15}
"""Task against uvloop Protocol on the same interpreter, by whether it has a GIL."""
NEEDS = {
    "task": "manyhands",
    "uvloop": "uvloop",
    "uvloop-streams": "uvloop",
    "rloop": "rloop",
    "trio": "trio",
    "gevent": "gevent",
}
SERVERS = ["task", "uvloop", "asyncio", "rloop", "uvloop-streams", "asyncio-streams", "trio", "gevent", "c"]
REFERENCE = (1024, 64)
"""The size and the number of connections that the targets are about."""
LARGE = 102_400
"""Bytes of a message at which the copies count."""


def measure(plan: Plan) -> Report:
    """Measure every server with every size and number of connections, a fresh process per server and round."""
    missing = [name for name in SERVERS if name in NEEDS and not has_module(NEEDS[name], plan.python)]
    servers = [name for name in SERVERS if name not in missing]
    cases = [REFERENCE] if plan.quick else list(product((1024, 10240, LARGE), (1, 64, 1000)))
    rows = [Row({"size": size, "connections": count, "server": name}) for size, count in cases for name in servers]
    for name in alternate(servers, plan.rounds):
        with serving(echo_command(name, plan.python)) as server:
            for size, count in cases:
                run = load(server, connections=count, size=size, seconds=plan.seconds)
                row = _row(rows, size=size, connections=count, server=name)
                row.add(cpu_us=run.cpu_us, throughput=run.throughput, load_busy=run.load_busy)
                row.add(server_busy=run.server_busy, p50_us=run.latency_us["p50"], p99_us=run.latency_us["p99"])
    columns = [*figure_columns("CPU us", "cpu_us"), Column("msg/s", "throughput", digits=0)]
    columns += [Column("p50 us", "p50_us", digits=0), Column("p99 us", "p99_us", digits=0)]
    columns += [Column("server busy", "server_busy"), Column("load busy", "load_busy")]
    notes = [f"{name} is not there for this interpreter" for name in missing]
    return Report(rows, columns, _targets(plan, rows, cases), notes)


def _targets(plan: Plan, rows: list[Row], cases: list[tuple[int, int]]) -> list[Target]:
    gil = bool(in_child(_machine.describe_interpreter, python=plan.python)["gil"])
    size, count = REFERENCE
    against = {"uvloop": LIMITS[gil]} | ({"c": 1.35, "trio": 0.30} if gil else {})
    targets: list[Target] = []
    for peer, limit in against.items():
        targets += _ratio(rows, (size, count, peer), limit)
    for size, count in cases:
        if size == LARGE:
            peers = [row for row in rows if row.labels["size"] == size and row.labels["connections"] == count]
            peers = [row for row in peers if row.labels["server"] != "task"]
            best = min(peers, key=lambda row: row.minimum("cpu_us"))
            targets += _ratio(rows, (size, count, str(best.labels["server"])), 1.15)
    return targets


def _ratio(rows: list[Row], case: tuple[int, int, str], limit: float) -> list[Target]:
    size, count, peer = case
    task = find(rows, size=size, connections=count, server="task")
    other = find(rows, size=size, connections=count, server=peer)
    if task is None or other is None:
        return []
    return list(ratio_targets(f"task / {peer}, {size} B, {count} connections", task, other, "cpu_us", limit))


def _row(rows: list[Row], **labels: Label) -> Row:
    row = find(rows, **labels)
    assert row is not None
    return row
