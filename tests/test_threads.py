"""ThreadedEventLoop: the loop that owns its threads; how they start, stop and are."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

import manyhands as mh
from gate import Gate
from owned import started, thread_names
from support import LONG, wait_until


def nothing(*_args: object) -> None:
    pass


def kernel_names() -> list[str]:
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().rstrip("\n"))
        except OSError:  # a thread of somebody else that has just ended
            continue
    return names


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
    wait_until(lambda: any(name.startswith("mh-mü") for name in set(kernel_names()) - before))
    (name,) = [name for name in set(kernel_names()) - before if name.startswith("mh-mü")]
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


# ---------------------------------------------------------------------------------------- what an owned thread is like


def test_owned_threads_leave_signals_to_the_main_thread_and_block_none(make_threaded):
    """A child process inherits the mask of the thread that starts it: with signals blocked it could not be ended."""
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
    assert masks == [mine]


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
