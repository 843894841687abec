"""CPython's own tests of a pool of threads, run against ThreadPool and against its executor().

A case that neither passes nor stands in the table below fails here; so does one that stands there and passes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

RUNNER = Path(__file__).parent / "cpython_executor.py"

NO_INITIALIZER = (
    "a ThreadPool has no initializer: what a job needs it is given, or makes on its thread when it first runs"
)
OWN_NAMES = "threads are named mh-<pool>-<n>, so that the kernel keeps the number; there is no thread_name_prefix"
JOBS_HOLD = (
    "a job holds its pool: the threads of a forgotten one end with the last of its jobs, not before (and not run)"
)
OWN_ERROR = "the error is called PoolFinished; it is a RuntimeError, with the text that the case looks for"
STARTED_LATER = (
    "a thread is started beside the submit, which does not wait for it: none need have begun by the next line"
)
ON_ITS_WAY = "a thread whose job's result is there may be on its way back still: another is started for the next job"
EXIT_STOPS = "the interpreter's exit asks jobs to stop instead of waiting until they are done, however long they take"

SOMETIMES = (STARTED_LATER, ON_ITS_WAY)
"""Reasons that depend on who is faster: such a case may well pass."""

NOT_OURS = {
    "ThreadPoolInitializerTest.test_initializer": NO_INITIALIZER,
    "ThreadPoolFailingInitializerTest.test_initializer": NO_INITIALIZER,
    "ThreadPoolShutdownTest.test_thread_names_assigned": OWN_NAMES,
    "ThreadPoolShutdownTest.test_thread_names_default": OWN_NAMES,
    "ThreadPoolShutdownTest.test_del_shutdown": JOBS_HOLD,
    "ThreadPoolExecutorTest.test_idle_thread_reuse": ON_ITS_WAY,
    "ThreadPoolShutdownTest.test_submit_after_interpreter_shutdown": OWN_ERROR,
    "ThreadPoolShutdownTest.test_cancel_futures": STARTED_LATER,
    "ThreadPoolShutdownTest.test_interpreter_shutdown": EXIT_STOPS,
    "ThreadPoolShutdownTest.test_hang_gh83386": EXIT_STOPS,
}
"""Case -> why it does not apply."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> str | None:
    """The Lib directory that has CPython's cases; None if the interpreter has them itself.

    Else that of MANYHANDS_CPYTHON_LIB, or of the source that scripts/free_threaded.sh has kept.
    """
    if importlib.util.find_spec("test") and importlib.util.find_spec("test.test_concurrent_futures"):
        return None
    if "MANYHANDS_CPYTHON_LIB" in os.environ:
        return os.environ["MANYHANDS_CPYTHON_LIB"]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "manyhands"
    cache = Path(os.environ.get("MANYHANDS_CACHE", cache)) / "cpython-source"
    found = sorted(cache.glob("python3.*.orig.tar.*")) if cache.is_dir() else []
    if not found:
        pytest.skip("this interpreter has no test.test_concurrent_futures, and no source of CPython is at hand")
    directory = tmp_path_factory.mktemp("cpython")
    wanted = ("/Lib/test/test_concurrent_futures/", "/Lib/test/support/", "/Lib/test/__init__.py")
    with tarfile.open(found[-1]) as archive:
        members = [member for member in archive if any(part in member.name for part in wanted)]
        archive.extractall(directory, members, filter="data")
    (library,) = directory.glob("*/Lib")
    return str(library)


@pytest.mark.parametrize("kind", ["pool", "executor"])
def test_cpythons_own_cases_pass_or_do_not_apply_for_a_reason(cases, kind):
    """T72. submit, map, wait, as_completed, shutdown, cancel: as the standard library's own tests want them."""
    command = [sys.executable, RUNNER, kind, *([cases] if cases is not None else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert len(outcomes) >= 40, "the cases were not found"
    failed = {case: what for case, what in outcomes.items() if what not in ("passed", "skipped")}
    unexpected = [f"{case}:\n{what}" for case, what in failed.items() if case not in NOT_OURS]
    assert unexpected == [], "\n".join(unexpected)
    mistaken = [case for case, why in NOT_OURS.items() if outcomes.get(case) == "passed" and why not in SOMETIMES]
    assert mistaken == [], "in the table, and passes all the same"
    assert sum(what == "passed" for what in outcomes.values()) >= 30
