"""What a type checker makes of loops and watches. Checked by mypy (`make lint`), never run.

A line with `# type: ignore[...]` is one that must be refused: mypy complains of an ignore that is not needed.
"""

from __future__ import annotations

import socket
from typing import Any, assert_type

import manyhands as mh
from manyhands._events import Answer
from manyhands.testing import Hold, MockClock, hold, live_objects, points_compiled, wait_all_idle


def serve(watch: mh.Watch, events: mh.Events) -> None: ...


def gone(watch: mh.Watch, reason: mh.RemovalReason) -> None: ...


def keep(report: mh.ErrorReport) -> object:
    assert_type(report.loop, mh.EventLoop)
    assert_type(report.source, str)
    assert_type(report.watch, mh.Watch | None)
    assert_type(report.timer, mh.Timer | None)
    assert_type(report.events, mh.Events | None)
    assert_type(report.error, BaseException)
    return mh.KEEP


def loops() -> None:
    loop = mh.EventLoop(name="brook", poller="select", clock=MockClock(), on_error=keep, slow_handler=0.5, handover=0)
    assert_type(loop.name, str)
    assert_type(loop.joined, int)
    assert_type(loop.stopped, bool)
    assert_type(loop.closed, bool)
    assert_type(loop.now(), float)
    assert_type(loop.join(), int)
    assert_type(loop.join(1, until_idle=True, wait_restart=True, max_handlers=3), int)
    assert_type(loop.run_ready(), int)
    assert_type(loop.stop(2.5, drain=True), bool)
    assert_type(loop.wait(0), bool)
    assert_type(loop.stats(), mh.LoopStats)
    assert_type(loop.stats().handler_seconds, tuple[tuple[float, int], ...])
    assert_type(loop.dump(), str)
    loop.request_stop(drain=True)
    loop.restart()
    loop.close(timeout=1.0)
    with mh.EventLoop() as entered:
        assert_type(entered, mh.EventLoop)

    mh.EventLoop("brook")  # type: ignore[call-arg]  # options are keywords
    mh.EventLoop(clock=0.0)  # type: ignore[arg-type]
    loop.name = "creek"  # type: ignore[misc]  # it cannot be set
    loop.join(until_idle=1)  # type: ignore[arg-type]


def watches(loop: mh.EventLoop, connection: socket.socket) -> None:
    watch = loop.add(connection, mh.Events.READ | mh.Events.WRITE, serve)
    assert_type(watch, mh.Watch)
    loop.add(0, mh.Events.READ, serve, strand=loop.strand(), name="in", close=True, on_error=keep, on_removed=gone)
    assert_type(loop.get(connection), mh.Watch | None)
    assert_type(watch.fd, int)
    assert_type(watch.source, Any)
    assert_type(watch.name, str)
    assert_type(watch.events, mh.Events)
    assert_type(watch.strand, mh.Strand)
    assert_type(watch.paused, bool)
    assert_type(watch.removed, bool)
    assert_type(watch.pause(timeout=1), bool)
    assert_type(watch.remove(on_removed=gone, close=True, timeout=None), bool)
    watch.modify(mh.Events.WRITE)
    watch.resume()

    loop.add("0", mh.Events.READ, serve)  # type: ignore[arg-type]  # no descriptor
    loop.add(0, 1, serve)  # type: ignore[arg-type]  # no Events
    loop.add(0, mh.Events.READ, print, on_removed=serve)  # type: ignore[arg-type]  # the second argument is a reason
    loop.add(0, mh.Events.READ)  # type: ignore[call-arg]  # only a loop with a handler of its own
    watch.remove(gone)  # type: ignore[call-arg]  # keywords


def threaded() -> None:
    with mh.ThreadedEventLoop(4, serve, name="mill", on_error=keep) as loop:
        assert_type(loop, mh.ThreadedEventLoop)
        assert_type(loop.add(0, mh.Events.READ), mh.Watch)
        loop.add(0, mh.Events.READ, serve, close=True, on_removed=gone)
        loop.start()
        loop.run()
        assert_type(loop.stop(timeout=1), bool)
        loop.add(0, mh.Events.READ, closes=True)  # type: ignore[call-arg]
    mh.ThreadedEventLoop(threads=2, nmae="mill")  # type: ignore[call-arg]
    mh.ThreadedEventLoop(handler=print, threads="2")  # type: ignore[arg-type]


class Subclass(mh.ThreadedEventLoop):
    def handle_events(self, watch: mh.Watch, events: mh.Events) -> None:
        watch.remove()


def signals(loop: mh.EventLoop) -> None:
    watch = loop.on_signal(15, loop_signal)
    assert_type(watch, mh.SignalWatch)
    assert_type(watch.signum, int)
    assert_type(watch.removed, bool)
    watch.remove()
    loop.on_signal(15, loop.request_stop)  # type: ignore[arg-type]  # it is called with the number


def loop_signal(number: int) -> None: ...


def answers() -> None:
    keep_it: Answer = mh.KEEP
    stop_it: Answer = mh.STOP
    assert keep_it is not stop_it
    assert_type(mh.Delay(0.5).seconds, float)


def tools(loop: mh.EventLoop) -> None:
    clock = MockClock(5.0, autojump=True)
    assert_type(clock.now(), float)
    clock.advance(1)
    clock.autojump = False
    assert_type(clock.autojump, bool)
    with hold("poll.enter", after=2) as held:
        assert_type(held, Hold)
        assert_type(held.reached, bool)
        held.wait_reached(timeout=1.0)
        held.release()
    assert_type(points_compiled(), bool)
    assert_type(live_objects(), dict[str, int])
    wait_all_idle(loop, loop, timeout=1.0)


def errors(error: Exception) -> None:
    match error:
        case mh.WatchExists():
            assert_type(error.fd, int)
            assert_type(error.watch, mh.Watch | None)
        case mh.WatchRemoved():
            assert_type(error.reason, mh.RemovalReason)
        case mh.BadDescriptor() | mh.NotPollable():
            assert_type(error.errno, int | None)
            assert_type(error.fd, int)
        case mh.QueueFull():
            assert_type(error.limit, int)
        case mh.ForkedError():
            assert_type(error.parent, int)
        case mh.LoopClosed() | mh.LoopStopped():
            assert_type(error.loop, str)
