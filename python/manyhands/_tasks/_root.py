"""The group that no task has open: its tasks are held by their loop alone."""

from __future__ import annotations

from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from manyhands import _core
from manyhands._log import Log
from manyhands._sight import tasks_below
from manyhands._tasks._scope import CancelScope
from manyhands.errors import Cancelled

if TYPE_CHECKING:
    from typing import Self

    from manyhands._loop import EventLoop

__all__ = ["Root"]

logger = Log("manyhands.loop")

LOOK: Final = 0.005
"""Seconds between two looks at whether the tasks have ended: nothing but a task can wait for that."""


class Root(_core.Group):
    """The tasks that a loop's owner starts.

    Args:
        loop: Holds the group from now on, and so its tasks: see crates/py/src/task.rs.
    """

    def __new__(cls, loop: EventLoop) -> Self:
        return super().__new__(cls, loop, None, CancelScope())

    def __init__(self, loop: EventLoop) -> None:
        self.loop = loop
        self.adopt()
        loop._root = self  # noqa: SLF001

    def cancel(self) -> None:
        """Cancel every task."""
        scope = self.scope
        assert scope is not None
        scope.set_cancelled()

    def end(self, timeout: float) -> None:
        """Cancel every task, and wait until they have ended, or so many seconds. For a thread that does not serve the loop."""
        self.cancel()
        deadline = monotonic() + timeout
        while self.living and monotonic() < deadline:
            sleep(LOOK)

    def _member_failed(self, task: _core.Task, error: BaseException) -> None:
        if not isinstance(error, Cancelled):
            logger.error("loop %r: task %r raised", self.loop.name, task.name, exc_info=error)

    def abandon(self) -> None:
        """End every task where it is: nobody serves the loop any more. Those that are waited for come first."""
        loop = self.loop
        strays = [task for group in loop._strays for task in tasks_below(group)]  # noqa: SLF001
        for task in reversed(tasks_below(self) + strays):
            try:
                task.abandon()
            except BaseException:
                logger.exception("loop %r: task %r was given up, and raised", loop.name, task.name)
        loop._root = None  # noqa: SLF001
