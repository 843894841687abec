"""Context travels: what runs on a loop sees the context variables of where it was made, and leaks none."""

from __future__ import annotations

import contextvars
import threading

import pytest

import manyhands as mh
from manyhands.testing import MockClock
from support import LONG

POSTERS = 4
EACH = 500


trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="nobody")


@pytest.mark.parametrize(
    "how", ["loop.post", "loop.post_urgent", "strand.post", "strand.post_urgent", "call_later", "strand timer"]
)
def test_a_message_or_timer_sees_the_context_of_where_it_was_made(make_loop, joined, how):
    """T47. Context travels (D13): it is copied where the work is posted, not where it runs."""
    clock = MockClock(autojump=True)
    loop = make_loop(clock=clock)
    strand = loop.strand()
    seen: list[str] = []
    submit = {
        "loop.post": loop.post,
        "loop.post_urgent": loop.post_urgent,
        "strand.post": strand.post,
        "strand.post_urgent": strand.post_urgent,
        "call_later": lambda callback: loop.call_later(1, callback),
        "strand timer": lambda callback: strand.call_later(1, callback),
    }[how]
    ran = threading.Event()

    def look() -> None:
        seen.append(trace.get())
        trace.set("changed by the message")
        ran.set()

    def poster() -> None:
        trace.set("request 7")
        submit(look)
        trace.set("changed after the post")

    contextvars.Context().run(poster)
    with joined(loop):
        assert ran.wait(LONG)
    assert seen == ["request 7"]


def test_what_a_message_sets_in_its_context_is_seen_by_nothing_after_it(make_loop):
    """T47. Each runs in a copy (D13): neither the next message nor the thread that joined keeps a trace."""
    loop = make_loop()
    strand = loop.strand()
    seen: list[str] = []

    def poster() -> None:
        trace.set("outer")
        strand.post(lambda: trace.set("inner"))
        strand.post(lambda: seen.append(trace.get()))
        loop.join(until_idle=True)
        seen.append(trace.get())

    contextvars.Context().run(poster)
    assert seen == ["outer", "outer"]


def test_a_watch_handler_runs_in_the_context_of_its_add(make_loop, pair):
    """T47. A watch's handler runs in the context of its `add` (D13), whoever serves it."""
    loop = make_loop()
    a, b = pair()
    seen: list[str] = []

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        a.recv(100)
        seen.append(trace.get())

    def adder() -> None:
        trace.set("the listener's")
        loop.add(a, mh.Events.READ, handler)

    contextvars.Context().run(adder)
    for _ in range(2):
        b.send(b"x")
        loop.join(until_idle=True)
    assert seen == ["the listener's", "the listener's"]
