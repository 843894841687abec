"""The contract of the pollers: what a watch is told whichever system call its loop waits in."""

from __future__ import annotations

import queue
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import manyhands as mh
from manyhands.testing import wait_all_idle
from readers import Reader, first_events
from support import LONG

pytestmark = pytest.mark.whole

READ, WRITE, PRIORITY = mh.Events.READ, mh.Events.WRITE, mh.Events.PRIORITY


# ------------------------------------------------------------------ readiness


def test_a_descriptor_that_becomes_readable_is_reported(make_loop, joined, pair, poller):
    """T17. READ and nothing else."""
    near, far = pair()
    assert first_events(make_loop(poller=poller), joined, near, READ, lambda: far.send(b"x")) == READ


def test_a_descriptor_that_can_be_written_is_reported(make_loop, joined, pair, poller):
    """T17. WRITE at once when there is room, and only when there is room."""
    near, far = pair()
    try:
        while True:
            near.send(bytes(65536))
    except BlockingIOError:
        pass

    def drain() -> None:
        try:
            while far.recv(1 << 20):
                pass
        except BlockingIOError:
            pass

    assert first_events(make_loop(poller=poller), joined, near, WRITE, drain) == WRITE


def test_reading_and_writing_are_reported_together(make_loop, joined, pair, poller):
    """T17. What is ready of what was asked for, in one call."""
    near, far = pair()
    loop = make_loop(poller=poller)
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        watch.remove()

    far.send(b"x")
    loop.add(near, READ | WRITE, handler)
    with joined(loop):
        assert calls.get(timeout=LONG) == READ | WRITE


def test_urgent_data_is_reported(make_loop, joined, poller):
    """T17. PRIORITY, from TCP's urgent pointer."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as near:
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        with far:
            loop = make_loop(poller=poller)
            events = first_events(loop, joined, near, PRIORITY, lambda: far.send(b"!", socket.MSG_OOB))
            assert events == PRIORITY
            loop.close()


def test_a_handler_that_reads_a_part_is_called_again(make_loop, joined, pair, poller):
    """T24. And not once more than there is something to read."""
    loop = make_loop(poller=poller)
    reader = Reader(loop, pair())
    with joined(loop):
        reader.far.send(b"abc")
        assert [reader.runs.get(timeout=LONG) for _ in range(3)] == [b"a", b"b", b"c"]
        wait_all_idle(loop)
        assert reader.runs.empty()


@pytest.mark.race
def test_a_descriptor_that_stays_ready_is_never_served_twice_at_once(make_loop, joined, pair, poller):
    """T18. Three threads are free while the handler is held inside, and they turn the loop."""
    loop = make_loop(poller=poller, handover=0)
    near, far = pair()
    entered: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    leave = threading.Event()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        entered.put(near.recv(1))
        leave.wait(LONG)

    loop.add(near, READ, handler)
    beside = Reader(loop, pair())
    with joined(loop, 4):
        try:
            far.send(b"ab")
            assert entered.get(timeout=LONG) == b"a"
            beside.round_trips()
            before = loop.stats().polls
            beside.round_trips(50)
            assert entered.empty()
            assert loop.stats().polls - before <= 1000
        finally:
            leave.set()
        assert entered.get(timeout=LONG) == b"b"


def test_two_watches_run_side_by_side(make_loop, joined, pair, poller):
    """T19. Each handler waits at a barrier for the other one."""
    loop = make_loop(poller=poller)
    meeting = threading.Barrier(2)
    met: queue.SimpleQueue[int] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        watch.source.recv(1)
        met.put(meeting.wait(LONG))

    sockets = [pair(), pair()]
    for near, _ in sockets:
        loop.add(near, READ, handler)
    with joined(loop, 2):
        for _, far in sockets:
            far.send(b"x")
        assert {met.get(timeout=LONG), met.get(timeout=LONG)} == {0, 1}


# ------------------------------------------------------------------ the rest of the loop, over each of them


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_that_wait_are_released_by_a_stop(make_loop, joined, pair, poller, threads):
    """T13. And serve again after the restart."""
    loop = make_loop(poller=poller)
    reader = Reader(loop, pair())
    for _ in range(3):
        with joined(loop, threads):
            wait_all_idle(loop)
            reader.round_trips()
            assert loop.stop(LONG) is True
        loop.restart()


def test_a_post_wakes_a_thread_that_waits(make_loop, joined, poller):
    """T47. With nothing to watch at all."""
    loop = make_loop(poller=poller)
    ran = threading.Event()
    with joined(loop):
        wait_all_idle(loop)
        loop.post(ran.set)
        assert ran.wait(LONG)


def test_a_timer_ends_the_wait(make_loop, joined, poller):
    """T100. Set while a thread waits without end, on the loop's real clock; never early."""
    loop = make_loop(poller=poller)
    fired: queue.SimpleQueue[float] = queue.SimpleQueue()
    with joined(loop):
        wait_all_idle(loop)
        due = loop.now() + 0.02
        loop.call_at(due, lambda: fired.put(loop.now()))
        assert fired.get(timeout=LONG) >= due


def test_a_wait_with_a_timeout_ends_when_it_is_over(make_loop, pair, poller):
    """T15. Not before it, without a busy loop, and with the number of handlers that ran."""
    loop = make_loop(poller=poller)
    Reader(loop, pair())
    begun = time.monotonic()
    assert loop.join(timeout=0.05) == 0
    assert time.monotonic() - begun >= 0.05
    assert loop.stats().polls <= 20


# ------------------------------------------------------------------ each one's own system calls


CALLS = {
    "epoll": {"epoll_create1", "epoll_create", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2"},
    "poll": {"poll", "ppoll"},
    "select": {"select", "pselect6", "_newselect"},
}

WAITS = {name: calls - {"epoll_create1", "epoll_create", "epoll_ctl"} for name, calls in CALLS.items()}

PROGRAM = """
import os, socket, sys
import manyhands as mh
near, far = socket.socketpair()
far.send(b"ab")
os.write(2, b"begin\\n")
loop = mh.EventLoop(poller=sys.argv[1])
def handler(watch, events):
    if near.recv(1) == b"b":
        loop.request_stop()
loop.add(near, mh.Events.READ, handler)
assert loop.join(timeout=5) == 2
assert loop.stopped
loop.close()
os.write(2, b"end\\n")
"""


def system_calls(trace: str) -> list[str]:
    """Return the names of the calls between the program's two marks, by all of its threads, in order."""
    names = [(match[1], match[0]) for match in re.finditer(r"^\d+ +(\w+)\(.*", trace, flags=re.MULTILINE)]
    texts = [text for _, text in names]
    begin = next(i for i, text in enumerate(texts) if '"begin\\n"' in text)
    end = next(i for i, text in enumerate(texts) if '"end\\n"' in text)
    return [name for name, _ in names[begin + 1 : end] if name != "write"]


@pytest.mark.fault
def test_a_poller_waits_in_its_own_system_call_and_in_no_other(poller):
    """T17. The kernel's own account of one loop's life, by strace, from its making to its closing."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "trace"
        wanted = ",".join(f"?{name}" for name in sorted(set().union(*CALLS.values()) | {"write"}))
        command = [strace, "-f", "-o", str(log), "-e", f"trace={wanted}", sys.executable, "-c", PROGRAM, poller]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if "PTRACE" in done.stderr or "ptrace" in done.stderr:
            pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        calls = set(system_calls(log.read_text(encoding="utf-8", errors="replace")))
    assert calls & WAITS[poller]
    assert calls <= CALLS[poller]
