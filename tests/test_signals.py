"""Signals: Ctrl-C while main is joined or elsewhere, stops from signal handlers, on_signal, the wake-up descriptor.

Whatever could hit the test runner itself runs in a process of its own; the code of these scripts stands beside the test.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

import manyhands as mh
from manyhands.testing import wait_all_idle
from support import LONG, wait_until

READ = mh.Events.READ

PRELUDE = """
import logging, os, signal, socket, sys, threading, time
import manyhands as mh
from manyhands.testing import wait_all_idle

READ = mh.Events.READ
LONG = 10.0

def wait_until(predicate):
    deadline = time.monotonic() + LONG
    pause = threading.Event()
    while not predicate():
        if time.monotonic() > deadline:
            os.write(2, b"nothing came of it\\n")
            os._exit(99)
        pause.wait(0.001)

def make_loop(**options):
    "A busy machine is no reason for a line about a slow handler."
    return mh.EventLoop(slow_handler=60.0, **options)

def thread(function, *args):
    made = threading.Thread(target=function, args=args, daemon=True)
    made.start()
    return made

def to_process():
    os.kill(os.getpid(), signal.SIGINT)

def to_this_thread():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

def close_without_a_word(loop):
    "Close a loop that still has messages, without the warning about them."
    logging.getLogger("manyhands.loop").disabled = True
    loop.close()

def check_books(loop, workers=0):
    "The loop is as if nothing had happened: counts, messages, another join."
    assert loop.joined == workers, loop.joined
    assert not loop.stopped
    ran = []
    if not workers:
        loop.post(ran.append, 1)
        assert loop.join(until_idle=True) == 1
        assert ran == [1]
    else:
        done = threading.Event()
        loop.post(done.set)
        assert done.wait(LONG)
"""


@pytest.fixture
def script(subprocess_python):
    """Run code behind the prelude; it has to end well and say nothing on standard error."""

    def run(code: str, *, timeout: float = 60) -> str:
        done = subprocess_python(PRELUDE + code, timeout=timeout)
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.stderr == ""
        return done.stdout

    return run


@pytest.fixture
def on_main():
    """Only on the main thread may signal handlers be set."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("needs the main thread")


# ------------------------------------------------------------------------------------------------- KeyboardInterrupt


@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
@pytest.mark.parametrize("send", ["to_process", "to_this_thread"])
def test_ctrl_c_reaches_a_main_thread_that_waits_in_the_poller(script, send, poller):
    """T93. Main is the leader and idle: join raises KeyboardInterrupt, whichever thread the kernel gave the signal to."""
    script(f"""
loop = make_loop(poller={poller!r})
def interrupt():
    wait_until(lambda: loop.joined == 1)
    wait_all_idle(loop)
    {send}()
thread(interrupt)
try:
    loop.join()
except KeyboardInterrupt:
    check_books(loop)
else:
    raise SystemExit("join returned")
loop.close()
""")


@pytest.mark.parametrize("send", ["to_process", "to_this_thread"])
def test_ctrl_c_reaches_a_main_thread_that_is_a_parked_follower(script, send):
    """T93. A worker holds the lead and main is parked: join raises KeyboardInterrupt in main, the worker serves on."""
    script(f"""
loop = make_loop()
worker = thread(loop.join)
wait_until(lambda: loop.joined == 1)
wait_all_idle(loop)
def interrupt():
    wait_until(lambda: loop.joined == 2)
    wait_all_idle(loop)
    {send}()
thread(interrupt)
try:
    loop.join()
except KeyboardInterrupt:
    check_books(loop, workers=1)
else:
    raise SystemExit("join returned")
assert loop.stop(LONG)
worker.join(LONG)
assert not worker.is_alive()
loop.close()
""")


def test_ctrl_c_reaches_main_while_every_worker_is_inside_a_handler(script):
    """T93. The workers that were woken for messages are busy; main has the lead or gets it, and is interrupted."""
    script("""
loop = make_loop(handover=0)
opened = threading.Event()
worker = thread(loop.join)
def handler(entered):
    if threading.current_thread() is threading.main_thread():
        loop.post(handler, entered)     # it is meant for the worker
    else:
        entered.set()
        opened.wait(LONG)
def interrupt():
    wait_until(lambda: loop.joined == 2)
    entered = threading.Event()
    loop.post(handler, entered)
    assert entered.wait(LONG)
    to_this_thread()
thread(interrupt)
try:
    loop.join()
except KeyboardInterrupt:
    opened.set()
    check_books(loop, workers=1)
else:
    raise SystemExit("join returned")
assert loop.stop(LONG)
worker.join(LONG)
loop.close()
""")


def test_ctrl_c_inside_a_handler_leaves_join(script):
    """T93. The handler is interrupted where it is; join raises, and the loop can be used again."""
    script("""
loop = make_loop()
for _ in range(10):
    loop.post(signal.raise_signal, signal.SIGINT)
    try:
        loop.join()
    except KeyboardInterrupt:
        check_books(loop)
    else:
        raise SystemExit("join returned")
loop.close()
""")


def test_ctrl_c_inside_a_handler_that_blocks_leaves_join(script):
    """T93. A handler that waits for something is interrupted too."""
    script("""
loop = make_loop()
entered = threading.Event()
def handler():
    entered.set()
    never = threading.Event()
    while not never.wait(0.05):     # in slices: a signal just before a wait without end is seen after it only
        pass
def interrupt():
    entered.wait(LONG)
    to_process()
thread(interrupt)
loop.post(handler)
try:
    loop.join()
except KeyboardInterrupt:
    check_books(loop)
else:
    raise SystemExit("join returned")
loop.close()
""")


def test_ctrl_c_in_the_handler_of_a_watch_leaves_the_watch(script):
    """T93. The interrupt is nobody's mistake: the watch stays and is served by the next join."""
    script("""
loop = make_loop()
a, b = socket.socketpair()
a.setblocking(False)
got = []
def handler(watch, events):
    if not got:
        got.append("interrupted")
        signal.raise_signal(signal.SIGINT)
    got.append(watch.source.recv(10))
watch = loop.add(a, READ, handler)
b.send(b"x")
try:
    loop.join()
except KeyboardInterrupt:
    pass
else:
    raise SystemExit("join returned")
assert loop.joined == 0
assert not watch.removed
assert loop.get(a) is watch
assert loop.join(until_idle=True) == 1
assert got == ["interrupted", b"x"]
loop.close()
a.close()
b.close()
""")


def test_ctrl_c_while_run_ready_runs_leaves_it(script):
    """T93. `run_ready()` is a join of one tick, also in this."""
    script("""
loop = make_loop()
loop.post(signal.raise_signal, signal.SIGINT)
try:
    loop.run_ready()
except KeyboardInterrupt:
    check_books(loop)
else:
    raise SystemExit("run_ready returned")
loop.close()
""")


@pytest.mark.parametrize("name", ["wait", "stop", "close"])
def test_a_second_ctrl_c_aborts_the_wait_for_a_stop(script, name):
    """FAULT 12. Main waits in wait(), stop() or close() for a handler that does not end: Ctrl-C gets it out."""
    script(f"""
loop = make_loop()
opened = threading.Event()
entered = threading.Event()
worker = thread(loop.join)
loop.post(lambda: (entered.set(), opened.wait(LONG)))
assert entered.wait(LONG)
aborted = threading.Event()
main = threading.get_native_id()
def main_sleeps():
    with open(f"/proc/self/task/{{main}}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"
def interrupt():
    waiting.wait(LONG)
    wait_until(main_sleeps)
    while True:
        to_process()
        if aborted.wait(2.0):   # in case it had come before main waited
            return
waiting = threading.Event()
thread(interrupt)
waiting.set()
try:
    loop.{name}()
except KeyboardInterrupt:
    aborted.set()
else:
    raise SystemExit("it returned")
assert not loop.closed
opened.set()
assert loop.stop(LONG)
worker.join(LONG)
loop.close()
""")


# ------------------------------------------------------------------------------------------- main is somewhere else


def test_ctrl_c_with_main_elsewhere_goes_to_main(script):
    """T95. Main waits for something of its own, workers are joined: main gets the KeyboardInterrupt, nobody else."""
    script("""
loop = make_loop()
workers = [thread(loop.join) for _ in range(3)]
wait_until(lambda: loop.joined == 3)
wait_all_idle(loop)
try:
    loop.post(to_process)
    threading.Event().wait(LONG)
except KeyboardInterrupt:
    check_books(loop, workers=3)
else:
    raise SystemExit("no interrupt")
assert loop.stop(LONG)
for worker in workers:
    worker.join(LONG)
loop.close()
""")


ONE_IS_ENOUGH = """
import os, sys, threading
import manyhands as mh

loop = mh.ThreadedEventLoop(3, name="mill", slow_handler=60.0)
loop.call_every(0.001, lambda: None)
loop.post(lambda: (sys.stdout.write("serving\\n"), sys.stdout.flush()))
loop.run()
assert loop.joined == 0
loop.close()
print("ended in order")
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_one_ctrl_c_is_enough(signum):
    """T95. A program in `run()` is served by its own threads: one signal from outside, and it ends in order."""
    with subprocess.Popen(
        [sys.executable, "-c", ONE_IS_ENOUGH], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "serving\n"
            process.send_signal(signum)
            out, err = process.communicate(timeout=LONG)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "ended in order\n", "")


STUCK = """
import os, sys, threading
import manyhands as mh

def say(text):
    os.write(1, text.encode() + b"\\n")

loop = mh.ThreadedEventLoop(1, name="mill")
never = threading.Event()
pause = threading.Event()

def watch_for_the_stop():
    while not loop.stopped:
        pause.wait(0.001)
    say("stopping")

threading.Thread(target=watch_for_the_stop, daemon=True).start()
loop.post(lambda: (say("stuck"), never.wait()))
loop.run()
say("run returned")
"""


def test_the_second_ctrl_c_is_immediate():
    """T95. A handler never ends: the first Ctrl-C asks, the second ends the process at once with status 130."""
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "stuck\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "stopping\n"
            process.send_signal(signal.SIGINT)
            out, _err = process.communicate(timeout=LONG)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "run returned" not in out


# ------------------------------------------------------------------------------------- stops out of signal handlers


def test_request_stop_from_a_signal_handler_at_any_moment(script):
    """T94. A timer signal every 300 us stops the loop while main joins, restarts, posts, adds, removes: it never hangs."""
    script("""
loop = make_loop()
a, b = socket.socketpair()
a.setblocking(False)
b.send(b"never read")
stops = 0
def stop(*_):
    global stops
    stops += 1
    loop.request_stop()
signal.signal(signal.SIGALRM, stop)
handled = []
strand = loop.strand()
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
for number in range(1500):
    loop.restart()
    loop.post(handled.append, number)
    strand.post(int)
    timer = loop.call_later(0.0001, int)
    watch = loop.add(a, READ, lambda watch, events: None)
    loop.join(LONG)
    assert loop.joined == 0
    timer.cancel()
    watch.remove()
signal.setitimer(signal.ITIMER_REAL, 0)
loop.restart()
loop.join(until_idle=True)
assert sorted(handled) == list(range(1500)), len(handled)
assert stops > 100
loop.close()
a.close()
b.close()
""")


def test_request_stop_from_a_signal_handler_with_workers_joined(script):
    """T94. Main and three workers are joined and busy; the signal handler stops them all, a hundred times."""
    script(
        """
loop = make_loop(handover=0)
signal.signal(signal.SIGALRM, lambda *_: loop.request_stop())
def again():
    loop.post(again)
for _ in range(4):
    loop.post(again)
rounds = 100
meet = threading.Barrier(4)
def work():
    for _ in range(rounds):
        meet.wait(LONG)
        loop.join()
        meet.wait(LONG)
workers = [thread(work) for _ in range(3)]
for number in range(rounds):
    meet.wait(LONG)
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    loop.join()
    assert loop.wait(LONG)
    meet.wait(LONG)
    assert loop.joined == 0
    loop.restart()
for worker in workers:
    worker.join(LONG)
signal.setitimer(signal.ITIMER_REAL, 0)
close_without_a_word(loop)
""",
        timeout=120,
    )


def test_other_calls_from_a_signal_handler(script):
    """T94. Posting, urgent posts, setting a timer and looking are as safe there as a stop."""
    script("""
loop = make_loop()
strand = loop.strand()
posted, ran = [], []
def handler(*_):
    posted.append(1)
    loop.post(ran.append, 1)
    loop.post_urgent(ran.append, 1)
    strand.post(ran.append, 1)
    loop.call_later(0, ran.append, 1)
    loop.stats()
    loop.dump()
    if len(posted) >= 500:
        loop.request_stop()
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
def again():
    loop.call_later(0, again)
    strand.post(int)
loop.post(again)
loop.join()
signal.setitimer(signal.ITIMER_REAL, 0)
assert loop.stopped
loop.restart()
loop.join(0.05)
assert len(ran) == 4 * len(posted), (len(ran), len(posted))
close_without_a_word(loop)
""")


# ------------------------------------------------------------------------------------------------------------- latency


def test_ctrl_c_arrives_soon_and_once(script):
    """FAULT 12. A hundred times SIGINT with four workers and main joined: each is one KeyboardInterrupt, and soon.

    The figure belongs to a benchmark; the limits here are what a busy machine keeps.
    """
    out = script("""
loop = make_loop()
workers = [thread(loop.join) for _ in range(4)]
wait_until(lambda: loop.joined == 4)
sent = 0.0
go, caught = threading.Semaphore(0), []
def interrupt():
    global sent
    while True:
        go.acquire()
        wait_until(lambda: loop.joined == 5)
        wait_all_idle(loop)
        sent = time.monotonic()
        to_process()
thread(interrupt)
for number in range(100):
    go.release()
    try:
        loop.join()
    except KeyboardInterrupt:
        caught.append(time.monotonic() - sent)
    assert len(caught) == number + 1, "join returned without an interrupt"
    assert loop.joined == 4
try:
    threading.Event().wait(0.05)
except KeyboardInterrupt:
    raise SystemExit("one interrupt too many")
caught.sort()
print(caught[50], caught[-1])
assert loop.stop(LONG)
for worker in workers:
    worker.join(LONG)
loop.close()
""")
    median, slowest = map(float, out.split())
    assert median < 0.1
    assert slowest < 2.0


# ----------------------------------------------------------------------------------------------------------- on_signal


def test_on_signal_calls_back_on_a_joined_thread(on_main, make_loop, joined):
    """The callback gets the number of the signal, on a thread of the loop and not inside Python's signal handler."""
    loop = make_loop()
    seen = []
    done = threading.Event()

    def callback(signum: int) -> None:
        seen.append((signum, threading.get_ident()))
        done.set()

    watch = loop.on_signal(signal.SIGUSR1, callback)
    assert isinstance(watch, mh.SignalWatch)
    assert watch.signum == signal.SIGUSR1
    assert not watch.removed
    with joined(loop):
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until(done.is_set)
    ((signum, ident),) = seen
    assert signum == signal.SIGUSR1
    assert ident != threading.get_ident()
    watch.remove()


def test_on_signal_wakes_a_joined_main_thread(on_main, make_loop, spawn):
    """Main alone is joined and waits in the poller: the signal is handled at once, by main."""
    loop = make_loop()
    seen = []

    def callback(signum: int) -> None:
        seen.append((signum, threading.get_ident()))
        loop.request_stop()

    watch = loop.on_signal(signal.SIGUSR1, callback)

    def send() -> None:
        wait_until(lambda: loop.joined == 1)
        wait_all_idle(loop)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    sending = spawn(send)
    assert loop.join(LONG) == 1
    sending.result()
    assert seen == [(signal.SIGUSR1, threading.get_ident())]
    watch.remove()


def test_on_signal_may_stop_a_loop_that_main_waits_for(on_main, make_loop, joined):
    """T95. The usual end of a service: workers joined, main in `wait()`, a signal asks to stop."""
    loop = make_loop()
    loop.on_signal(signal.SIGUSR1, lambda _signum: loop.request_stop())
    with joined(loop, 2):
        wait_until(lambda: loop.joined == 2)
        loop.call_later(0, os.kill, os.getpid(), signal.SIGUSR1)
        assert loop.wait(LONG) is True
    assert loop.stopped


def test_a_signal_with_nobody_joined_is_kept_for_the_next_join(on_main, make_loop):
    """A message waits for a thread, and so does what a signal asks for."""
    loop = make_loop()
    seen: list[int] = []
    watch = loop.on_signal(signal.SIGUSR1, seen.append)
    signal.raise_signal(signal.SIGUSR1)
    assert seen == []
    loop.join(until_idle=True)
    assert seen == [signal.SIGUSR1]
    watch.remove()


def test_on_signal_off_the_main_thread_is_refused(make_loop, spawn):
    """ValueError, as `signal.signal` says it; the handler of the signal is as before."""
    loop = make_loop()
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(ValueError, match="main thread"):
        spawn(loop.on_signal, signal.SIGUSR1, print).result()
    assert signal.getsignal(signal.SIGUSR1) is before


@pytest.mark.parametrize(
    ("signum", "callback", "error"),
    [
        ("SIGUSR1", print, TypeError),
        (signal.SIGUSR1, None, TypeError),
        (0, print, ValueError),
        (-1, print, ValueError),
        (999, print, ValueError),
        (signal.SIGKILL, print, (ValueError, OSError)),
    ],
)
def test_a_signal_that_cannot_be_watched_is_refused(on_main, make_loop, signum, callback, error):
    """At the call, and nothing is changed."""
    loop = make_loop()
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(error):
        loop.on_signal(signum, callback)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_removing_a_signal_watch_puts_the_handler_back(on_main, make_loop):
    """The previous handler is the handler again; `remove()` twice is harmless; nothing is called back any more."""
    loop = make_loop()
    seen: list[int] = []
    ours = []

    def previous(signum: int, _frame: object) -> None:
        ours.append(signum)

    before = signal.signal(signal.SIGUSR1, previous)
    try:
        watch = loop.on_signal(signal.SIGUSR1, seen.append)
        assert signal.getsignal(signal.SIGUSR1) is not previous
        watch.remove()
        watch.remove()
        assert watch.removed
        assert signal.getsignal(signal.SIGUSR1) is previous
        signal.raise_signal(signal.SIGUSR1)
        loop.join(until_idle=True)
        assert (seen, ours) == ([], [signal.SIGUSR1])
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_closing_the_loop_removes_its_signal_watches(on_main, make_loop):
    """A closed loop has no hold on the process: the previous handlers are back."""
    loop = make_loop()
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)
    watches = [loop.on_signal(signum, print) for signum in (signal.SIGUSR1, signal.SIGUSR2)]
    loop.close()
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)) == before
    assert [watch.removed for watch in watches] == [True, True]


def test_an_error_in_a_signal_callback_is_reported(on_main, make_loop):
    """T92. It costs only itself: the report says that it came from a signal, and the next signal is served."""
    reports: list = []
    loop = make_loop(on_error=reports.append)

    def callback(_signum: int) -> None:
        raise KeyError("signal")

    watch = loop.on_signal(signal.SIGUSR1, callback)
    for _ in range(2):
        signal.raise_signal(signal.SIGUSR1)
        loop.join(until_idle=True)
    assert [report.source for report in reports] == ["signal", "signal"]
    assert all(isinstance(report.error, KeyError) for report in reports)
    watch.remove()


def test_many_signals_are_not_lost(on_main, make_loop, joined):
    """Ten signals, each sent when the one before was seen: ten calls."""
    loop = make_loop()
    seen: list[int] = []
    watch = loop.on_signal(signal.SIGUSR1, seen.append)
    with joined(loop, 2):
        for number in range(1, 11):
            signal.raise_signal(signal.SIGUSR1)
            wait_until(lambda number=number: len(seen) == number)
    watch.remove()


# ----------------------------------------------------------------------------------------------- the wake-up descriptor


@pytest.fixture
def wakeup(on_main):
    """A wake-up descriptor that somebody else has set; yields the end to read from and the number."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield ours, theirs.fileno()
    signal.signal(signal.SIGUSR1, previous)
    signal.set_wakeup_fd(before)
    ours.close()
    theirs.close()


def current_wakeup_fd() -> int:
    number = signal.set_wakeup_fd(-1)
    if number != -1:
        signal.set_wakeup_fd(number, warn_on_full_buffer=False)
    return number


def test_the_wakeup_descriptor_is_put_back(wakeup, make_loop):
    """While main is joined the loop holds it; afterwards it is again whose it was."""
    _ours, number = wakeup
    loop = make_loop()
    inside = []
    loop.post(lambda: inside.append(current_wakeup_fd()))
    loop.join(until_idle=True)
    assert inside[0] not in (-1, number)
    assert current_wakeup_fd() == number

    loop.post(lambda: None)
    loop.run_ready()
    assert current_wakeup_fd() == number


def test_without_a_wakeup_descriptor_there_is_none_afterwards(on_main, make_loop):
    """Nobody had one set: afterwards nobody has."""
    before = signal.set_wakeup_fd(-1)
    try:
        loop = make_loop()
        loop.join(until_idle=True)
        loop.join(0.01)
        assert current_wakeup_fd() == -1
        loop.close()
        assert current_wakeup_fd() == -1
    finally:
        signal.set_wakeup_fd(before)


def test_the_wakeup_descriptor_is_put_back_when_join_raises(wakeup, make_loop):
    """An exit out of a handler leaves join by an exception, with the books straight."""
    _ours, number = wakeup
    loop = make_loop()

    def leave() -> None:
        raise SystemExit(3)

    loop.post(leave)
    with pytest.raises(SystemExit):
        loop.join()
    assert current_wakeup_fd() == number


def test_a_join_of_another_thread_does_not_touch_the_wakeup_descriptor(wakeup, make_loop, joined):
    """Only a lent main thread needs it."""
    _ours, number = wakeup
    loop = make_loop()
    with joined(loop, 2):
        wait_until(lambda: loop.joined == 2)
        assert current_wakeup_fd() == number


def test_the_wakeup_descriptor_of_somebody_else_is_written_to(wakeup, make_loop, spawn):
    """Whoever had set one hears of the signals that come while main is joined: the loop passes them on."""
    ours, _number = wakeup
    loop = make_loop()

    def send() -> None:
        wait_until(lambda: loop.joined == 1)
        wait_all_idle(loop)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    heard = []

    def hear(watch, _events) -> None:
        heard.append(watch.source.recv(10))
        loop.request_stop()

    watch = loop.add(ours, READ, hear)
    sending = spawn(send)
    loop.join(LONG)
    sending.result()
    assert heard == [bytes([signal.SIGUSR1])]
    assert watch.remove()


def test_a_wakeup_descriptor_that_is_full_does_no_harm(wakeup, make_loop, spawn):
    """The other one does not read: the loop does not block on it and serves its signals all the same."""
    ours, number = wakeup
    loop = make_loop()
    with socket.fromfd(number, socket.AF_UNIX, socket.SOCK_STREAM) as theirs:
        theirs.setblocking(False)
        while True:
            try:
                theirs.send(b"\0" * 65536)
            except BlockingIOError:
                break
    watch = loop.on_signal(signal.SIGUSR2, lambda _signum: loop.request_stop())

    def send() -> None:
        wait_until(lambda: loop.joined == 1)
        wait_all_idle(loop)
        os.kill(os.getpid(), signal.SIGUSR2)

    sending = spawn(send)
    assert loop.join(LONG) == 1
    sending.result()
    watch.remove()
    assert ours.recv(1)


def test_a_signal_that_nobody_handles_costs_a_joined_main_thread_nothing(wakeup, make_loop, spawn):
    """Main wakes for it, runs Python's handler, and waits on; join does not return for it."""
    _ours, _number = wakeup
    loop = make_loop()

    def send() -> None:
        wait_until(lambda: loop.joined == 1)
        for _ in range(20):
            wait_all_idle(loop)
            os.kill(os.getpid(), signal.SIGUSR1)
        wait_all_idle(loop)
        assert loop.joined == 1
        loop.request_stop()

    sending = spawn(send)
    assert loop.join(LONG) == 0
    sending.result()
    assert loop.stopped
