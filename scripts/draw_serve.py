#!/usr/bin/env python3
"""Draw the server beside others, from what the benchmarks `serve_*` have written.

Makes `docs/_static/serve_comparison.svg`, and the tables in `docs/concepts/beside-other-servers.md`.

    python scripts/draw_serve.py             # from benchmarks/results
    python scripts/draw_serve.py DIRECTORY   # from another one, such as benchmarks/results/quick

A result that is not there leaves its panel and its rows out.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CHART = ROOT / "docs" / "_static" / "serve_comparison.svg"
PAGE = ROOT / "docs" / "concepts" / "beside-other-servers.md"
BEGIN, END = "<!-- the tables, by scripts/draw_serve.py -->", "<!-- end of the tables -->"

OURS = "manyhands"
SERVERS = (OURS, "granian", "waitress", "cheroot", "gunicorn")
SHOWN = {"gunicorn": "gunicorn gthread"}

WIDTH, PANEL_WIDTH, PANEL_HEIGHT, TOP = 960, 300, 176, 14
BAR_LEFT, BAR_RIGHT = 112, 226
"""Within a panel. What is right of the bars is for their figures."""
COLOURS = {True: "#0b7a75", False: "#9aa3ad"}

Row = dict[str, Any]
Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Panel:
    """One question of the chart: what it is called, where its figure is, and how it is written."""

    result: str
    title: str
    subtitle: str
    figure: str
    labels: dict[str, object]
    write: Callable[[float], str]
    statistic: str = "median"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _short(value: float) -> str:
    return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


PANELS = (
    Panel(
        "serve_gone",
        "100 clients hang up",
        "views still at work after 200 ms",
        "after_200_ms",
        {},
        _whole,
        "maximum",
    ),
    Panel(
        "serve_slow",
        "2,000 slow clients, 4 threads",
        "/health: ms to its answer, p99; given up after 2 s",
        "p99_ms",
        {"crowd": 2000},
        _short,
    ),
    Panel("serve_end", "Ctrl-C under load", "requests begun and left without answer", "lost", {}, _whole, "maximum"),
    Panel("serve_hello", "Hello by WSGI", "µs of CPU per request", "cpu_us", {"cores": 1}, _whole, "minimum"),
    Panel("serve_flask", "Hello by Flask", "µs of CPU per request", "cpu_us", {"cores": 1}, _whole, "minimum"),
    Panel("serve_idle", "10,000 idle connections", "KiB of memory each", "kib", {}, _short, "minimum"),
)


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description="draw the server beside others")
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS)
    results = read(parser.parse_args().results)
    CHART.write_text(chart(results), encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    made = f"{BEGIN}\n{tables(results)}{END}"
    PAGE.write_text(
        re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: made, page, flags=re.DOTALL), encoding="utf-8"
    )


def read(directory: Path) -> Results:
    """Everything that was measured of the server, by the question's name."""
    found = {}
    for path in sorted(directory.glob("serve_*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found[result["name"]] = result
    return found


def row_of(results: Results, panel: Panel, server: str) -> Row | None:
    """The row of a server."""
    if panel.result not in results:
        return None
    labels = {"server": server} | panel.labels
    if "crowd" in labels:  # a quick run has a smaller one
        labels["crowd"] = max(row["crowd"] for row in results[panel.result]["rows"])
    return next((row for row in results[panel.result]["rows"] if labels.items() <= row.items()), None)


# ---- the chart ----


def chart(results: Results) -> str:
    """The picture: a panel a question, a bar a server, less is better in all of them."""
    panels = [panel for panel in PANELS if panel.result in results]
    rows = (len(panels) + 2) // 3
    height = TOP + rows * PANEL_HEIGHT + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"',
        ' font-family="Helvetica, Arial, sans-serif" font-size="12" role="img" aria-labelledby="title">',
        '<title id="title">manyhands serve beside granian, waitress, cheroot and gunicorn: less is better</title>',
        # A ground of its own: it is read on a dark page as on a light one.
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="#ffffff" stroke="#d0d7de"/>',
    ]
    for number, panel in enumerate(panels):
        parts += draw(panel, results, 20 + number % 3 * (PANEL_WIDTH + 14), TOP + number // 3 * PANEL_HEIGHT)
    parts.append(
        f'<text x="20" y="{height - 12}" fill="#57606a" font-size="11">{escape(circumstances(results))}</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def draw(panel: Panel, results: Results, left: int, top: int) -> list[str]:
    """One panel."""
    parts = [
        f'<g transform="translate({left} {top})">',
        f'<text x="0" y="18" font-size="14" font-weight="bold" fill="#1f2328">{escape(panel.title)}</text>',
        f'<text x="0" y="34" fill="#57606a">{escape(panel.subtitle)}</text>',
    ]
    shown = [(server, row) for server in SERVERS if (row := row_of(results, panel, server)) is not None]
    answering = [_answers(row) for _, row in shown]
    most = max((row[panel.figure][panel.statistic] for _, row in shown), default=0) or 1
    for number, (server, row) in enumerate(shown):
        y = 46 + number * 22
        value = row[panel.figure][panel.statistic]
        width = max(1.5, (BAR_RIGHT - BAR_LEFT) * (value / most if answering[number] else 1))
        ours = server == OURS
        weight = ' font-weight="bold"' if ours else ""
        name = escape(SHOWN.get(server, server))
        parts.append(f'<text x="{BAR_LEFT - 8}" y="{y + 13}" text-anchor="end" fill="#1f2328"{weight}>{name}</text>')
        parts.append(f'<rect x="{BAR_LEFT}" y="{y + 2}" width="{width:.1f}" height="14" fill="{COLOURS[ours]}"/>')
        text, x = panel.write(value) if answering[number] else _unanswered(row), BAR_LEFT + width + 6
        parts.append(f'<text x="{x:.1f}" y="{y + 13}" fill="#1f2328"{weight}>{escape(text)}</text>')
    return [*parts, "</g>"]


def _answers(row: Row) -> bool:
    """Whether there is a latency to speak of: most of what was asked had an answer."""
    return "p99_ms" not in row or "answered" not in row or row["answered"]["median"] > 50


def _unanswered(row: Row) -> str:
    share = row["answered"]["median"]
    return "no answer" if share == 0 else f"{share:.0f} % answered"


def circumstances(results: Results) -> str:
    """One line: where, when, and what."""
    some = next(iter(results.values()))
    where = f"CPython {some['interpreter']['python']}, {some['machine']['cores']} cores, {some['when'][:10]}"
    what = "Less is better: promises by the worst run, p99 by the median, costs by the least."
    return f"{what} {where}; how: docs/concepts/beside-other-servers.md"


# ---- the tables ----


def tables(results: Results) -> str:
    """Every result that is there, as it was printed: minima, medians, targets."""
    parts = []
    for name, result in results.items():
        heading = f"### {result['question'][0].upper()}{result['question'][1:]}"
        versions = result["settings"].get("versions")
        parts += [heading, "", *_table(name, result["rows"]), ""]
        parts += [f"* {_target(target)}" for target in result["targets"]]
        parts += [f"* {_load(result)}"]
        if versions:
            parts.append(f"* {', '.join(f'{package} {version}' for package, version in versions.items())}")
        parts.append("")
    return "\n".join(parts)


FIGURES = {
    "serve_hello": {"cpu_us": "CPU µs", "rate": "requests/s", "p99_ms": "p99 ms"},
    "serve_bodies": {"cpu_us": "CPU µs", "rate": "requests/s", "p99_ms": "p99 ms"},
    "serve_idle": {"kib": "KiB each", "answered": "answered", "open": "open", "threads": "threads"},
    "serve_parallel": {"rate": "requests/s", "cpu_us": "CPU µs"},
    "serve_gone": {"after_200_ms": "at work after 200 ms", "after_3_s": "after 3 s", "free_ms": "ms until nobody is"},
    "serve_slow": {"p50_ms": "p50 ms", "p99_ms": "p99 ms", "worst_ms": "worst ms", "answered": "answered %"},
    "serve_end": {
        "seconds": "seconds",
        "killed": "had to be killed",
        "begun": "begun",
        "lost": "lost",
        "unavailable": "503",
    },
}
FIGURES["serve_flask"] = FIGURES["serve_hello"]


def _table(name: str, rows: list[Row]) -> list[str]:
    figures = FIGURES[name]
    labels = [label for label, value in rows[0].items() if not isinstance(value, dict)]
    head = [*labels, *(f"{title}: min, median, max" for title in figures.values())]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(labels)}{'--:|' * len(figures)}"]
    for row in rows:
        cells = [str(SHOWN.get(str(row[label]), row[label])) for label in labels]
        cells += [_cell(row[figure]) for figure in figures]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(series: dict[str, float]) -> str:
    found = [_short(series[statistic]) for statistic in ("minimum", "median", "maximum")]
    return found[0] if len(set(found)) == 1 else ", ".join(found)


def _target(target: dict[str, Any]) -> str:
    sign = "≤" if target["at"] == "most" else "≥"
    return f"{'met' if target['met'] else '**missed**'}: {target['name']}: {target['value']:.3g} ({sign} {target['limit']:g})"


def _load(result: dict[str, Any]) -> str:
    others, stolen = (result["cores_used_by"][who] for who in ("others", "stolen"))
    return f"other processes used {others:.0%} of the cores meanwhile, the hypervisor {stolen:.0%}; {result['when']}"


if __name__ == "__main__":
    main()
