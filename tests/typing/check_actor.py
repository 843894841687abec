"""What a type checker makes of actors. Checked by mypy (`make lint`), never run.

A message is any value, and so is an answer: `process` says what it takes, by its own annotation.
"""

from __future__ import annotations

import concurrent.futures
from typing import Any, assert_type

import manyhands as mh


class Counter(mh.Actor):
    def __init__(self, loop: mh.EventLoop, step: int) -> None:
        super().__init__(loop, name="counter", max_pending=None)
        self._step = step

    def process(self, message: int) -> int:
        return message + self._step

    def on_start(self) -> None: ...

    def on_failure(self, error: BaseException, message: object) -> object:
        return mh.STOP

    def on_stop(self) -> None: ...


def actors(loop: mh.EventLoop) -> None:
    counter = Counter(loop, 2)
    assert_type(counter.ask(1), mh.Reply)
    assert_type(counter.wait(1.5), bool)
    assert_type(counter.stopped, bool)
    assert_type(counter.pending, int)
    assert_type(counter.strand, mh.Strand)
    assert_type(counter.name, str)
    assert_type(counter.loop, mh.EventLoop)
    counter.send("anything")
    counter.start()
    counter.stop()
    counter.stop(drain=True)

    counter.stop(True)  # type: ignore[call-arg]
    counter.wait("1")  # type: ignore[arg-type]
    mh.Actor("loop")  # type: ignore[arg-type]
    mh.Actor(loop, "name")  # type: ignore[call-arg]


def replies(reply: mh.Reply) -> None:
    assert_type(reply.result(1), Any)
    assert_type(reply.exception(), BaseException | None)
    assert_type(reply.cancel(), bool)
    future: concurrent.futures.Future[int] = reply
    concurrent.futures.wait([reply, future])


async def awaits(counter: Counter) -> None:
    assert_type(await counter.ask(1), Any)
