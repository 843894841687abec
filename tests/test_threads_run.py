"""ThreadedEventLoop in use: `run`, a stop by a worker, the context manager, handlers."""

from __future__ import annotations

import threading

import pytest

import manyhands as mh
from gate import Gate
from manyhands.testing import wait_all_idle
from owned import started, thread_names
from support import LONG, wait_until

READ = mh.Events.READ


# ------------------------------------------------------------------------------------------------------------------ run


def test_run_blocks_until_stop(make_threaded, spawn):
    """T57. `run()` starts, waits, and returns when another thread has stopped the loop."""
    loop = make_threaded(2, name="mill")
    running = spawn(loop.run)
    wait_until(lambda: loop.joined == 2)
    ran = threading.Event()
    loop.post(ran.set)
    assert ran.wait(LONG)
    loop.request_stop()

    assert running.result() is None
    assert thread_names("mh-mill-") == []
    assert loop.joined == 0


def test_run_ends_when_a_handler_stops_the_loop(make_threaded, spawn):
    """T57. A program that decides in a handler that it is done."""
    loop = make_threaded(1)
    loop.post(loop.request_stop)
    assert spawn(loop.run).result() is None


def test_run_can_be_called_again(make_threaded, spawn):
    """T57. After the end of `run()` the loop can be run once more."""
    loop = make_threaded(2)
    for _ in range(3):
        ran: list[int] = []
        loop.post(ran.append, 1)
        loop.post(loop.request_stop)
        spawn(loop.run).result()
    loop.start()
    assert loop.stop(LONG)


RUN_UNTIL_CTRL_C = """
import os, signal, threading
import manyhands as mh

previous = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
loop = mh.ThreadedEventLoop(2, name="mill")
loop.post(lambda: os.kill(os.getpid(), signal.{signal}))
loop.run()
assert loop.joined == 0
assert not [t for t in threading.enumerate() if t.name.startswith("mh-mill-")]
assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == previous
print("ended in order")
"""


def test_run_ends_in_order_at_ctrl_c(subprocess_python):
    """T57. Ctrl-C ends `run()` without a traceback; its signal handlers are put back."""
    done = subprocess_python(RUN_UNTIL_CTRL_C.format(signal="SIGINT"))
    assert (done.returncode, done.stdout) == (0, "ended in order\n"), done.stderr
    assert done.stderr == ""


# --------------------------------------------------------------------------------------------------- stop from a worker


def test_request_stop_from_its_own_thread_is_reaped_later(make_threaded):
    """T58. The thread that asks does not wait for itself; a later stop from outside joins it."""
    loop = make_threaded(2, name="mill")
    started(loop, 2)
    loop.post(loop.request_stop)
    assert loop.wait(LONG)

    assert loop.stop(LONG) is True
    assert thread_names("mh-mill-") == []
    started(loop, 2)


def test_stop_from_its_own_thread_would_deadlock(make_threaded):
    """T58. `stop()` on an owned thread would wait for itself: refused, and the loop goes on."""
    loop = make_threaded(2)
    seen = []
    done = threading.Event()

    def handler() -> None:
        try:
            loop.stop()
        except mh.WouldDeadlock as error:
            seen.append(error)
        done.set()

    started(loop, 2)
    loop.post(handler)
    assert done.wait(LONG)
    assert len(seen) == 1
    assert not loop.stopped
    assert loop.joined == 2


# ------------------------------------------------------------------------------------------------------ context manager


def test_the_context_manager_starts_and_stops():
    """T59. Inside the block the threads serve; after it they have ended."""
    done = threading.Event()
    with mh.ThreadedEventLoop(2, name="mill") as loop:
        assert isinstance(loop, mh.ThreadedEventLoop)
        loop.post(done.set)
        assert done.wait(LONG)
    assert thread_names("mh-mill-") == []
    loop.close()


def test_the_context_manager_stops_and_waits_when_the_body_raises():
    """T59. The error of the body gets out, after the threads have ended."""

    class BodyError(Exception):
        pass

    with pytest.raises(BodyError), mh.ThreadedEventLoop(2, name="mill") as loop:
        wait_until(lambda: loop.joined == 2)
        raise BodyError
    assert thread_names("mh-mill-") == []
    assert loop.joined == 0
    loop.close()


def test_the_context_manager_waits_for_a_handler_when_the_body_raises(spawn):
    """T59. A handler that is inside when the body raises has ended when the block has."""
    ended = []
    with Gate() as gate:

        def handler() -> None:
            gate()
            ended.append(True)

        def body() -> list[bool]:
            try:
                with mh.ThreadedEventLoop(1) as loop:
                    loop.post(handler)
                    gate.wait_entered()
                    spawn(opens_when_stopped, loop)
                    raise KeyError
            except KeyError:
                return list(ended)
            finally:
                loop.close(LONG)

        def opens_when_stopped(loop: mh.ThreadedEventLoop) -> None:
            wait_until(lambda: loop.stopped)
            gate.open()

        assert spawn(body).result() == [True]


def test_the_context_manager_accepts_a_loop_that_was_stopped_inside():
    """T59. A body that stops the loop itself is no error."""
    with mh.ThreadedEventLoop(2) as loop:
        assert loop.stop(LONG)
    loop.close()


# -------------------------------------------------------------------------------------------------------------- handlers


class Echo(mh.ThreadedEventLoop):
    """Sends back what comes, and remembers what it was called with."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.seen: list[tuple] = []

    def handle_events(self, watch, events) -> None:
        watch.source.send(watch.source.recv(100))
        self.seen.append((watch, events, threading.current_thread().name))


def test_a_subclass_handles_the_events(make_threaded, pair):
    """A descriptor that is added without a handler goes to the subclass's `handle_events`."""
    loop = make_threaded(2, cls=Echo, name="mill")
    a, b = pair()
    started(loop, 2)
    watch = loop.add(a, READ)
    b.send(b"hello")
    wait_all_idle(loop)

    assert b.recv(100) == b"hello"
    ((seen_watch, events, name),) = loop.seen
    assert seen_watch is watch
    assert events == READ
    assert name.startswith("mh-mill-")


def test_the_handler_given_to_the_loop_handles_the_events(make_threaded, pair):
    """`handler=` is called as a watch's own handler is: with the watch and the events."""
    seen = []

    def handler(watch, events) -> None:
        seen.append((watch.source.recv(100), events))

    loop = make_threaded(1, handler)
    a, b = pair()
    started(loop, 1)
    loop.add(a, READ)
    b.send(b"hello")
    wait_all_idle(loop)

    assert seen == [(b"hello", READ)]


def test_a_handler_of_the_watch_goes_before_the_loops_own(make_threaded, pair):
    """A handler that is given to `add` is the one that is called."""
    seen = []
    loop = make_threaded(1, handler=lambda watch, _events: seen.append(("loop", watch.source.recv(100))))
    a, b = pair()
    started(loop, 1)
    loop.add(a, READ, lambda watch, _events: seen.append(("watch", watch.source.recv(100))))
    b.send(b"hello")
    wait_all_idle(loop)

    assert seen == [("watch", b"hello")]


def test_without_any_handler_add_is_refused(make_threaded, pair):
    """Nobody would handle the events: TypeError at the call, and nothing stays registered."""
    loop = make_threaded(1)
    a, _b = pair()
    with pytest.raises(TypeError, match="handler"):
        loop.add(a, READ)
    assert loop.stats().watches == 0
