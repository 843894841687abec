"""What a machine can check of the house's own rules, so that no reviewer has to."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.whole

ROOT = Path(__file__).resolve().parents[2]

SLEEPERS = {"time.sleep", "asyncio.sleep", "signal.pause"}
"""A test that calls one waits for the clock and not for what it is about."""


def files(*patterns: str) -> Iterator[Path]:
    """Every file of the tree that one of the patterns fits, what is built or installed left out."""
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            if not {"target", "__pycache__", "_build"}.intersection(path.relative_to(ROOT).parts) and path.is_file():
                yield path


def lines_with(pattern: str, *patterns: str, but: str | None = None) -> list[str]:
    """`file:line: text` of every line that the expression is found in, and `but` is not."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files(*patterns)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line) and not (but is not None and re.search(but, line))
    ]


def calls_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every (line, dotted name) that the file calls, by the name that it was imported under; not with a plain 0."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and [ast.unparse(argument) for argument in node.args] != ["0"]:
            name = ast.unparse(node.func)
            first, dot, rest = name.partition(".")
            yield node.lineno, known.get(first, first) + dot + rest


def test_no_test_sleeps() -> None:
    """Not `time.sleep`, by whatever name: a test waits for an event, and only stress may let time go by.

    `asyncio.sleep(0)` lets none go by: it is what others' code awaits, and must not await here.
    """
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files("tests/**/*.py")
        if "stress" not in path.parts
        for line, name in calls_of(path)
        if name in SLEEPERS
    ]
    assert found == []


def test_the_lint_against_sleeping_sees_every_way_to_say_it(tmp_path) -> None:
    """By module, by another name, by the function alone; a method of that name is somebody else's."""
    program = tmp_path / "sleepy.py"
    program.write_text("import time as t\nfrom time import sleep as nap\nt.sleep(1)\nnap(1)\nself.sleep(1)\n")
    assert [line for line, name in calls_of(program) if name in SLEEPERS] == [3, 4]


def test_every_behaviour_is_named_by_a_test() -> None:
    """scripts/behaviours.py finds no number without a test, and no test with an unknown number."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "behaviours.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_stub_of_a_public_callable_has_no_docstring() -> None:
    """The stub has shapes only: what help() shows is written where the code is."""
    tree = ast.parse((ROOT / "python/manyhands/_core.pyi").read_text(encoding="utf-8"))
    definitions = (ast.Module, ast.ClassDef, ast.FunctionDef)
    assert [node for node in ast.walk(tree) if isinstance(node, definitions) and ast.get_docstring(node)] == []


def test_the_core_prints_nothing() -> None:
    """A library has no standard output: no `println!` and its kind outside the tests."""
    assert lines_with(r"\b(e?print(ln)?|dbg|todo|unimplemented)!", "crates/*/src/**/*.rs") == []


def test_the_core_knows_nothing_of_python() -> None:
    """No dependency on PyO3, directly or by a name."""
    assert lines_with(r"\bpyo3\b|\bPy(Any|Object|Result)\b", "crates/core/**/*.rs", "crates/core/Cargo.toml") == []


def test_the_seam_cannot_panic_by_a_shortcut() -> None:
    """No `expect` and no `panic!` there; `unwrap` is clippy's to refuse."""
    assert lines_with(r"\.expect\(|\b(panic|unreachable)!", "crates/py/src/**/*.rs") == []


def test_every_weak_ordering_says_what_it_pairs_with() -> None:
    """`Acquire`, `Release` and `AcqRel` have an `ORDER:` within the eight lines above, or on their own."""
    found = []
    for path in files("crates/*/src/**/*.rs"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            weak = re.search(r"\b(Acquire|Release|AcqRel)\b", line.split("//")[0])
            imported = line.lstrip().startswith(("use ", "pub use "))
            if weak and not imported and "ORDER:" not in "\n".join(lines[max(0, number - 8) : number + 1]):
                found.append(f"{path.relative_to(ROOT)}:{number + 1}: {line.strip()}")
    assert found == []


def tracked() -> list[Path]:
    """Every file that git would commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this tree is no git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_knows_the_machine_that_it_was_written_on() -> None:
    """No home directory, no checkout's path, no index of packages by its address."""
    elsewhere = re.compile(
        rf"{re.escape(str(ROOT))}\b|/home/\w|/root/|/Users/\w|(index-url|extra-index|trusted-host)\s*=|"
        r"registry\s*=\s*\"(?!registry\+https://github\.com/rust-lang/)"
    )
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if path != Path(__file__).resolve():
            found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in elsewhere.finditer(text)]
    assert found == []


def test_only_scripts_are_executable_and_they_say_by_what() -> None:
    """A file with a `#!` can be run, and what can be run has one."""
    wrong = []
    for path in tracked():
        with path.open("rb") as file:
            shebang = file.read(2) == b"#!"
        if shebang != bool(path.stat().st_mode & 0o100):
            wrong.append(str(path.relative_to(ROOT)))
    assert wrong == []


def test_what_builds_cpython_does_not_get_the_options_of_our_makefile() -> None:
    """Without the built-in suffixes, which ours switches off, CPython's would compile a part of itself and link that."""
    done = subprocess.run(
        ["bash", "-c", "source scripts/cpython_source.sh && env"],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": "r", "MAKELEVEL": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "PATH=" in done.stdout
    assert "MAKE" not in done.stdout
