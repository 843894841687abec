"""Faults of descriptors, each in a process of its own with one and with four joined threads.

The programs below are functions of this file: their source is handed to a fresh interpreter, so each imports what
it uses. Each ends with the leak line: `fault_programs`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fault_programs import check, each_thread_count, served, source_of

pytestmark = pytest.mark.fault


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
