"""In place: a job that runs on the joined thread that asked for it, while another thread serves the loop."""

from __future__ import annotations

import select
import threading
from contextlib import ExitStack

import pytest

import manyhands as mh
from gate import Gate
from manyhands import _guards
from pooling import Deliberate, F, R, Y, fail, occupied, outcome
from support import LONG, wait_until
from turning import nothing


def test_a_job_in_place_runs_on_the_thread_that_asked_for_it(make_pool, loop, joined, ask):
    """T75f. No thread of the pool is started; it is the same job, with states, result and current_job."""
    pool = make_pool(2)
    with joined(loop, 2) as threads:
        job = ask(pool, lambda: (threading.current_thread(), mh.current_job(), mh.current_job().status))
        thread, current, status = job.result(LONG)
    assert thread in threads
    assert current is job
    assert status is R
    assert job.status is F
    assert pool.stats().threads == 0
    assert pool.stats().finished == 1


def test_enqueue_returns_before_the_job_starts_and_the_handler_ends_first(make_pool, loop, joined):
    """T75f. The job starts when its strand has been released: a message of that strand runs beside the job."""
    pool = make_pool(1)
    strand = loop.strand()
    order: list[str] = []
    started = threading.Event()
    with joined(loop, 2), Gate() as gate:

        def work() -> None:
            order.append("job")
            started.set()
            gate()

        def handler() -> None:
            pool.enqueue(work, in_place=True)
            order.append("enqueued")
            for _ in range(1000):
                assert not started.is_set()
            order.append("handler ends")

        strand.post(handler)
        assert started.wait(LONG)
        beside = threading.Event()
        strand.post(beside.set)
        assert beside.wait(LONG), "the strand was not released"
    assert order == ["enqueued", "handler ends", "job"]


def test_a_job_in_place_has_its_owner_and_syncs_with_it(make_pool, loop, joined, ask):
    """T75f. The other joined thread serves the owner's strand: the sync is answered."""
    strand = loop.strand()
    with joined(loop, 2) as threads:
        seen: list[threading.Thread] = []

        def on_sync(job: mh.Job, value: int) -> None:
            seen.append(threading.current_thread())
            job.answer(value + 1)

        def work() -> list[object]:
            seen.append(threading.current_thread())
            return [mh.current_job().sync(number) for number in range(3)]

        job = ask(make_pool(1), work, strand=strand, owner=strand, on_sync=on_sync)
        assert job.result(LONG) == [1, 2, 3]
    assert seen[0] in threads
    assert set(seen[1:]) == {thread for thread in threads if thread is not seen[0]}


def test_with_one_joined_thread_it_goes_to_the_queue(make_pool, loop, joined, ask):
    """T75f. One thread always serves the loop: a loop with a single one has no permit to give."""
    pool = make_pool(1)
    with joined(loop, 1) as threads:
        job = ask(pool, threading.current_thread)
        assert job.result(LONG) not in threads


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_one_thread_always_serves_the_loop(make_pool, loop, joined, ask, threads):
    """T75f. Of n joined threads n-1 may be in jobs; whatever is asked beyond goes to the pool's own threads."""
    pool = make_pool(16)
    entered: list[threading.Thread] = []
    with joined(loop, threads) as crew, Gate() as gate:

        def work() -> None:
            entered.append(threading.current_thread())
            gate()

        for number in range(threads + 2):
            ask(pool, work)
            wait_until(lambda number=number: len(entered) == number + 1)
        served = threading.Event()
        loop.post(served.set)
        assert served.wait(LONG), "nobody serves the loop"
        assert sum(thread in crew for thread in entered) <= threads - 1
        assert sum(thread in crew for thread in entered[:1]) == 1


@pytest.mark.race
def test_two_threads_never_both_believe_that_the_other_serves(make_pool, make_loop, joined):
    """T75f. Both handlers ask at the same instant, again and again: the loop is always served."""
    loop = make_loop()
    pool = make_pool(4)
    with joined(loop, 2):
        for _ in range(200):
            meeting = threading.Barrier(2)
            going = threading.Event()
            jobs: list[mh.Job] = []

            def handler(meeting=meeting, going=going, jobs=jobs) -> None:
                meeting.wait(LONG)
                jobs.append(pool.enqueue(going.wait, LONG, in_place=True))

            for _ in range(2):
                loop.post(handler)
            wait_until(lambda jobs=jobs: len(jobs) == 2)
            loop.post(going.set)
            assert [outcome(job) for job in jobs] == [("returned", True)] * 2


def test_a_second_one_of_the_same_handler_goes_to_the_queue(make_pool, loop, joined):
    """T75f. The thread has one place; the pool's own thread takes the other job, beside the first."""
    pool = make_pool(2)
    both = threading.Barrier(2)
    jobs: list[mh.Job] = []

    def work() -> threading.Thread:
        both.wait(LONG)
        return threading.current_thread()

    with joined(loop, 3) as threads:
        loop.post(lambda: jobs.extend(pool.enqueue(work, in_place=True) for _ in range(2)))
        wait_until(lambda: len(jobs) == 2)
        first, second = (job.result(LONG) for job in jobs)
        assert first in threads
        assert second not in threads


def test_never_inside_another_one_in_place(make_pool, loop, joined, ask):
    """T75f. A job in place that asks for one in place gets it queued: a thread is in one job at a time."""
    pool = make_pool(2)
    inner: list[mh.Job] = []

    def work() -> threading.Thread:
        inner.append(pool.enqueue(threading.current_thread, in_place=True))
        inner[0].result(LONG)
        return threading.current_thread()

    with joined(loop, 3) as threads:
        job = ask(pool, work)
        assert job.result(LONG) in threads
        assert inner[0].result(LONG) not in threads


def test_jobs_begin_in_their_order_wherever_they_run(make_pool, loop, joined):
    """T75f. With a queue a thread that has a place takes the oldest, not its own: nobody is overtaken."""
    pool = make_pool(1, max_queue_depth=None)
    strand = loop.strand()
    begun: list[int] = []
    jobs: list[mh.Job] = []

    def handler(number: int) -> None:
        jobs.append(pool.enqueue(begin, number, in_place=True))

    def begin(number: int) -> None:
        begun.append(number)
        if number % 7 == 0:
            mh.sleep_blocking(0.0005)

    with joined(loop, 3):
        for number in range(300):
            strand.post(handler, number)
        wait_until(lambda: len(jobs) == 300)
        assert {outcome(job) for job in jobs} == {("returned", None)}
    assert begun == list(range(300))


def test_only_if_the_pools_queue_is_empty_or_begins_with_such_a_job(make_pool, loop, joined, ask):
    """T75f. Nobody is overtaken: with an ordinary job waiting it goes behind it, to a thread of the pool."""
    pool = make_pool(1)
    order: list[str] = []
    with joined(loop, 3) as threads:
        with occupied(pool):
            pool.enqueue(order.append, "first")
            job = ask(pool, lambda: (order.append("second"), threading.current_thread())[1])
            assert job.status is mh.JobStatus.QUEUED
        assert job.result(LONG) not in threads
    assert order == ["first", "second"]


def test_only_if_a_slot_of_the_pool_is_free_and_it_takes_one(make_pool, loop, joined, ask):
    """T75f. The pool's bound is the bound: with one slot, a job in place leaves none for the pool's thread."""
    pool = make_pool(1)
    with joined(loop, 3) as threads, Gate() as gate:
        in_place = ask(pool, gate)
        gate.wait_entered()
        assert pool.stats().busy == 1
        second = ask(pool, threading.current_thread)
        third = pool.enqueue(int)
        assert (second.status, third.status) == (mh.JobStatus.QUEUED, mh.JobStatus.QUEUED)
        assert pool.stats().queued == 2
        gate.open()
        assert outcome(in_place) == ("returned", None)
        assert second.result(LONG) not in threads
        assert third.result(LONG) == 0


def test_never_on_the_main_thread(subprocess_python):
    """T75f. Ctrl-C lands in the main thread, and must not land in a job: there it is queued."""
    done = subprocess_python("""
import threading
import manyhands as mh

loop = mh.EventLoop(slow_handler=60)
pool = mh.ThreadPool(2)
helper = threading.Thread(target=loop.join, daemon=True)
helper.start()
entered, leave = threading.Event(), threading.Event()
loop.post(lambda: (entered.set(), leave.wait(20)))
assert entered.wait(20)
ran = []

def handler():
    asked_on = threading.current_thread()
    job = pool.enqueue(threading.current_thread, in_place=True)
    job.add_done_callback(lambda job: (ran.append((asked_on, job.result())), loop.request_stop()))

loop.post(handler)
loop.join(timeout=20)
leave.set()
helper.join(10)
pool.destroy(10)
((asked, thread),) = ran
assert asked is threading.main_thread()
assert thread.name.startswith("mh-pool-"), thread
loop.close()
print("ok")
""")
    assert (done.returncode, done.stdout.strip()) == (0, "ok"), done.stderr


def test_elsewhere_it_is_simply_queued(make_pool):
    """T75f. On a thread that serves no loop in_place has no meaning, and does no harm."""
    pool = make_pool(1)
    assert pool.enqueue(threading.current_thread, in_place=True).result(LONG) is not threading.current_thread()


def test_an_error_in_it_is_the_jobs_and_not_the_loops(make_pool, make_loop, joined):
    """T72. The loop is told nothing; its thread goes on serving."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)
    pool = make_pool(1)
    jobs: list[mh.Job] = []
    with joined(loop, 2):
        for error in (fail, exit_job):
            loop.post(lambda error=error: jobs.append(pool.enqueue(error, in_place=True)))
        wait_until(lambda: len(jobs) == 2)
        outcomes = {outcome(job) for job in jobs}
        wait_until(lambda: loop.joined == 2)
        served = threading.Event()
        loop.post(served.set)
        assert served.wait(LONG)
    assert outcomes == {("raised", Deliberate), ("raised", SystemExit)}
    assert reports == []


def exit_job() -> None:
    raise SystemExit


def test_the_thread_is_lent_while_it_is_in_the_job(make_pool, loop, joined, ask):
    """T75f. It may not wait for a loop or a pool there, as in any job."""
    pool = make_pool(1)
    with joined(loop, 2):
        assert outcome(ask(pool, loop.stop)) == ("raised", mh.WouldDeadlock)
        assert outcome(ask(pool, pool.destroy)) == ("raised", mh.WouldDeadlock)
        assert outcome(ask(pool, loop.join))[1] is RuntimeError


def test_a_watch_is_served_while_a_job_runs_in_place(make_pool, loop, joined, pair):
    """T75f. The job was asked for by a watch's handler; the same watch's next events go to the other thread."""
    pool = make_pool(1)
    near, far = pair()
    came: list[bytes] = []
    with joined(loop, 2), Gate() as gate:
        jobs: list[mh.Job] = []

        def handler(watch: mh.Watch, events: mh.Events) -> None:
            came.append(near.recv(1))
            if not jobs:
                jobs.append(pool.enqueue(gate, owner=watch, on_sync=nothing, in_place=True))

        watch = loop.add(near, mh.Events.READ, handler)
        far.send(b"a")
        gate.wait_entered()
        far.send(b"b")
        wait_until(lambda: came == [b"a", b"b"])
        assert jobs[0].status in (R, Y)
        watch.remove()
        assert jobs[0].reason is mh.StopReason.OWNER_GONE
    outcome(jobs[0])


@pytest.mark.skipif(not _guards.gil_enabled(), reason="with threads in parallel the lead is given away at once")
@pytest.mark.parametrize("held_up", [0, 13], ids=["all of them short", "one in thirty held up"])
def test_short_jobs_in_place_wake_no_second_thread(make_pool, loop, joined, held_up):
    """T75f. With the GIL a thread that runs one short job after the other keeps the lead; ADR 11. Half of them, at least: the
    machine may hold up any, and that is no reason to give the lead away for the next ones.
    """
    pool = make_pool(2)
    count, left = 400, [400]
    over = threading.Event()
    with joined(loop, 3):
        strand = loop.strand()

        def job() -> None:
            left[0] -= 1
            lasts = held_up and left[0] % (count // held_up) == 0
            select.select([], [], [], 0.003 if lasts else 0.0001)  # time for a second thread to come
            if left[0]:
                strand.post(handler)
            else:
                over.set()

        def handler() -> None:
            pool.enqueue(job, in_place=True)

        wait_until(lambda: loop.stats().parked == 2)
        before = loop.stats()
        strand.post(handler)
        assert over.wait(LONG)
        after = loop.stats()
    assert pool.stats().threads == 0
    assert after.wakes + after.standbys - before.wakes - before.standbys < count / 2


def test_jobs_in_place_that_wait_hand_the_loop_over(make_pool, loop, joined, ask):
    """T75f. Whoever has the lead and waits in its job loses it: the next is begun while the first waits, and so on."""
    pool = make_pool(4)
    with joined(loop, 5), ExitStack() as gates:
        for _ in range(4):
            gate = gates.enter_context(Gate())
            ask(pool, gate)
            gate.wait_entered()
        heard = threading.Event()
        loop.post(heard.set)
        assert heard.wait(LONG)
