"""Samples, what is said of them, the targets they are held against, the printed table and the JSON file.

Of every series the minimum and the median count: noise only ever adds time, so the minimum is the best guess at the
cost itself, and the median says what to expect. The spread beside them, (maximum - minimum) / median, says how far
to trust either. A ratio is of two series from the same rounds, minimum to minimum and median to median.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

Label = str | int | float
Case = TypeVar("Case")


@dataclass(frozen=True)
class Plan:
    """How long to measure, and with which interpreter."""

    quick: bool
    """To see that it works, in under 15 seconds; the figures are for nobody's record."""
    rounds: int
    seconds: float
    """The length of one run of the load."""
    python: str
    """The interpreter of servers and children."""
    free_threaded: str | None
    """A free-threaded interpreter with manyhands, if there is one; it may be `python` itself."""


@dataclass
class Row:
    """One thing measured: labels that name it, and a series of samples per figure."""

    labels: dict[str, Label]
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **figures: float) -> None:
        """Add one sample to each of the named series."""
        for name, value in figures.items():
            self.samples.setdefault(name, []).append(value)

    def median(self, figure: str) -> float:
        """The median of a series."""
        return statistics.median(self.samples[figure])

    def minimum(self, figure: str) -> float:
        """The minimum of a series."""
        return min(self.samples[figure])

    def maximum(self, figure: str) -> float:
        """The maximum of a series: the best of a rate."""
        return max(self.samples[figure])

    def spread(self, figure: str) -> float:
        """(maximum - minimum) / median of a series; 0 if all are 0."""
        median = self.median(figure)
        return (self.maximum(figure) - self.minimum(figure)) / median if median else 0.0


@dataclass(frozen=True)
class Target:
    """A figure against its limit."""

    name: str
    value: float
    limit: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        """Whether the value is on the right side of the limit, or on it."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"{'met   ' if self.met else 'MISSED'}  {self.name}: {self.value:.3g} ({sign} {self.limit:g})"


@dataclass(frozen=True)
class Column:
    """A printed column: a statistic of a series."""

    title: str
    figure: str
    statistic: str = "median"
    digits: int = 2

    def of(self, row: Row) -> str:
        """The text of the column in `row`, empty if the row has no such series."""
        if self.figure not in row.samples:
            return ""
        value: float = getattr(row, self.statistic)(self.figure)
        return f"{value:.0%}" if self.statistic == "spread" else f"{value:,.{self.digits}f}"


@dataclass
class Report:
    """What a question's `measure` returns."""

    rows: list[Row]
    columns: list[Column]
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, object] = field(default_factory=dict)
    python: str | None = None
    """The interpreter that was measured, if it is not the plan's."""


def figure_columns(title: str, figure: str, digits: int = 2) -> list[Column]:
    """The three columns of a series that matters: minimum, median, spread."""
    return [
        Column(f"{title} min", figure, "minimum", digits),
        Column("median", figure, "median", digits),
        Column("spread", figure, "spread"),
    ]


def ratio_targets(name: str, row: Row, base: Row, figure: str, limit: float, *, at_most: bool = True) -> list[Target]:
    """Two targets: the ratio of `row` to `base` by their minima and by their medians.

    For a rate, of which more is better (`at_most=False`), the best is the maximum, and it takes the minimum's place.
    """
    best = min if at_most else max
    extreme = best(row.samples[figure]) / best(base.samples[figure])
    median = row.median(figure) / base.median(figure)
    return [
        Target(f"{name}, {best.__name__}", extreme, limit, at_most),
        Target(f"{name}, median", median, limit, at_most),
    ]


def alternate(cases: Sequence[Case], rounds: int) -> Iterator[Case]:
    """Each case once a round, starting with another one each round and going the other way in every second one.

    So a machine that grows slower or faster meanwhile does so for all, and nobody always runs after the same other.
    """
    for number in range(rounds):
        start = number % len(cases)
        turned = [*cases[start:], *cases[:start]]
        yield from reversed(turned) if number % 2 else turned


def find(rows: list[Row], **labels: Label) -> Row | None:
    """The first row with these labels."""
    return next((row for row in rows if labels.items() <= row.labels.items()), None)


def print_table(report: Report) -> None:
    """Print the rows as a table, then targets and notes."""
    names = list(dict.fromkeys(name for row in report.rows for name in row.labels))
    header = [*names, *(column.title for column in report.columns)]
    lines = [
        [*(str(row.labels.get(name, "")) for name in names), *(column.of(row) for column in report.columns)]
        for row in report.rows
    ]
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    for line in [header, ["-" * width for width in widths], *lines]:
        cells = (
            cell.ljust(width) if i < len(names) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(cells).rstrip())
    for target in report.targets:
        print(target)
    for note in report.notes:
        print(f"note: {note}")


def write_json(path: Path, report: Report, about: dict[str, object]) -> None:
    """Write everything that was measured, with `about` before it, to `path`."""
    rows = [
        row.labels
        | {
            figure: {
                "minimum": _rounded(row.minimum(figure)),
                "median": _rounded(row.median(figure)),
                "maximum": _rounded(row.maximum(figure)),
                "spread": _rounded(row.spread(figure)),
                "samples": [_rounded(sample) for sample in samples],
            }
            for figure, samples in row.samples.items()
        }
        for row in report.rows
    ]
    targets = [
        {"name": target.name, "value": _rounded(target.value), "limit": target.limit, "met": target.met}
        | {"at": "most" if target.at_most else "least"}
        for target in report.targets
    ]
    body = about | {"settings": report.settings, "notes": report.notes}
    head = json.dumps(body, indent=1).removesuffix("\n}")
    # A line per target and per row: what changes between two runs is then readable as a difference of the files.
    listed = (f' "{name}": [\n  {_lines(values)}\n ]' for name, values in (("targets", targets), ("rows", rows)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(",\n".join([head, *listed]) + "\n}\n")


def _rounded(value: float) -> float:
    """Five significant digits: more than any of these figures has."""
    return float(f"{value:.5g}")


def _lines(values: Sequence[object]) -> str:
    return ",\n  ".join(json.dumps(value) for value in values)
