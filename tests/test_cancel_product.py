"""Where a task is when it is cancelled, times how: every cell has one outcome."""

from __future__ import annotations

import threading

import pytest

import manyhands as mh
from manyhands.errors import Cancelled, LoopStopped
from manyhands.testing import MockClock, wait_all_tasks_blocked
from tasking import on_threads, run

OUTCOMES = {
    "not started": ["begins", "cancelled"],
    "running": ["begins", "goes on", "cancelled"],
    "waiting": ["begins", "cancelled"],
    "in cleanup": ["begins", "cleans up", "cancelled"],
    "shielded": ["begins", "held", "let go", "cancelled"],
}
"""Where the task is -> what becomes of it. A task that has not begun begins, and learns of it at its first wait."""


class Cell:
    """One task, one cancellation."""

    def __init__(self, where: str, how: str) -> None:
        self.where = where
        self.how = how
        self.clock = MockClock()
        self.said: list[str] = []
        self.scope = mh.CancelScope()

    async def main(self) -> None:
        self.loop = mh.current_task().group.owner
        self.flag, self.release = mh.Event(), mh.Event()
        self.scope.deadline = 10.0 if self.how == "deadline" else float("inf")
        async with mh.create_task_group() as outer:
            if self.how == "another task":
                outer.start_soon(self.cancel)
            with self.scope:
                async with mh.create_task_group() as group:
                    if self.how == "group error":
                        group.start_soon(self.fail)
                    group.start_soon(self.subject)
                    if self.where == "not started":
                        self.cause()
                    elif self.where != "running":
                        outer.start_soon(self.direct)
                    await mh.sleep_forever()

    def cause(self) -> None:
        """Begin the cancellation; called by the task itself, its host, or the director."""
        match self.how:
            case "another task" | "group error":
                self.flag.set()
            case "another thread":
                thread = threading.Thread(target=self.scope.cancel)
                thread.start()
                thread.join()
            case "deadline":
                self.clock.advance(10)
            case "stop of the loop":
                self.loop.request_stop()

    async def cancel(self) -> None:
        await self.flag.wait()
        self.scope.cancel()

    async def fail(self) -> None:
        await self.flag.wait()
        raise KeyError("sibling")

    async def direct(self) -> None:
        with mh.CancelScope(shield=True):
            await wait_all_tasks_blocked()
            self.cause()
            await wait_all_tasks_blocked()
            if self.where == "shielded":
                self.said.append("held")
            self.release.set()

    async def subject(self) -> None:
        self.said.append("begins")
        try:
            match self.where:
                case "running":
                    self.cause()
                    self.said.append("goes on")
                case "in cleanup":
                    try:
                        pass
                    finally:
                        self.said.append("cleans up")
                        await mh.sleep_forever()
                case "shielded":
                    with mh.CancelScope(shield=True):
                        await self.release.wait()
                        self.said.append("let go")
            await mh.sleep_forever()
        except Cancelled:
            self.said.append("cancelled")
            raise


@on_threads
@pytest.mark.parametrize("how", ["another task", "another thread", "deadline", "group error", "stop of the loop"])
def test_wherever_a_task_is_a_cancellation_has_one_outcome(how, threads):
    """T85a. {not started, running, waiting, in cleanup, shielded} x who cancels."""
    for where, outcome in OUTCOMES.items():
        cell = Cell(where, how)
        match how:
            case "group error":
                with pytest.raises(ExceptionGroup) as caught:
                    run(cell.main, threads=threads, clock=cell.clock)
                assert [repr(error) for error in caught.value.exceptions[0].exceptions] == ["KeyError('sibling')"]
                del caught
            case "stop of the loop":
                with pytest.raises(LoopStopped):
                    run(cell.main, threads=threads, clock=cell.clock)
            case _:
                run(cell.main, threads=threads, clock=cell.clock)
        assert cell.said == outcome, where
        assert cell.scope.cancelled_caught == (how in {"another task", "another thread", "deadline"}), where
