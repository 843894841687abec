"""What tests of tasks share: how many threads run them, and what happens in which order."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import manyhands as mh
from manyhands.testing import MockClock
from support import LONG

on_threads = pytest.mark.parametrize("threads", [1, 4])
"""The same with one thread and with four."""


def run(function: Callable[..., Any], *args: Any, threads: int = 1, **options: Any) -> Any:
    """`mh.run`, which a test must not wait for in vain: a program that hangs is stopped after LONG."""
    loops: list[mh.EventLoop] = []
    late: list[str] = []

    def stop() -> None:
        for loop in loops:
            late.append(loop.dump())
            loop.request_stop()

    limit = threading.Timer(LONG, stop)

    async def watched() -> Any:
        loops.append(mh.current_task().group.owner)
        return await function(*args)

    limit.daemon = True
    limit.start()
    try:
        return mh.run(watched, threads=threads, **options)
    finally:
        limit.cancel()
        limit.join()
        loops.clear()
        if late:
            raise TimeoutError(f"the program did not end within {LONG} s: {late[0]}")


def run_jumping(function: Callable[..., Any], *args: Any, threads: int = 1) -> Any:
    """`run` on a clock that moves by itself."""
    return run(function, *args, threads=threads, clock=MockClock(autojump=True))


async def cancelled_here(awaitable: Awaitable[Any]) -> bool:
    """Whether the await raises Cancelled, which goes on to nobody."""
    try:
        await awaitable
    except mh.errors.Cancelled:
        return True
    return False


async def fail_with(error: BaseException) -> None:
    """Fail after others had their turn."""
    await mh.checkpoint()
    raise error
