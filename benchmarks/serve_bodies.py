"""What do large bodies cost: 1 MB of response, 64 KB of upload, beside other servers?

By wrk on 16 connections that are kept; the view makes the response of one piece that is in memory, and reads the upload to its
end. CPU time of all the server's processes per request, as in `serve_hello`.
"""

from __future__ import annotations

from benchmarks._http_servers import circumstances, has_wrk, installed, missing, serving_http, warm_up, wrk
from benchmarks._report import Column, Plan, Report, Row, alternate, figure_columns

QUESTION = "CPU per request of 1 MB responses and of 64 KB uploads, beside other servers"

CONNECTIONS = 16
THREADS = 8
UPLOAD_BYTES = 65_536
CASES = {"1 MB response": ("/big", 0), "64 KB upload": ("/upload", UPLOAD_BYTES)}


def measure(plan: Plan) -> Report:
    """Measure every server with both."""
    if not has_wrk():
        return Report([], [], notes=["skipped: needs wrk"])
    names = installed(plan.python)
    about = circumstances(names, plan.python)
    cases = [(name, what) for what in CASES for name in names]
    rows = {(name, what): Row({"what": what, "server": name}) for name, what in cases}
    rounds = plan.rounds if plan.quick else max(3, plan.rounds // 2)
    for name, what in alternate(cases, rounds):
        path, body = CASES[what]
        with serving_http(name, plan.python, threads=THREADS) as server:
            warm_up(server, path, 20)
            run = wrk(server, path, connections=CONNECTIONS, seconds=max(1, round(plan.seconds)), body=body)
        rows[name, what].add(cpu_us=run.cpu_us, rate=run.rate, p99_ms=run.p99_ms, errors=run.errors)
    columns = [*figure_columns("CPU us", "cpu_us", 1), Column("requests/s", "rate", digits=0)]
    columns += [Column("p99 ms", "p99_ms", digits=1), Column("errors", "errors", "maximum", 0)]
    settings = {"connections": CONNECTIONS, "threads": THREADS, "rounds": rounds} | about
    return Report(list(rows.values()), columns, [], missing(names), settings)
