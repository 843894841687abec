"""Everything that a task can wait for between tasks, behind one face: for the product with the moments of a cancellation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import manyhands as mh
from manyhands.errors import Cancelled, WouldBlock
from support import LONG

on_threads = pytest.mark.parametrize("threads", [1, 4], ids=["1 thread", "4 threads"])


def run(function: Callable[..., Any], *args: Any, threads: int = 1) -> Any:
    """`mh.run`, with a limit for what hangs if the code is wrong."""

    async def limited() -> Any:
        with mh.fail_after(LONG):
            return await function(*args)

    return mh.run(limited, threads=threads)


async def until(predicate: Callable[[], object]) -> None:
    """Let others run until it holds."""
    while not predicate():
        await mh.checkpoint()


class Subject:
    """Something to wait for. It is made so that `wait()` has to wait until `decide()`."""

    async def prepare(self) -> None: ...

    def waiting(self) -> int:
        raise NotImplementedError

    async def wait(self) -> Any:
        raise NotImplementedError

    def decide(self) -> None:
        """Do what the first in line waits for."""

    def check(self, *, taken: bool, decided: bool) -> None:
        """Nothing is lost, and nothing was done twice."""


class LockSubject(Subject):
    def __init__(self) -> None:
        self.lock = mh.Lock()

    async def prepare(self) -> None:
        await self.lock.acquire()

    def waiting(self) -> int:
        return self.lock.statistics().tasks_waiting

    async def wait(self) -> None:
        await self.lock.acquire()
        self.lock.release()

    def decide(self) -> None:
        self.lock.release()

    def check(self, *, taken: bool, decided: bool) -> None:
        if not decided:
            self.lock.release()
        assert self.lock.statistics() == mh.LockStatistics(locked=False, owner=None, tasks_waiting=0)
        self.lock.acquire_nowait()
        self.lock.release()


class SemaphoreSubject(Subject):
    def __init__(self) -> None:
        self.semaphore = mh.Semaphore(0, max_value=1)

    def waiting(self) -> int:
        return self.semaphore.statistics().tasks_waiting

    async def wait(self) -> None:
        await self.semaphore.acquire()

    def decide(self) -> None:
        self.semaphore.release()

    def check(self, *, taken: bool, decided: bool) -> None:
        assert self.semaphore.value == decided - taken


class LimiterSubject(Subject):
    def __init__(self) -> None:
        self.limiter = mh.CapacityLimiter(1)
        self.limiter.acquire_on_behalf_of_nowait("first")

    def waiting(self) -> int:
        return self.limiter.statistics().tasks_waiting

    async def wait(self) -> None:
        await self.limiter.acquire_on_behalf_of("second")

    def decide(self) -> None:
        self.limiter.release_on_behalf_of("first")

    def check(self, *, taken: bool, decided: bool) -> None:
        borrowers = ("second",) if taken else () if decided else ("first",)
        assert self.limiter.statistics() == mh.CapacityLimiterStatistics(len(borrowers), 1, borrowers, 0)
        assert self.limiter.available_tokens == 1 - len(borrowers)


class ConditionSubject(Subject):
    """The waiter takes the lock again whatever happens, so the director notifies under it and lets go at once."""

    def __init__(self) -> None:
        self.condition = mh.Condition()

    def waiting(self) -> int:
        return 0 if self.condition.locked() else self.condition.statistics().tasks_waiting

    async def wait(self) -> None:
        async with self.condition:
            await self.condition.wait()

    def decide(self) -> None:
        self.condition.acquire_nowait()
        self.condition.notify()
        self.condition.release()

    def check(self, *, taken: bool, decided: bool) -> None:
        free = mh.LockStatistics(locked=False, owner=None, tasks_waiting=0)
        assert self.condition.statistics() == mh.ConditionStatistics(0, free)


class EventSubject(Subject):
    def __init__(self) -> None:
        self.event = mh.Event()

    def waiting(self) -> int:
        return self.event.waiting

    async def wait(self) -> None:
        await self.event.wait()

    def decide(self) -> None:
        self.event.set()

    def check(self, *, taken: bool, decided: bool) -> None:
        assert self.event.waiting == 0


class ReceiveSubject(Subject):
    room = 1

    def __init__(self) -> None:
        self.send, self.receive = mh.create_memory_object_stream[str](self.room)

    def waiting(self) -> int:
        return self.send.statistics().tasks_waiting_receive

    async def wait(self) -> None:
        assert await self.receive.receive() == "item"

    def decide(self) -> None:
        self.send.send_nowait("item")

    def check(self, *, taken: bool, decided: bool) -> None:
        stays = decided and not taken
        assert self.send.statistics() == mh.MemoryObjectStreamStatistics(int(stays), self.room, 1, 1, 0, 0)
        if stays:
            assert self.receive.receive_nowait() == "item"
        self.send.close()
        self.receive.close()


class SendSubject(Subject):
    room = 0

    def __init__(self) -> None:
        self.send, self.receive = mh.create_memory_object_stream[str](self.room)
        for _ in range(self.room):
            self.send.send_nowait("before")

    def waiting(self) -> int:
        return self.send.statistics().tasks_waiting_send

    async def wait(self) -> None:
        await self.send.send("item")

    def decide(self) -> None:
        try:
            assert self.receive.receive_nowait() == ("before" if self.room else "item")
        except WouldBlock:
            assert not self.room

    def check(self, *, taken: bool, decided: bool) -> None:
        left = self.room - decided + taken if self.room else 0
        assert self.send.statistics() == mh.MemoryObjectStreamStatistics(left, self.room, 1, 1, 0, 0)
        self.send.close()
        self.receive.close()


class FullSubject(SendSubject):
    room = 1


SUBJECTS = {
    "Lock": LockSubject,
    "Semaphore": SemaphoreSubject,
    "CapacityLimiter": LimiterSubject,
    "Condition": ConditionSubject,
    "Event": EventSubject,
    "receive": ReceiveSubject,
    "send": SendSubject,
    "send into a full buffer": FullSubject,
}

MOMENTS = {
    "before it waits": "cancel, wait",
    "while it waits": "wait, cancel",
    "decided, then cancelled": "wait, decide, cancel",
    "cancelled, then decided": "wait, cancel, decide",
}
"""What happens, in this order, and nothing lets the waiting task run between the last two."""


async def play(subject: Subject, story: str) -> bool:
    """Play one cell of the product; whether the waiting task got what it waited for."""
    scope = mh.CancelScope()
    outcome: list[str] = []

    async def waiter(begin: mh.Event) -> None:
        with scope:
            if story.startswith("wait"):
                begin.set()
            try:
                await subject.wait()
            except Cancelled:
                # By the time that this is seen the line has no trace of it.
                outcome.append("cancelled" if subject.waiting() == 0 else "still in line")
                raise
            outcome.append("taken")

    await subject.prepare()
    async with mh.create_task_group() as group:
        begin = mh.Event()
        steps: dict[str, Callable[[], object]] = {"cancel": scope.cancel, "decide": subject.decide}
        for step in story.split(", "):
            if step != "wait":
                steps[step]()
                continue
            group.start_soon(waiter, begin)
            if story.startswith("wait"):
                await begin.wait()
                await until(subject.waiting)
    assert outcome in (["cancelled"], ["taken"]), outcome
    taken = outcome == ["taken"]
    assert scope.cancelled_caught is not taken
    subject.check(taken=taken, decided="decide" in story)
    return taken
