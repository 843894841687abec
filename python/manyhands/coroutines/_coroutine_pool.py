"""CoroutinePool: coroutines that an event loop, or any time service, resumes."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, overload

from manyhands import _core
from manyhands._loop import EventLoop
from manyhands.coroutines._pool import Pool
from manyhands.coroutines._roster import Logger, Roster
from manyhands.coroutines._service import ServiceQueue, TimeService
from manyhands.coroutines._task import Queue
from manyhands.coroutines._wait import Timeout, Wait, wait, wait_until

__all__ = ["CoroutinePool"]


class CoroutinePool(Pool):
    """Coroutines that wait for times and for each other's events, on the threads of a loop.

    ```python
    pool = CoroutinePool(loop)

    async def greet(name):
        await wait(0.1)
        print("hello", name)

    pool.work(greet, "world")
    ```

    Args:
        loop: The loop on whose joined threads they run. Each has a strand: one thread at a time is inside it, different ones
            run on different threads.
        time_service: Instead of a loop, anything with `now()` and `add_timer(delay, interval, callback)`: see `TimeService`.
        initial: Slots to make at once. A slot is what the pool reuses: a strand and the storage of `task_local`.
        grow_by: How many slots are made when one is needed and none is idle, within `limit` and `idle_limit`.
        limit: How many coroutines there may be at a time. Each costs some 50 bytes from the beginning.
        idle_limit: How many slots may wait for a coroutine; what is more is dropped when its coroutine ends.
        logger: Where errors of coroutines go; None for `manyhands.coroutines`.

    Raises:
        TypeError: neither or both of `loop` and `time_service`, or one that is none.
        ValueError: a number that makes no sense.
        LoopClosed: the loop was closed.

    Threads: every method may be called from any thread; `work` and `notify` also by finalizers. Closing the loop closes the
    pool, and runs what cleanup is left on the closing thread.
    """

    def __init__(
        self,
        loop: EventLoop | None = None,
        *,
        time_service: TimeService | None = None,
        initial: int = 0,
        grow_by: int = 10,
        limit: int = 1000,
        idle_limit: int = 100,
        logger: Logger | None = None,
    ) -> None:
        self._roster = Roster(
            _queues(loop, time_service),
            polls=True,
            initial=initial,
            grow_by=grow_by,
            limit=limit,
            idle_limit=idle_limit,
            logger=logger,
        )
        if loop is not None:
            _end_with(loop, self._roster)

    @overload
    def wait(self, interval: float, /) -> Wait[int]: ...
    @overload
    def wait(self, *, interval: float) -> Wait[int]: ...
    @overload
    def wait(self, event: object, interval: float | None) -> Wait[tuple[Any, ...] | Timeout]: ...
    def wait(self, *args: Any, **names: Any) -> Wait[Any]:
        """Let other coroutines run: `manyhands.coroutines.wait`."""
        return wait(*args, **names)

    def wait_until(self, condition: Callable[[], Any], *, interval: float = 0.01) -> Wait[Any]:
        """Wait until a condition holds: `manyhands.coroutines.wait_until`."""
        return wait_until(condition, interval=interval)

    def close(self) -> None:
        """Refuse new work, and end every coroutine where it stands. Idempotent.

        A coroutine that waits has GeneratorExit raised there, which runs its `finally` blocks, on its strand, on a joined
        thread; one that has not begun never does; one that runs is closed at its next wait. A cleanup cannot wait. With
        nobody joined they are closed when somebody joins, or by the thread that closes the loop.

        Threads: any; inside a coroutine too.

        Blocks: never; `stats().alive` is 0 when all have ended.
        """
        super().close()


def _end_with(loop: EventLoop, roster: Roster) -> None:
    """Have the loop close what coroutines are left when it is closed. A roster that nobody has any more is not kept for it."""
    ends, key = loop._ends, id(roster)  # noqa: SLF001 - the loop's own seam
    known = weakref.ref(roster, lambda _: ends.pop(key, None))

    def end() -> None:
        roster = known()
        # Of two threads that close the loop one takes the entry: a coroutine must not be closed by both.
        if ends.pop(key, None) is not None and roster is not None:
            roster.close_now()

    ends[key] = end


def _queues(loop: EventLoop | None, service: TimeService | None) -> Callable[[], Queue]:
    """Choose what makes the queues of coroutines."""
    if (loop is None) == (service is None):
        raise TypeError("a CoroutinePool needs a loop or a time_service, and not both")
    if loop is not None:
        if not isinstance(loop, EventLoop):
            raise TypeError(f"loop must be an EventLoop, and got {loop!r}: is it a time_service?")
        loop.now()  # LoopClosed, if it is
        return functools.partial(loop.strand, name="coroutine")
    if isinstance(service, _core.LoopCore):
        raise TypeError(f"{service!r} is a loop: pass it as loop=")
    for name in ("now", "add_timer"):
        if not callable(getattr(service, name, None)):
            raise TypeError(
                f"time_service must have now() and add_timer(delay, interval, callback), and got {service!r}"
            )
    assert service is not None
    return lambda: ServiceQueue(service)
