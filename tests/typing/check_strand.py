"""What a type checker makes of strands, messages and timers. Checked by mypy (`make lint`), never run.

The arguments of a callback travel with it, so they are checked where they are given.
"""

from __future__ import annotations

from typing import Any, assert_type

import manyhands as mh


def count(number: int, word: str) -> int:
    return number + len(word)


def messages(loop: mh.EventLoop, strand: mh.Strand) -> None:
    for target in (loop, strand):
        target.post(count, 1, "one")
        target.post_urgent(count, 1, "one")
        target.post_terminal()
        target.post_terminal(count, 1, "one")
        assert_type(target.call_later(0.5, count, 1, "one"), mh.Timer)
        assert_type(target.call_at(target_time(loop), count, 1, "one"), mh.Timer)
        assert_type(target.call_every(1, count, 1, "one"), mh.Timer)
    loop.post(lambda: None)
    loop.post(print, 1, "one", None)

    loop.post(count, "one", 1)  # type: ignore[arg-type]
    loop.post(count, 1)  # type: ignore[arg-type]
    loop.post(count(1, "one"))  # type: ignore[arg-type]  # called, not handed over
    strand.post(count, 1, "one", 2)  # type: ignore[arg-type]
    strand.call_later(count, 1)  # type: ignore[arg-type]
    strand.post_terminal(count, 1)  # type: ignore[arg-type]


def target_time(loop: mh.EventLoop) -> float:
    return loop.now() + 1


def strands(loop: mh.EventLoop) -> None:
    strand = loop.strand(name="account", max_pending=10)
    assert_type(strand, mh.Strand)
    assert_type(strand.name, str)
    assert_type(strand.state, mh.StrandState)
    assert_type(strand.pending, int)
    assert_type(strand.pause(timeout=0), bool)
    strand.resume()
    for message in strand.close(on_closed=closed, timeout=1):
        assert_type(message, mh.Message)
        assert_type(message.args, tuple[Any, ...])
        message.callback(*message.args)

    loop.strand("account")  # type: ignore[call-arg]  # keywords
    strand.close(closed)  # type: ignore[call-arg]


def closed(strand: mh.Strand) -> None: ...


def timers(loop: mh.EventLoop) -> None:
    timer = loop.call_every(0.5, tick)
    assert_type(timer.when, float)
    assert_type(timer.active, bool)
    assert_type(timer.cancel(), bool)
    assert {timer: 1}[timer] == 1


def tick() -> object:
    return mh.Delay(2) if mh.Events.READ else mh.STOP
