"""Faults of descriptors, each in a process of its own with one and with four joined threads.

The programs below are functions of this file: their source is handed to a fresh interpreter, so each imports what
it uses. Each ends with the leak line.
"""

from __future__ import annotations

import inspect
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.fault
each_thread_count = pytest.mark.parametrize("threads", [1, 4])


def check(subprocess_python, program, *arguments, timeout: float = 60) -> dict:
    """Run `program(*arguments)` alone, with the serving and the leak line around it; return what it reports."""
    code = source_of(program, *arguments)
    done = subprocess_python(code, timeout=timeout)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def source_of(program, *arguments) -> str:
    """Return the text of a program that calls `program` between the descriptors' count and the leak line."""
    parts = [inspect.getsource(served), inspect.getsource(leak_line), inspect.getsource(program)]
    call = ", ".join(map(repr, arguments))
    last = f"""
import json, logging, os, resource
import manyhands
logging.getLogger("manyhands.loop").setLevel(logging.ERROR)  # a slow handler is the machine's load, not the fault
manyhands.EventLoop().close()  # what the library keeps for the whole process is made with the first loop
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
descriptors = len(os.listdir("/proc/self/fd"))
report = {program.__name__}({call})
leak_line(descriptors)
print(json.dumps(report))
"""
    return "\n".join(["from __future__ import annotations", *parts, last])


def served(loop, threads):
    """Join `threads` threads to the loop for as long as the block lasts, and stop it at its end."""
    import contextlib
    import threading

    @contextlib.contextmanager
    def block():
        joined = [threading.Thread(target=loop.join) for _ in range(threads)]
        for thread in joined:
            thread.start()
        pause = threading.Event()
        while loop.joined < threads:
            pause.wait(0.001)
        try:
            yield joined
        finally:
            assert loop.stop(30)
            for thread in joined:
                thread.join(30)

    return block()


def leak_line(descriptors):
    """Assert that no object of the core, no descriptor and no thread is left."""
    import gc
    import os
    import threading

    from manyhands.testing import live_objects

    gc.collect()
    alive = {kind: count for kind, count in live_objects().items() if count}
    assert not alive, alive
    assert len(os.listdir("/proc/self/fd")) == descriptors
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    assert [name for name in others if name != "mh-monitor"] == []


# ------------------------------------------------------------------ 6: closed under the loop, number reused


def reuse(threads, duplicate):
    """Close a watched descriptor with data under way, reuse its number, and tell the two watches apart."""
    import os
    import queue
    import socket
    import time

    import manyhands as mh
    from manyhands.testing import wait_all_idle

    loop = mh.EventLoop(handover=0)
    near, far = socket.socketpair()
    other, other_far = socket.socketpair()
    near.setblocking(False)
    other.setblocking(False)
    number = near.fileno()
    old_calls, new_calls, ended = [], queue.SimpleQueue(), []
    old = loop.add(
        near, mh.Events.READ, lambda *_: old_calls.append(1), on_removed=lambda watch, reason: ended.append(reason.name)
    )
    kept = near.dup() if duplicate else None
    with served(loop, threads):
        wait_all_idle(loop)
        near.detach()
        os.dup2(other.fileno(), number)
        os.close(other.detach())
        fresh = socket.socket(fileno=number)
        begun = time.perf_counter()
        new = loop.add(fresh, mh.Events.READ, lambda *_: new_calls.put(fresh.recv(100).decode()))
        took = time.perf_counter() - begun
        far_closed = False
        try:
            far.send(b"to the old one")
        except OSError:
            far_closed = True
        other_far.send(b"to the new one")
        got = new_calls.get(timeout=10)
        wait_all_idle(loop)
        answer = old.remove()
        other_far.send(b"again")
        again = new_calls.get(timeout=10)
        wait_all_idle(loop)
        assert new.remove() is True
    loop.close()
    for sock in (far, fresh, other_far, kept):
        if sock is not None:
            sock.close()
    return {
        "old calls": len(old_calls),
        "new got": [got, again],
        "ended": ended,
        "removed": answer,
        "add took": took,
        "far closed": far_closed,
    }


@each_thread_count
@pytest.mark.parametrize("duplicate", [False, True], ids=["closed", "a duplicate lives"])
def test_a_reused_number_belongs_to_its_new_watch_alone(subprocess_python, threads, duplicate):
    """FAULT 6. The old handler never runs, the add takes no detour, and the old watch hears that it is gone once."""
    report = min(
        (check(subprocess_python, reuse, threads, duplicate) for _ in range(2)), key=lambda report: report["add took"]
    )
    assert report["old calls"] == 0
    assert report["new got"] == ["to the new one", "again"]
    assert report["ended"] == ["FD_GONE"]
    assert report["removed"] is True
    assert report["far closed"] is not duplicate
    assert report["add took"] < 1e-3


def use_after_close(threads, call):
    """Close a watched descriptor behind the loop's back and use its watch; report how it ended."""
    import queue
    import socket

    import manyhands as mh
    from manyhands.testing import wait_all_idle

    loop = mh.EventLoop()
    near, far = socket.socketpair()
    ended = queue.SimpleQueue()
    watch = loop.add(near, mh.Events.READ, lambda *_: None, on_removed=lambda watch, reason: ended.put(reason.name))
    with served(loop, threads):
        wait_all_idle(loop)
        near.close()
        try:
            if call == "modify":
                watch.modify(mh.Events.WRITE)
            elif call == "pause and resume":
                watch.pause()
                watch.resume()
            else:
                watch.remove()
            outcome = "returned"
        except mh.WatchRemoved as error:
            outcome = error.reason.name
        first = ended.get(timeout=10)
        wait_all_idle(loop)
        assert ended.empty()
        assert watch.removed
        assert loop.get(watch.fd) is None
    loop.close()
    far.close()
    return {"call": outcome, "ended": first}


@each_thread_count
@pytest.mark.parametrize("call", ["modify", "pause and resume", "remove"])
def test_a_watch_whose_descriptor_is_gone_ends_at_the_latest_when_it_is_used(subprocess_python, threads, call):
    """FAULT 6. Exactly one final callback; what could not be done says why."""
    report = check(subprocess_python, use_after_close, threads, call)
    if call == "remove":
        assert report["call"] == "returned"
        assert report["ended"] in {"REMOVED", "FD_GONE"}
    else:
        assert report["call"] in {"returned", "FD_GONE"}
        assert report["ended"] == "FD_GONE"


def spin_behind_the_back(threads, poller):
    """Close a watched descriptor whose duplicate stays readable; report what half a second then costs."""
    import queue
    import socket
    import time

    import manyhands as mh
    from manyhands.testing import wait_all_idle

    loop = mh.EventLoop(poller=poller)
    near, far = socket.socketpair()
    calls, ended = [], queue.SimpleQueue()
    loop.add(near, mh.Events.READ, lambda *_: calls.append(1), on_removed=lambda watch, reason: ended.put(reason.name))
    with served(loop, threads - 1), near.dup():
        if threads > 1:
            wait_all_idle(loop)
        near.close()
        far.send(b"nobody reads this")
        loop.join(0.1)
        polls, used = loop.stats().polls, time.process_time()
        loop.join(0.5)
        used = time.process_time() - used
        polls = loop.stats().polls - polls
    reason = ended.get(timeout=10)
    loop.close()
    far.close()
    return {"cpu": used, "polls": polls, "calls": len(calls), "ended": reason}


@each_thread_count
@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
def test_a_descriptor_closed_while_a_duplicate_lives_costs_no_cpu(subprocess_python, threads, poller):
    """T28. FAULT 6. Half a second of waiting is hardly a poll; the watch ends."""
    report = check(subprocess_python, spin_behind_the_back, threads, poller)
    assert report["ended"] == "FD_GONE"
    assert report["calls"] <= (16 if poller == "epoll" else 1)
    assert report["polls"] <= 20
    assert report["cpu"] < 0.1


def spin_while_paused(threads, poller):
    """Pause a watch and let its peer close; report what half a second then costs."""
    import queue
    import socket
    import time

    import manyhands as mh

    loop = mh.EventLoop(poller=poller)
    near, far = socket.socketpair()
    calls = queue.SimpleQueue()

    def handler(watch, events):
        calls.put(near.recv(1).decode())
        watch.remove()

    watch = loop.add(near, mh.Events.READ, handler)
    with served(loop, threads - 1):
        watch.pause()
        far.close()
        polls, used = loop.stats().polls, time.process_time()
        loop.join(0.5)
        used = time.process_time() - used
        polls = loop.stats().polls - polls
        early = calls.qsize()
        watch.resume()
        loop.join(0.1 if threads == 1 else 0)
        end = calls.get(timeout=10)
    loop.close()
    near.close()
    return {"cpu": used, "polls": polls, "early": early, "end": end}


@each_thread_count
@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
def test_a_paused_watch_whose_peer_closed_costs_no_cpu(subprocess_python, threads, poller):
    """T41. Half a second of waiting is hardly a poll; the end is read after the resume."""
    report = check(subprocess_python, spin_while_paused, threads, poller)
    assert report["early"] == 0
    assert report["end"] == ""
    assert report["polls"] <= 20
    assert report["cpu"] < 0.1


# ------------------------------------------------------------------ 7: a handler raises


def raising_handlers(threads, count):
    """Let `count` handlers raise, every other one kept by the hook; report what the hook heard and who is left."""
    import os
    import queue

    import manyhands as mh
    from manyhands.testing import wait_all_idle

    heard, ended = queue.SimpleQueue(), queue.SimpleQueue()

    def hook(report):
        heard.put((report.watch.name, str(report.error), report.source, report.handler is handler))
        return mh.KEEP if int(report.watch.name) % 2 else None

    def handler(watch, events):
        os.eventfd_read(watch.fd)
        raise ValueError(watch.name)

    def on_removed(watch, reason):
        ended.put((watch.name, reason.name))

    def drained(items):
        return sorted(items.get_nowait() for _ in range(items.qsize()))

    loop = mh.EventLoop(on_error=hook)
    numbers = [os.eventfd(1, os.EFD_NONBLOCK) for _ in range(count)]
    for index, number in enumerate(numbers):
        loop.add(number, mh.Events.READ, handler, name=f"{index:04}", on_removed=on_removed)
    with served(loop, threads):
        wait_all_idle(loop)
        first, gone = drained(heard), drained(ended)
        for number in numbers:
            os.eventfd_write(number, 1)
        wait_all_idle(loop)
        second = drained(heard)
        errors = loop.stats().errors
    loop.close()
    for number in numbers:
        os.close(number)
    names = [f"{index:04}" for index in range(count)]
    assert first == [(name, name, "watch", True) for name in names]
    assert gone == [(name, "HANDLER_ERROR") for name in names[::2]]
    assert second == [(name, name, "watch", True) for name in names[1::2]]
    assert drained(ended) == [(name, "LOOP_CLOSED") for name in names[1::2]]
    return {"heard": len(first), "removed": len(gone), "kept": len(second), "errors": errors}


@each_thread_count
def test_each_of_a_thousand_handlers_that_raise_is_reported_with_its_name(subprocess_python, threads):
    """FAULT 7. Its watch is removed, or goes on where the hook answers KEEP."""
    report = check(subprocess_python, raising_handlers, threads, 1000)
    assert report == {"heard": 1000, "removed": 500, "kept": 500, "errors": 1500}


def raising_hook(threads, where):
    """Let the hook itself raise, of the loop or of the watch; report what the logger got and that the loop lives."""
    import logging
    import os
    import queue
    import threading

    import manyhands as mh
    from manyhands.testing import wait_all_idle

    records = queue.SimpleQueue()

    class Collect(logging.Handler):
        def emit(self, record):
            error = record.exc_info and record.exc_info[1]
            records.put((record.levelname, type(error).__name__))

    logger = logging.getLogger("manyhands.loop")
    logger.addHandler(Collect())
    logger.propagate = False

    def hook(report):
        raise RuntimeError("the hook fails as well")

    def handler(watch, events):
        os.eventfd_read(watch.fd)
        raise ValueError("the handler fails")

    loop = mh.EventLoop(on_error=hook if where == "loop" else None)
    number = os.eventfd(1, os.EFD_NONBLOCK)
    ended = queue.SimpleQueue()
    loop.add(
        number,
        mh.Events.READ,
        handler,
        on_error=hook if where == "watch" else None,
        on_removed=lambda watch, reason: ended.put(reason.name),
    )
    with served(loop, threads):
        reason = ended.get(timeout=10)
        wait_all_idle(loop)
        ran = threading.Event()
        loop.post(ran.set)
        assert ran.wait(10)
    loop.close()
    os.close(number)
    return {"ended": reason, "records": [records.get_nowait() for _ in range(records.qsize())]}


@each_thread_count
@pytest.mark.parametrize("where", ["loop", "watch"])
def test_a_hook_that_raises_is_logged_once_and_the_loop_lives(subprocess_python, threads, where):
    """FAULT 7. One record of it with its traceback, and one of what it should have dealt with; the watch ends."""
    report = check(subprocess_python, raising_hook, threads, where)
    assert report["ended"] == "HANDLER_ERROR"
    assert sorted(report["records"]) == [["ERROR", "RuntimeError"], ["ERROR", "ValueError"]]


# ------------------------------------------------------------------ 14: ten thousand connects at once


def serve_connects(threads, count, client):
    """Accept `count` connections from another process, at most 64 a run, and watch each; report what that took.

    A timer of 10 ms runs all the while. It is late by what the process works between two of its runs: CPU time, so that
    a busy machine, which keeps the process from working, makes nobody late.
    """
    import itertools
    import os
    import socket
    import subprocess
    import sys
    import threading
    import time

    import manyhands as mh

    def resident():
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    loop = mh.EventLoop()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    accepted, ticks = 0, []
    everybody = threading.Event()

    def closing(watch, events):
        watch.remove(close=True)

    def accept(watch, events):
        nonlocal accepted
        for _ in range(64):
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            loop.add(sock, mh.Events.READ, closing)
            accepted += 1
            if accepted == count:
                everybody.set()

    loop.add(listener, mh.Events.READ, accept, name="listener")
    timer = loop.call_every(0.01, lambda: ticks.append((time.monotonic(), time.process_time())))
    port = listener.getsockname()[1]
    command = [sys.executable, "-c", client, str(port), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as peer:
        assert peer.stdout.readline() == b"ready\n"
        with served(loop, threads):
            before, begun, used = resident(), time.monotonic(), time.process_time()
            peer.stdin.write(b"go\n")
            peer.stdin.flush()
            finished = everybody.wait(50)
            took, used = time.monotonic() - begun, time.process_time() - used
            memory = resident() - before
            timer.cancel()
            seen = [worked for tick, worked in ticks if begun <= tick <= begun + took]
            peer.stdin.write(b"end\n")
            peer.stdin.flush()
            peer.wait(50)
            watches = loop.stats().watches
            deadline = time.monotonic() + 50
            while watches > 1 and time.monotonic() < deadline:
                threading.Event().wait(0.01)
                watches = loop.stats().watches
    loop.close()
    listener.close()
    gaps = [later - earlier for earlier, later in itertools.pairwise(seen)]
    return {
        "finished": finished,
        "accepted": accepted,
        "seconds": took,
        "cpu": used,
        "bytes": memory / count,
        "late": max(gaps, default=0.0),
        "left": watches,
    }


CLIENT = """
import resource, socket, struct, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
port, count = map(int, sys.argv[1:])
print("ready", flush=True)
sys.stdin.readline()
sockets = []
for _ in range(count):
    sock = socket.socket()
    sock.connect(("127.0.0.1", port))
    sockets.append(sock)
sys.stdin.readline()
for sock in sockets:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
"""


def connections() -> int:
    """Return how many connections one process may hold: 10,000, or what the limit on descriptors leaves."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 10_000 if hard == resource.RLIM_INFINITY else min(10_000, hard - 200)


@each_thread_count
def test_ten_thousand_connects_at_once_are_all_served_and_a_timer_stays_punctual(subprocess_python, threads):
    """FAULT 14. In two seconds, with less than 4 KiB a connection and a timer of 10 ms never later than 50 ms.

    The fastest of five runs is judged, so that a busy machine does not decide the test; the rest is asked of every run.
    """
    count = connections()
    fastest = float("inf")
    for _ in range(5):
        report = check(subprocess_python, serve_connects, threads, count, CLIENT, timeout=120)
        assert report["finished"]
        assert report["accepted"] == count
        assert report["left"] == 1
        assert report["bytes"] < 4096
        assert report["late"] < 0.05
        fastest = min(fastest, report["seconds"])
        if fastest < 2.0:
            break
    assert fastest < 2.0


# ------------------------------------------------------------------ 29: removed by another thread while it runs


def remove_each_other(threads, count, rounds):
    """Let every handler remove a random other watch; report late calls and final callbacks."""
    import contextlib
    import os
    import queue
    import random
    import threading

    import manyhands as mh
    from manyhands.testing import wait_all_idle

    loop = mh.EventLoop(handover=0)
    numbers = [os.eventfd(1, os.EFD_NONBLOCK) for _ in range(count)]
    late = []
    ended = queue.SimpleQueue()
    chance = random.Random(29)

    def one_round():
        removed = {}
        victims = {number: chance.choice(numbers) for number in numbers}
        complete = threading.Event()

        def handler(watch, events):
            if watch.fd in removed:
                late.append(watch.fd)
            complete.wait(10)
            os.eventfd_read(watch.fd)
            victim = victims[watch.fd]
            if watches[victim].remove():
                removed[victim] = True

        watches = {
            number: loop.add(number, mh.Events.READ, handler, on_removed=lambda watch, reason: ended.put(watch.fd))
            for number in numbers
        }
        complete.set()
        wait_all_idle(loop)
        assert all(watch.remove() for watch in watches.values())
        wait_all_idle(loop)
        assert sorted(ended.get_nowait() for _ in range(ended.qsize())) == sorted(numbers)
        for number in numbers:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(number, 1)

    with served(loop, threads):
        for _ in range(rounds):
            one_round()
    loop.close()
    for number in numbers:
        os.close(number)
    return {"late": len(late)}


@each_thread_count
def test_watches_that_remove_each_other_never_run_late_and_end_once(subprocess_python, threads):
    """FAULT 29. The small form: 250 watches, 10 rounds. The whole size is in the stress tests."""
    assert check(subprocess_python, remove_each_other, threads, 250, 10) == {"late": 0}


# ------------------------------------------------------------------ 33: the kernel refuses


def refused_descriptors(threads):
    """Add what cannot be watched while the loop runs; report the errors and that the loop is unharmed."""
    import fcntl
    import os
    import queue
    import socket
    import tempfile

    import manyhands as mh

    loop = mh.EventLoop()
    near, far = socket.socketpair()
    runs = queue.SimpleQueue()
    watch = loop.add(near, mh.Events.READ, lambda *_: runs.put(near.recv(1)))
    errors = {}

    def attempt(name, source):
        try:
            loop.add(source, mh.Events.READ, lambda *_: None)
        except (OSError, mh.ManyhandsError) as error:
            errors[name] = [type(error).__name__, isinstance(error, OSError)]
        far.send(b"x")
        assert runs.get(timeout=10) == b"x"
        assert loop.stats().watches == 1

    closed = fcntl.fcntl(near, fcntl.F_DUPFD_CLOEXEC, 500)  # far from what the rest of this program opens
    os.close(closed)
    folder = os.open("/", os.O_RDONLY)
    with served(loop, threads), tempfile.TemporaryFile() as file:
        attempt("regular file", file)
        attempt("directory", folder)
        attempt("closed number", closed)
        attempt("second watch", near)
        assert watch.remove() is True
    loop.close()
    os.close(folder)
    near.close()
    far.close()
    return errors


@each_thread_count
def test_what_the_kernel_refuses_is_told_at_the_add_and_harms_nothing(subprocess_python, threads):
    """FAULT 33. EPERM, EBADF and EEXIST have errors of their own; the other watch is served between them."""
    report = check(subprocess_python, refused_descriptors, threads)
    assert report == {
        "regular file": ["NotPollable", True],
        "directory": ["NotPollable", True],
        "closed number": ["BadDescriptor", True],
        "second watch": ["WatchExists", False],
    }


def modify_a_reused_number():
    """Close a watched descriptor, let an unwatched one take its number, modify the watch; report how it ends."""
    import os
    import socket

    import manyhands as mh

    loop = mh.EventLoop()
    near, far = socket.socketpair()
    other, other_far = socket.socketpair()
    ended = []
    number = near.fileno()
    watch = loop.add(near, mh.Events.READ, lambda *_: None, on_removed=lambda watch, reason: ended.append(reason.name))
    near.detach()
    os.dup2(other.fileno(), number)
    try:
        watch.modify(mh.Events.WRITE)
        outcome = "returned"
    except mh.WatchRemoved as error:
        outcome = error.reason.name
    loop.run_ready()
    assert loop.get(number) is None
    watches = loop.stats().watches
    loop.close()
    os.close(number)
    for sock in (far, other, other_far):
        sock.close()
    return {"modify": outcome, "ended": ended, "watches": watches}


def test_a_modification_that_the_kernel_does_not_know_ends_the_watch(subprocess_python):
    """FAULT 33. ENOENT: the number is open, but on something that was never registered."""
    report = check(subprocess_python, modify_a_reused_number)
    assert report["modify"] in {"FD_GONE", "returned"}
    assert report["ended"] == ["FD_GONE"]
    assert report["watches"] == 0


def add_with_no_space_left():
    """Add two descriptors between two marks; report the errno of the first add and that the second one works."""
    import os
    import socket

    import manyhands as mh

    loop = mh.EventLoop()
    near, far = socket.socketpair()
    far.send(b"x")
    runs = []
    error_number = None
    os.write(2, b"mark")
    try:
        loop.add(near, mh.Events.READ, lambda *_: runs.append(0)).remove()
    except OSError as error:
        error_number = error.errno
    watches = loop.stats().watches
    watch = loop.add(near, mh.Events.READ, lambda *_: runs.append(near.recv(1).decode()))
    loop.run_ready()
    watch.remove()
    loop.close()
    near.close()
    far.close()
    return {"errno": error_number, "watches": watches, "runs": runs}


def traced(options: list[str], program: str, log: Path) -> subprocess.CompletedProcess[str]:
    """Run the program under strace with the options, or skip where that cannot be."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    command = [strace, "-f", "-qq", "-o", str(log), *options, sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "ptrace" in done.stderr.lower():
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    return done


def test_an_add_for_which_the_kernel_has_no_space_raises_and_can_be_repeated():
    """FAULT 33. ENOSPC, put by strace into the epoll_ctl of the add; nothing stays registered."""
    program = source_of(add_with_no_space_left)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "trace"
        done = traced(["-e", "trace=epoll_ctl,write"], program, log)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["errno"] is None
        before, _, _ = log.read_text(encoding="utf-8", errors="replace").partition('"mark"')
        first = len(re.findall(r" epoll_ctl\(", before)) + 1
        done = traced(["-e", "trace=epoll_ctl", "-e", f"inject=epoll_ctl:error=ENOSPC:when={first}"], program, log)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"errno": 28, "watches": 0, "runs": ["x"]}
