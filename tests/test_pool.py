"""The pool: what it takes and in which order, what it refuses and whom it calls."""

from __future__ import annotations

import concurrent.futures
import logging
import random
import threading

import pytest

import manyhands as mh
from gate import Gate
from pooling import Q, R, S, adds_up, occupied, outcome
from support import LONG, wait_until
from turning import BRIEF

# ------------------------------------------------------------------------------------------------------------- depth


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_depth_d_takes_d_jobs_beyond_those_that_run_and_refuses_the_next(make_pool, depth):
    """T70. Job d+1 is refused and its cleanup is not called; the d before it run and are cleaned up."""
    pool = make_pool(2, max_queue_depth=depth)
    cleaned: list[mh.Job] = []
    with occupied(pool, 2):
        queued = [pool.enqueue(int, cleanup=cleaned.append) for _ in range(depth)]
        with pytest.raises(mh.QueueFull) as refused:
            pool.enqueue(int, cleanup=cleaned.append)
        assert (refused.value.pool, refused.value.limit) == (pool, depth)
        assert pool.stats().refused == 1
        assert cleaned == []
    assert [job.result(LONG) for job in queued] == [0] * depth
    pool.destroy(LONG)
    assert sorted(job.id for job in cleaned) == [job.id for job in queued]


def test_depth_0_with_an_idle_thread_runs_it(make_pool):
    """T70. A job that a thread takes at once does not count: one that idles, and one that can be started."""
    pool = make_pool(1, max_queue_depth=0)
    for _ in range(100):
        assert pool.enqueue(int).result(LONG) == 0
        wait_until(lambda: pool.stats().busy == 0)


def test_depth_0_takes_as_many_jobs_at_once_as_it_has_threads(make_pool):
    """T70. Every thread that can still be started takes one, though none has been started yet."""
    pool = make_pool(4, max_queue_depth=0)
    with Gate() as gate:
        jobs = [pool.enqueue(gate) for _ in range(4)]
        with pytest.raises(mh.QueueFull):
            pool.enqueue(int)
    assert [outcome(job) for job in jobs] == [("returned", None)] * 4


def test_an_unbounded_queue_takes_ten_thousand(make_pool):
    """T70. max_queue_depth=None has no limit."""
    pool = make_pool(1, max_queue_depth=None)
    with occupied(pool):
        jobs = [pool.enqueue(int) for _ in range(10_000)]
        assert pool.stats().queued == 10_000
    assert jobs[-1].result(LONG) == 0


# -------------------------------------------------------------------------------------------------- when it is full


def test_a_full_pool_that_waits_takes_the_job_when_there_is_room(make_pool, spawn):
    """T70. when_full="wait": the call returns when a queued job has been started."""
    pool = make_pool(1, max_queue_depth=1, when_full="wait")
    with occupied(pool):
        pool.enqueue(int)
        call = spawn(pool.enqueue, str)
        assert not threading.Event().wait(BRIEF)
        assert not call.done
    assert call.result().result(LONG) == ""


def test_a_full_pool_that_waits_gives_up_after_its_time(make_pool):
    """T70. full_timeout: QueueFull, and nothing of the job is left."""
    pool = make_pool(1, max_queue_depth=1, when_full="wait", full_timeout=0.02)
    cleaned: list[mh.Job] = []
    with occupied(pool):
        waiting = pool.enqueue(int)
        with pytest.raises(mh.QueueFull):
            pool.enqueue(int, cleanup=cleaned.append)
        assert pool.stats().queued == 1
        assert pool.stats().refused == 1
    assert waiting.result(LONG) == 0
    assert cleaned == []


@pytest.mark.parametrize("call", ["enqueue", "submit"])
def test_a_full_pool_never_makes_a_lent_thread_wait(make_pool, loop, joined, call):
    """T70. In a job of the pool, and in a handler of a loop, QueueFull comes at once."""
    pool = make_pool(1, max_queue_depth=1, when_full="wait")
    seen: list[type[BaseException]] = []

    def fill() -> None:
        try:
            for _ in range(3):
                getattr(pool, call)(int)
        except mh.QueueFull as full:
            seen.append(type(full))

    pool.enqueue(fill).result(LONG)
    with occupied(pool), joined(loop, 1):
        done = threading.Event()
        loop.post(lambda: (fill(), done.set()))
        assert done.wait(LONG)
    assert seen == [mh.QueueFull, mh.QueueFull]


def test_a_full_pool_can_run_a_job_in_its_caller(make_pool):
    """T70. when_full="run_here": it has run when the call returns, as any job does: states, current_job, stops."""
    pool = make_pool(1, max_queue_depth=0, when_full="run_here")
    seen: list[object] = []
    cleaned: list[mh.Job] = []

    def look() -> None:
        job = mh.current_job()
        seen.append((threading.get_ident(), job.status))
        job.stop()
        mh.check_in()

    with occupied(pool):
        job = pool.enqueue(look, cleanup=cleaned.append)
        assert job.status is S
        assert seen == [(threading.get_ident(), R)]
        assert mh.current_job() is None
        assert cleaned == [job]
        assert pool.submit(pow, 2, 3).result(0) == 8
        assert adds_up(pool.stats())
    assert outcome(job) == ("cancelled", mh.StopReason.CALLER)


@pytest.mark.parametrize("when_full", ["refuse", "wait"])
def test_submit_waits_for_room_whatever_is_done_when_full(make_pool, spawn, when_full):
    """T70. submit has concurrent.futures' meaning: it does not refuse, but neither does it grow without bound."""
    pool = make_pool(1, max_queue_depth=1, when_full=when_full)
    with occupied(pool):
        pool.submit(int)
        call = spawn(pool.submit, pow, 2, 3)
        assert not threading.Event().wait(BRIEF)
        assert not call.done
        assert pool.stats().queued == 1
    assert call.result().result(LONG) == 8


def test_finish_releases_whoever_waits_for_room(make_pool, spawn):
    """T65. A call that waits in a full pool raises PoolFinished when the pool is finished, and its job never runs."""
    pool = make_pool(1, max_queue_depth=0, when_full="wait")
    ran = threading.Event()
    with occupied(pool):
        call = spawn(pool.enqueue, ran.set)
        assert not threading.Event().wait(BRIEF)
        pool.finish()
        with pytest.raises(mh.PoolFinished):
            call.result()
    assert not ran.is_set()


# ------------------------------------------------------------------------------------------------------------- order


def test_first_in_is_first_out(make_pool):
    """T74. Within one priority, in the order of the calls."""
    pool = make_pool(1)
    order: list[int] = []
    with occupied(pool):
        jobs = [pool.enqueue(order.append, number) for number in range(200)]
    concurrent.futures.wait(jobs, LONG)
    assert order == list(range(200))


def test_a_higher_priority_goes_first_and_order_counts_within_one(make_pool):
    """T74. Sorted by priority, highest first; by age among equals."""
    pool = make_pool(1)
    chance = random.Random(74)
    waiting = [(chance.choice([-5, 0, 0, 1, 10]), number) for number in range(100)]
    order: list[tuple[int, int]] = []
    with occupied(pool):
        jobs = [pool.enqueue(order.append, entry, priority=entry[0]) for entry in waiting]
    concurrent.futures.wait(jobs, LONG)
    assert order == sorted(waiting, key=lambda entry: (-entry[0], entry[1]))


@pytest.mark.race
def test_the_numbers_add_up_at_every_moment(make_pool, spawn, make_loop, joined):
    """T74. Submitted is the sum of what is queued, runs, syncs, is stopping, and has ended, whenever one looks."""
    loop = make_loop()
    pool = make_pool(3, max_queue_depth=20)
    strand = loop.strand()
    wrong: list[mh.PoolStats] = []
    over = threading.Event()

    def look() -> int:
        looks = 0
        while not over.is_set():
            looks += 1
            stats = pool.stats()
            if not adds_up(stats) or not stats.busy <= stats.threads <= 3:
                wrong.append(stats)
        return looks

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(150):
            what = chance.randrange(4)
            try:
                if what == 0:
                    pool.enqueue(mh.sleep_blocking, 0.0005).stop()
                elif what == 1:
                    pool.enqueue(
                        lambda: mh.current_job().sync(),
                        owner=strand,
                        keep=False,
                        on_sync=lambda job, value: job.answer(),
                    )
                else:
                    pool.enqueue(int)
            except mh.QueueFull:
                mh.sleep_blocking(0.0005)

    with joined(loop, 2):
        looking = spawn(look)
        workers = [spawn(work, seed) for seed in range(3)]
        for worker in workers:
            worker.result()
        wait_until(lambda: pool.stats().queued + pool.stats().busy == 0)
        over.set()
        assert looking.result() > 10
    assert wrong == []
    stats = pool.stats()
    assert stats.submitted == stats.finished + stats.stopped
    assert sum(number for _, number in stats.run_seconds) == sum(number for _, number in stats.wait_seconds)


def test_stats_say_what_there_is(make_pool):
    """T74. Threads are those started; the oldest wait grows; an ended job counts where it ended."""
    pool = make_pool(3, name="mill")
    assert pool.stats().threads == 0
    with occupied(pool, 3):
        queued = [pool.enqueue(int) for _ in range(2)]
        stats = pool.stats()
        assert (stats.name, stats.threads, stats.busy, stats.queued, stats.running) == ("mill", 3, 3, 2, 3)
        assert stats.submitted == 5
        first = stats.oldest_wait
        wait_until(lambda: pool.stats().oldest_wait > first)
        queued[0].stop()
        assert (pool.stats().queued, pool.stats().stopped) == (1, 1)
    queued[1].result(LONG)
    wait_until(lambda: pool.stats().busy == 0)
    stats = pool.stats()
    assert (stats.finished, stats.stopped, stats.oldest_wait) == (4, 1, None)
    bounds = [bound for bound, _ in stats.run_seconds]
    assert bounds == sorted(bounds)
    assert bounds[-1] == float("inf")
    assert sum(number for _, number in stats.run_seconds) == 4


# -------------------------------------------------------------------------------------------------------------- slow


def test_slow_jobs_cannot_take_more_than_their_share(make_pool):
    """T75. With half of four threads for slow jobs, a third slow one waits and a fast one is started."""
    pool = make_pool(4, slow_share=0.5)
    gates = [Gate() for _ in range(4)]
    entered = threading.Semaphore(0)

    def slow(gate: Gate) -> None:
        entered.release()
        gate()

    jobs = [pool.enqueue(slow, gate, slow=True) for gate in gates]
    try:
        assert entered.acquire(timeout=LONG)
        assert entered.acquire(timeout=LONG)
        for _ in range(10):
            assert pool.enqueue(int).result(LONG) == 0
        assert not entered.acquire(blocking=False)
        assert [job.status for job in jobs] == [R, R, Q, Q]
        gates[0].open()
        assert entered.acquire(timeout=LONG), "the place of a slow job that ended was not given on"
        assert jobs[3].status is Q
    finally:
        for gate in gates:
            gate.open()
    assert [outcome(job) for job in jobs] == [("returned", None)] * 4


@pytest.mark.parametrize(("threads", "share", "at_once"), [(1, 0.5, 1), (2, 0.1, 1), (3, 0.99, 2), (2, 1.0, 2)])
def test_the_share_of_slow_jobs_is_at_least_one_thread(make_pool, threads, share, at_once):
    """T75. Rounded down, but a slow job always gets to run."""
    pool = make_pool(threads, slow_share=share)
    with Gate() as gate:
        jobs = [pool.enqueue(gate, slow=True) for _ in range(threads + 1)]
        wait_until(lambda: sum(job.status is R for job in jobs) == at_once)
        if at_once < threads:
            assert pool.enqueue(int).result(LONG) == 0
        assert sum(job.status is R for job in jobs) == at_once
    assert [outcome(job) for job in jobs] == [("returned", None)] * len(jobs)


# ---------------------------------------------------------------------------------------------------- whom it calls


def test_hooks_tell_of_every_job_on_the_thread_that_has_it(make_pool):
    """T74. on_submit in the caller before the call returns; on_start and on_end on the job's thread; once each."""
    seen: list[tuple[str, str, str]] = []

    def hook(what: str):
        return lambda job: seen.append((what, job.name, threading.current_thread().name))

    pool = make_pool(1, name="mill", on_submit=hook("submit"), on_start=hook("start"), on_end=hook("end"))
    here = threading.current_thread().name
    with Gate() as gate:
        pool.enqueue(gate, name="first")
        assert seen[0] == ("submit", "first", here)
        gate.wait_entered()
        never = pool.enqueue(int, name="never")
        assert seen[1:] == [("start", "first", "mh-mill-0"), ("submit", "never", here)]
        never.stop()
    wait_until(lambda: len(seen) == 5)
    pool.destroy(LONG)
    assert ("end", "first", "mh-mill-0") in seen
    (ended,) = [thread for what, name, thread in seen if (what, name) == ("end", "never")]
    assert ended.startswith("mh-mill-x")
    assert len(seen) == 5


def test_a_hook_that_raises_is_logged_and_costs_nothing(make_pool, caplog):
    """T72. The job runs, the thread lives, and the log says which hook it was."""

    def hook(job: mh.Job) -> None:
        raise LookupError(job.name)

    pool = make_pool(1, on_submit=hook, on_start=hook, on_end=hook)
    with caplog.at_level(logging.ERROR, "manyhands.pool"):
        assert pool.enqueue(pow, 2, 3, name="mine").result(LONG) == 8
        assert pool.enqueue(pow, 2, 4).result(LONG) == 16
        wait_until(lambda: len(caplog.records) >= 6)
    assert [word for word in ("on_submit", "on_start", "on_end") if word not in caplog.text] == []
    caplog.clear()  # its records hold the frames, and those the jobs


@pytest.mark.parametrize(
    ("name", "comm"), [("mill", "mh-mill-1"), ("a-name-of-many-letters", None), ("mühle-mühle-mühle", None)]
)
def test_threads_have_names_that_the_kernel_keeps_with_their_number(make_pool, name, comm):
    """T74. /proc/self/task/*/comm: at most 15 bytes, and the number is whole."""
    pool = make_pool(2, name=name)

    def look() -> tuple[str, bytes]:
        with open(f"/proc/self/task/{threading.get_native_id()}/comm", "rb") as file:
            kernel = file.read().rstrip(b"\n")
        both.wait(LONG)
        return threading.current_thread().name, kernel

    both = threading.Barrier(2)
    named = sorted(job.result(LONG) for job in [pool.enqueue(look), pool.enqueue(look)])
    assert [thread for thread, _ in named] == [f"mh-{name}-0", f"mh-{name}-1"]
    for number, (_, kernel) in enumerate(named):
        assert kernel.startswith(b"mh-")
        assert kernel.endswith(b"-%d" % number)
        assert len(kernel) <= 15
    assert comm is None or named[1][1].decode() == comm


def test_threads_are_started_on_demand_and_kept(make_pool):
    """T74. One job at a time needs one thread, or two while the first is still on its way back from the job before."""
    pool = make_pool(8)
    for _ in range(50):
        pool.enqueue(int).result(LONG)
        wait_until(lambda: pool.stats().busy == 0)
    assert pool.stats().threads <= 2
    with occupied(pool, 3):
        assert pool.stats().threads == 3
    assert pool.stats().threads == 3


def test_dump_shows_threads_and_jobs(make_pool, loop):
    """T74. Every job with its state, age, owner and progress, for a log or a bug report."""
    pool = make_pool(1, name="mill")
    with Gate() as gate:

        def work() -> None:
            mh.current_job().progress(3, 7, "sacks")
            gate()

        pool.enqueue(work, name="grind", owner=loop.strand(name="miller"), keep=False)
        gate.wait_entered()
        pool.enqueue(int, name="weigh")
        text = pool.dump()
    for word in ("mill", "mh-mill-0", "grind", "RUNNING", "miller", "3", "7", "sacks", "weigh", "QUEUED"):
        assert word in text or word.lower() in text, (word, text)
