"""A program of tasks, from its start to its end."""

from __future__ import annotations

import contextlib
import inspect
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from manyhands import _core, _guards
from manyhands._log import Log
from manyhands._loop import EventLoop
from manyhands._sight import tasks_below
from manyhands._tasks._generators import Generators
from manyhands._tasks._root import Root
from manyhands.errors import Cancelled, LoopClosed, LoopStopped, WouldDeadlock

if TYPE_CHECKING:
    from types import FrameType
    from typing import Self

    from manyhands.testing import MockClock

__all__ = ["current_task", "get_running_tasks", "run"]

T = TypeVar("T")

logger = Log("manyhands.loop")


def current_task() -> _core.Task:
    """The running task.

    Raises:
        RuntimeError: the caller is not in a task.
    """
    task = _core.running_task()
    if task is None:
        raise RuntimeError("this is to be called by a task: run it inside of manyhands.run()")
    return task


def get_running_tasks() -> list[_core.Task]:
    """Every task of the running program that has not ended."""
    scope = current_task().scope
    root: _core.Scope | None = None
    while scope is not None:
        root, scope = scope, scope.parent
    group = root.group if root is not None else None
    return [] if group is None else tasks_below(group)


class _Program(Root):
    """The group of the main task, and of those that end forgotten async generators."""

    def __init__(self, loop: EventLoop) -> None:
        super().__init__(loop)
        self.error: BaseException | None = None

    def _member_failed(self, task: _core.Task, error: BaseException) -> None:  # noqa: ARG002 - the others never fail
        self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the program by this, if nothing else has."""
        if self.error is None:
            self.error = error
        self.loop.request_stop()


class _Interruption:
    """The first Ctrl-C cancels the main task; the second is Python's own KeyboardInterrupt, wherever the main thread is."""

    def __init__(self, root: _Program) -> None:
        self._root = root
        self._previous: Any = None
        self.came = False

    def __enter__(self) -> Self:
        if _guards.on_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            signal.default_int_handler(number, frame)
        self.came = True
        self._root.cancel()

    def ended(self, error: BaseException | None) -> bool:
        """Whether it is what the program has ended by."""
        if isinstance(error, BaseExceptionGroup):
            return self.came and error.subgroup(KeyboardInterrupt) is not None
        return self.came and (error is None or isinstance(error, (Cancelled, KeyboardInterrupt)))


def run(
    function: Callable[..., Coroutine[Any, Any, T]],
    *args: Any,
    threads: int = 1,
    name: str = "main",
    clock: MockClock | None = None,
    poller: str = "epoll",
) -> T:
    """Run `function(*args)` and everything that it starts, and return what it returns.

    Args:
        function: An async function.
        args: What it is called with.
        threads: How many threads run tasks, the calling one among them.
        name: What threads and logs show.
        clock: A `manyhands.testing.MockClock` for tests.
        poller: As `EventLoop`.

    With one thread, code between two awaits is atomic. With more, tasks run at the same time, in parallel where there is no
    GIL: share what is made for it, or keep a group together with `create_task_group(together=True)`.

    Raises:
        Whatever the function raises.
        KeyboardInterrupt: Ctrl-C was pressed; every task was cancelled and has ended. A second one interrupts at once.
        WouldDeadlock: the thread serves a loop, or runs a job, already.

    Blocks: until the function has returned.
    """
    if type(threads) is not int:
        raise TypeError(f"threads must be an int, and got {threads!r}")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, and got {threads}")
    if inspect.iscoroutine(function):
        function.close()
        raise TypeError(
            f"run() takes an async function and its arguments, run(main, 1), and got a coroutine: {function!r}"
        )
    if not callable(function):
        raise TypeError(f"run() takes an async function and its arguments, run(main, 1), and got {function!r}")
    if _core.is_lent():
        raise WouldDeadlock.about(
            "run() would wait, and this thread is serving a loop or running a job: await the function there, "
            "or call run() on a thread of its own"
        )
    loop = EventLoop(name=name, clock=clock, poller=poller)
    root = _Program(loop)
    with _Interruption(root) as interruption:
        results, stopped = _run(loop, root, function, args, threads)
    error = root.error
    try:
        if interruption.ended(error):
            raise KeyboardInterrupt from error
        if isinstance(error, Cancelled) and stopped:
            raise LoopStopped(loop.name) from None
        if error is not None:
            raise error
    finally:
        del error, root, loop, interruption
    return results[0]


def _run(
    loop: EventLoop,
    root: _Program,
    function: Callable[..., Coroutine[Any, Any, T]],
    args: tuple[Any, ...],
    threads: int,
) -> tuple[list[T], bool]:
    """Serve until the main task has ended; what it returned, and whether somebody else has stopped the loop."""
    results: list[T] = []
    generators = Generators(root)
    ended = False

    async def main() -> None:
        nonlocal ended
        try:
            results.append(await _called(function, args))
        finally:
            if not loop.closed:  # else it is given up, and nobody serves it any more
                await generators.end()
                ended = True
                loop.request_stop()

    stopped = False
    patience: float | None = _guards.EXIT_TIMEOUT
    started: list[threading.Thread] = []
    try:
        for n in range(1, threads):
            helper = threading.Thread(
                target=_serve, args=(loop, root, generators, n), name=f"mh-{loop.name}-{n}", daemon=True
            )
            helper.start()
            started.append(helper)
        root.add(main(), getattr(function, "__qualname__", None))
        while True:
            try:
                with generators.noticed():
                    loop.join()
            except SystemExit as error:
                root.fail(error)
            # The main task may end on another thread, which is still inside of it then.
            loop.wait()
            if ended:
                break
            # Somebody else has stopped the loop: the tasks end, and then it does.
            stopped = True
            root.cancel()
            loop.restart()
        patience = None
    finally:
        _close(loop, root, started, patience)
    return results, stopped


def _called(function: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...]) -> Coroutine[Any, Any, T]:
    made = function(*args)
    if not inspect.isawaitable(made):
        raise TypeError(f"run() takes an async function, and {function!r} is none: it returned {made!r:.80}")
    return made


def _close(loop: EventLoop, root: _Program, started: list[threading.Thread], patience: float | None) -> None:
    """End the loop; with patience for so long only, for a thread that is inside of a task."""
    try:
        loop.close(patience)
    except TimeoutError:
        # The program was interrupted twice, or had not begun.
        logger.warning("loop %r was left with a task inside:\n%s", loop.name, loop.dump())
        return
    for helper in started:
        helper.join()
    root.abandon()


def _serve(loop: EventLoop, root: _Program, generators: Generators, n: int) -> None:
    """Serve until the loop is closed: who comes late, or when it was stopped and restarted, serves on.

    What leaves `join()` here (SystemExit of a handler, for example) is raised by `run`.
    """
    _guards.name_thread(f"mh-{loop.name}", n)
    try:
        with contextlib.suppress(LoopClosed), generators.noticed():
            while True:
                loop.join(wait_restart=True)
    except BaseException as error:  # noqa: BLE001 - raised by run()
        root.fail(error)
    finally:
        del root
