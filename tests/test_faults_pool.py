"""Faults that a pool must bear: each of six states against each of four events; jobs that block; what is left."""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
import time

import pytest

import manyhands as mh
from gate import Gate
from pooling import F, P, Q, R, S, Stoppable, Y, occupied, outcome
from support import LONG, wait_until
from turning import nothing

CALLER = mh.StopReason.CALLER
DEADLINE = mh.StopReason.DEADLINE
OWNER_GONE = mh.StopReason.OWNER_GONE
POOL_FINISHING = mh.StopReason.POOL_FINISHING

CANCELLED = (S, ("cancelled", CALLER))
GONE = (S, ("aborted", OWNER_GONE))
FINISHING = (S, ("aborted", POOL_FINISHING))
LATE = (S, ("aborted", DEADLINE))
DONE = (F, ("returned", None))

CELLS = {
    (Q, "hangs up"): GONE,
    (Q, "cancel"): CANCELLED,
    (Q, "pool stops"): FINISHING,
    (Q, "deadline"): LATE,
    (R, "hangs up"): GONE,
    (R, "cancel"): CANCELLED,
    (R, "pool stops"): FINISHING,
    (R, "deadline"): LATE,
    (Y, "hangs up"): GONE,
    (Y, "cancel"): CANCELLED,
    (Y, "pool stops"): FINISHING,
    (Y, "deadline"): LATE,
    # It was asked by its caller: whoever comes after changes nothing, and the reason stays.
    (P, "hangs up"): CANCELLED,
    (P, "cancel"): CANCELLED,
    (P, "pool stops"): CANCELLED,
    (P, "deadline"): CANCELLED,
    # What has ended has ended.
    (F, "hangs up"): DONE,
    (F, "cancel"): DONE,
    (F, "pool stops"): DONE,
    (F, "deadline"): DONE,
    (S, "hangs up"): CANCELLED,
    (S, "cancel"): CANCELLED,
    (S, "pool stops"): CANCELLED,
    (S, "deadline"): CANCELLED,
}
"""(State, event) -> the status and the outcome that must come of it."""

ANSWERS = {Q: True, R: False, Y: False, P: False, F: False, S: True}
"""What `cancel()` says in each state, as concurrent.futures would."""


class Client:
    """A connection whose watch owns a job, and a handler that removes the watch when the client hangs up."""

    def __init__(self, loop: mh.EventLoop) -> None:
        near, self.far = socket.socketpair()
        near.setblocking(False)
        self.gone = threading.Event()
        self.watch = loop.add(near, mh.Events.READ, self.read, close=True)

    def read(self, watch: mh.Watch, events: mh.Events) -> None:
        if watch.source.recv(100) == b"":
            watch.remove()
            self.gone.set()

    def hang_up(self) -> None:
        self.far.close()
        assert self.gone.wait(LONG)


@pytest.mark.fault
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell[0].name} {cell[1]}")
@pytest.mark.parametrize("threads", [1, 4])
def test_each_state_bears_each_event(make_loop, joined, threads, cell):
    """FAULT 31. One outcome, one cleanup, and the pool's thread is free for the next job."""
    state, event = cell
    loop = make_loop()
    with joined(loop, threads):
        for allowance in (0.03, 0.3, 3.0):
            if bear(loop, state, event, allowance):
                return
    raise AssertionError("this machine is too busy to come before a deadline of three seconds")


def bear(loop: mh.EventLoop, state: mh.JobStatus, event: str, allowance: float) -> bool:
    """Bring a job into the state, let the event come, check what came of it; False if the deadline was first."""
    pool, client = mh.ThreadPool(1), Client(loop)
    cleaned: list[mh.Job] = []
    willing = Stoppable()
    functions = {R: willing, Y: lambda: mh.current_job().sync(), P: lambda: (listen(), willing())}
    deadline = mh.now() + allowance if event == "deadline" else None
    try:
        with Gate() as busy, Gate() as listen:
            if state in (Q, S):
                pool.enqueue(busy)
                busy.wait_entered()
            job = pool.enqueue(
                functions.get(state, lambda: None),
                owner=client.watch,
                cleanup=cleaned.append,
                on_sync=nothing,
                deadline=deadline,
            )
            if state is R:
                willing.wait_entered(job)
            elif state is Y:
                wait_until(lambda: job.status not in (Q, R))
            elif state is P:
                wait_until(lambda: listen.entered or job.done())
            elif state is F:
                wait_until(job.done)
            if state in (P, S):
                job.stop()
            if job.status is not state:
                assert event == "deadline"
                return False
            if event == "hangs up":
                client.hang_up()
            elif event == "cancel":
                assert job.cancel() is ANSWERS[state]
            elif event == "pool stops":
                pool.finish()
            else:
                wait_until(lambda: mh.now() > deadline)
            listen.open()
            status, expected = CELLS[state, event]
            assert outcome(job) == expected
            assert job.status is status
            if event != "pool stops" and state is not Q and state is not S:
                assert pool.enqueue(int).result(LONG) == 0
        assert pool.destroy(LONG) == []
        assert cleaned == [job]
        return True
    finally:
        client.far.close()
        client.watch.remove()
        pool.destroy(LONG)


def test_the_table_is_whole():
    """FAULT 31. Six states, four events, 24 cells."""
    assert len(CELLS) == 24


@pytest.mark.fault
def test_a_full_queue_refuses_at_once(make_pool):
    """FAULT 31. In less than 10 ms a client can be told to come again; nobody is accepted and left hanging."""
    pool = make_pool(1, max_queue_depth=1)
    with occupied(pool):
        pool.enqueue(int)
        fastest = 1.0
        for _ in range(20):
            started = time.monotonic()
            with pytest.raises(mh.QueueFull):
                pool.enqueue(int)
            fastest = min(fastest, time.monotonic() - started)
    assert fastest < 0.01


@pytest.mark.fault
@pytest.mark.parametrize("threads", [2, 4])
def test_a_job_that_blocks_for_ever_keeps_nobody_else(make_pool, loop, joined, caplog, threads):
    """FAULT 9. Other jobs go on, the loop goes on, destroy(timeout) returns in time and says who holds it."""
    pool = make_pool(threads, name="mill", stop_warning=0.05)
    with caplog.at_level(logging.WARNING, "manyhands.pool"), joined(loop, 1), Gate() as gate:
        job = pool.enqueue(gate, name="the blocked one", owner=loop.strand())
        gate.wait_entered()
        assert [pool.enqueue(pow, 2, number).result(LONG) for number in range(20)] == [2**n for n in range(20)]
        served = threading.Event()
        loop.post(served.set)
        assert served.wait(LONG)
        started = time.monotonic()
        (left,) = pool.destroy(timeout=0.2)
        assert time.monotonic() - started < 0.2 + 0.1 * LONG
        assert left.name == "the blocked one"
        wait_until(lambda: any("the blocked one" in record.getMessage() for record in caplog.records))
    outcome(job)


@pytest.mark.fault
def test_what_was_used_is_given_back(make_loop, joined):
    """FAULT 26. Pools that come and go leave no thread, no descriptor, no job; those forgotten without a word as well."""

    def use(forget: bool) -> None:
        pool = mh.ThreadPool(3)
        strand = loop.strand()
        jobs = [pool.enqueue(int, owner=strand) for _ in range(10)]
        jobs += [
            pool.enqueue(lambda: mh.current_job().sync(), owner=strand, on_sync=lambda job, value: job.answer())
            for _ in range(3)
        ]
        for job in jobs:
            job.result(LONG)
        strand.close()
        if not forget:
            pool.destroy(LONG)

    loop = make_loop()
    with joined(loop, 1):
        use(False)
        gc.collect()
        descriptors = len(os.listdir("/proc/self/fd"))
        threads = threading.active_count()
        for turn in range(10):
            use(forget=turn % 2 == 0)

        def clean() -> bool:
            gc.collect()
            return len(os.listdir("/proc/self/fd")) <= descriptors and threading.active_count() <= threads

        wait_until(clean)


@pytest.mark.fault
def test_stats_and_jobs_say_what_is_alive(make_pool, loop):
    """FAULT 26. Whatever is not over has a name, a state and an owner to be asked for."""
    pool = make_pool(1)
    strand = loop.strand(name="customer")
    willing = Stoppable()
    job = pool.enqueue(willing, name="alive", owner=strand)
    willing.wait_entered()
    (snapshot,) = pool.jobs()
    assert (snapshot.name, snapshot.status) == ("alive", R)
    assert "customer" in str(snapshot.owner)
    job.stop()
    outcome(job)
    job.reap()
    assert pool.jobs() == []
    assert pool.stats().done == 0


@pytest.mark.fault
def test_a_thread_that_cannot_be_started_keeps_nobody_who_waits_for_the_end(spawn):
    """Its job was cancelled meanwhile, so that the thread alone is waited for, and it never comes."""

    class Threadless(mh.ThreadPool):
        def _start_thread(self, lane):
            if lane:
                super()._start_thread(lane)

    pool = Threadless(1)
    assert pool.submit(nothing).cancel()
    ending = spawn(pool.shutdown)
    wait_until(lambda: pool.stats().threads == 0 and not pool.jobs())
    threading.Event().wait(0.1)  # it finds the fault if `shutdown` waits by now, and passes if it does not
    assert not ending.done
    pool._start_failed(0)
    ending.result()


@pytest.mark.fault
def test_a_pool_that_is_forgotten_with_jobs_at_work_lets_them_end(subprocess_python):
    """FAULT 24. Nobody holds the pool any more: its jobs end as with any executor, and then its threads."""
    done = subprocess_python(
        """
import gc, threading
import manyhands as mh

go = threading.Event()
pool = mh.ThreadPool(2)
jobs = [pool.submit(go.wait, 20) for _ in range(6)]
del pool
gc.collect()
go.set()
assert [job.result(20) for job in jobs] == [True] * 6
del jobs
pause = threading.Event()
for _ in range(2000):
    gc.collect()
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("mh-pool")]
    if not left:
        break
    pause.wait(0.005)
print(left)
"""
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
