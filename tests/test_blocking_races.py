"""Blocking calls whose stop comes at a bad moment."""

from __future__ import annotations

import socket
import threading

import pytest

import manyhands as mh
from manyhands import blocking
from pooling import occupied, outcome
from support import LONG, wait_until

CALLER = mh.StopReason.CALLER


def test_occupied_threads_do_not_keep_a_stop_from_a_blocking_call(make_pool, sockets):
    """T75i. The stop needs no thread of the pool."""
    pool = make_pool(2)
    with occupied(pool):
        job = pool.enqueue(blocking.recv, sockets[0], 1)
        wait_until(job.running)
        job.stop()
        assert outcome(job) == ("cancelled", CALLER)


def test_a_notification_that_comes_between_two_looks_for_a_stop_is_not_lost(make_pool, monkeypatch):
    """T75i. The waiter keeps its place in the condition's queue, although it looks for a stop while others hold the lock."""
    monkeypatch.setattr(blocking._patience, "LOOK", 0.001)
    condition = threading.Condition()

    def wait() -> bool:
        with condition:
            return blocking.wait(condition, LONG)

    for _ in range(3):
        job = make_pool(1).enqueue(wait)
        wait_until(lambda: condition._waiters)
        with condition:
            threading.Event().wait(0.05)  # many looks, none of which finds the lock free
            condition.notify()
        assert outcome(job) == ("returned", True)


@pytest.mark.race
def test_a_waiter_that_is_stopped_as_it_is_notified_hands_the_notification_on(make_pool, monkeypatch):
    """T75i. One notification, two waiters, one of them stopped: the other one gets it, or the first one had it."""
    monkeypatch.setattr(blocking._patience, "LOOK", 1e-5)
    condition = threading.Condition()
    pool = make_pool(2)
    for _ in range(100):

        def work() -> None:
            with condition:
                blocking.wait(condition)

        first = pool.enqueue(work)
        wait_until(lambda: len(condition._waiters) == 1)
        second = pool.enqueue(work)
        wait_until(lambda: len(condition._waiters) == 2)
        first.stop()
        with condition:
            condition.notify()
        if outcome(first) == ("returned", None):
            second.stop()
        else:
            assert outcome(second) == ("returned", None)
        outcome(second)


def test_jobs_that_accept_from_one_socket_can_all_be_stopped(make_pool, listener, monkeypatch):
    """T75i. One connection wakes all of them; those who do not get it wait on, where a stop finds them."""
    woken, seen = threading.Barrier(3), set()
    real = blocking._sockets._wait

    def wait(*args) -> None:
        real(*args)
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            woken.wait(LONG)  # all of them have been told of the connection before the first takes it

    monkeypatch.setattr(blocking._sockets, "_wait", wait)
    jobs = [make_pool(1).enqueue(blocking.accept, listener) for _ in range(3)]
    with socket.create_connection(listener.getsockname()) as client:
        wait_until(lambda: any(job.done() for job in jobs))
        lucky, *others = sorted(jobs, key=lambda job: not job.done())
        connection, address = lucky.result()
        connection.close()
        assert address == client.getsockname()
        for job in others:
            job.stop()
            assert outcome(job) == ("cancelled", CALLER)
