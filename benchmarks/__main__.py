"""Run the benchmarks: print a table per question and write its JSON."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import _machine, _native, _process
from benchmarks._report import Plan, Report, print_table, write_json

NAMES = (
    "echo",
    "joined_threads",
    "parallel_handlers",
    "idle_watches",
    "cost_by_watches",
    "post_latency",
    "timers",
    "rearm",
    "pool_round_trip",
    "pool_throughput",
    "check_in",
    "stop_latency",
    "job_memory",
    "echo_tasks",
    "idle_streams",
    "parallel_tasks",
    "spinning_tasks",
    "tls_echo",
    "memory_stream",
    "run_job",
    "actor",
    "tasks",
    "serve_hello",
    "serve_flask",
    "serve_bodies",
    "serve_idle",
    "serve_parallel",
    "serve_gone",
    "serve_slow",
    "serve_end",
)
LIMIT_SECONDS = 180
"""Of one question; a full run of one takes less than 120."""
RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    """Run what the command line names.

    Returns:
        The exit status: 0 also when a target was missed (the table says so), 1 when a question could not be measured.
    """
    arguments = _parse()
    _process.raise_file_limit()
    signal.signal(signal.SIGALRM, _too_long)
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in arguments.names or NAMES}
    if arguments.list:
        for name, module in modules.items():
            print(f"{name:18} {module.QUESTION}")
        return 0
    plan = Plan(
        quick=arguments.quick,
        rounds=arguments.rounds or (2 if arguments.quick else 6),
        seconds=arguments.seconds or (0.2 if arguments.quick else 0.4),
        python=arguments.python,
        free_threaded=_free_threaded(arguments),
    )
    output = arguments.output or (RESULTS / "quick" if plan.quick else RESULTS)
    failed = [name for name, module in modules.items() if not _run(name, module, plan, output)]
    if failed:
        print(f"\nnot measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _too_long(signum: int, frame: object) -> None:
    raise _process.ChildFailed(f"took longer than {LIMIT_SECONDS} s")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run benchmarks; all of them by default.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="a few seconds each: does it work, not how fast is it")
    parser.add_argument("--list", action="store_true", help="print the questions and end")
    parser.add_argument("--rounds", type=int, help="alternating runs of everything (6; quick: 2)")
    parser.add_argument("--seconds", type=float, help="length of one run under load (0.4; quick: 0.2)")
    parser.add_argument("--python", default=sys.executable, help="interpreter of servers and children (this one)")
    parser.add_argument(
        "--free-threaded",
        default=os.environ.get("MANYHANDS_BENCH_FT"),
        help="free-threaded interpreter with manyhands, for the questions that need one"
        " ($MANYHANDS_BENCH_FT, else that of .venv-bench-ft or .venv-ft)",
    )
    parser.add_argument("--output", type=Path, help="where the JSON goes (benchmarks/results; quick: results/quick)")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in NAMES]:
        parser.error(f"no such question: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {arguments.rounds}")
    return arguments


def _free_threaded(arguments: argparse.Namespace) -> str | None:
    # The one of `make bench-ft` first: the other is a test build.
    own = [_machine.ROOT / name / "bin" / "python" for name in (".venv-bench-ft", ".venv-ft")]
    for python in (arguments.python, arguments.free_threaded, *(str(path) for path in own if path.exists())):
        if python is None:
            continue
        interpreter = _process.in_child(_machine.describe_interpreter, python=python)
        if not interpreter["gil"] and _process.has_module("manyhands", python):
            return str(python)
    return None


def _run(name: str, module: ModuleType, plan: Plan, output: Path) -> bool:
    """Measure one question, print it and write it. Returns False if it could not be measured."""
    print(f"\n== {name}: {module.QUESTION}", flush=True)
    before = _machine.Usage.now()
    signal.alarm(LIMIT_SECONDS)
    try:
        report: Report = module.measure(plan)
    except _process.ChildFailed as error:
        print(f"not measured: {error}", file=sys.stderr)
        return False
    finally:
        signal.alarm(0)
    if not report.rows:
        print("\n".join(report.notes))
        return True
    after = _machine.Usage.now()
    about = {"question": module.QUESTION, "name": name} | _circumstances(report, plan, before, after)
    print_table(report)
    path = output / f"{name}.{about['interpreter']['tag']}.json"
    write_json(path, report, about)
    print(f"{about['took_seconds']} s; {path}")
    return True


def _circumstances(report: Report, plan: Plan, before: _machine.Usage, after: _machine.Usage) -> dict[str, Any]:
    """What the figures belong to; notes what makes them unfit for the record."""
    interpreter = _process.in_child(_machine.describe_interpreter, python=str(report.python or plan.python))
    shares = after.shares_since(before)
    if max(shares.values()) > _machine.QUIET:
        used = ", ".join(f"{who} {share:.0%}" for who, share in shares.items())
        report.notes.append(f"not for the record: the machine was not ours alone (of all cores: {used})")
    if interpreter["test_points"]:
        report.notes.append("not for the record: this manyhands is a test build with named points")
    report.settings = {"rounds": plan.rounds, "seconds": plan.seconds, "quick": plan.quick} | report.settings
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_seconds": round(after.wall - before.wall, 1),
        "commit": _machine.commit(),
        "machine": _machine.describe_machine(),
        "cores_used_by": shares,
        "interpreter": interpreter,
        "c_compiler": _native.compiler(),
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; what was finished is written")
