#!/usr/bin/env python3
"""Draw the states of a strand, of a job and of a task from the tables that the core exports.

Makes `strand_states.svg`, `job_states.svg` and `task_states.svg` in `docs/design`, and the tables in `strand.md`, `job.md`
and `task.md` there.

    python scripts/draw_states.py            # write both
    python scripts/draw_states.py --check    # say whether they are current; exit status 1 if not

Needs a built `manyhands` in the interpreter that runs it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from manyhands import _core

DESIGN = Path(__file__).resolve().parent.parent / "docs" / "design"
BEGIN, END = "<!-- the table, by scripts/draw_states.py -->", "<!-- end of the table -->"

STRAND_PLACES = {"Idle": 140, "Queued": 540, "Running": 940}
"""Where the centre of each state is, from the left. A state of the table that has no place here is an error."""
JOB_PLACES = {
    "Queued": (90, 60),
    "Running": (390, 60),
    "Finished": (990, 60),
    "Syncing": (390, 230),
    "Stopping": (690, 230),
    "Stopped": (990, 230),
}
"""Where the centre of each state is, from the left and from the top."""
JOB_BENDS = {("Queued", "Stopped"): 310}
"""Arrows that go round below the others, and how far from the top."""
TASK_PLACES = {
    "Suspended": (150, 60),
    "Queued": (540, 60),
    "Running": (540, 230),
    "Finished": (930, 230),
}
TASK_BENDS = {("Suspended", "Finished"): 310}
SHEET = 1080
WIDTH, HEIGHT = 120, 52
LINE = 60
"""Pixels between two arrows that join the same states."""
ASIDE = 22
"""Pixels that an arrow stands beside the line between two states, if another one goes the other way."""


HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
 font-family="sans-serif" font-size="14" text-anchor="middle">
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0 L10 5 L0 10 z" fill="#33475b"/></marker></defs>
<rect width="{width}" height="{height}" rx="8" fill="white"/>"""
"""Sheet, arrow head, ground."""


Places = dict[str, tuple[int, int]]
Bends = dict[tuple[str, str], int]


class Arrow(NamedTuple):
    """One row of the core's table."""

    verb: str
    before: str
    after: str
    when: str
    who: str


class Subject(NamedTuple):
    """What has states: its page, its drawing, its rows in the core, and how it is drawn."""

    page: Path
    drawing: Path
    rows: Callable[[], list[tuple[str, str, str, str, str]]]
    draw: Callable[[list[Arrow]], str]

    def arrows(self) -> list[Arrow]:
        """The table as the core exports it."""
        return [
            Arrow(verb, before.capitalize(), after.capitalize(), when, who)
            for verb, before, after, when, who in self.rows()
        ]


def table(arrows: list[Arrow]) -> str:
    """The table in Markdown."""
    lines = ["| arrow | from | to | when | who causes it |", "|---|---|---|---|---|"]
    for arrow in arrows:
        before, after = arrow.before.upper(), arrow.after.upper()
        lines.append(f"| `{arrow.verb}` | {before} | {after} | {arrow.when} | {arrow.who} |")
    return "\n".join(lines)


def draw_strand(arrows: list[Arrow]) -> str:
    """States on a line. Arrows to the right run above the states, arrows to the left below them."""
    body: list[str] = []
    lanes: dict[bool, int] = {True: 0, False: 0}
    ordered = sorted(arrows, key=lambda arrow: abs(STRAND_PLACES[arrow.before] - STRAND_PLACES[arrow.after]))
    right = [arrow for arrow in ordered if STRAND_PLACES[arrow.before] < STRAND_PLACES[arrow.after]]
    left = [arrow for arrow in ordered if arrow not in right]
    middle = 40 + LINE * len(right)
    places = {state: (x, middle) for state, x in STRAND_PLACES.items()}
    for arrow in right + left:
        up = arrow in right
        lanes[up] += 1
        body += _arrow(arrow, places, lanes[up], up=up)
    height = middle + 30 + LINE * (len(left) + 1)
    return _sheet(height, body, places)


def draw_grid(places: Places, bends: Bends, arrows: list[Arrow]) -> str:
    """States on a grid, with straight arrows that bear their verbs; the conditions are in the table."""
    body: list[str] = []
    verbs: dict[tuple[str, str], list[str]] = {}
    for arrow in arrows:
        verbs.setdefault((arrow.before, arrow.after), []).append(arrow.verb)
    for way, names in verbs.items():
        name = ", ".join(dict.fromkeys(names))
        if way in bends:
            body += _bent(name, places[way[0]], places[way[1]], bends[way])
        else:
            body += _straight(name, places[way[0]], places[way[1]], ASIDE if way[::-1] in verbs else 0)
    return _sheet(max(bends.values()) + 40, body, places)


def _sheet(height: int, body: list[str], places: dict[str, tuple[int, int]]) -> str:
    boxes: list[str] = []
    for state, (x, y) in places.items():
        corner = f'x="{x - WIDTH // 2}" y="{y - HEIGHT // 2}"'
        boxes.append(f'<rect {corner} width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#eef3f8" stroke="#33475b"/>')
        boxes.append(f'<text x="{x}" y="{y + 5}" font-weight="bold">{state.upper()}</text>')
    return "\n".join([HEAD.format(width=SHEET, height=height), *body, *boxes, "</svg>\n"])


def _straight(verb: str, before: tuple[int, int], after: tuple[int, int], aside: int) -> list[str]:
    """From the edge of one state to the edge of the other, a little aside if the way back is an arrow too."""
    (x0, y0), (x1, y1) = before, after
    if aside:
        x0, x1 = x0 + (aside if y1 < y0 else -aside), x1 + (aside if y1 < y0 else -aside)
    wide, high = x1 - x0, y1 - y0
    share = min(WIDTH / 2 / abs(wide) if wide else 1.0, HEIGHT / 2 / abs(high) if high else 1.0)
    start = round(x0 + wide * share), round(y0 + high * share)
    end = round(x1 - wide * share), round(y1 - high * share)
    middle = (start[0] + end[0]) // 2, (start[1] + end[1]) // 2
    if not high:
        place = f'x="{middle[0]}" y="{middle[1] - 8}"'
    elif aside:
        place = f'x="{middle[0] + (-28 if aside and high > 0 else 32)}" y="{middle[1] + 5}"'
    else:
        place = f'x="{middle[0] + 26}" y="{middle[1] + (-4 if high > 0 else 12)}"'
    return [
        f'<path d="M{start[0]} {start[1]} L{end[0]} {end[1]}" stroke="#33475b" marker-end="url(#head)"/>',
        f'<text {place} fill="#1b2733">{escape(verb)}</text>',
    ]


def _bent(verb: str, before: tuple[int, int], after: tuple[int, int], level: int) -> list[str]:
    (x0, y0), (x1, y1) = before, after
    way = f"M{x0} {y0 + HEIGHT // 2} V{level} H{x1} V{y1 + HEIGHT // 2}"
    return [
        f'<path d="{way}" fill="none" stroke="#33475b" marker-end="url(#head)"/>',
        f'<text x="{(x0 + x1) // 2}" y="{level - 8}" fill="#1b2733">{escape(verb)}</text>',
    ]


def _arrow(arrow: Arrow, places: dict[str, tuple[int, int]], lane: int, *, up: bool) -> list[str]:
    (start, y), (end, _) = places[arrow.before], places[arrow.after]
    side = -1 if up else 1
    level = y + side * (HEIGHT // 2 + LINE * lane - 20)
    shift = (24 - 6 * lane) * (1 if start < end else -1)  # an outer arrow goes around the inner ones
    start, end, edge = start + shift, end - shift, y + side * HEIGHT // 2
    label = f'<tspan font-weight="bold">{escape(arrow.verb)}</tspan>: {escape(arrow.when)}'
    return [
        f'<path d="M{start} {edge} V{level} H{end} V{edge}" fill="none" stroke="#33475b" marker-end="url(#head)"/>',
        f'<text x="{(start + end) // 2}" y="{level - 6}" fill="#1b2733">{label}</text>',
    ]


SUBJECTS = (
    Subject(DESIGN / "strand.md", DESIGN / "strand_states.svg", _core.strand_table, draw_strand),
    Subject(DESIGN / "job.md", DESIGN / "job_states.svg", _core.job_table, partial(draw_grid, JOB_PLACES, JOB_BENDS)),
    Subject(
        DESIGN / "task.md", DESIGN / "task_states.svg", _core.task_table, partial(draw_grid, TASK_PLACES, TASK_BENDS)
    ),
)


def page(subject: Subject) -> str:
    """The page with the current table in its place."""
    text = subject.page.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{subject.page} has no place for the table: put the two markers in")
    return pattern.sub(lambda _: f"{BEGIN}\n{table(subject.arrows())}\n{END}", text)


def main() -> int:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description="Draw the states of strands, jobs and tasks from the core's tables.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a file is not current")
    options = parser.parse_args()
    wanted = {subject.page: page(subject) for subject in SUBJECTS}
    wanted |= {subject.drawing: subject.draw(subject.arrows()) for subject in SUBJECTS}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if options.check:
            print(
                f"{path.relative_to(DESIGN.parent.parent)} is not current: run scripts/draw_states.py", file=sys.stderr
            )
        else:
            path.write_text(wanted[path], encoding="utf-8")
            print(f"wrote {path.relative_to(DESIGN.parent.parent)}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
