#!/usr/bin/env python3
"""Draw the strand's states from the table that the core exports.

Makes `docs/design/strand_states.svg`, and the table in `docs/design/strand.md`.

    python scripts/draw_states.py            # write both
    python scripts/draw_states.py --check    # say whether they are current; exit status 1 if not

Needs a built `manyhands` in the interpreter that runs it.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from manyhands import _core

DESIGN = Path(__file__).resolve().parent.parent / "docs" / "design"
PAGE = DESIGN / "strand.md"
DRAWING = DESIGN / "strand_states.svg"
BEGIN, END = "<!-- the table, by scripts/draw_states.py -->", "<!-- end of the table -->"

PLACES = {"Idle": 140, "Queued": 540, "Running": 940}
"""Where the centre of each state is, from the left. A state of the table that has no place here is an error."""
SHEET = 1080
WIDTH, HEIGHT = 120, 52
LINE = 60
"""Pixels between two arrows that join the same states."""


HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
 font-family="sans-serif" font-size="14" text-anchor="middle">
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0 L10 5 L0 10 z" fill="#33475b"/></marker></defs>
<rect width="{width}" height="{height}" rx="8" fill="white"/>"""
"""Sheet, arrow head, ground."""


class Arrow(NamedTuple):
    """One row of the core's table."""

    verb: str
    before: str
    after: str
    when: str
    who: str


def arrows() -> list[Arrow]:
    """The table as the core exports it."""
    return [Arrow(*row) for row in _core.strand_table()]


def table() -> str:
    """The table in Markdown."""
    lines = ["| arrow | from | to | when | who causes it |", "|---|---|---|---|---|"]
    for arrow in arrows():
        before, after = arrow.before.upper(), arrow.after.upper()
        lines.append(f"| `{arrow.verb}` | {before} | {after} | {arrow.when} | {arrow.who} |")
    return "\n".join(lines)


def drawing() -> str:
    """The drawing. Arrows to the right run above the states, arrows to the left below them."""
    body: list[str] = []
    lanes: dict[bool, int] = {True: 0, False: 0}
    ordered = sorted(arrows(), key=lambda arrow: abs(PLACES[arrow.before] - PLACES[arrow.after]))
    right = [arrow for arrow in ordered if PLACES[arrow.before] < PLACES[arrow.after]]
    left = [arrow for arrow in ordered if arrow not in right]
    middle = 40 + LINE * len(right)
    places = {state: (x, middle) for state, x in PLACES.items()}
    for arrow in right + left:
        up = arrow in right
        lanes[up] += 1
        body += _arrow(arrow, places, lanes[up], up=up)
    for state, (x, y) in places.items():
        corner = f'x="{x - WIDTH // 2}" y="{y - HEIGHT // 2}"'
        body.append(f'<rect {corner} width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#eef3f8" stroke="#33475b"/>')
        body.append(f'<text x="{x}" y="{y + 5}" font-weight="bold">{state.upper()}</text>')
    height = middle + 30 + LINE * (len(left) + 1)
    return "\n".join([HEAD.format(width=SHEET, height=height), *body, "</svg>\n"])


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


def page(text: str) -> str:
    """The page with the current table in its place."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{PAGE} has no place for the table: put the two markers in")
    return pattern.sub(lambda _: f"{BEGIN}\n{table()}\n{END}", text)


def main() -> int:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description="Draw the strand's states from the core's table.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a file is not current")
    options = parser.parse_args()
    wanted = {PAGE: page(PAGE.read_text(encoding="utf-8")), DRAWING: drawing()}
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
