#!/usr/bin/env python3
"""Put known mistakes into a copy of the tree, one at a time, and demand that the named tests break.

    python scripts/mutants.py                    # every mutant of mutants/*.toml
    python scripts/mutants.py --only no-standby  # those whose name contains this
    python scripts/mutants.py --list

A mutant is a few replacements in the sources; a text that is not found exactly once is an error, so that a mutant cannot
rot into one that changes nothing. Before the mutants come the named tests on the clean copy, which must pass. A mutant
that does not compile counts as an error and not as found. One whose test runs into the time limit is found: that is how
a lost wake-up or a deadlock shows outside loom. Exit status 1 if any mutant survives.

Three of the mistakes that this kind of loop is known for have no place here, because this design has no event
descriptor for "stop" that could be drained by the first to leave, or be edge-triggered, or wake one thread of many: the
life of the loop is a word that a thread reads under the hub's mutex before it waits. What takes their place is
`one-woken-by-a-stop`, `stop-that-leaves-the-poller-asleep` and `stop-forgotten-on-the-way-into-the-poller`. The flag of
the poller's wake is two things: `wake-flag-never-cleared` (the hub's) and `wake-flag-cleared-before-the-draining` (the
eventfd's).

The copy and what is built from it lie in target/mutants, so that each mutant builds only what it changed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "mutants"
TREE = WORK / "tree"
SOURCES = "crates/core/src"
LIMIT = {"loom": 120, "core": 120, "python": 45}
"""Seconds that the tests of one mutant may take; each takes a few when it passes."""
CLEAN_LIMIT = 300
"""Seconds that all the named tests of a kind may take on the clean copy."""
BUILD_LIMIT = 900


class Mistaken(Exception):
    """The mutant itself is wrong: its text is not there, or it does not compile."""


@dataclass(frozen=True)
class Edit:
    """One replacement."""

    find: str
    replace: str
    within: str


@dataclass(frozen=True)
class Mutant:
    """One mistake and the tests that must break."""

    name: str
    mistake: str
    kind: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]


def read_mutants() -> list[Mutant]:
    mutants = []
    for file in sorted((ROOT / "mutants").glob("*.toml")):
        for entry in tomllib.loads(file.read_text())["mutant"]:
            edits = tuple(Edit(e["find"], e["replace"], e.get("in", SOURCES)) for e in entry["edits"])
            mutants.append(Mutant(entry["name"], entry["mistake"], entry["kind"], tuple(entry["tests"]), edits))
    names = [mutant.name for mutant in mutants]
    if len(set(names)) < len(names):
        raise SystemExit("two mutants have one name")
    return mutants


# -- the copy -----------------------------------------------------------------------------------


def copy_tree() -> None:
    """Make TREE the same as the working tree. Files that are the same keep their time, so that cargo builds little."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    wanted = {name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()}
    for name in wanted:
        put(TREE / name, (ROOT / name).read_bytes())
    for old in TREE.rglob("*"):
        if old.is_file() and str(old.relative_to(TREE)) not in wanted and old.suffix != ".so":
            old.unlink()


def put(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def apply(edits: tuple[Edit, ...]) -> dict[Path, bytes]:
    """Apply every replacement; return what the changed files held before."""
    before: dict[Path, bytes] = {}
    for edit in edits:
        pattern = re.compile(r"\s+".join(re.escape(word) for word in edit.find.split()))
        place = TREE / edit.within
        files = [place] if place.is_file() else sorted(place.rglob("*.*"))
        hits = [(file, len(pattern.findall(file.read_text()))) for file in files if file.suffix in {".rs", ".py"}]
        found = sum(count for _, count in hits)
        if found != 1:
            undo(before)
            raise Mistaken(f"found {found} times in {edit.within}, and not once: {' '.join(edit.find.split())!r}")
        file = next(file for file, count in hits if count)
        text = file.read_text()
        before.setdefault(file, text.encode())
        file.write_text(pattern.sub(lambda _: edit.replace, text))  # noqa: B023 (used at once)
    return before


def undo(before: dict[Path, bytes]) -> None:
    for file, content in before.items():
        file.write_bytes(content)


# -- building and running -----------------------------------------------------------------------


def run(command: list[str], limit: float, **environment: str) -> tuple[int | None, str]:
    """Run in the copy; the status (None: time limit) and what was said. Its whole process group ends with it."""
    process = subprocess.Popen(
        command, cwd=TREE, env=os.environ | environment, text=True, errors="replace", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        return None, said
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, said


CARGO = {
    # Quick to build, with every assertion: nothing here is measured.
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "8",
    "CARGO_PROFILE_RELEASE_DEBUG": "0",
    "CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS": "true",
    "CARGO_PROFILE_RELEASE_INCREMENTAL": "true",
}
LOOM = {
    "RUSTFLAGS": "--cfg loom --cfg pyo3_disable_reference_pool",
    "LOOM_MAX_PREEMPTIONS": os.environ.get("LOOM_MAX_PREEMPTIONS", "2"),
    "LOOM_MAX_BRANCHES": "10000",
}


def cargo(*arguments: str, target: str, limit: float, environment: dict[str, str]) -> tuple[int | None, str]:
    command = ["cargo", arguments[0], "--quiet", "--release", *arguments[1:]]
    return run(command, limit, **CARGO, **environment, CARGO_TARGET_DIR=str(WORK / target))


class Kind:
    """How tests of one kind are built and run."""

    def build(self) -> tuple[int | None, str]:
        raise NotImplementedError

    def test(self, names: tuple[str, ...], limit: float) -> tuple[int | None, str]:
        raise NotImplementedError


class Loom(Kind):
    arguments = ("test", "--package", "manyhands-core", "--test", "loom")
    environment = LOOM
    target = "loom"

    def build(self) -> tuple[int | None, str]:
        return cargo(*self.arguments, "--no-run", target=self.target, limit=BUILD_LIMIT, environment=self.environment)

    def test(self, names: tuple[str, ...], limit: float) -> tuple[int | None, str]:
        status, said = cargo(
            *self.arguments, "--", "--exact", "--test-threads=1", *names,
            target=self.target, limit=limit, environment=self.environment,
        )  # fmt: skip
        ran = sum(int(count) for count in re.findall(r"^running (\d+) tests?$", said, re.MULTILINE))
        if status == 0 and ran != len(names):
            raise Mistaken(f"{ran} tests ran, not {len(names)}: {' '.join(names)}")
        return status, said


class Core(Loom):
    arguments = ("test", "--package", "manyhands-core", "--lib", "--test", "*")
    environment = {}  # noqa: RUF012 - never changed
    target = "core"


class Python(Kind):
    """The extension is built beside the copy's Python sources; the interpreter brings pytest and nothing of ours."""

    def __init__(self, interpreter: str) -> None:
        self.interpreter = interpreter

    def build(self) -> tuple[int | None, str]:
        environment = {"PYO3_PYTHON": self.interpreter, "PYO3_BUILD_EXTENSION_MODULE": "1"}
        result = cargo(
            "build", "--package", "manyhands-py", "--features", "points",
            target="python", limit=BUILD_LIMIT, environment=environment,
        )  # fmt: skip
        if result[0] == 0:
            built = WORK / "python" / "release" / "lib_core.so"
            ask = [self.interpreter, "-c", "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"]
            suffix = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
            shutil.copy2(built, TREE / "python" / "manyhands" / f"_core{suffix}")
        return result

    def test(self, names: tuple[str, ...], limit: float) -> tuple[int | None, str]:
        path = {"PYTHONPATH": str(TREE / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
        where = [self.interpreter, "-c", "import manyhands; print(manyhands.__file__)"]
        status, said = run(where, 60, **path)
        if status != 0 or not Path(said.strip()).is_relative_to(TREE):
            raise Mistaken(f"the copy is not what is imported: {said.strip()}")
        return run([self.interpreter, "-m", "pytest", "-q", *names], limit, **path)


# -- the table ----------------------------------------------------------------------------------


def broken(kind: str, names: tuple[str, ...], said: str) -> list[str]:
    """Which of the named tests broke, as far as the output says."""
    if kind == "python":
        return [name for name in names if re.search(rf"(FAILED|ERROR) {re.escape(name)}", said)]
    # A panic in a destructor on the way aborts: then only the panic names the test.
    signs = r"^\s+{0}$|test {0} .*FAILED|thread '{0}' .*panicked at"
    return [name for name in names if re.search(signs.format(re.escape(name)), said, re.MULTILINE)]


def judge(mutant: Mutant, kind: Kind) -> tuple[bool, str]:
    before = apply(mutant.edits)
    try:
        status, said = kind.build()
        if status != 0:
            raise Mistaken("does not compile:\n" + said[-2000:])
        for test in mutant.tests:
            # One after the other: each of the named tests has to see it by itself.
            status, said = kind.test((test,), LIMIT[mutant.kind])
            if status == 0:
                return False, f"survived {test}"
            if status is not None and not broken(mutant.kind, (test,), said) and status != -signal.SIGSEGV:
                raise Mistaken(f"{test} did not fail, but its run did (status {status}):\n" + said[-1500:])
        return True, ", ".join(mutant.tests) + (" (time limit)" if status is None else "")
    finally:
        undo(before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", action="append", help="mutants whose name contains this")
    parser.add_argument("--list", action="store_true", help="print the names and what each gets wrong")
    parser.add_argument("--python", default=str(ROOT / ".venv" / "bin" / "python"), help="an interpreter with pytest")
    options = parser.parse_args()
    mutants = [m for m in read_mutants() if not options.only or any(part in m.name for part in options.only)]
    if not mutants:
        parser.error(f"no mutant's name contains {options.only}")
    width = max(len(mutant.name) for mutant in mutants)
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name:{width}}  {mutant.kind:6}  {mutant.mistake}")
        return 0

    copy_tree()
    kinds: dict[str, Kind] = {"loom": Loom(), "core": Core(), "python": Python(options.python)}
    for name, kind in kinds.items():
        tests = tuple(dict.fromkeys(test for m in mutants if m.kind == name for test in m.tests))
        if not tests:
            continue
        for step in (kind.build, lambda: kind.test(tests, CLEAN_LIMIT)):  # noqa: B023 - called at once
            status, said = step()
            if status != 0:
                print(
                    f"without any mutant the {name} tests must pass (status {status}):\n{said[-4000:]}", file=sys.stderr
                )
                return 1
        print(f"clean: {len(tests)} {name} tests pass", flush=True)

    bad = 0
    for mutant in mutants:
        began = time.monotonic()
        try:
            found, text = judge(mutant, kinds[mutant.kind])
        except Mistaken as error:
            found, text = False, f"ERROR: {error}"
        bad += not found
        seconds = time.monotonic() - began
        print(f"{'broke   ' if found else 'SURVIVED'} {mutant.name:{width}} {seconds:4.0f} s  {text}", flush=True)
    print(f"{len(mutants) - bad} of {len(mutants)} mutants broke every test named for them")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
