"""Does the cost of an event grow with the number of watches, by poller?

A ring of N eventfds, all watched; TOKENS of them are readable at any time, spread over the ring. A handler takes the
token from its own and gives it to the one after it, so every turn finds the same few ready among N, and each
descriptor's turn comes.
What grows with N is then the poller's own: epoll hands over what is ready, poll and select are told all N each time
and look at all N. Beside each poller of manyhands stands Python's `select` module with the same ring and no loop.
`select` ends at 1,000: it cannot name descriptors from 1024 on.

A full run draws docs/_static/cost_by_watches.svg.
"""

from __future__ import annotations

import os
import resource
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._machine import ROOT
from benchmarks._process import has_module, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, figure_columns

QUESTION = "cost per event from 10 to 10,000 watches, for epoll, poll and select"

COUNTS = (10, 30, 100, 300, 1000, 3000, 10_000)
SELECT_MOST = 1000
FEW = 100
"""What the cost at the most watches is held against: more than are ready, and few enough for the caches."""
TOKENS = 5
FLAT_LIMIT = 1.25
"""Cost at the most watches, of that at FEW: caches hold less of 10,000 handlers than of 100, and that is all."""
BARE_LIMIT = 1.1
"""The same growth, of that of the ring on a bare `select.epoll`, which has the caches' share in it too."""
PLOT = ROOT / "docs" / "_static" / "cost_by_watches.svg"

Case = tuple[str, str, int]


def measure(plan: Plan) -> Report:
    """Measure each poller with each number of watches in a child of its own, and draw the plot."""
    engines = ["manyhands", "select module"] if has_module("manyhands", plan.python) else ["select module"]
    counts = (FEW, 1000, 10_000) if plan.quick else COUNTS
    cases = [
        (engine, poller, count)
        for engine in engines
        for poller in ("epoll", "poll", "select")
        for count in counts
        if poller != "select" or count <= SELECT_MOST
    ]
    rows = {case: Row(dict(zip(("engine", "poller", "watches"), case, strict=True))) for case in cases}
    rounds = plan.rounds if plan.quick else max(3, plan.rounds // 2)
    for case in alternate(cases, rounds):
        engine, poller, count = case
        cost = in_child(ring, python=plan.python, engine=engine, poller=poller, count=count, seconds=plan.seconds / 2)
        rows[case].add(cpu_us=cost)
    columns: list[Column] = figure_columns("CPU us per event", "cpu_us")
    settings: dict[str, object] = {"tokens": TOKENS, "rounds": rounds, "seconds": plan.seconds / 2}
    report = Report(list(rows.values()), columns, _targets(rows, counts), settings=settings)
    if not plan.quick:
        report.notes.append(draw(rows, PLOT))
    return report


def _targets(rows: dict[Case, Row], counts: tuple[int, ...]) -> list[Target]:
    most = counts[-1]
    if ("manyhands", "epoll", most) not in rows:
        return []

    def growth(engine: str, statistic: str) -> float:
        few, many = (getattr(rows[engine, "epoll", count], statistic)("cpu_us") for count in (FEW, most))
        return float(many / few)

    targets = []
    for statistic in ("minimum", "median"):
        ours, bare = growth("manyhands", statistic), growth("select module", statistic)
        targets.append(Target(f"epoll, cost with {most} watches / {FEW}, {statistic}", ours, FLAT_LIMIT))
        targets.append(Target(f"that growth / the growth of select.epoll, {statistic}", ours / bare, BARE_LIMIT))
    return targets


def draw(rows: dict[Case, Row], path: Path) -> str:
    """Draw minima over the number of watches, both axes logarithmic. Returns what to say about it."""
    try:
        import matplotlib
    except ImportError:
        return "no plot: matplotlib is not installed in this interpreter"
    matplotlib.use("svg")
    # Fixed names and no date, so that the file changes only when the figures do.
    matplotlib.rcParams["svg.hashsalt"] = "manyhands"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    colours = {"epoll": "tab:green", "poll": "tab:orange", "select": "tab:red"}
    for engine, poller in dict.fromkeys((engine, poller) for engine, poller, _ in rows):
        points = [(case[2], row.minimum("cpu_us")) for case, row in rows.items() if case[:2] == (engine, poller)]
        label, line = (poller, "-") if engine == "manyhands" else (f"{poller}, Python's select module alone", ":")
        axes.plot(*zip(*points, strict=True), line, color=colours[poller], marker="o", markersize=3, label=label)
    axes.set(xscale="log", yscale="log", xlabel="watches", ylabel="CPU per event, microseconds")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return f"plot: {path.relative_to(ROOT)}"


# ---- in the child ----


class Ring:
    """The eventfds, and the step that every handler takes."""

    def __init__(self, count: int) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.fds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE) for _ in range(count)]
        self._next = dict(zip(self.fds, self.fds[1:] + self.fds[:1], strict=True))
        self.events = 0

    def start(self) -> None:
        """Put the tokens on the ring, evenly."""
        for number in range(TOKENS):
            os.eventfd_write(self.fds[number * len(self.fds) // TOKENS], 1)

    def step(self, fd: int) -> None:
        """Take one token from `fd` and give it to the next."""
        os.eventfd_read(fd)
        os.eventfd_write(self._next[fd], 1)
        self.events += 1


def ring(engine: str, poller: str, count: int, seconds: float) -> float:
    """Let the tokens go round for `seconds`. Returns microseconds of CPU per event."""
    tokens = Ring(count)
    turn = (_manyhands if engine == "manyhands" else _select_module)(tokens, poller)
    tokens.start()
    turn(seconds / 4)
    events, cpu = tokens.events, time.process_time()
    turn(seconds)
    return (time.process_time() - cpu) / (tokens.events - events) * 1e6


def _manyhands(tokens: Ring, poller: str) -> Callable[[float], object]:
    import manyhands as mh

    loop = mh.EventLoop(poller=poller)

    def handle(watch: Any, events: Any) -> None:
        tokens.step(watch.fd)

    for fd in tokens.fds:
        loop.add(fd, mh.Events.READ, handle)
    return lambda seconds: loop.join(seconds)  # noqa: PLW0108 - join() takes more


def _select_module(tokens: Ring, poller: str) -> Callable[[float], object]:
    wait = _bare_wait(poller, tokens.fds)

    def turn(seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for fd in wait():
                tokens.step(fd)

    return turn


def _bare_wait(poller: str, fds: list[int]) -> Callable[[], list[int]]:
    if poller == "select":
        return lambda: select.select(fds, [], [])[0]
    waiting: Any = select.epoll() if poller == "epoll" else select.poll()
    for fd in fds:
        waiting.register(fd, select.POLLIN)
    return lambda: [fd for fd, _ in waiting.poll()]
