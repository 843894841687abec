"""Runs the thread-pool cases of CPython's own test_concurrent_futures against an executor of ours; a program.

    python cpython_executor.py KIND [DIRECTORY]

KIND is `pool` (ThreadPool) or `executor` (ThreadPool.executor()). DIRECTORY is a `Lib` directory of CPython's source, for
interpreters that were built without their tests. It prints one JSON object: case -> "passed", "skipped" or what went wrong.

The cases know `concurrent.futures.ThreadPoolExecutor(max_workers, thread_name_prefix, initializer, initargs)` and its
private `_threads` and `_max_workers`: a class of that name gives them these, and nothing else.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import faulthandler
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import threading
import unittest
import weakref
from pathlib import Path

import manyhands as mh

MODULES = ["test_thread_pool", "test_wait", "test_as_completed", "test_shutdown", "test_init"]
"""Those with cases for a pool of threads; test_future is about Future alone, the others about processes."""

NOT_RUN = ["test_del_shutdown"]
"""Cases that would wait for what ours never does; the table of test_cpython_executor.py says why."""

if sys.version_info < (3, 12):
    NOT_RUN.append("test_process_fork_from_a_threadpool")  # it wants a warning that came with 3.12

numbers = itertools.count()


def new_pool(max_workers=None, thread_name_prefix="", initializer=None, initargs=()) -> mh.ThreadPool:
    if max_workers is not None and max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    if initializer is not None:
        raise TypeError("a ThreadPool has no initializer")
    return mh.ThreadPool(max_workers, name=f"case{next(numbers)}", max_queue_depth=None)


def threads_of(pool: mh.ThreadPool) -> list[threading.Thread]:
    """The threads that run jobs, by their name; those that are being started for a job are waited for."""
    pause = threading.Event()
    while True:
        ours = [thread for thread in threading.enumerate() if thread.name.rpartition("-")[0] == f"mh-{pool.name}"]
        # Not those that are just being started: they cannot be joined yet.
        found = [thread for thread in ours if thread.is_alive()]
        stats = pool.stats()
        if len(found) >= min(pool.threads, stats.busy + stats.queued):
            return found
        pause.wait(0.001)


def executor_class(kind: str) -> type:
    """Make the class that stands for `concurrent.futures.ThreadPoolExecutor` in the cases."""
    if kind == "pool":

        class ThreadPoolExecutor(mh.ThreadPool):
            def __init__(self, *args, **options) -> None:
                pool = new_pool(*args, **options)
                super().__init__(pool.threads, name=pool.name, max_queue_depth=None)
                pool.shutdown()

            _max_workers = property(lambda self: self.threads)
            _threads = property(threads_of)
            submit = mh.ThreadPool.submit

        return ThreadPoolExecutor

    parent = type(mh.ThreadPool(1).executor())

    class ThreadPoolExecutor(parent):  # type: ignore[no-redef]
        def __init__(self, *args, **options) -> None:
            self.pool = new_pool(*args, **options)
            super().__init__(self.pool)

        _threads = property(lambda self: threads_of(self.pool))

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait, cancel_futures=cancel_futures)
            self.pool.shutdown(wait)

    return ThreadPoolExecutor


class Dangling(weakref.WeakSet):
    """What `test.support` asks which threads there are: it iterates while threads begin, which a WeakSet does not bear."""

    def __iter__(self):
        while True:
            with contextlib.suppress(RuntimeError):  # it changed its size
                return iter(list(super().__iter__()))


def prepare(kind: str, directory: str | None) -> None:
    """Put the class in its place, and give an older interpreter what the cases of a newer one ask its test package for."""
    concurrent.futures.ThreadPoolExecutor = executor_class(kind)  # type: ignore[misc]
    threading._dangling = Dangling(threading._dangling)  # type: ignore[attr-defined]
    if directory is not None:
        sys.path.insert(0, directory)
    import test.support

    if importlib.util.find_spec("test.test_concurrent_futures") is None and directory is not None:
        test.__path__.append(os.path.join(directory, "test"))
    test.support.use_resources = []  # no case that only lets time pass
    if not hasattr(test.support, "Py_GIL_DISABLED"):
        test.support.Py_GIL_DISABLED = False
    if not hasattr(test.support, "requires_gil_enabled"):
        test.support.requires_gil_enabled = lambda message: lambda function: function
    if not hasattr(os, "process_cpu_count"):
        os.process_cpu_count = os.cpu_count  # type: ignore[attr-defined]


def run_program(*args: str, **_options: object) -> tuple[int, bytes, bytes]:
    """Stand for `assert_python_ok`, which runs an interpreter that knows nothing of us."""
    code = args[args.index("-c") + 1]
    start = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import cpython_executor as ours; "
    start += f"ours.prepare(*{sys.argv[1:3] + [None] * (3 - len(sys.argv))!r})\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, timeout=60, check=False)
    if done.returncode:
        raise AssertionError(f"status {done.returncode}: {done.stderr.decode()}")
    return done.returncode, done.stdout, done.stderr


class Outcomes(unittest.TestResult):
    """case -> what came of it."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, str] = {}

    def note(self, case: unittest.TestCase, what: str) -> None:
        name = ".".join(case.id().split(".")[-2:])
        self.outcomes[name] = what if self.outcomes.get(name, "passed") == "passed" else self.outcomes[name]

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's own names
        self.note(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        self.note(test, "skipped")

    def addFailure(self, test: unittest.TestCase, err) -> None:  # noqa: N802
        self.note(test, self._exc_info_to_string(err, test))

    addError = addFailure  # noqa: N815

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err) -> None:  # noqa: N802
        if err is not None:
            self.note(test, self._exc_info_to_string(err, test))


def main() -> None:
    """Run every case and print what came of each."""
    faulthandler.dump_traceback_later(120, exit=True)
    prepare(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    suite = unittest.TestSuite()
    for name in MODULES:
        module = importlib.import_module(f"test.test_concurrent_futures.{name}")
        mixin = importlib.import_module("test.test_concurrent_futures.util").ThreadPoolMixin
        if hasattr(module, "assert_python_ok"):
            module.assert_python_ok = run_program
        for value in list(vars(module).values()):
            if isinstance(value, type) and issubclass(value, mixin) and issubclass(value, unittest.TestCase):
                names = unittest.defaultTestLoader.getTestCaseNames(value)
                suite.addTests(value(name) for name in names if name not in NOT_RUN)
    result = Outcomes()
    suite.run(result)
    print()  # the cases print as well
    print(json.dumps(result.outcomes))


if __name__ == "__main__":
    main()
