"""Ctrl-C while main is joined or elsewhere: where it arrives, how soon, and that it arrives once.

Whatever could hit the test runner itself runs in a process of its own; the code of these scripts stands beside the test.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from support import LONG

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
