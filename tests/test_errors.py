"""What an error costs, what leaves the join, and what a callback may do."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

import manyhands as mh
from manyhands.testing import MockClock, wait_all_idle
from oops import oops
from support import LONG, wait_until

# -- an error costs its own ------------------------------------------------------------------------


def test_a_handler_that_raises_costs_its_watch(make_loop, pair):
    """T92. `on_error` is told once, the watch is removed with HANDLER_ERROR, its descriptor stays open."""
    reports: list[mh.ErrorReport] = []
    ends: list[mh.RemovalReason] = []
    loop = make_loop(on_error=reports.append)
    a, b = pair()
    watch = loop.add(a, mh.Events.READ, oops, on_removed=lambda watch, reason: ends.append(reason))
    b.send(b"x")
    loop.join(until_idle=True)
    loop.join(until_idle=True)
    assert len(reports) == 1
    assert ends == [mh.RemovalReason.HANDLER_ERROR]
    assert watch.removed
    assert loop.get(a) is None
    assert a.recv(10) == b"x"


def test_a_handler_that_raises_does_not_cost_the_others(make_loop, joined, pair):
    """T92. Other watches, messages and threads are unaffected, and no thread leaves its join."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append, handover=0)
    bad, bad_peer = pair()
    good, good_peer = pair()
    received: list[bytes] = []
    loop.add(bad, mh.Events.READ, oops)
    loop.add(good, mh.Events.READ, lambda watch, events: received.append(good.recv(100)))
    with joined(loop, 2):
        bad_peer.send(b"x")
        wait_all_idle(loop)
        good_peer.send(b"still here")
        wait_all_idle(loop)
        assert loop.joined == 2
    assert received == [b"still here"]
    assert len(reports) == 1


@pytest.mark.parametrize("whose", ["watch", "loop"])
def test_a_hook_that_returns_keep_keeps_the_watch(make_loop, pair, whose):
    """T92. With `mh.KEEP` the handler is called again for the next event."""
    reports: list[mh.ErrorReport] = []

    def keep(report: mh.ErrorReport) -> object:
        a.recv(100)
        reports.append(report)
        return mh.KEEP

    loop = make_loop(on_error=keep if whose == "loop" else None)
    a, b = pair()
    watch = loop.add(a, mh.Events.READ, oops, on_error=keep if whose == "watch" else None)
    for _ in range(3):
        b.send(b"x")
        loop.join(until_idle=True)
    assert len(reports) == 3
    assert not watch.removed


def test_a_kept_watch_that_stays_ready_is_called_again(make_loop, pair):
    """T92. Keeping is re-arming: the event that was not consumed is not lost."""
    reports: list[mh.ErrorReport] = []

    def keep_twice(report: mh.ErrorReport) -> object:
        reports.append(report)
        return mh.KEEP if len(reports) < 3 else None

    loop = make_loop(on_error=keep_twice)
    a, b = pair()
    watch = loop.add(a, mh.Events.READ, oops)
    b.send(b"x")
    loop.join(until_idle=True)
    assert len(reports) == 3
    assert watch.removed


@pytest.mark.parametrize("how", ["post", "post_urgent"])
def test_a_message_that_raises_costs_only_itself(make_loop, how):
    """T92. The next message of its strand runs."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)
    strand = loop.strand()
    ran: list[int] = []
    getattr(strand, how)(oops)
    strand.post(ran.append, 1)
    loop.post(oops)
    loop.join(until_idle=True)
    assert ran == [1]
    assert [report.source for report in reports] == ["message", "message"]
    assert strand.state is mh.StrandState.ACTIVE


@pytest.mark.parametrize("answer", [None, mh.KEEP])
def test_a_periodic_timer_that_raises_ends_unless_it_is_kept(make_loop, answer):
    """T92. A timer that raises costs itself; `mh.KEEP` keeps it."""
    clock = MockClock()
    reports: list[mh.ErrorReport] = []

    def hook(report: mh.ErrorReport) -> object:
        reports.append(report)
        return answer

    loop = make_loop(clock=clock, on_error=hook)
    timer = loop.call_every(1, oops)
    for _ in range(3):
        clock.advance(1)
        loop.join(until_idle=True)
    assert len(reports) == (3 if answer is mh.KEEP else 1)
    assert timer.active is (answer is mh.KEEP)


def test_a_timer_that_raises_does_not_cost_the_others(make_loop):
    """T92. Another timer of the same strand fires in its turn."""
    clock = MockClock()
    reports: list[mh.ErrorReport] = []
    loop = make_loop(clock=clock, on_error=reports.append)
    strand = loop.strand()
    ran: list[int] = []
    strand.call_later(1, oops)
    strand.call_later(2, ran.append, 1)
    clock.advance(3)
    loop.join(until_idle=True)
    assert ran == [1]
    assert len(reports) == 1


def test_an_on_removed_that_raises_is_reported_and_costs_nothing_else(make_loop, pair):
    """T92. A final callback that raises: the watch is gone all the same, the other final callback still comes."""
    reports: list[mh.ErrorReport] = []
    ends: list[mh.RemovalReason] = []
    loop = make_loop(on_error=reports.append)
    a, _ = pair()
    watch = loop.add(a, mh.Events.READ, print, on_removed=oops)
    watch.remove(on_removed=lambda watch, reason: ends.append(reason))
    loop.join(until_idle=True)
    assert ends == [mh.RemovalReason.REMOVED]
    assert [report.source for report in reports] == ["on_removed"]
    assert loop.get(a) is None


def test_an_on_closed_that_raises_is_reported(make_loop):
    """T92. So is the final callback of a strand."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)
    strand = loop.strand()
    strand.close(on_closed=oops)
    loop.join(until_idle=True)
    assert [report.source for report in reports] == ["on_closed"]
    assert strand.state is mh.StrandState.CLOSED


def test_a_final_callback_that_raises_while_the_loop_is_closed_does_not_keep_it_open(make_loop, pair):
    """T92. `close` pays every callback it owes, the ones after the error too, and the loop is closed."""
    reports: list[mh.ErrorReport] = []
    ends: list[int] = []
    loop = make_loop(on_error=reports.append)
    socks = [pair() for _ in range(3)]
    for a, _ in socks:
        loop.add(a, mh.Events.READ, print, on_removed=lambda watch, reason: ends.append(1) or oops())
    loop.close()
    assert loop.closed
    assert len(ends) == 3
    assert len(reports) == 3


# -- errors that are no Exception ------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("source", ["watch", "message", "timer"])
def test_keyboard_interrupt_and_system_exit_leave_the_join_and_the_loop_can_be_used(make_loop, pair, source, error):
    """FAULT 8. They leave the `join` they were raised in, the books are straight, the watch stays."""
    clock = MockClock()
    reports: list[mh.ErrorReport] = []
    loop = make_loop(clock=clock, on_error=reports.append)
    a, b = pair()
    raised: list[bool] = []

    def leave(*_: object) -> None:
        if not raised:
            raised.append(True)
            raise error("bye")

    watch = loop.add(a, mh.Events.READ, leave)
    if source == "watch":
        b.send(b"x")
    elif source == "message":
        loop.post(leave)
    else:
        loop.call_later(1, leave)
        clock.advance(1)
    with pytest.raises(error, match="bye"):
        loop.join(timeout=LONG)
    assert reports == []
    assert loop.joined == 0
    assert not watch.removed
    assert not loop.stopped
    ran: list[int] = []
    loop.post(ran.append, 1)
    assert loop.join(max_handlers=2 if source == "watch" else 1, timeout=LONG) >= 1
    loop.run_ready()
    assert ran == [1]


@pytest.mark.parametrize("error", [GeneratorExit, asyncio.CancelledError])
def test_another_base_exception_is_reported_like_an_error(make_loop, pair, error):
    """FAULT 8. GeneratorExit and CancelledError are reported; the join goes on."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)
    a, b = pair()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        raise error

    watch = loop.add(a, mh.Events.READ, handler)
    b.send(b"x")
    ran: list[int] = []
    loop.join(until_idle=True)
    loop.post(ran.append, 1)
    loop.join(until_idle=True)
    assert [type(report.error) for report in reports] == [error]
    assert watch.removed
    assert ran == [1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_in_a_joined_worker_thread_they_are_raised_by_its_join_and_the_others_go_on(make_loop, spawn, error):
    """FAULT 8. In a joined thread that is not the main one: raised by `join` there, never lost."""
    loop = make_loop(handover=0)

    def leave() -> None:
        raise error("bye")

    def join() -> str:
        try:
            loop.join()
        except error as caught:
            return f"raised {caught}"
        return "stopped"

    crew = [spawn(join) for _ in range(3)]
    wait_until(lambda: loop.joined == 3)
    loop.post(leave)
    wait_until(lambda: loop.joined == 2)
    ran = threading.Event()
    loop.post(ran.set)
    assert ran.wait(LONG)
    loop.request_stop()
    assert sorted(thread.result() for thread in crew) == ["raised bye", "stopped", "stopped"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_in_an_owned_thread_they_stop_the_loop_and_are_raised_by_its_stop(error):
    """FAULT 8. Nobody else could be told: `stop()` of the loop that owns the threads raises it, once."""

    def leave() -> None:
        raise error("bye")

    loop = mh.ThreadedEventLoop(threads=2, name="owner")
    try:
        loop.start()
        loop.post(leave)
        wait_until(lambda: loop.stopped)  # before anybody has come to the join, nobody is joined either
        wait_until(lambda: loop.joined == 0)
        with pytest.raises(error, match="bye"):
            loop.stop()
        assert loop.stop() is True
    finally:
        loop.close()


# -- hooks that come back into the loop ------------------------------------------------------------


def use_everything(loop: mh.EventLoop, sock: object, ran: list[str]) -> None:
    """Call what a hook may call, on the loop it is called from."""
    watch = loop.add(sock, mh.Events.READ, print)
    watch.modify(mh.Events.READ | mh.Events.WRITE)
    watch.pause()
    watch.resume()
    assert loop.get(sock) is watch
    watch.remove()
    strand = loop.strand()
    strand.post(ran.append, "strand")
    loop.post(ran.append, "loop")
    loop.post_urgent(ran.append, "urgent")
    loop.call_later(0, ran.append, "timer")
    loop.call_later(60, print).cancel()
    loop.stats()
    loop.dump()


class WhenCollected:
    """Calls something when it is collected. (3.13t never frees a class, so none may hold a loop: no local classes here.)"""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def __del__(self) -> None:
        self._call()


class CallingHandler(logging.Handler):
    """Calls something for each record."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self._call = call

    def emit(self, record: logging.LogRecord) -> None:
        self._call()


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("where", ["on_error", "logging handler", "__del__", "on_removed"])
def test_what_the_loop_calls_back_may_use_the_loop(make_loop, joined, pair, threads, where):
    """FAULT 32. No lock of the core is held while Python runs: the hook calls add, remove, post and dump."""
    ran: list[str] = []
    used = threading.Event()

    def use(*_: object) -> None:
        use_everything(loop, spare, ran)
        used.set()

    loop = make_loop(on_error=use if where == "on_error" else None, handover=0)
    spare, _ = pair()
    a, b = pair()
    logger = logging.getLogger("manyhands.loop")
    handler = CallingHandler(use)
    if where == "logging handler":
        logger.addHandler(handler)
        logger.propagate = False
    try:
        with joined(loop, threads):
            if where == "on_removed":
                loop.add(a, mh.Events.READ, print, on_removed=use).remove()
            elif where == "__del__":
                loop.post(
                    id, WhenCollected(use)
                )  # the loop is the last that knows it, and drops it when the message has run
            else:
                loop.add(a, mh.Events.READ, oops)
                b.send(b"x")
            wait_until(
                used.is_set
            )  # looking, not sleeping: without a GIL garbage goes when the thread that made it runs
            wait_all_idle(loop)
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    assert sorted(ran) == ["loop", "strand", "timer", "urgent"]


def test_garbage_of_messages_that_never_ran_may_use_the_loop_while_it_closes(make_loop, logged):
    """FAULT 32. `close` drops what is left with no lock held: its `__del__` gets a clear error, no deadlock."""
    told: list[str] = []

    def post() -> None:
        try:
            loop.post(print)
        except mh.LoopClosed:
            told.append("closed")

    loop = make_loop()
    loop.post(print, WhenCollected(post))
    with logged.at_level(logging.CRITICAL, "manyhands"):
        loop.close()
    assert told == ["closed"]
