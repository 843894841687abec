"""What does a request cost that hardly does anything, beside other servers?

"Hello, world!" of plain WSGI, asked for by wrk on 64 connections that are kept. What counts is the CPU time of all the server's
processes and threads per request.

`cores` is what the server may use: one, with wrk on the other, as in the other questions; or both, one of them shared with wrk.
With one its threads never run at the same time, and whoever has the GIL is not disturbed; with both they take it from each
other, as on most machines. `granian 1` is granian as it comes, with one thread for views, so that one view runs at a time. The
others have eight threads, which is the default of manyhands.
"""

from __future__ import annotations

from benchmarks._http_servers import circumstances, has_wrk, installed, missing, serving_http, warm_up, wrk
from benchmarks._process import ALL_CORES, SERVER_CORES
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, figure_columns, find, ratio_targets

QUESTION = "CPU per request: hello by keep-alive at 64 connections, beside other servers"

CONNECTIONS = 64
THREADS = 8
LIMITS = {"granian": 1.5, "granian 1": 1.5}
BOTH_CORES = ("manyhands", "granian", "granian 1", "waitress")
"""Who is measured on both cores as well: the others cost several times as much either way."""


def measure(plan: Plan) -> Report:
    """Measure every server."""
    return measure_app(plan, "app", LIMITS)


def measure_app(plan: Plan, app: str, limits: dict[str, float]) -> Report:
    """Measure every server with this application, and hold manyhands against some."""
    if not has_wrk():
        return Report([], [], notes=["skipped: needs wrk"])
    names = installed(plan.python)
    about = circumstances(names, plan.python)
    labels = [*names, *(["granian 1"] if "granian" in names else [])]
    cases = [(label, cores) for cores in (1, 2) for label in labels if cores == 1 or label in BOTH_CORES]
    rows = {(label, cores): Row({"server": label, "cores": cores}) for label, cores in cases}
    for label, cores in alternate(cases, plan.rounds):
        name, _, threads = label.partition(" ")
        where = SERVER_CORES if cores == 1 else ALL_CORES
        with serving_http(name, plan.python, threads=int(threads or THREADS), app=app, cores=where) as server:
            warm_up(server, "/")
            run = wrk(server, "/", connections=CONNECTIONS, seconds=max(1, round(plan.seconds)))
        rows[label, cores].add(cpu_us=run.cpu_us, rate=run.rate, p99_ms=run.p99_ms, errors=run.errors)
    columns = [*figure_columns("CPU us", "cpu_us", 1), Column("requests/s", "rate", digits=0)]
    columns += [Column("p99 ms", "p99_ms", digits=1), Column("errors", "errors", "maximum", 0)]
    targets: list[Target] = []
    found = list(rows.values())
    for cores in (1, 2):
        ours = find(found, server="manyhands", cores=cores)
        for label, limit in limits.items():
            base = find(found, server=label, cores=cores)
            if ours and base:
                targets += ratio_targets(f"CPU per request / {label}, cores {cores}", ours, base, "cpu_us", limit)
    return Report(found, columns, targets, missing(names), {"connections": CONNECTIONS, "threads": THREADS} | about)
