"""A pool whose home is a loop: its jobs run on the threads that have joined that, and it starts none of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

import manyhands as mh
from gate import Gate
from pooling import outcome
from support import LONG
from turning import nothing


@pytest.fixture
def home_pool(make_pool, loop):
    def make(threads: int) -> mh.ThreadPool:
        pool = make_pool(threads)
        pool._use_threads_of(loop)
        return pool

    return make


def test_the_thread_whose_job_has_ended_takes_the_next_one(home_pool, loop, joined, ask):
    """T75f. They begin in their order, and nobody else is woken for them."""
    pool = home_pool(1)
    begun: list[int] = []

    def work(number: int) -> threading.Thread:
        begun.append(number)
        return threading.current_thread()

    with joined(loop, 2) as threads:
        with Gate() as gate:
            ask(pool, gate)
            gate.wait_entered()
            jobs = [ask(pool, work, number) for number in range(200)]
            assert pool.stats().queued == 200
            before = loop.stats()
        ran_on = {job.result(LONG) for job in jobs}
        after = loop.stats()
    assert ran_on <= set(threads)
    assert begun == list(range(200))
    assert pool.stats().threads == 0
    assert after.wakes + after.standbys - before.wakes - before.standbys < 50


def test_a_free_slot_brings_a_second_thread(home_pool, loop, joined):
    """T75f. For a job that waits although its own thread has no place for it: it has promised one already."""
    pool = home_pool(2)
    with joined(loop, 3) as threads, Gate() as first, Gate() as second:
        jobs: list[mh.Job] = []
        loop.post(lambda: jobs.extend(pool.enqueue(gate, in_place=True) for gate in (first, second)))
        first.wait_entered()
        second.wait_entered()
        stats = pool.stats()
        assert (stats.busy, stats.threads) == (2, 0)
        names = {job.thread for job in pool.jobs()}
        assert names <= {thread.name for thread in threads}


def test_a_callback_that_takes_long_does_not_keep_the_next_job(home_pool, loop, joined, ask):
    """T75f. The thread is still at the end of its job; another one of the loop comes."""
    pool = home_pool(1)
    with joined(loop, 3) as threads, Gate() as gate, Gate() as late:
        first = ask(pool, gate)
        gate.wait_entered()
        first.add_done_callback(lambda _: late())
        second = ask(pool, threading.current_thread)
        gate.open()
        late.wait_entered()
        assert second.result(LONG) in threads
    assert pool.stats().threads == 0


def test_a_job_that_no_thread_of_the_loop_enqueued_has_a_thread_of_the_pool(home_pool, loop, joined, ask):
    pool = home_pool(2)
    with joined(loop, 3) as threads:
        other = pool.submit(threading.current_thread).result(LONG)
        assert other.name.startswith("mh-pool-")
        assert ask(pool, threading.current_thread).result(LONG) in threads


def test_a_loop_without_a_thread_to_spare_sends_none(home_pool, loop, joined, ask):
    """T75f. One thread has to serve the loop: the pool starts its own."""
    pool = home_pool(1)
    with joined(loop, 1) as threads:
        job = ask(pool, threading.current_thread)
        assert job.result(LONG) not in threads
    assert pool.stats().threads == 1


def test_a_place_that_another_pool_holds_is_not_waited_for(make_pool, home_pool, loop, joined, ask):
    """T75f. It may be held for long. A place that a job of the same pool holds is: it has a slot as well."""
    pool, other = home_pool(1), make_pool(1)
    with joined(loop, 2) as threads, Gate() as gate:
        ask(other, gate)
        gate.wait_entered()
        assert ask(pool, threading.current_thread).result(LONG) not in threads


@pytest.fixture
def sent_for(loop):
    """Have a thread sent for while each of the three that have joined is in a handler: gives the jobs.

    The first is promised to the thread whose handler enqueued it, the others wait. `gate` is that of another thread's handler,
    which `post` posts.
    """

    @contextlib.contextmanager
    def send(pool: mh.ThreadPool, *functions, gate=None, post=None) -> Iterator[list[mh.Job]]:
        jobs: list[mh.Job] = []
        gate, post = gate or Gate(), post or loop.post
        with Gate() as other, gate, Gate() as asking:

            def enqueue() -> None:
                jobs.extend(pool.enqueue(each, in_place=True) for each in (int, *functions))
                asking()

            loop.post(other)
            other.wait_entered()
            post(gate)
            gate.wait_entered()
            loop.post(enqueue)
            asking.wait_entered()
            assert (pool.stats().queued, pool.stats().threads) == (1 + len(functions), 0)
            yield jobs

    return send


def test_a_thread_that_calls_back_keeps_its_place(home_pool, loop, joined, ask):
    """T75f. Else both threads would be in jobs, or at the end of one, and nobody would serve the loop."""
    pool = home_pool(1)
    with joined(loop, 2) as threads, Gate() as gate, Gate() as late, Gate() as second:
        first = ask(pool, gate)
        gate.wait_entered()
        first.add_done_callback(lambda _: late())
        waits = ask(pool, second)
        gate.open()
        late.wait_entered()
        served = threading.Event()
        loop.post(served.set)
        assert served.wait(LONG)
        assert not second.entered
        late.open()
        second.wait_entered()
        assert pool.jobs()[0].thread in {thread.name for thread in threads}
        second.open()
        outcome(waits)


def test_the_loop_stops_and_the_pool_does_what_is_left(home_pool, loop, joined, sent_for):
    """T75f. A thread was sent for, and none comes: the pool starts one. The job in place is the loop's, and is stopped."""
    pool = home_pool(2)
    with joined(loop, 3) as threads:
        with sent_for(pool, threading.current_thread) as (in_place, waits):
            loop.request_stop()
        assert waits.result(LONG) not in threads
    assert in_place.reason is mh.StopReason.LOOP_STOPPING


def test_a_drain_does_not_wait_for_what_was_sent_for(home_pool, loop, joined, ask):
    """T75f. A loop that drains takes no job: the pool does it, while jobs in place keep the drain from its end."""
    pool = home_pool(2)
    with joined(loop, 3) as threads, Gate() as held, Gate() as ends, Gate() as late:
        ask(pool, held)
        first = ask(pool, ends)
        held.wait_entered()
        ends.wait_entered()
        first.add_done_callback(lambda _: late())
        waits = ask(pool, threading.current_thread)
        ends.open()
        late.wait_entered()
        assert (waits.status, pool.stats().threads) == (mh.JobStatus.QUEUED, 0)
        loop.request_stop(drain=True)
        assert waits.result(LONG) not in threads


def test_the_main_thread_joins_and_the_pool_does_what_is_left(home_pool, loop, joined, sent_for):
    """T75f. It would be woken for a job, and never runs one: while it is here the pool starts its own threads."""
    pool = home_pool(2)
    with joined(loop, 3) as threads, sent_for(pool, threading.current_thread) as (_, waits):
        loop.join(timeout=0.001)
        assert waits.result(LONG) not in threads


def test_a_watch_whose_strand_ends_beside_one_that_was_sent_for_is_told(home_pool, loop, joined, sent_for, pair):
    """T26. The strand ends between two jobs that the thread comes for: it pays what it owes."""
    strand, told, gate = loop.strand(), threading.Event(), Gate()
    loop.add(pair()[0], mh.Events.READ, nothing, strand=strand, on_removed=lambda *_: told.set())

    def post(gate: Gate) -> None:
        strand.post(lambda: (strand.post_terminal(None), gate()))

    with joined(loop, 3), sent_for(home_pool(2), int, int, gate=gate, post=post) as (_, *waiting):
        gate.open()
        assert [job.result(LONG) for job in waiting] == [0, 0]
        assert told.wait(LONG)


def test_the_pool_ends_although_a_thread_was_sent_for(home_pool, loop, joined, sent_for):
    """T66. The end waits for the pool's own threads, not for one that comes when its handler ends."""
    pool = home_pool(2)
    with joined(loop, 3), sent_for(pool, int) as (in_place, waits):
        assert pool.destroy(LONG) == []
        assert {in_place.status, waits.status} == {mh.JobStatus.STOPPED}


def test_where_others_are_told_of_the_end_another_thread_comes(make_pool, loop, joined, ask):
    """T75f. An on_end may take long, as a done callback may."""
    late = Gate()
    pool = make_pool(1, on_end=lambda job: late() if job.name == "first" else None)
    pool._use_threads_of(loop)
    with joined(loop, 3) as threads, late, Gate() as gate:
        ask(pool, gate, name="first")
        gate.wait_entered()
        second = ask(pool, threading.current_thread)
        gate.open()
        late.wait_entered()
        assert second.result(LONG) in threads
    assert pool.stats().threads == 0


def test_a_loop_with_fewer_places_than_the_pool_has_slots_keeps_no_job_waiting(home_pool, loop, joined, ask):
    """T75f. The places are with its own jobs, and may be for long: a thread of the pool is started for the free slot."""
    pool = home_pool(2)
    with joined(loop, 2) as threads, Gate() as gate:
        ask(pool, gate)
        gate.wait_entered()
        assert ask(pool, threading.current_thread).result(LONG) not in threads


def test_handlers_and_jobs_that_make_each_other_take_turns(home_pool, loop, joined):
    """T75f. Jobs of steps that let each other go first without end do not keep a message from running, on any thread."""
    pool = home_pool(1)
    served = threading.Event()
    going_on = [threading.Event(), threading.Event()]

    def endless(again: threading.Event):
        yield mh.CHECKING_IN
        again.set()
        while not served.is_set():
            yield mh.CHECKING_IN
        return threading.current_thread()

    with joined(loop, 2) as threads:
        jobs: list[mh.Job] = []
        loop.post(lambda: jobs.extend(pool.enqueue_steps(endless, again, in_place=True) for again in going_on))
        assert all(again.wait(LONG) for again in going_on)
        loop.post(served.set)
        assert {job.result(LONG) for job in jobs} <= set(threads)
    assert pool.stats().threads == 0


def test_a_pool_has_one_home(home_pool, make_loop):
    pool = home_pool(1)
    with pytest.raises(RuntimeError, match="uses the threads of a loop already"):
        pool._use_threads_of(make_loop())
