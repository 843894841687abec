"""Watches under load: many of them, on many threads, removed and reused while they run.

What takes a few seconds runs with every test run, as a race; what takes longer is marked `stress`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import manyhands as mh
from descriptors import is_armed, move_to, need_descriptors
from manyhands.testing import wait_all_idle
from support import LONG

READ = mh.Events.READ
LOAD = 60.0
"""Seconds. A limit for the end of a whole load, which takes a few of them."""


@contextmanager
def eventfds(count: int) -> Iterator[list[int]]:
    """Open `count` descriptors that are readable until they are read: one number for a watch, and no peer."""
    need_descriptors(count)
    numbers: list[int] = []
    try:
        for _ in range(count):
            numbers.append(os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        yield numbers
    finally:
        for number in numbers:
            os.close(number)


@pytest.mark.race
def test_ten_thousand_messages_to_a_thousand_watches_are_each_handled_once_and_nobody_starves(make_loop, joined):
    """T34. All messages are there before the eight threads come.

    Nobody starves: when the first watch has had all of its ten messages, every other one has had some of its own.
    """
    watches, each = 1000, 10
    need_descriptors(2 * watches)
    loop = make_loop()
    sockets = [socket.socketpair() for _ in range(watches)]
    received: list[list[int]] = [[] for _ in range(watches)]
    behind: list[int] = []
    missing = threading.Semaphore(0)

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        try:
            index, message = struct.unpack("=HH", watch.source.recv(4))
        except BlockingIOError:  # spurious: it was ready when a second thread joined, which arms it once more
            return
        received[index].append(message)
        if len(received[index]) == each and not behind:
            behind.append(min(map(len, received)))
        missing.release()

    try:
        for near, _ in sockets:
            near.setblocking(False)
            loop.add(near, READ, handler)
        for message in range(each):
            for index, (_, far) in enumerate(sockets):
                far.send(struct.pack("=HH", index, message))
        with joined(loop, 8):
            for _ in range(watches * each):
                assert missing.acquire(timeout=LOAD)
            wait_all_idle(loop, timeout=LOAD)
        assert received == [list(range(each))] * watches
        assert behind[0] > 0
        loop.close()
    finally:
        for near, far in sockets:
            near.close()
            far.close()


@pytest.mark.race
@pytest.mark.thread_unsafe  # a hundred threads are enough for one process
def test_a_hundred_threads_remove_five_hundred_watches_that_never_rest(make_loop, joined, spawn):
    """T35. Every thread removes every watch, in an order of its own, while the handlers run.

    Each watch ends once, and never runs after a removal of it returned True.
    """
    removers = 100
    loop = make_loop()
    ended: queue.SimpleQueue[tuple[int, mh.RemovalReason]] = queue.SimpleQueue()
    removed: dict[int, bool] = {}
    late: list[int] = []
    answers: list[bool] = []
    start = threading.Barrier(removers + 1)

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        if watch.fd in removed:
            late.append(watch.fd)

    def remove_all(seed: int) -> None:
        order = random.Random(seed).sample(watches, len(watches))
        start.wait(LOAD)
        for watch in order:
            answers.append(watch.remove())
            removed[watch.fd] = True

    with eventfds(500) as numbers:
        watches = [
            loop.add(number, READ, handler, on_removed=lambda watch, reason: ended.put((watch.fd, reason)))
            for number in numbers
        ]
        with joined(loop, 4):
            threads = [spawn(remove_all, seed) for seed in range(removers)]
            start.wait(LOAD)
            for thread in threads:
                thread.result(LOAD)
            wait_all_idle(loop, timeout=LOAD)
        seen = sorted(ended.get_nowait() for _ in range(ended.qsize()))
        assert seen == [(number, mh.RemovalReason.REMOVED) for number in sorted(numbers)]
        assert late == []
        assert all(answers)
        assert loop.stats().watches == 0
        assert not any(is_armed(number) for number in numbers)


@pytest.mark.race
def test_pause_races_the_rearm_ten_thousand_times_and_never_leaves_a_paused_watch_armed(make_loop, joined, pair):
    """T45. One byte makes a handler run; the pause comes a random while later, so somewhere around its re-arm."""
    rounds = 10_000
    loop = make_loop(handover=0)
    near, far = pair()
    paused = False
    late: list[int] = []
    armed: list[int] = []
    chance = random.Random(45)

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        if paused:
            late.append(1)
        with contextlib.suppress(BlockingIOError):
            near.recv(65536)

    watch = loop.add(near, READ, handler)
    with joined(loop, 2):
        for index in range(rounds):
            with contextlib.suppress(BlockingIOError):  # when chance has let none of the last rounds read
                far.send(b"x")
            for _ in range(chance.randrange(300)):
                pass
            assert watch.pause() is True
            paused = True
            if is_armed(watch.fd):
                armed.append(index)
            paused = False
            watch.resume()
        wait_all_idle(loop, timeout=LOAD)
    assert armed == []
    assert late == []


@pytest.mark.race
@pytest.mark.parametrize("duplicate", [False, True], ids=["closed", "a duplicate lives"])
def test_a_number_reused_a_thousand_times_under_four_threads_never_crosses(make_loop, joined, duplicate):
    """FAULT 6. Each round closes a watched descriptor with an event under way and gives its number to another.

    Once the old watch is removed its handler never starts, and the new one gets its own data alone.
    """
    rounds = 1000
    loop = make_loop(handover=0)
    crossed: list[tuple[int, str]] = []
    ended: queue.SimpleQueue[tuple[int, mh.RemovalReason]] = queue.SimpleQueue()
    received: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
    current = -1
    chance = random.Random(6)

    def add(sock: socket.socket, index: int) -> mh.Watch:
        def handler(watch: mh.Watch, events: mh.Events) -> None:
            if index < current:
                crossed.append((index, "an old handler ran"))
                return
            try:
                received.put((index, os.read(watch.fd, 100)))
            except OSError as error:  # the number was closed under this handler
                received.put((index, str(error).encode()))

        return loop.add(sock, READ, handler, on_removed=lambda watch, reason: ended.put((index, reason)))

    sock, far = socket.socketpair()
    sock.setblocking(False)
    number = sock.fileno()
    old = add(sock, 0)
    current = 0
    kept: list[socket.socket] = []
    with joined(loop, 4):
        for index in range(1, rounds + 1):
            far.send(b"old")
            for _ in range(chance.randrange(200)):
                pass
            if duplicate:
                kept.append(sock.dup())
            fresh, fresh_far = socket.socketpair()
            fresh.setblocking(False)
            sock.detach()
            sock = move_to(fresh, number)
            new = add(sock, index)
            assert old.remove() is True  # whoever was inside has left
            current = index
            while not received.empty():
                received.get()
            fresh_far.send(b"new")
            assert received.get(timeout=LONG) == (index, b"new")
            assert loop.get(number) is new
            far.close()
            old, far = new, fresh_far
            for duplicate_socket in kept:
                duplicate_socket.close()
            kept.clear()
        wait_all_idle(loop)
        assert old.remove() is True
        wait_all_idle(loop)
    loop.close()
    far.close()
    sock.close()
    assert crossed == []
    reasons = dict(ended.get_nowait() for _ in range(ended.qsize()))
    assert ended.empty()
    assert reasons == {**dict.fromkeys(range(rounds), mh.RemovalReason.FD_GONE), rounds: mh.RemovalReason.REMOVED}


@pytest.mark.stress
def test_two_thousand_five_hundred_watches_remove_each_other_for_a_hundred_rounds(make_loop, joined):
    """FAULT 29. Every handler removes a random other one, on four threads.

    No handler starts after a removal of its watch returned True, and each watch ends exactly once.
    """
    loop = make_loop(handover=0)
    with eventfds(2500) as numbers, joined(loop, 4):
        for seed in range(100):
            remove_each_other(loop, numbers, seed)
    assert loop.stats().watches == 0


def remove_each_other(loop: mh.EventLoop, numbers: list[int], seed: int) -> None:
    """Watch every number with a handler that removes a random other watch, and see how each of them ends."""
    chance = random.Random(seed)
    victims = [chance.randrange(len(numbers)) for _ in numbers]
    place = {number: index for index, number in enumerate(numbers)}
    removed = [False] * len(numbers)
    late: list[int] = []
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    complete = threading.Event()

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        index = place[watch.fd]
        if removed[index]:
            late.append(index)
        if complete.wait(LONG):  # from here on every watch of this round can be named
            os.eventfd_read(watch.fd)
            victim = victims[index]
            if watches[victim].remove():
                removed[victim] = True

    watches = [
        loop.add(number, READ, handler, on_removed=lambda watch, reason: ended.put(watch.fd)) for number in numbers
    ]
    complete.set()
    wait_all_idle(loop, timeout=LOAD)
    for watch in watches:
        assert watch.remove() is True
    wait_all_idle(loop, timeout=LOAD)
    assert late == []
    assert sorted(ended.get_nowait() for _ in range(ended.qsize())) == sorted(numbers)
    for number in numbers:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(number, 1)
