"""Fixtures of every test, and the leak line at the end of each."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

import manyhands as mh
from clocked import Served
from coroutining import DRIVERS, FORMS, driven
from manyhands import testing
from manyhands.testing import MockClock
from proactors import backend, file, make_proactor, proactor, ring  # noqa: F401 - fixtures
from signal_scripts import PRELUDE
from support import LONG, OWN_THREADS, wait_until


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--switch-interval`: how often the GIL is handed on, in seconds; 1e-5 makes races a hundred times likelier."""
    parser.addoption("--switch-interval", type=float, default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Apply `--switch-interval`, and let the library open what it opens once in a process."""
    interval = config.getoption("--switch-interval")
    if interval is not None:
        sys.setswitchinterval(interval)
    # A shell's background jobs ignore Ctrl-C, and so would every program that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    mh.EventLoop().close()  # opens what is the process's own for good: no test's leak


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember for `leak_line` whether the test itself failed."""
    report = yield
    if call.when == "call":
        item.stash[FAILED] = report.failed
    return report


class Spawned:
    """A call on a thread of its own."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._outcome: Any = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(function, args), name=f"spawned-{function}", daemon=True)
        self.thread.start()

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self._outcome = function(*args)
        except BaseException as error:
            self._error = error

    @property
    def done(self) -> bool:
        """Whether the call has ended."""
        return not self.thread.is_alive()

    def result(self, timeout: float = LONG) -> Any:
        """Wait for the call and return, or raise, what it did."""
        self.thread.join(timeout)
        if self.thread.is_alive():
            frame = sys._current_frames().get(self.thread.ident or 0)
            stack = "".join(traceback.format_stack(frame)) if frame else "?"
            raise TimeoutError(f"{self.thread.name} still runs after {timeout} s, at:\n{stack}")
        if self._error is not None:
            raise self._error
        return self._outcome


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name not in OWN_THREADS}


def _descriptors() -> set[str]:
    if "TSAN_OPTIONS" in os.environ:
        return set()  # ThreadSanitizer opens some of its own at its first report
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
    return {entry for entry in found if "/proc/" not in entry}


@pytest.fixture(autouse=True, scope="module")
def frozen_heap() -> None:
    """The collections of `leak_line` look at what the tests of a file made.

    Else each would look again at all that pytest and its plugins have: a tenth of a second, several times in every test.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def leak_line(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test ends with no thread, descriptor or live object of the core that was not there before."""
    before = (_threads(), _descriptors(), testing.live_objects())
    yield
    # Frames of a failed test keep its objects alive: the failure itself is what counts then.
    if request.node.stash.get(FAILED, False):
        return
    request.node.funcargs.clear()  # pytest keeps what the fixtures gave, and so the loops, until after this

    def as_before() -> bool:
        live = testing.live_objects()
        return (
            all(live[kind] <= before[2][kind] for kind in live)
            and _threads() <= before[0]
            and _descriptors() <= before[1]
        )

    def clean() -> bool:
        # Most tests leave nothing that only the collector could find, and without the GIL it stops the world.
        if as_before():
            return True
        # A thread that was logging when the test ended has left its record here, with the frames of what it tells of.
        request.config.pluginmanager.get_plugin("logging-plugin").report_handler.reset()
        gc.collect()
        return as_before()

    try:
        wait_until(clean, timeout=0.3 * LONG)
    except TimeoutError:
        left = (_threads() - before[0], _descriptors() - before[1], testing.live_objects())
        pytest.fail(f"left behind: threads {left[0]}, descriptors {left[1]}, live objects {left[2]}")


@pytest.fixture
def make_loop() -> Iterator[Callable[..., mh.EventLoop]]:
    """Make loops that are closed at the end of the test."""
    made: list[mh.EventLoop] = []

    def make(**options: Any) -> mh.EventLoop:
        loop = mh.EventLoop(**options)
        made.append(loop)
        return loop

    yield make
    for loop in made:
        loop.close(timeout=LONG)


@pytest.fixture
def loop(make_loop: Callable[..., mh.EventLoop]) -> mh.EventLoop:
    """One loop, closed at the end of the test."""
    return make_loop()


@pytest.fixture
def make_pool() -> Iterator[Callable[..., mh.ThreadPool]]:
    """Make pools that are destroyed at the end of the test, when every job of theirs must be able to end."""
    made: list[mh.ThreadPool] = []

    def make(threads: int = 2, **options: Any) -> mh.ThreadPool:
        pool = mh.ThreadPool(threads, **options)
        made.append(pool)
        return pool

    yield make
    for pool in made:
        left = pool.destroy(timeout=LONG)
        assert left == [], f"jobs that never ended: {left}"


@pytest.fixture
def spawn() -> Iterator[Callable[..., Spawned]]:
    """Run a call on a thread of its own; every such thread has ended when the test has."""
    spawned: list[Spawned] = []

    def start(function: Callable[..., Any], *args: Any) -> Spawned:
        call = Spawned(function, args)
        spawned.append(call)
        return call

    yield start
    for call in spawned:
        call.thread.join(LONG)
        assert call.done, f"{call.thread.name} still runs"


@pytest.fixture
def joined() -> Callable[..., contextlib.AbstractContextManager[list[threading.Thread]]]:
    """Put n threads into `join()`; at the end of the block they are told to leave, and what they raised is raised.

    As in `with joined(loop, 2) as threads:`.
    """

    @contextlib.contextmanager
    def join(loop: mh.EventLoop, n: int = 1) -> Iterator[list[threading.Thread]]:
        calls = [Spawned(loop.join, ()) for _ in range(n)]
        try:
            wait_until(lambda: loop.joined >= n or any(call.done for call in calls))
            yield [call.thread for call in calls]
        finally:
            if not loop.closed:
                loop.request_stop()
            for call in calls:
                call.result()

    return join


@pytest.fixture
def ask(loop):
    """Make a handler of the loop enqueue a job in place, and return the job when the handler has ended."""

    def call(pool: mh.ThreadPool, function, *args: object, strand: mh.Strand | None = None, **options) -> mh.Job:
        asked: list[mh.Job | BaseException] = []
        ended = threading.Event()

        def handler() -> None:
            try:
                asked.append(pool.enqueue(function, *args, in_place=True, **options))
            except BaseException as error:
                asked.append(error)
            ended.set()

        (strand or loop.strand()).post(handler)
        assert ended.wait(LONG)
        if isinstance(asked[0], BaseException):
            raise asked[0]
        return asked[0]

    return call


@pytest.fixture
def pair() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Make connected, non-blocking sockets that are closed at the end of the test."""
    made: list[socket.socket] = []

    def make() -> tuple[socket.socket, socket.socket]:
        a, b = socket.socketpair()
        for end in (a, b):
            end.setblocking(False)
            made.append(end)
        return a, b

    yield make
    for end in made:
        end.close()


@pytest.fixture
def subprocess_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run code in a fresh interpreter, with a time limit."""

    def run(
        code: str, *, timeout: float = 30, env: dict[str, str] | None = None, args: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", code, *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            check=False,
        )

    return run


@pytest.fixture
def script(subprocess_python):
    """Run code behind the prelude; it has to end well and say nothing on standard error."""

    def run(code: str, *, timeout: float = 60) -> str:
        done = subprocess_python(PRELUDE + code, timeout=timeout)
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.stderr == ""
        return done.stdout

    return run


@pytest.fixture
def on_main():
    """Only on the main thread may signal handlers be set."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("needs the main thread")


@pytest.fixture
def served(make_loop, joined):
    """Serve a loop on a clock that stands until the test moves it."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    with joined(loop):
        wait_until(lambda: loop.joined == 1)
        yield Served(loop, clock)


@pytest.fixture
def make_threaded():
    """Make ThreadedEventLoops (or what `cls` says) that are stopped and closed at the end."""
    made = []

    def make(*args, cls=mh.ThreadedEventLoop, **options) -> mh.ThreadedEventLoop:
        loop = cls(*args, **options)
        made.append(loop)
        return loop

    yield make
    for loop in made:
        if not loop.closed:
            loop.stop(LONG)
            loop.close(LONG)


@pytest.fixture
def logged(caplog):
    """What was logged; forgotten at the end, since a traceback keeps the loop that it went through alive."""
    yield caplog
    caplog.get_records("call").clear()


@pytest.fixture(params=DRIVERS)
def driver(request):
    """Who drives a pool of coroutines, and in which form these are written."""
    return request.param


@pytest.fixture
def drive(driver):
    """Make a pool of coroutines and of who drives it, for a `with` statement."""
    return functools.partial(driven, driver)


@pytest.fixture
def form(driver):
    """What makes a coroutine of a generator function: itself, or an `async def`."""
    return FORMS[driver.rpartition(" ")[2]]


@pytest.fixture
def loop_at(make_loop):
    """A loop that nobody has joined, and its clock: `run_ready` on this thread turns it."""
    clock = MockClock()
    return make_loop(clock=clock), clock


@pytest.fixture
def listener():
    """A listening TCP socket on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def sockets():
    """Two connected, blocking sockets."""
    here, there = socket.socketpair()
    with here, there:
        yield here, there
