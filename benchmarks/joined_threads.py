"""Does echoing cost more CPU when more threads have joined, and would the eager plan for the lead cost more?

On a GIL build further threads cannot make an echo faster; the promise is that they cost next to nothing. Lazy
(`handover=200 us`, the default): the leader keeps the lead while it runs handlers, and a parked thread takes it only
from a handler that takes long. Eager (`handover=0`): a parked thread takes the lead as soon as a handler runs.

`cores` is where the server's threads may run: `1` leaves the load its own core; with `2` a thread that is woken may
find the other core free, or in use by the load, as on a real machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks._process import ALL_CORES, SERVER_CORES, echo_command, load, serving
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, figure_columns, find, ratio_targets

QUESTION = "CPU per echoed message with 1, 2 and 4 joined threads, lazy and eager hand-over of the lead"

LIMIT = 1.15
"""Four joined threads against one, lazy, on the server's core."""
SIZE = 1024
CONNECTIONS = 64
HANDOVER_US = {"lazy": 200.0, "eager": 0.0}


@dataclass(frozen=True)
class Case:
    """One way to run the server."""

    cores: int
    plan: str
    threads: int


def measure(plan: Plan) -> Report:
    """Measure all cases, a fresh server per case and round."""
    cases = [
        Case(cores, handover, threads)
        for cores in ((1,) if plan.quick else (1, 2))
        for handover in HANDOVER_US
        for threads in (1, 2, 4)
        if threads > 1 or handover == "lazy"
    ]
    rows = {case: Row(vars(case)) for case in cases}
    for case in alternate(cases, plan.rounds):
        command = echo_command("watch", plan.python, threads=case.threads, handover=HANDOVER_US[case.plan])
        with serving(command, SERVER_CORES if case.cores == 1 else ALL_CORES) as server:
            run = load(server, connections=CONNECTIONS, size=SIZE, seconds=plan.seconds)
        rows[case].add(cpu_us=run.cpu_us, throughput=run.throughput, p50_us=run.latency_us["p50"])
        rows[case].add(p99_us=run.latency_us["p99"], server_busy=run.server_busy, load_busy=run.load_busy)
    columns = [*figure_columns("CPU us", "cpu_us"), Column("msg/s", "throughput", digits=0)]
    columns += [Column("p50 us", "p50_us", digits=0), Column("p99 us", "p99_us", digits=0)]
    columns += [Column("server busy", "server_busy"), Column("load busy", "load_busy")]
    settings: dict[str, object] = {"size": SIZE, "connections": CONNECTIONS}
    return Report(list(rows.values()), columns, _targets(list(rows.values())), settings=settings)


def _targets(rows: list[Row]) -> list[Target]:
    one = find(rows, cores=1, plan="lazy", threads=1)
    targets: list[Target] = []
    for threads in (4, 2):
        many = find(rows, cores=1, plan="lazy", threads=threads)
        assert one is not None
        assert many is not None
        targets += ratio_targets(f"{threads} joined / 1 joined, one core", many, one, "cpu_us", LIMIT)
    return targets
