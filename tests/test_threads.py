"""ThreadedEventLoop: the loop that owns its threads."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

import manyhands as mh
from gate import Gate
from manyhands.testing import wait_all_idle
from support import LONG, wait_until

READ = mh.Events.READ


def nothing(*_args: object) -> None:
    pass


@pytest.fixture
def make_threaded():
    """Make ThreadedEventLoops (or what `cls` says) that are stopped and closed at the end."""
    made = []

    def make(*args, cls=mh.ThreadedEventLoop, **options) -> mh.ThreadedEventLoop:
        loop = cls(*args, **options)
        made.append(loop)
        return loop

    yield make
    for loop in made:
        if not loop.closed:
            loop.stop(LONG)
            loop.close(LONG)


def thread_names(prefix: str) -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(prefix))


def kernel_names() -> list[str]:
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().rstrip("\n"))
        except OSError:  # a thread of somebody else that has just ended
            continue
    return names


def started(loop: mh.ThreadedEventLoop, count: int) -> None:
    loop.start()
    wait_until(lambda: loop.joined == count)


# ------------------------------------------------------------------------------------------------------- start and stop


def test_start_starts_named_threads_and_returns(make_threaded):
    """T57. Three threads that say whose they are; `start()` does not wait for the end."""
    loop = make_threaded(3, name="mill")
    assert thread_names("mh-mill-") == []
    started(loop, 3)

    assert thread_names("mh-mill-") == ["mh-mill-0", "mh-mill-1", "mh-mill-2"]


def test_the_kernel_knows_the_names(make_threaded):
    """T57. `top -H` and `/proc` show the same names."""
    loop = make_threaded(2, name="mill")
    started(loop, 2)
    wait_until(lambda: {"mh-mill-0", "mh-mill-1"} <= set(kernel_names()))


def test_a_long_name_keeps_its_number_in_the_kernel(make_threaded):
    """T57. The kernel keeps 15 bytes: what is cut is the name, not the number, so that all differ."""
    count = 12
    loop = make_threaded(count, name="a-very-long-name-indeed")
    before = set(kernel_names())
    started(loop, count)

    def ours() -> list[str]:
        return [name for name in kernel_names() if name not in before and name.startswith("mh-a-very")]

    wait_until(lambda: len(ours()) == count)
    names = ours()
    assert len(set(names)) == count
    assert all(len(name.encode()) <= 15 for name in names)
    assert {name.rpartition("-")[2] for name in names} == {str(number) for number in range(count)}
    assert thread_names("mh-a-very-long-name-indeed-")


def test_a_name_that_is_not_ascii_is_cut_at_a_character(make_threaded):
    """T57. Fifteen bytes of UTF-8 are fewer letters; none is cut in the middle."""
    loop = make_threaded(1, name="mühle-übergröße")
    before = set(kernel_names())
    started(loop, 1)
    wait_until(lambda: any(name.startswith("mh-m") for name in set(kernel_names()) - before))
    (name,) = [name for name in set(kernel_names()) - before if name.startswith("mh-m")]
    assert len(name.encode()) <= 15
    assert name.endswith("-0")


def test_messages_run_on_the_owned_threads(make_threaded):
    """T57. What is posted runs there, and nowhere else."""
    loop = make_threaded(2, name="mill")
    ran = []
    done = threading.Event()
    started(loop, 2)
    loop.post(lambda: ran.append(threading.current_thread().name) or done.set())

    assert done.wait(LONG)
    assert ran[0] in ("mh-mill-0", "mh-mill-1")


def test_start_twice_is_refused(make_threaded):
    """T57. A second start raises and adds no thread; the loop goes on."""
    loop = make_threaded(2, name="mill")
    started(loop, 2)
    with pytest.raises(RuntimeError):
        loop.start()
    assert len(thread_names("mh-mill-")) == 2
    done = threading.Event()
    loop.post(done.set)
    assert done.wait(LONG)


def test_stop_joins_the_threads(make_threaded):
    """T57. When `stop()` returned True the threads have ended, not only left the loop."""
    loop = make_threaded(4, name="mill")
    started(loop, 4)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("mh-mill-")]

    assert loop.stop(LONG) is True
    assert not any(thread.is_alive() for thread in threads)
    assert loop.joined == 0
    assert loop.stopped


def test_stop_before_start_is_harmless(make_threaded):
    """FAULT 19. A loop that was stopped before it was started can be started."""
    loop = make_threaded(2)
    assert loop.stop(LONG) is True
    started(loop, 2)
    done = threading.Event()
    loop.post(done.set)
    assert done.wait(LONG)


def test_a_stopped_loop_can_be_started_again(make_threaded):
    """T57. Ten rounds of start and stop on one object; each serves, and none leaves a thread."""
    loop = make_threaded(3, name="mill")
    for _ in range(10):
        started(loop, 3)
        done = threading.Event()
        loop.post(done.set)
        assert done.wait(LONG)
        assert loop.stop(LONG)
        assert thread_names("mh-mill-") == []


def test_what_was_posted_while_stopped_runs_after_the_next_start(make_threaded):
    """T57. A stop in between loses no message."""
    loop = make_threaded(2)
    started(loop, 2)
    assert loop.stop(LONG)
    done = threading.Event()
    loop.post(done.set)
    loop.start()
    assert done.wait(LONG)


def test_a_drain_joins_the_threads_too(make_threaded):
    """T57. `stop(drain=True)` runs what was posted, then the threads end; the next start takes posts again."""
    loop = make_threaded(2, name="mill")
    ran: list[int] = []
    for number in range(100):
        loop.post(ran.append, number)
    loop.start()
    assert loop.stop(LONG, drain=True) is True
    assert sorted(ran) == list(range(100))
    assert thread_names("mh-mill-") == []

    loop.start()
    done = threading.Event()
    loop.post(done.set)
    assert done.wait(LONG)


def test_stop_with_a_timeout_leaves_the_rest_to_the_next_stop(make_threaded):
    """T57. A handler outlasts the timeout: False, nothing is lost track of; the next stop joins the threads."""
    loop = make_threaded(2, name="mill")
    with Gate() as gate:
        loop.start()
        loop.post(gate)
        gate.wait_entered()
        assert loop.stop(0.05) is False
        with pytest.raises(RuntimeError):
            loop.start()
        gate.open()
        assert loop.stop(LONG) is True
    assert thread_names("mh-mill-") == []


def test_if_a_thread_cannot_start_none_is_left_behind(make_threaded, monkeypatch):
    """T57. The third of four threads cannot be had: `start()` raises, the first two end, and a later start works."""
    start = threading.Thread.start
    asked = []

    def failing(thread: threading.Thread, *args: object) -> None:
        if thread.name.startswith("mh-mill-"):
            asked.append(thread.name)
            if len(asked) == 3:
                raise RuntimeError("can't start new thread")
        start(thread, *args)

    loop = make_threaded(4, name="mill")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", failing)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            loop.start()
    assert asked == ["mh-mill-0", "mh-mill-1", "mh-mill-2"]
    assert thread_names("mh-mill-") == []
    assert loop.joined == 0

    started(loop, 4)


@pytest.mark.race
def test_start_races_stop_and_leaves_no_thread(make_threaded, spawn):
    """FAULT 19. Two threads start and stop one loop at will; in the end one stop leaves nothing behind."""
    name = f"race-{threading.get_ident()}"
    loop = make_threaded(2, name=name)
    rounds = 300

    def start() -> None:
        for _ in range(rounds):
            try:
                loop.start()
            except RuntimeError:  # it is started: refused, as promised
                continue

    def stop() -> None:
        for _ in range(rounds):
            loop.stop(LONG)

    threads = [spawn(start), spawn(stop)]
    for thread in threads:
        thread.result(60)
    assert loop.stop(LONG) is True
    assert thread_names(f"mh-{name}-") == []
    assert loop.joined == 0


def test_close_ends_the_threads(make_threaded):
    """T57. `close()` of a started loop stops it first and leaves no thread."""
    loop = make_threaded(2, name="mill")
    started(loop, 2)
    loop.close(LONG)
    assert loop.closed
    assert thread_names("mh-mill-") == []
    with pytest.raises(mh.LoopClosed):
        loop.start()


def test_others_may_join_the_owned_threads(make_threaded, spawn):
    """A loop that owns threads is a loop: a thread of the caller's may help, and leaves at the same stop."""
    loop = make_threaded(2)
    started(loop, 2)
    helping = spawn(loop.join)
    wait_until(lambda: loop.joined == 3)

    assert loop.stop(LONG)
    assert helping.result() == 0


def test_owned_threads_do_not_keep_the_process_alive(subprocess_python):
    """A program that ends without a stop ends."""
    done = subprocess_python(
        "import manyhands as mh\nloop = mh.ThreadedEventLoop(2)\nloop.start()\nprint('end of main')\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "end of main\n"


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


# ---------------------------------------------------------------------------------------- what an owned thread is like


def test_owned_threads_block_signals(make_threaded):
    """Signals are for the main thread: in an owned thread each that a program may get is blocked."""
    loop = make_threaded(1)
    masks = []
    done = threading.Event()

    def look() -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        done.set()

    mine = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    started(loop, 1)
    loop.post(look)
    assert done.wait(LONG)
    wanted = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
    assert wanted <= masks[0], f"not blocked: {wanted - masks[0]}"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mine, "start() changed the mask of its caller"


def test_owned_threads_are_daemons(make_threaded):
    """They never keep a program from ending."""
    loop = make_threaded(2, name="mill")
    started(loop, 2)
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("mh-mill-")]
    assert [thread.daemon for thread in ours] == [True, True]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_an_owned_thread_is_raised_by_stop(make_threaded, error):
    """FAULT 8. SystemExit and KeyboardInterrupt in an owned thread stop the loop and are raised, once, by its stop()."""
    loop = make_threaded(2, name="mill")

    def leave() -> None:
        raise error("the owned thread's own")

    started(loop, 2)
    loop.post(leave)
    wait_until(lambda: loop.stopped)

    with pytest.raises(error, match="the owned thread's own"):
        loop.stop(LONG)
    assert thread_names("mh-mill-") == []
    assert loop.stop(LONG) is True
    started(loop, 2)


def test_an_exit_in_an_owned_thread_is_raised_by_run(make_threaded, spawn):
    """FAULT 8. `run()` ends with what ended its threads."""
    loop = make_threaded(1, name="mill")

    def leave() -> None:
        raise SystemExit(3)

    loop.post(leave)
    with pytest.raises(SystemExit) as caught:
        spawn(loop.run).result()
    assert caught.value.code == 3
    assert thread_names("mh-mill-") == []


def test_an_exit_in_an_owned_thread_is_raised_by_the_context_manager(make_threaded):
    """FAULT 8. The block ends with it."""
    loop = make_threaded(1, name="mill")

    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit), loop:
        loop.post(leave)
        wait_until(lambda: loop.stopped)
    assert thread_names("mh-mill-") == []


# -------------------------------------------------------------------------------------------------------------- numbers


def test_the_default_is_one_thread_with_the_gil_and_one_per_core_without(make_threaded):
    """The interpreter is asked at run time, not the build."""
    loop = make_threaded(name="mill")
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    cores = {1} if gil else {os.cpu_count(), len(os.sched_getaffinity(0))}
    loop.start()
    wait_until(lambda: loop.joined in cores)
    assert len(thread_names("mh-mill-")) in cores


@pytest.mark.parametrize(
    ("threads", "error"), [(0, ValueError), (-1, ValueError), ("2", TypeError), (1.5, TypeError), (True, TypeError)]
)
def test_a_wrong_number_of_threads_is_refused(threads, error):
    """At the call, with what was given."""
    with pytest.raises(error, match=str(threads)):
        mh.ThreadedEventLoop(threads)


def test_a_handler_that_cannot_be_called_is_refused():
    """At the call, not at the first event."""
    with pytest.raises(TypeError, match="5"):
        mh.ThreadedEventLoop(1, 5)


def test_loop_options_are_passed_on(make_threaded):
    """What EventLoop takes, ThreadedEventLoop takes."""
    loop = make_threaded(1, name="mill", poller="poll", slow_handler=1.0, handover=0.0, on_error=nothing)
    assert loop.name == "mill"
    with pytest.raises(TypeError):
        mh.ThreadedEventLoop(1, colour="red")
