"""Faults of handlers: many that raise, many connects, removals by others; each in a process of its own.

The programs are written as in `test_faults_descriptors`.
"""

from __future__ import annotations

import resource

import pytest

from fault_programs import check, each_thread_count, served

pytestmark = pytest.mark.fault


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
        try:
            os.eventfd_read(watch.fd)
        except BlockingIOError:  # spurious: it was ready when a second thread joined, which arms it once more
            return
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

    The best of five runs is judged, so that a busy machine does not decide the test; the rest is asked of every run.
    """
    count = connections()
    fastest = latest = float("inf")
    for _ in range(5):
        report = check(subprocess_python, serve_connects, threads, count, CLIENT, timeout=120)
        assert report["finished"]
        assert report["accepted"] == count
        assert report["left"] == 1
        assert report["bytes"] < 4096
        fastest, latest = min(fastest, report["seconds"]), min(latest, report["late"])
        if fastest < 2.0 and latest < 0.05:
            break
    assert fastest < 2.0
    assert latest < 0.05


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
