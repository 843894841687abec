"""How much faster are two threads with a view of a millisecond of pure Python, without the GIL?

Two threads against one, and wrk on 16 connections, all of them on both cores: what wrk needs for so few requests is little.
"""

from __future__ import annotations

from benchmarks._http_servers import circumstances, has_wrk, serving_http, warm_up, wrk
from benchmarks._process import ALL_CORES, CORES, in_child
from benchmarks._report import Column, Plan, Report, Row, alternate, ratio_targets

QUESTION = "requests per second of a view of 1 ms of pure Python on 1 and on 2 threads (free-threaded)"

CONNECTIONS = 16
VIEW_US = 1000.0
LIMIT = 1.6


def measure(plan: Plan) -> Report:
    """Measure both, a fresh server each time."""
    if plan.free_threaded is None:
        return Report([], [], notes=["skipped: no free-threaded interpreter with manyhands (see --free-threaded)"])
    if len(CORES) < 2:
        return Report([], [], notes=["skipped: needs two cores"])
    if not has_wrk():
        return Report([], [], notes=["skipped: needs wrk"])
    python = plan.free_threaded
    iterations = in_child(calibrate, python=python)
    rows = {threads: Row({"threads": threads}) for threads in (1, 2)}
    for threads in alternate(list(rows), plan.rounds):
        env = {"SERVE_ITERATIONS": str(iterations)}
        with serving_http("manyhands", python, threads=threads, cores=ALL_CORES, env=env, gil=False) as server:
            warm_up(server, "/ms", 100)
            run = wrk(server, "/ms", connections=CONNECTIONS, seconds=max(1, round(plan.seconds)), cores=ALL_CORES)
        rows[threads].add(rate=run.rate, cpu_us=run.cpu_us, p99_ms=run.p99_ms, errors=run.errors)
    columns = [Column("requests/s max", "rate", "maximum", 0), Column("median", "rate", "median", 0)]
    columns += [Column("spread", "rate", "spread"), Column("CPU us min", "cpu_us", "minimum", 0)]
    columns += [Column("p99 ms", "p99_ms", digits=1), Column("errors", "errors", "maximum", 0)]
    targets = ratio_targets("2 threads / 1", rows[2], rows[1], "rate", LIMIT, at_most=False)
    settings: dict[str, object] = {"connections": CONNECTIONS, "iterations": iterations} | circumstances(
        ["manyhands"], python
    )
    return Report(list(rows.values()), columns, targets, settings=settings, python=python)


# ---- in the child ----


def calibrate() -> int:
    """How often the view's loop turns in VIEW_US on this machine."""
    import time

    from benchmarks import serve_app

    def view() -> float:
        started = time.perf_counter()
        serve_app.app({"PATH_INFO": "/ms"}, lambda *_: None)
        return time.perf_counter() - started

    best = min(view() for _ in range(50))
    return round(serve_app.MS_ITERATIONS * VIEW_US * 1e-6 / best)
