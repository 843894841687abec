#!/usr/bin/env python3
"""Say which of the promised behaviours, and of the faults that must be borne, no test names.

    python scripts/behaviours.py            # the numbers without a test; exit status 1 if there are any
    python scripts/behaviours.py --list     # every number with its tests

A test names what it shows at the beginning of its docstring: `T36. ...` for a behaviour, `FAULT 12. ...` for a fault.
The numbers are for good: one that is given up is not used again, and what comes later in a group gets a letter.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"

BEHAVIOURS = {
    "joining, stopping, restarting": [*range(1, 17)],
    "watches": [17, "17a", *range(18, 27), "26a", *range(27, 34), "33a", "33b", 34, 35],
    "pausing and resuming": [*range(36, 40), "39a", *range(40, 47)],
    "messages": [*range(47, 57)],
    "a loop that owns its threads": [57, 58, 59],
    "the pool": [*range(60, 67), "66a", *range(67, 76), *(f"75{letter}" for letter in "abcdefghi")],
    "tasks and pooled coroutines": [*range(76, 86), *(f"85{letter}" for letter in "abcdef")],
    "operations and actors": [*range(86, 89), "88a", *range(89, 92)],
    "faults and surroundings": [*range(92, 97), "96a", 97, 98, 99, "99a", 100, 101, 102],
}
"""Group -> the numbers of its behaviours."""

FAULTS = [*range(1, 36)]
"""The numbers of the faults: docs/design/faults.md."""

NAMED = re.compile(r"(T\d+[a-z]?|FAULT \d+)\. ")


def main() -> int:
    """Print what the command line asks for.

    Returns:
        The exit status: 1 if a number has no test, or a test names a number that is not there.
    """
    parser = argparse.ArgumentParser(description="say which behaviours no test names")
    parser.add_argument("--list", action="store_true", help="every number with its tests")
    options = parser.parse_args()
    tests: dict[str, list[str]] = {number: [] for number in expected()}
    unknown = []
    for number, test in named():
        if number in tests:
            tests[number].append(test)
        else:
            unknown.append(f"{test} names {number}, which is no number of {Path(__file__).name}")
    if options.list:
        for number, names in tests.items():
            print(f"{number:9}", *(names or ["-"]), sep="\n          " if len(names) > 1 else " ")
    missing = [number for number, names in tests.items() if not names]
    if missing:
        print("no test names", ", ".join(missing))
    for complaint in unknown:
        print(complaint)
    if not missing and not unknown:
        print(f"each of {len(tests)} numbers is named by a test, {sum(map(len, tests.values()))} in all")
    return 1 if missing or unknown else 0


def expected() -> Iterator[str]:
    """Every number, as a docstring writes it."""
    for numbers in BEHAVIOURS.values():
        yield from (f"T{number}" for number in numbers)
    yield from (f"FAULT {number}" for number in FAULTS)


def named() -> Iterator[tuple[str, str]]:
    """Every (number, test) of the tests; a test is `file::function`."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found = NAMED.match(ast.get_docstring(node) or "")
                if found is not None:
                    yield found[1], f"{path.relative_to(TESTS)}::{node.name}"


if __name__ == "__main__":
    sys.exit(main())
