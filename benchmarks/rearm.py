"""What does it cost to register with EPOLLONESHOT and re-arm with EPOLL_CTL_MOD after every event?

Three plans, in the same two echo servers (C, and Python's bare `select.epoll`), which differ in nothing else:

* `level`: registered once, level-triggered. With several threads the kernel may give one descriptor's event to two;
* `oneshot`: silent after each event until it is armed again, one system call per event. What a raw watch needs if
  no other guard keeps a second thread out;
* `edge`: registered once, edge-triggered. Costs nothing per event, but what a handler leaves unread is never
  reported again, so the loop must read to the end itself.

`oneshot` less `level` is the price of the re-arm.
"""

from __future__ import annotations

from benchmarks._process import echo_command, load, serving
from benchmarks._report import Column, Plan, Report, Row, alternate, figure_columns

QUESTION = "CPU per echoed message: level-triggered, EPOLLONESHOT with MOD, edge-triggered"

SIZE = 1024
CONNECTIONS = (1, 64, 1000)
PLANS = ("level", "oneshot", "edge")


def measure(plan: Plan) -> Report:
    """Measure both servers with each plan."""
    counts = (64,) if plan.quick else CONNECTIONS
    cases = [(server, way) for server in ("c", "epoll") for way in PLANS]
    rows = {
        (server, way, count): Row({"connections": count, "server": server, "plan": way})
        for count in counts
        for server, way in cases
    }
    for server, way in alternate(cases, plan.rounds):
        with serving(echo_command(server, plan.python, plan=way)) as running:
            for count in counts:
                run = load(running, connections=count, size=SIZE, seconds=plan.seconds)
                rows[server, way, count].add(cpu_us=run.cpu_us, throughput=run.throughput, load_busy=run.load_busy)
    notes = []
    for (server, way, count), row in rows.items():
        level = rows[server, "level", count]
        row.add(dearer_us=row.median("cpu_us") - level.median("cpu_us"))
        if way == "oneshot":
            least = row.minimum("cpu_us") - level.minimum("cpu_us")
            notes.append(f"{server}, {count} connections: a re-arm costs {least:.2f} us by minima")
    columns = [*figure_columns("CPU us", "cpu_us"), Column("us over level", "dearer_us")]
    columns += [Column("msg/s", "throughput", digits=0), Column("load busy", "load_busy")]
    return Report(list(rows.values()), columns, notes=notes, settings={"size": SIZE})
