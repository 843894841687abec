"""What a type checker makes of pooled coroutines. Checked by mypy (`make lint`), never run."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, assert_type

import manyhands as mh
from manyhands.coroutines import (
    TIMEOUT,
    BasePool,
    CoroutinePool,
    CoroutineStats,
    TaskId,
    Timeout,
    Wait,
    notify,
    running,
    task_local,
    wait,
    wait_until,
)


class Service:
    def now(self) -> float:
        return 0.0

    def add_timer(self, delay: float, interval: float, callback: object) -> int:
        return 1


async def waits(pool: CoroutinePool, base: BasePool) -> None:
    assert_type(await wait(1), int)
    assert_type(await pool.wait(interval=1.5), int)
    answer = await wait("event", 1)
    assert_type(answer, tuple[Any, ...] | Timeout)
    if answer is not TIMEOUT:
        assert_type(answer, tuple[Any, ...])
    assert_type(await base.wait("event"), tuple[Any, ...] | Timeout)
    assert_type(await wait_until(lambda: "true"), str)
    assert_type(running(), TaskId)
    task_local.set("key", 1)


def steps() -> Generator[Wait[Any], Any, None]:
    assert_type((yield from wait(1)), int)
    yield wait("event", None)


def pools(loop: mh.EventLoop) -> None:
    pool = CoroutinePool(loop, initial=1)
    base = BasePool(now=loop.now)
    assert_type(pool.work(waits, pool, base), TaskId)
    assert_type(CoroutinePool(time_service=Service()).work(steps), TaskId)
    assert_type(pool.notify(5, "event", 1, 2), bool)
    assert_type(notify(base.work(print), "event"), bool)
    assert_type(pool.stats(), CoroutineStats)
    assert_type(base.check_timeout(), tuple[float | None, int])
    with pool as entered:
        assert_type(entered, CoroutinePool)
