"""Faults of threads and wake-ups: what each must leave behind."""

from __future__ import annotations

import logging
import random
import threading
import time

import pytest

import manyhands as mh
from gate import Gate
from manyhands.testing import wait_all_idle
from support import LONG, wait_until

# -- FAULT 9: a handler that blocks for ever -------------------------------------------------------


@pytest.mark.parametrize("threads", [2, 4])
def test_while_a_handler_blocks_for_ever_the_others_are_served(make_loop, joined, pair, threads):
    """FAULT 9. With two threads or more other watches are answered, round after round, without noticeable delay."""
    loop = make_loop(slow_handler=60)
    a, b = pair()
    b.setblocking(True)
    b.settimeout(LONG)
    loop.add(a, mh.Events.READ, lambda watch, events: a.send(a.recv(100)))
    delays: list[float] = []
    with joined(loop, threads), Gate() as gate:
        loop.post(gate)
        gate.wait_entered()
        for _ in range(200):
            start = time.monotonic()
            b.send(b"x")
            assert b.recv(1) == b"x"
            delays.append(time.monotonic() - start)
    delays.sort()
    assert delays[len(delays) // 2] < 0.005, f"median {delays[len(delays) // 2]:.6f} s"


@pytest.mark.parametrize("threads", [1, 4])
def test_a_stop_with_a_time_limit_returns_and_it_is_said_who_holds_it(make_loop, spawn, pair, caplog, threads):
    """FAULT 9. `stop(timeout=1)` returns False at about its limit; the log and `dump()` say which handler is inside."""
    loop = make_loop(name="mill", slow_handler=0.1)
    a, b = pair()

    with Gate() as gate:

        def a_handler_that_blocks(watch: mh.Watch, events: mh.Events) -> None:
            gate()

        loop.add(a, mh.Events.READ, a_handler_that_blocks, name="till")
        crew = [spawn(loop.join) for _ in range(threads)]
        with caplog.at_level(logging.WARNING, "manyhands.loop"):
            b.send(b"x")
            gate.wait_entered()
            start = time.monotonic()
            assert loop.stop(timeout=1) is False
            took = time.monotonic() - start
        assert 1.0 <= took <= 1.5
        assert "till" in loop.dump()
        said = [record.getMessage() for record in caplog.records if "till" in record.getMessage()]
        assert said != []
        assert "a_handler_that_blocks" in said[0]
        assert "mill" in said[0]
        gate.open()
        for thread in crew:
            thread.result()
    assert loop.wait(0) is True
    assert loop.stop(timeout=0) is True


# -- FAULT 10: a joined thread ends by an uncaught error -------------------------------------------


@pytest.mark.race
@pytest.mark.parametrize("threads", [1, 4])
def test_threads_that_die_in_the_loop_lose_nothing(make_loop, pair, spawn, threads):
    """FAULT 10. 100 threads leave `join` by SystemExit while messages and echoes flow: 0 lost, the others go on."""
    loop = make_loop(handover=0)
    strand = loop.strand()
    ran: list[int] = []
    deaths: list[int] = []
    enough = threading.Event()
    socks = [pair() for _ in range(4)]
    for a, b in socks:
        b.setblocking(True)
        b.settimeout(LONG)
        loop.add(a, mh.Events.READ, lambda watch, events: watch.source.send(watch.source.recv(100)))

    def worker() -> None:
        """Join again and again, as a pool whose threads are replaced would."""
        while not loop.stopped:
            try:
                loop.join()
            except SystemExit:
                deaths.append(1)

    def die() -> None:
        raise SystemExit

    def post_all() -> int:
        number = 0
        while not enough.is_set() or number < 1000:
            strand.post(ran.append, number)
            number += 1
            if strand.pending > 500:
                enough.wait(0.001)
        return number

    def talk(sock) -> int:
        rounds = 0
        while not enough.is_set() or rounds < 10:
            message = f"{rounds:06}".encode()
            sock.send(message)
            assert sock.recv(100) == message
            rounds += 1
        return rounds

    crew = [spawn(worker) for _ in range(threads)]
    poster = spawn(post_all)
    clients = [spawn(talk, b) for _, b in socks]
    for number in range(100):
        (loop if number % 2 else strand).post(die)
        wait_until(lambda number=number: len(deaths) == number + 1)
    enough.set()
    posted = poster.result()
    assert all(client.result() >= 10 for client in clients)
    wait_until(lambda: len(ran) == posted)
    loop.request_stop()
    for thread in crew:
        thread.result()
    assert ran == list(range(posted))
    assert len(deaths) == 100
    assert loop.joined == 0


# -- FAULT 28: lost wake-ups -----------------------------------------------------------------------


def posts_with_random_pauses(make_loop, joined, spawn, threads: int, total: int, seed: int) -> None:
    """Four senders, each to a strand of its own and to one they share, while a fifth thread pauses and resumes."""
    senders = 4
    each = total // senders
    loop = make_loop()
    shared = loop.strand()
    own = [loop.strand() for _ in range(senders)]
    ran_shared: list[int] = []
    ran_own: list[list[int]] = [[] for _ in range(senders)]
    enough = threading.Event()
    dice = random.Random(seed)

    def send_all(sender: int, seed: int) -> None:
        mine, note = own[sender], ran_own[sender].append
        local = random.Random(seed)
        for number in range(each):
            if number % 2:
                shared.post(ran_shared.append, sender * each + number)
            else:
                mine.post(note, number)
            if local.random() < 0.0005:
                enough.wait(local.random() / 500)  # long enough for the loop to fall asleep

    def pause_at_random() -> None:
        local = random.Random(seed)
        while not enough.is_set():
            strand = local.choice([shared, *own])
            strand.pause()
            enough.wait(local.random() / 1000)
            strand.resume()
            enough.wait(local.random() / 100)

    with joined(loop, threads):
        pauser = spawn(pause_at_random)
        for worker in [spawn(send_all, sender, dice.random()) for sender in range(senders)]:
            worker.result(timeout=120)
        enough.set()
        pauser.result()
        wait_all_idle(loop, timeout=60)
    assert len(ran_shared) + sum(map(len, ran_own)) == senders * each, "messages were lost or run twice"
    for sender in range(senders):
        assert ran_own[sender] == list(range(0, each, 2))
        seen = [number - sender * each for number in ran_shared if sender * each <= number < (sender + 1) * each]
        assert seen == list(range(1, each, 2))


@pytest.mark.race
@pytest.mark.parametrize("threads", [1, 2, 4, 8])
def test_no_wake_up_is_lost_and_no_senders_messages_are_reordered(make_loop, joined, spawn, threads):
    """FAULT 28. Posts with random pauses of senders and strands: 0 lost, 0 reordered. A million over the four runs."""
    posts_with_random_pauses(make_loop, joined, spawn, threads, 250_000, seed=threads)


@pytest.mark.race
@pytest.mark.stress
@pytest.mark.parametrize("threads", [1, 2, 4, 8])
def test_no_wake_up_is_lost_in_a_minute_of_posts(make_loop, joined, spawn, threads):
    """FAULT 28. The same for 15 s with each number of threads."""
    deadline = time.monotonic() + 15
    seed = 100 * threads
    while time.monotonic() < deadline:
        posts_with_random_pauses(make_loop, joined, spawn, threads, 250_000, seed)
        seed += 1


@pytest.mark.race
@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_message_at_a_time_to_a_loop_that_sleeps_in_between_always_wakes_it(make_loop, joined, threads):
    """FAULT 28. The narrowest case: each message is sent when the one before has run, as the threads go to sleep."""
    loop = make_loop(handover=0)
    came = threading.Semaphore(0)
    with joined(loop, threads):
        for number in range(3000):
            loop.post(came.release)
            assert came.acquire(timeout=LONG), f"message {number} did not run"
