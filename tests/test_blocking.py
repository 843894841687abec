"""manyhands.blocking: calls that a stop can end, and that otherwise are the calls they stand for."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

import manyhands as mh
from gate import Gate
from manyhands import blocking
from pooling import Deliberate, fail, outcome
from support import LONG, wait_until

CALLER = mh.StopReason.CALLER


def close(accepted: tuple[socket.socket, object]) -> None:
    """Close a connection that was accepted."""
    accepted[0].close()


def fill(sock: socket.socket) -> None:
    """Send until nothing fits any more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536), socket.MSG_DONTWAIT)


@pytest.fixture
def calls(listener, sockets):
    """Every call that would block for ever now."""
    fill(sockets[1])
    backlog = [socket.socket() for _ in range(4)]
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    for sock in backlog:  # the kernel takes one or two; then nobody gets an answer
        sock.setblocking(False)
        sock.connect_ex(full.getsockname())
    held, condition = threading.Lock(), threading.Condition()
    held.acquire()
    unfinished: concurrent.futures.Future[None] = concurrent.futures.Future()
    calling = socket.socket()
    empty_end, other = socket.socketpair()

    def wait_for_the_condition() -> None:
        with condition:
            blocking.wait(condition)

    yield {
        "get": lambda: blocking.get(queue.Queue()),
        "get of a SimpleQueue": lambda: blocking.get(queue.SimpleQueue()),
        "wait for an event": lambda: blocking.wait(threading.Event()),
        "wait for a condition": wait_for_the_condition,
        "wait for a future": lambda: blocking.wait(unfinished),
        "acquire a lock": lambda: blocking.acquire(held),
        "acquire a semaphore": lambda: blocking.acquire(threading.Semaphore(0)),
        "accept": lambda: blocking.accept(listener),
        "recv": lambda: blocking.recv(empty_end, 1),
        "send": lambda: blocking.send(sockets[1], b"x"),
        "connect": lambda: blocking.connect(calling, full.getsockname()),
        "wait_readable": lambda: blocking.wait_readable(empty_end),
        "run": lambda: blocking.run(["sleep", "100"]),
        "run with output": lambda: blocking.run(["sleep", "100"], capture_output=True),
    }
    for sock in [*backlog, full, calling, empty_end, other]:
        sock.close()


NAMES = [
    "get",
    "get of a SimpleQueue",
    "wait for an event",
    "wait for a condition",
    "wait for a future",
    "acquire a lock",
    "acquire a semaphore",
    "accept",
    "recv",
    "send",
    "connect",
    "wait_readable",
    "run",
    "run with output",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_stop_ends_a_blocking_call(make_pool, calls, name, when):
    """T75i. JobStopped, whether the job was told before the call or while it waits in it; promptly."""
    pool = make_pool(1)
    about_to = threading.Event()
    with Gate() as gate:

        def work() -> None:
            if when == "before":
                gate()
            about_to.set()
            calls[name]()

        job = pool.enqueue(work)
        if when == "before":
            gate.wait_entered()
        else:
            assert about_to.wait(LONG)
            threading.Event().wait(0.02)  # most likely it is inside by now; if not it is the other case
        job.stop()
        told = time.monotonic()
    assert outcome(job) == ("cancelled", CALLER)
    assert time.monotonic() - told < LONG / 5


def test_a_stop_of_one_job_leaves_another_that_waits_for_the_same(make_pool, sockets, listener):
    """T75i. Two jobs wait for one queue, one socket, one listener: only the one that was told comes out."""
    here, there = sockets
    items: queue.Queue[str] = queue.Queue()
    pool = make_pool(6)
    waits = [lambda: blocking.get(items), lambda: blocking.recv(here, 1), lambda: close(blocking.accept(listener))]
    pairs = [(pool.enqueue(wait), pool.enqueue(wait)) for wait in waits]
    wait_until(lambda: pool.stats().busy == 6)
    for first, _ in pairs:
        first.stop()
    for first, second in pairs:
        assert outcome(first) == ("cancelled", CALLER)
        assert not second.done()
    items.put("item")
    there.send(b"x")
    socket.create_connection(listener.getsockname()).close()
    assert [outcome(second) for _, second in pairs] == [("returned", "item"), ("returned", b"x"), ("returned", None)]


@pytest.mark.parametrize("inside", [False, True], ids=["outside a job", "in a job"])
def test_without_a_stop_they_are_the_calls_they_stand_for(make_pool, sockets, listener, inside):
    """T75i. In a job and outside: items, bytes, connections, what a program printed."""
    here, there = sockets

    def use() -> None:
        items: queue.Queue[int] = queue.Queue()
        items.put(7)
        assert blocking.get(items) == 7
        event = threading.Event()
        event.set()
        assert blocking.wait(event) is True
        lock = threading.Lock()
        assert blocking.acquire(lock) is True
        assert blocking.acquire(lock, timeout=0.01) is False
        lock.release()
        there.send(b"abc")
        assert blocking.wait_readable(here) is True
        assert blocking.recv(here, 2) == b"ab"
        assert blocking.recv(here, 9) == b"c"
        assert blocking.send(here, b"xyz") == 3
        assert there.recv(9) == b"xyz"
        with socket.socket() as client:
            blocking.connect(client, listener.getsockname())
            connection, address = blocking.accept(listener)
            assert address == client.getsockname()
            with connection:
                client.send(b"hello")
                assert blocking.recv(connection, 9) == b"hello"
                client.close()
                assert blocking.recv(connection, 9) == b""
        ran = blocking.run([sys.executable, "-c", "print(input())"], input="told", capture_output=True, text=True)
        assert (ran.returncode, ran.stdout) == (0, "told\n")

    if inside:
        assert outcome(make_pool(1).enqueue(use), 3 * LONG) == ("returned", None)
    else:
        use()


@pytest.mark.parametrize("inside", [False, True], ids=["outside a job", "in a job"])
def test_a_timeout_ends_them_in_their_own_way(make_pool, sockets, inside):
    """T75i. queue.Empty, False, or the socket's own TimeoutError; 0 only looks."""
    here, _ = sockets
    here.settimeout(0.02)

    def use() -> None:
        for timeout in (0, 0.02):
            with pytest.raises(queue.Empty):
                blocking.get(queue.Queue(), timeout)
            assert blocking.wait(threading.Event(), timeout) is False
            assert blocking.acquire(threading.Semaphore(0), timeout) is False
            assert blocking.wait_readable(here, timeout) is False
            condition = threading.Condition()
            with condition:
                assert blocking.wait(condition, timeout) is False
        with pytest.raises(TimeoutError):
            blocking.recv(here, 1)
        with pytest.raises(subprocess.TimeoutExpired):
            blocking.run(["sleep", "100"], timeout=0.05)

    if inside:
        assert outcome(make_pool(1).enqueue(use)) == ("returned", None)
    else:
        use()


def test_a_condition_that_is_notified_is_not_missed(make_pool):
    """T75i. Of many notifications each wakes one waiter, though the waiters look for stops in between."""
    condition = threading.Condition()
    pool = make_pool(3)
    woken: list[int] = []

    def work() -> None:
        with condition:
            assert blocking.wait(condition) is True
            woken.append(1)

    for round_number in range(1, 4):
        jobs = [pool.enqueue(work) for _ in range(3)]
        wait_until(lambda: len(condition._waiters) == 3)
        for _ in range(3):
            with condition:
                condition.notify()
        assert [outcome(job) for job in jobs] == [("returned", None)] * 3
        assert len(woken) == 3 * round_number


@pytest.mark.parametrize("how", ["value", "error", "stop"])
def test_wait_for_a_job_says_only_that_it_has_ended(make_pool, how):
    """T75i. True whatever came of it; False when it takes too long."""
    pool = make_pool(2)
    with Gate() as gate:
        job = pool.enqueue(lambda: (gate(), fail() if how == "error" else None))
        gate.wait_entered()
        assert blocking.wait(job, 0.01) is False
        waiting = pool.enqueue(blocking.wait, job)
        if how == "stop":
            job.stop()
    assert waiting.result(LONG) is True
    assert blocking.wait(job, 0) is True
    if how == "error":
        assert outcome(job) == ("raised", Deliberate)


def test_a_wait_for_a_job_of_ones_own_full_pool_is_told(make_pool):
    """T75b. blocking.wait is a wait for it too."""
    pool = make_pool(1)

    def work() -> None:
        blocking.wait(pool.enqueue(int))

    assert outcome(pool.enqueue(work)) == ("raised", mh.WouldDeadlock)


def test_a_stopped_program_is_terminated_and_killed_if_it_does_not_listen(make_pool, tmp_path):
    """T75i. run(): the child has ended when the job has; also one that ignores SIGTERM."""
    pool = make_pool(2)
    code = "import os, signal, sys, time; {}; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(100)"
    jobs = []
    for name, action in (("willing", "pass"), ("deaf", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")):
        path = tmp_path / name
        jobs.append((path, pool.enqueue(blocking.run, [sys.executable, "-c", code.format(action), str(path)])))
    for path, _ in jobs:
        wait_until(lambda path=path: path.exists() and path.read_text(), timeout=3 * LONG)
    for path, job in jobs:
        job.stop()
        assert outcome(job) == ("cancelled", CALLER)
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


@pytest.mark.parametrize("kind", ["tcp", "tcp on every address", "unix"])
def test_wake_accept_ends_a_plain_accept(make_pool, kind):
    """T75i. Of TCP and Unix sockets: the blocked thread gets a connection that is closed already, and checks in."""
    with tempfile.TemporaryDirectory() as directory:
        if kind == "unix":
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(os.path.join(directory, "socket"))
            listening.listen()
        else:
            listening = socket.create_server(("127.0.0.1" if kind == "tcp" else "0.0.0.0", 0))
        entered = threading.Event()

        def serve() -> None:
            with mh.current_job().on_stop(lambda: blocking.wake_accept(listening)):
                while True:
                    entered.set()
                    connection, _ = listening.accept()
                    with connection:
                        mh.check_in()

        with listening:
            job = make_pool(1).enqueue(serve)
            assert entered.wait(LONG)
            job.stop()
            assert outcome(job) == ("cancelled", CALLER)
    assert mh.wake_accept is blocking.wake_accept


@pytest.mark.parametrize(
    "call",
    [
        lambda: blocking.get(7),
        lambda: blocking.wait(7),
        lambda: blocking.acquire(7),
        lambda: blocking.recv(7, 1),
        lambda: blocking.wait(threading.Event(), -1),
        lambda: blocking.get(queue.Queue(), float("nan")),
        lambda: blocking.wait_readable("7"),
        lambda: blocking.wake_accept(7),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_call(call):
    """T75i. TypeError or ValueError, instead of a wait for nothing."""
    with pytest.raises((TypeError, ValueError, AttributeError)):
        call()


@pytest.mark.parametrize("fd", [-1, 10**6])
def test_a_descriptor_that_is_not_open_is_no_wait(fd):
    """T75i. BadDescriptor, or ValueError for a negative number, before any system call waits for it."""
    with pytest.raises((mh.BadDescriptor, ValueError)):
        blocking.wait_readable(fd)


def test_a_signal_interrupts_a_blocking_call_of_the_main_thread(subprocess_python):
    """T93. Outside a job Ctrl-C raises KeyboardInterrupt out of the wait."""
    done = subprocess_python("""
import os, signal, socket, threading
from manyhands import blocking

here, there = socket.socketpair()
for call in (lambda: blocking.recv(here, 1), lambda: blocking.wait_readable(here)):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted")
""")
    assert done.stdout.split() == ["interrupted"] * 2, done.stderr


def test_a_full_pool_of_jobs_in_blocking_calls_ends_with_the_pool(make_pool, calls):
    """T75i. destroy() tells them all, and all come out."""
    names = [name for name in NAMES if not name.startswith("run")]
    pool = make_pool(len(names))
    jobs = [pool.enqueue(calls[name]) for name in names]
    wait_until(lambda: pool.stats().busy == len(names))
    assert pool.destroy(LONG) == []
    assert {outcome(job) for job in jobs} == {("aborted", mh.StopReason.POOL_FINISHING)}
