"""The contract of the pollers: what a watch promises whichever system call its loop waits in.

Where they differ, the difference stands in a test of its own below: `select` reports a hang-up as READ and
refuses numbers from FD_SETSIZE on; what is closed behind the loop's back is noticed by `poll` and `select` at once
and by `epoll` at the next use.
"""

from __future__ import annotations

import os
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
from descriptors import move_to, need_descriptors
from manyhands.testing import hold, wait_all_idle
from support import LONG

READ, WRITE, PRIORITY = mh.Events.READ, mh.Events.WRITE, mh.Events.PRIORITY
Reason = mh.RemovalReason

POLLERS = ("epoll", "poll", "select")
FD_SETSIZE = 1024


@pytest.fixture(params=POLLERS)
def poller(request) -> str:
    return request.param


class Reader:
    """A watch that reads one byte a run."""

    def __init__(self, loop: mh.EventLoop, sockets: tuple[socket.socket, socket.socket]) -> None:
        self.near, self.far = sockets
        self.runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.ended: queue.SimpleQueue[mh.RemovalReason] = queue.SimpleQueue()
        self.watch = loop.add(
            self.near,
            READ,
            lambda watch, events: self.runs.put(self.near.recv(1)),
            on_removed=lambda watch, reason: self.ended.put(reason),
        )

    def round_trips(self, count: int = 1) -> None:
        for _ in range(count):
            self.far.send(b"x")
            self.runs.get(timeout=LONG)


def first_events(loop, joined, descriptor, mask, make_ready) -> mh.Events:
    """Watch `descriptor`, make it ready while a thread waits, and return the first events that its handler gets."""
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        watch.remove()

    loop.add(descriptor, mask, handler)
    with joined(loop):
        wait_all_idle(loop)
        make_ready()
        return calls.get(timeout=LONG)


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


# ------------------------------------------------------------------ a thread that waits hears of every change


@pytest.mark.parametrize("threads", [1, 3])
def test_a_descriptor_added_while_every_thread_waits_is_served(make_loop, joined, pair, poller, threads):
    """T22. By a thread that is not joined; nothing else wakes the loop."""
    loop = make_loop(poller=poller)
    near, far = pair()
    far.send(b"x")
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with joined(loop, threads):
        wait_all_idle(loop)
        loop.add(near, READ, lambda *_: runs.put(near.recv(1)))
        assert runs.get(timeout=LONG) == b"x"


def test_a_mask_modified_while_every_thread_waits_counts_at_once(make_loop, joined, pair, poller):
    """T23. From READ with nothing to read to WRITE with room."""
    loop = make_loop(poller=poller)
    near, _ = pair()
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        watch.modify(READ)

    watch = loop.add(near, READ, handler)
    with joined(loop):
        wait_all_idle(loop)
        watch.modify(WRITE)
        assert calls.get(timeout=LONG) == WRITE
        wait_all_idle(loop)
        assert calls.empty()


def test_a_mask_modified_while_the_handler_runs_counts_when_it_ends(make_loop, joined, pair, poller):
    """T23. What made it run is still there, and is not asked for any more."""
    loop = make_loop(poller=poller)
    near, far = pair()
    calls: queue.SimpleQueue[mh.Events] = queue.SimpleQueue()
    leave = threading.Event()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(events)
        if events & WRITE:
            watch.remove()
        leave.wait(LONG)

    watch = loop.add(near, READ, handler)
    with joined(loop):
        try:
            far.send(b"x")
            assert calls.get(timeout=LONG) == READ
            watch.modify(WRITE)
        finally:
            leave.set()
        assert calls.get(timeout=LONG) == WRITE


def test_a_paused_watch_is_served_after_its_resume(make_loop, joined, pair, poller):
    """T40. What came meanwhile is delivered once; the resume wakes a thread that waits."""
    loop = make_loop(poller=poller)
    reader = Reader(loop, pair())
    with joined(loop):
        reader.round_trips()
        wait_all_idle(loop)
        assert reader.watch.pause() is True
        reader.far.send(b"y")
        wait_all_idle(loop)
        assert reader.runs.empty()
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"y"
        wait_all_idle(loop)
        assert reader.runs.empty()
        reader.round_trips()


@pytest.mark.race
def test_a_watch_paused_while_its_event_is_in_hand_does_not_start(make_loop, joined, pair, poller):
    """T36. In the interval between the poller's return and the look-up."""
    loop = make_loop(poller=poller)
    reader = Reader(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        with hold("poll.returned") as returned:
            reader.far.send(b"x")
            returned.wait_reached()
            assert reader.watch.pause(timeout=LONG) is True
        wait_all_idle(loop)
        assert reader.runs.empty()
        reader.watch.resume()
        assert reader.runs.get(timeout=LONG) == b"x"


def test_a_paused_watch_whose_peer_closes_costs_nothing(make_loop, joined, pair, poller):
    """T41. The loop goes on waiting, and the end is seen after the resume."""
    loop = make_loop(poller=poller)
    near, far = pair()
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        calls.put(near.recv(1))
        watch.remove()

    watch = loop.add(near, READ, handler)
    beside = Reader(loop, pair())
    with joined(loop):
        watch.pause()
        far.close()
        beside.round_trips()
        before = loop.stats().polls
        beside.round_trips(100)
        assert loop.stats().polls - before <= 500
        assert calls.empty()
        watch.resume()
        assert calls.get(timeout=LONG) == b""


def test_a_removed_watch_is_not_served_and_its_descriptor_can_be_added_again(make_loop, joined, pair, poller):
    """T29. While a thread waits in the poller with the old set of descriptors."""
    loop = make_loop(poller=poller)
    sockets = pair()
    first = Reader(loop, sockets)
    with joined(loop):
        first.round_trips()
        wait_all_idle(loop)
        assert first.watch.remove() is True
        assert first.ended.get(timeout=LONG) is Reason.REMOVED
        first.far.send(b"y")
        wait_all_idle(loop)
        assert first.runs.empty()
        second = Reader(loop, sockets)
        assert second.runs.get(timeout=LONG) == b"y"
        second.round_trips()
        assert first.runs.empty()
        assert first.ended.empty()


@pytest.mark.race
def test_a_watch_removed_while_its_event_is_in_hand_never_runs(make_loop, joined, pair, poller):
    """T29. In the interval between the poller's return and the look-up."""
    loop = make_loop(poller=poller)
    reader = Reader(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        with hold("poll.returned") as returned:
            reader.far.send(b"x")
            returned.wait_reached()
            assert reader.watch.remove(timeout=LONG) is True
        wait_all_idle(loop)
        assert reader.runs.empty()


# ------------------------------------------------------------------ numbers that change hands


def test_a_number_that_was_removed_closed_and_reused_is_served(make_loop, joined, pair, poller):
    """T26. While a thread waits in the poller with the old descriptor in its set."""
    loop = make_loop(poller=poller)
    old = Reader(loop, pair())
    new_socket, far = pair()
    number = old.watch.fd
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with joined(loop):
        old.round_trips()
        wait_all_idle(loop)
        assert old.watch.remove() is True
        os.close(old.near.detach())
        with move_to(new_socket, number) as fresh:
            new = loop.add(fresh, READ, lambda *_: runs.put(fresh.recv(1)))
            for byte in (b"1", b"2"):
                far.send(byte)
                assert runs.get(timeout=LONG) == byte
            assert new.remove() is True
        assert old.runs.empty()


def test_a_number_that_was_closed_behind_the_loop_and_reused_is_served(make_loop, joined, pair, poller):
    """T26a. The add displaces the old watch, which is told that its descriptor is gone."""
    loop = make_loop(poller=poller)
    old = Reader(loop, pair())
    new_socket, far = pair()
    number = old.watch.fd
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with joined(loop):
        old.round_trips()
        wait_all_idle(loop)
        old.near.detach()
        with move_to(new_socket, number) as fresh:
            new = loop.add(fresh, READ, lambda *_: runs.put(fresh.recv(1)))
            assert loop.get(number) is new
            assert old.ended.get(timeout=LONG) is Reason.FD_GONE
            for byte in (b"1", b"2"):
                far.send(byte)
                assert runs.get(timeout=LONG) == byte
            assert old.watch.remove() is True
            far.send(b"3")
            assert runs.get(timeout=LONG) == b"3"
            assert new.remove() is True
        assert old.runs.empty()
        assert old.ended.empty()


@pytest.mark.race
def test_a_number_that_changes_hands_while_its_event_is_in_hand_is_not_mistaken(make_loop, joined, pair, poller):
    """T26. The old descriptor's event never reaches the new watch, nor the old one any more."""
    loop = make_loop(poller=poller)
    old = Reader(loop, pair())
    new_socket, far = pair()
    number = old.watch.fd
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with joined(loop):
        wait_all_idle(loop)
        with hold("poll.returned") as returned:
            old.far.send(b"x")
            returned.wait_reached()
            old.near.detach()
            fresh = move_to(new_socket, number)
            new = loop.add(fresh, READ, lambda *_: runs.put(fresh.recv(1)))
        assert old.ended.get(timeout=LONG) is Reason.FD_GONE
        wait_all_idle(loop)
        assert runs.empty()
        assert old.runs.empty()
        far.send(b"1")
        assert runs.get(timeout=LONG) == b"1"
        assert new.remove() is True
        fresh.close()


def test_a_descriptor_closed_behind_the_loop_harms_nobody_else(make_loop, joined, pair, poller):
    """T27. The others are served, nothing spins, and its watch ends once, at the latest when it is used."""
    loop = make_loop(poller=poller)
    gone = Reader(loop, pair())
    beside = Reader(loop, pair())
    with joined(loop):
        wait_all_idle(loop)
        gone.near.close()
        beside.round_trips()
        if poller == "epoll":
            with pytest.raises(mh.WatchRemoved):
                gone.watch.modify(WRITE)
        before = loop.stats().polls
        beside.round_trips(50)
        assert loop.stats().polls - before <= 250
        assert gone.ended.get(timeout=LONG) is Reason.FD_GONE
        assert gone.watch.removed
        assert gone.watch.remove() is True
        wait_all_idle(loop)
        assert gone.ended.empty()
        assert loop.get(gone.watch.fd) is None


# ------------------------------------------------------------------ hang-ups and refusals


def test_a_hang_up_is_reported_without_being_asked_for(make_loop, joined, poller):
    """T32. A pipe whose writer closed: HANGUP from epoll and poll; select knows only that a read would not block."""
    reader, writer = os.pipe()
    try:
        loop = make_loop(poller=poller)
        events = first_events(loop, joined, reader, READ, lambda: os.close(writer))
        assert events == (READ if poller == "select" else mh.Events.HANGUP)
        loop.close()
    finally:
        os.close(reader)


def test_the_end_of_a_stream_is_read(make_loop, joined, pair, poller):
    """T32. The peer's half-close is READ with b"" for every poller."""
    near, far = pair()
    events = first_events(make_loop(poller=poller), joined, near, READ, lambda: far.shutdown(socket.SHUT_WR))
    assert events == READ
    assert near.recv(1) == b""


def test_a_regular_file_is_refused(make_loop, poller):
    """T33. Also where the system call would call it ready for ever."""
    loop = make_loop(poller=poller)
    with tempfile.TemporaryFile() as file:
        with pytest.raises(mh.NotPollable) as caught:
            loop.add(file, READ, lambda *_: None)
        assert caught.value.fd == file.fileno()
        assert loop.get(file.fileno()) is None
        assert loop.stats().watches == 0


def test_a_number_that_is_not_open_is_refused(make_loop, pair, poller):
    """T33. At the call, not by the thread that waits next."""
    loop = make_loop(poller=poller)
    near, _ = pair()
    number = os.dup(near.fileno())
    os.close(number)
    with pytest.raises(mh.BadDescriptor) as caught:
        loop.add(number, READ, lambda *_: None)
    assert caught.value.fd == number
    assert loop.stats().watches == 0


def test_a_second_watch_on_a_descriptor_is_refused(make_loop, joined, pair, poller):
    """T20. The first goes on working."""
    loop = make_loop(poller=poller)
    reader = Reader(loop, pair())
    with pytest.raises(mh.WatchExists) as caught:
        loop.add(reader.near, WRITE, lambda *_: None)
    assert caught.value.watch is reader.watch
    with joined(loop):
        reader.round_trips(2)
    del caught


def test_select_refuses_numbers_that_its_sets_cannot_hold(make_loop, joined, pair):
    """T33. FD_SETSIZE is 1024: the last number below it is served, the first above it refused."""
    need_descriptors(FD_SETSIZE)
    loop = make_loop(poller="select")
    (low, low_peer), (high, _) = pair(), pair()
    numbers = set(map(int, os.listdir("/proc/self/fd")))
    assert not numbers & {FD_SETSIZE - 1, FD_SETSIZE}
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with move_to(low, FD_SETSIZE - 1) as last, move_to(high, FD_SETSIZE) as beyond:
        with pytest.raises((mh.NotPollable, ValueError), match=r"1024|FD_SETSIZE"):
            loop.add(beyond, READ, lambda *_: None)
        assert loop.stats().watches == 0
        watch = loop.add(last, READ, lambda *_: runs.put(last.recv(1)))
        with joined(loop):
            low_peer.send(b"x")
            assert runs.get(timeout=LONG) == b"x"
        watch.remove()


@pytest.mark.parametrize("poller", ["epoll", "poll"])
def test_the_other_pollers_take_numbers_beyond_what_select_can_hold(make_loop, joined, pair, poller):
    """T33. The refusal is of select alone."""
    need_descriptors(FD_SETSIZE)
    loop = make_loop(poller=poller)
    near, far = pair()
    runs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with move_to(near, FD_SETSIZE) as beyond:
        watch = loop.add(beyond, READ, lambda *_: runs.put(beyond.recv(1)))
        with joined(loop):
            far.send(b"x")
            assert runs.get(timeout=LONG) == b"x"
        watch.remove()


@pytest.mark.parametrize("poller", ["kqueue", "", None, 1])
def test_an_unknown_poller_is_refused_by_naming_the_known_ones(poller):
    """T33. ValueError for a wrong name, TypeError for what is no name."""
    with pytest.raises((ValueError, TypeError)) as caught:
        mh.EventLoop(poller=poller)
    if isinstance(poller, str):
        assert isinstance(caught.value, ValueError)
        assert all(name in str(caught.value) for name in POLLERS)


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
