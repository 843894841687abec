"""The documentation is true: its code runs and prints what is shown, its tables are the core's, its tests exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import manyhands as mh
from manyhands import _core, blocking, coroutines, debug, errors, testing
from manyhands.cli import COMMANDS

pytestmark = pytest.mark.whole

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
HOW_TO = sorted(path for path in (DOCS / "how-to").glob("*.md") if path.stem != "index")
RUNNABLE = [ROOT / "README.md", DOCS / "tutorial.md", DOCS / "tutorial-jobs.md", DOCS / "tutorial-tasks.md", *HOW_TO]
START = 60.0
"""Seconds. A limit for whole processes on a machine that is busy with other tests."""

MISUSED = {"set_result", "set_exception", "set_running_or_notify_cancel"}
"""A future's, which a job refuses."""

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

RUN = """
import contextlib, io, json, sys
space, printed = {"__name__": "__main__"}, []
for code in json.load(sys.stdin):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "<the page>", "exec"), space)
    printed.append(out.getvalue())
json.dump(printed, sys.stdout)
"""


def programs(path: Path) -> list[tuple[str, str | None]]:
    """The python blocks of a page, each with the text block that follows it at once, if one does."""
    text = path.read_text(encoding="utf-8")
    fences = list(FENCE.finditer(text))
    found: list[tuple[str, str | None]] = []
    for index, fence in enumerate(fences):
        if fence[1] != "python":
            continue
        after = fences[index + 1] if index + 1 < len(fences) else None
        shown = None
        if after is not None and after[1] == "text" and not text[fence.end() : after.start()].strip():
            shown = after[2]
        found.append((fence[2], shown))
    return found


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_the_code_of_a_page_runs_and_prints_what_is_shown(path: Path) -> None:
    """All python blocks of a page, in order, in one fresh interpreter, with warnings as errors."""
    blocks = programs(path)
    assert blocks
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", RUN],
        input=json.dumps([code for code, _ in blocks]),
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert not re.search("Traceback|Warning:|Exception ignored", ended.stderr), ended.stderr
    for printed, (code, shown) in zip(json.loads(ended.stdout), blocks, strict=True):
        assert printed == (shown or ""), code


def test_the_readme_begins_with_an_example_and_the_two_commands() -> None:
    """The first screen: one sentence, an example with its output, `make demo`, `make test`."""
    first = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:75])
    assert programs(ROOT / "README.md")[0][1]
    assert "make demo" in first
    assert "make test" in first
    for missing in ("UDP", "happy eyeballs", "subprocesses", "portal", "pytest plugin"):
        assert missing in (ROOT / "README.md").read_text(encoding="utf-8").split("## Not yet")[1]


def test_the_drawings_and_the_tables_of_states_are_the_cores() -> None:
    """`docs/design/strand.md`, `job.md`, `task.md` and their drawings are what the script makes of the core's tables."""
    ended = subprocess.run(
        [sys.executable, ROOT / "scripts" / "draw_states.py", "--check"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    for name, table in (
        ("strand", _core.strand_table()),
        ("job", _core.job_table()),
        ("task", _core.task_table()),
    ):
        page = (DOCS / "design" / f"{name}.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| `(\w+)` \| ([A-Z]+) \| ([A-Z]+) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
        assert rows == [(verb, a.upper(), b.upper(), when, who) for verb, a, b, when, who in table]


def all_test_names() -> set[str]:
    """Every test function's name, Python's and loom's."""
    python = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return set(re.findall(r"def (test_\w+)", python))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_every_test_that_a_page_names_exists(path: Path) -> None:
    """A promise names the test that keeps it; a test that was renamed takes its name along."""
    named = set(re.findall(r"`(test_\w+)`", path.read_text(encoding="utf-8")))
    assert named <= all_test_names()


@pytest.mark.parametrize(("name", "least"), [("strand", 8), ("job", 8), ("task", 8), ("ring", 2)])
def test_every_race_of_a_page_is_a_model_test(name: str, least: int) -> None:
    """The names of the races are the names of the loom tests."""
    loom = ROOT / "crates" / "core" / "tests" / "loom"
    if not loom.exists():
        pytest.skip("there are no model tests in this tree")
    page = (DOCS / "design" / f"{name}.md").read_text(encoding="utf-8").split("## The races, by name")[1]
    races = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    source = "\n".join(path.read_text(encoding="utf-8") for path in loom.rglob("*.rs"))
    assert len(races) >= least
    assert set(races) <= set(re.findall(r"fn (\w+)\(", source))


def test_every_fault_with_a_test_is_on_the_faults_page() -> None:
    """The numbers in the tests' docstrings and the numbers of the page are the same."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    tested = {int(number) for number in re.findall(r'"""FAULT (\d+)\.', tests)}
    page = (DOCS / "design" / "faults.md").read_text(encoding="utf-8")
    assert tested <= {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_help_of_the_command_line_is_in_the_reference(command: str) -> None:
    """Word for word; the line breaks are the interpreter's."""
    ended = subprocess.run(
        [sys.executable, "-m", "manyhands", *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
    )
    shown = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert " ".join(ended.stdout.split()) in " ".join(shown.split())


def test_every_public_name_is_in_the_reference() -> None:
    """`manyhands`, its errors, `blocking` and `testing`: each name, and each public method of the big classes."""
    reference = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))
    documented = set(re.findall(r"^\.\. (?:auto\w+|data):: (manyhands[\w.]*)$", reference, re.MULTILINE))
    wanted = {f"manyhands.{name}" for name in mh.__all__ if not isinstance(getattr(mh, name), ModuleType)}
    wanted |= {f"manyhands.{name}" for name in errors.__all__}
    wanted |= {f"manyhands.testing.{name}" for name in testing.__all__}
    wanted |= {f"manyhands.blocking.{name}" for name in blocking.__all__}
    wanted |= {f"manyhands.debug.{name}" for name in debug.__all__}
    wanted |= {f"manyhands.coroutines.{name}" for name in coroutines.__all__}
    owners = (mh.EventLoop, mh.Watch, mh.Strand, mh.Timer, mh.ThreadPool, mh.Job, mh.Actor, mh.Proactor, mh.Operation)
    for owner in owners:
        ours = [base for base in owner.__mro__ if base.__module__.partition(".")[0] == "manyhands"]
        names = {name for base in ours for name in vars(base) if not name.startswith("_")} - MISUSED
        wanted |= {f"manyhands.{owner.__name__}.{name}" for name in names}
    assert wanted - documented == set()


def test_the_changelog_has_the_version() -> None:
    """The version that Cargo.toml names has an entry."""
    version = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["version"]
    assert version == mh.__version__
    assert f"[{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_path_and_target_that_a_page_of_the_root_names_exists(name: str) -> None:
    """Links to files, and `make` targets."""
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = [path for path in re.findall(r"\]\(([^)#]+)", text) if "://" not in path]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"(?:\$ |`)make ([\w-]+)", text)) <= targets


def test_every_example_that_a_page_names_exists() -> None:
    """`examples/x.py` in prose."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*PAGES, ROOT / "README.md"])
    assert {
        name for name in re.findall(r"examples/(\w+\.py)", text) if not (ROOT / "examples" / name).exists()
    } == set()
