"""What does a check-in cost, in a job that nobody has asked to stop, and outside any job?

A check-in belongs into the innermost loop, so it must cost next to nothing. Each spelling is called in a loop of its
own, and the same loop without the call is taken off. `mh.check_in()` is what a function deep below the job writes: a
name of a module, looked up at every call. `check_in()` is the same, imported by its name.

`time.monotonic()` stands beside them: what a loop would call that looks at a deadline of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks import _machine
from benchmarks._process import has_module, in_child
from benchmarks._report import Plan, Report, Row, Target, alternate, figure_columns, find

QUESTION = "nanoseconds per mh.check_in(), in a job and outside one"

LIMITS = {True: 60.0, False: 80.0}
"""With the GIL, without it."""
CALLS = 200_000
SPELLINGS = ("mh.check_in()", "check_in()", "job.check_in()", "job.stop_requested", "time.monotonic()")


def measure(plan: Plan) -> Report:
    """Measure all spellings in one child a round."""
    if not has_module("manyhands", plan.python):
        return Report([], [], notes=["skipped: no manyhands"])
    places = [
        (call, where)
        for where in ("in a job", "outside")
        for call in SPELLINGS
        if not (where == "outside" and "job." in call)
    ]
    rows = {place: Row({"call": place[0], "where": place[1]}) for place in places}
    calls = CALLS // (10 if plan.quick else 1)
    for place in alternate(places, plan.rounds):
        rows[place].add(ns=in_child(run, python=plan.python, call=place[0], where=place[1], calls=calls))
    gil = bool(in_child(_machine.describe_interpreter, python=plan.python)["gil"])
    columns = figure_columns("ns each", "ns", 1)
    return Report(list(rows.values()), columns, _targets(list(rows.values()), LIMITS[gil]), settings={"calls": calls})


def _targets(rows: list[Row], limit: float) -> list[Target]:
    targets: list[Target] = []
    for where in ("in a job", "outside"):
        row = find(rows, call=SPELLINGS[0], where=where)
        if row:
            name = f"ns of {SPELLINGS[0]} {where}"
            targets += [
                Target(f"{name}, min", row.minimum("ns"), limit),
                Target(f"{name}, median", row.median("ns"), limit),
            ]
    return targets


# ---- in the child ----

LOOP = """
def loop(calls):
    numbers = range(calls)
    started = clock()
    for _ in numbers:
        {call}
    return clock() - started
"""


def run(call: str, where: str, calls: int) -> float:
    """Call it `calls` times. Returns nanoseconds of each, without the loop; the best of five."""
    import manyhands as mh

    def measured() -> float:
        names = {
            "mh": mh,
            "check_in": mh.check_in,
            "job": mh.current_job(),
            "time": time,
            "clock": time.perf_counter_ns,
        }
        with_call, without = _compiled(call, names), _compiled("pass", names)
        with_call(calls)
        return min(with_call(calls) for _ in range(5)) - min(without(calls) for _ in range(5))

    if where == "outside":
        return measured() / calls
    with mh.ThreadPool(1) as pool:
        return pool.submit(measured).result() / calls


def _compiled(call: str, names: dict[str, object]) -> Callable[[int], int]:
    # Each loop is compiled afresh, with names as a module's: what a specialising interpreter makes of it is its own.
    space = dict(names)
    exec(LOOP.format(call=call), space)
    loop: Callable[[int], int] = space["loop"]  # type: ignore[assignment]
    return loop
