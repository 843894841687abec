"""Task groups: tasks that are started together and end before the block that started them does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from manyhands import _core
from manyhands._tasks._event import Event
from manyhands._tasks._scope import CancelScope, current_loop
from manyhands._tasks._sleep import cancel_shielded_checkpoint, checkpoint_if_cancelled
from manyhands.errors import Cancelled, TaskCancelled

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["TaskGroup", "TaskHandle", "TaskStatus", "create_task_group"]

T = TypeVar("T")


def create_task_group(*, together: bool = False) -> TaskGroup:
    """A group for `async with`: its block ends when every task that was started in it has ended.

    Args:
        together: Keep the group's tasks on one strand: only one of them runs at a time, so that code between two awaits is
            atomic among them, however many threads serve the loop.
    """
    return TaskGroup(together=together)


class TaskGroup(_core.Group):
    """Tasks that end before the block that started them does. Made by `create_task_group`.

    The first task that fails, or the block itself, cancels the others; the exit waits for all of them, then raises an
    ExceptionGroup with every error. Cancellations are no errors.
    """

    cancel_scope: CancelScope
    """Cancels every task of the group, and the block."""

    def __new__(cls, *, together: bool = False) -> Self:
        loop = current_loop()
        return super().__new__(cls, loop, loop.strand() if together else None, CancelScope())

    def __init__(self, *, together: bool = False) -> None:  # noqa: ARG002 - __new__ has used it
        self.cancel_scope = cast("CancelScope", self.scope)
        self._errors: list[BaseException] = []
        self._cut_short = False

    async def __aenter__(self) -> Self:
        """Enter the scope, and take tasks from now on.

        Raises:
            RuntimeError: it was entered before.
        """
        self.cancel_scope.__enter__()
        self.adopt()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        # What goes on after this, if there is no error.
        passing: BaseException | None = None
        if exc is not None:
            self.cancel_scope.cancel()
            if isinstance(exc, GeneratorExit) and not self.cancel_scope.innermost:
                # The coroutine is closed from outside of its task, and must not wait.
                return False
            if isinstance(exc, (Cancelled, GeneratorExit)):
                passing = exc
            else:
                self._errors.append(exc)
        passing = await self._wait_empty(passing, told=exc is not None)
        if passing is None and self._cut_short and self.cancel_scope.stopping:
            # The last member ended so soon after the cancellation that this wait has not noticed it.
            passing = Cancelled()
        errors, self._errors = self._errors, []
        failure = BaseExceptionGroup("unhandled errors in a task group", errors) if errors else passing
        swallowed = self.cancel_scope.__exit__(None if failure is None else type(failure), failure, None)
        if failure is None or swallowed:
            return exc is not None
        if failure is exc:
            return False
        # The error of the block is one of the group's already: not once more as what came before it.
        context = failure.__context__
        try:
            raise failure
        finally:
            failure.__context__ = context
            del failure, errors, exc, passing

    async def _wait_empty(self, passing: BaseException | None, *, told: bool) -> BaseException | None:
        """Wait for the members; the cancellation that came meanwhile, if one did."""
        waited = False
        while True:
            # Once it is told to stop, so are the tasks; what is left to do is to wait for them.
            wait = _core.Wait(abortable=not told)
            if not self.when_empty(wait):
                break
            waited = True
            try:
                await wait
            except Cancelled as error:
                passing, told = error, True
                self.cancel_scope.cancel()
        if not waited:
            await cancel_shielded_checkpoint()
        return passing

    def _member_failed(self, task: _core.Task, error: BaseException) -> None:  # noqa: ARG002 - who, for a subclass
        """A task has raised; called by the core, on the thread that ran it."""
        if isinstance(error, Cancelled):
            self._cut_short = True
            return
        self._errors.append(error)
        self.cancel_scope.cancel()

    def create_task(
        self,
        task: Coroutine[Any, Any, T] | Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        name: str | None = None,
    ) -> TaskHandle[T]:
        """Start a coroutine, or `task(*args)`, as a task with a handle to its result.

        Raises:
            As `start_soon`.
        """
        coroutine = task(*args) if callable(task) else task
        handle: TaskHandle[T] = TaskHandle(name or getattr(coroutine, "__qualname__", None) or repr(coroutine))
        try:
            handle.task = self.add(handle._run(coroutine), handle.name)  # noqa: SLF001
        except BaseException:
            if isinstance(coroutine, Coroutine):
                coroutine.close()
            raise
        return handle

    async def start(
        self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: str | None = None
    ) -> Any:
        """Start `function(*args, task_status=...)` and wait until it calls `task_status.started(value)`.

        Returns:
            The value given to `started`.

        Raises:
            RuntimeError: the task has ended without calling it.
            Whatever the task raises before it has called it: here, and not at the group's exit.
        """
        status = TaskStatus()
        self.add(status._run(function, args), name or getattr(function, "__qualname__", None))  # noqa: SLF001
        try:
            value = await status._wait  # noqa: SLF001
        except Cancelled:
            with CancelScope(shield=True):
                status._scope.cancel()  # noqa: SLF001
                await status._ended.wait()  # noqa: SLF001
            raise
        if value is _NEVER:
            # If what told the task to stop tells this one too, then that is why.
            await checkpoint_if_cancelled()
            raise RuntimeError(f"task {function!r} has ended without calling task_status.started()")
        return value


_NEVER = object()
"""What `start` is told when the task has ended without saying that it is ready."""


class TaskStatus:
    """How a task that was started by `TaskGroup.start` says that it is ready."""

    def __init__(self) -> None:
        self._wait = _core.Wait()
        self._scope = CancelScope()
        self._ended = Event()
        self._started = False

    def started(self, value: Any = None) -> None:
        """Let `start` return `value`.

        Raises:
            RuntimeError: it was called before.
        """
        if self._started:
            raise RuntimeError("task_status.started() is called once")
        self._started = True
        self._wait.complete(value)

    async def _run(self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        try:
            with self._scope:
                await function(*args, task_status=self)
        except Cancelled:
            # The whole group was cancelled. Whoever waits in `start` may be in another one, where that means nothing.
            self._never_started()
            raise
        except BaseException as error:
            if self._started or not self._wait.fail(error):
                raise
        else:
            self._never_started()
        finally:
            self._ended.set()

    def _never_started(self) -> None:
        if not self._started:
            self._wait.complete(_NEVER)


class TaskHandle(Generic[T]):
    """A task of a group, to wait for or to cancel. Made by `TaskGroup.create_task`."""

    task: _core.Task
    name: str
    """What the task is called."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._scope = CancelScope()
        self._ended = Event()
        self._value: T
        self._error: BaseException | None = None

    async def _run(self, coroutine: Coroutine[Any, Any, T]) -> None:
        try:
            try:
                with self._scope:
                    self._value = await coroutine
            except Cancelled:
                self._error = TaskCancelled(self.name)
                raise
            except BaseException as error:
                self._error = error
                raise
            if self._scope.cancelled_caught:
                self._error = TaskCancelled(self.name)
        finally:
            self._ended.set()

    def done(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    def cancel(self) -> None:
        """Cancel the task alone; the group goes on. Any thread."""
        self._scope.cancel()

    def exception(self) -> BaseException | None:
        """What it raised, `TaskCancelled` if it was cancelled, None if it returned.

        Raises:
            RuntimeError: it has not ended.
        """
        if not self.done():
            raise RuntimeError(f"task {self.name!r} has not ended: await it first")
        return self._error

    def result(self) -> T:
        """What it returned; raises what it raised.

        Raises:
            TaskCancelled: it was cancelled.
            RuntimeError: it has not ended.
        """
        error = self.exception()
        if error is not None:
            raise error
        return self._value

    async def _result(self) -> T:
        await self._ended.wait()
        return self.result()

    def __await__(self) -> Generator[Any, None, T]:
        return self._result().__await__()
