"""A pool at full load with owners that die: the counts add up, and nothing grows.

A few seconds of it run with every test run, as a race; a minute is marked `stress`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import random
import threading
import time

import pytest

import manyhands as mh
from pooling import adds_up
from support import LONG, wait_until

THREADS = 4
SUBMITTERS = 3
DEPTH = 64
KEPT = 200
GROWTH = 24 * 2**20
"""Bytes of resident memory that may come after the first quarter: what the allocators keep for themselves."""


def resident() -> int:
    """Bytes of memory that the process holds now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Load:
    """Submitters that do what chance says, on strands that are closed under their jobs' hands."""

    def __init__(self, loop: mh.EventLoop, pool: mh.ThreadPool) -> None:
        self.loop = loop
        self.pool = pool
        self.over = threading.Event()
        self.accepted = [0] * SUBMITTERS
        self.refused = [0] * SUBMITTERS
        self.ended = 0
        self.lock = threading.Lock()
        self.wrong: list[object] = []

    def cleanup(self, job: mh.Job) -> None:
        with self.lock:
            self.ended += 1

    # What jobs do.

    def spin(self, count: int) -> int:
        for _ in range(count):
            mh.check_in()
        return count

    def nap(self) -> None:
        mh.sleep_blocking(0.002)

    def fail(self) -> None:
        raise LookupError

    def stubborn(self) -> None:
        with contextlib.suppress(mh.JobStopped):
            mh.sleep_blocking(0.001)

    def meet(self) -> None:
        for number in range(3):
            if mh.current_job().sync(number, timeout=0.05) not in (number, None):
                self.wrong.append("another answer")

    def steps(self):
        for number in range(5):
            if (yield mh.SYNC(number, timeout=0.05)) is mh.STOPPING:
                return mh.STOPPED
        return None

    @staticmethod
    def on_sync(job: mh.Job, value: int) -> None:
        if value != 2 or job.id % 16:  # now and then nobody answers
            with contextlib.suppress(RuntimeError):  # it was told to stop meanwhile
                job.answer(value)

    def submit(self, number: int) -> None:
        """Submit until it is over; every strand owns a handful of jobs and is then closed."""
        chance = random.Random(number)
        while not self.over.is_set():
            strand = self.loop.strand()
            jobs: list[mh.Job] = []
            for _ in range(chance.randrange(1, 8)):
                try:
                    jobs.append(self.one(chance, strand))
                    self.accepted[number] += 1
                except mh.QueueFull:
                    self.refused[number] += 1
                    time.sleep(0.001)
            for job in jobs:
                what = chance.randrange(6)
                if what == 0:
                    job.stop()
                elif what == 1:
                    job.detach()
                elif what == 2 and job.done():
                    with contextlib.suppress(RuntimeError):  # dropped off a full done queue
                        job.reap()
            if chance.randrange(3) == 0:
                time.sleep(0.002)
            strand.close()

    def one(self, chance: random.Random, strand: mh.Strand) -> mh.Job:
        options: dict[str, object] = {"owner": strand, "cleanup": self.cleanup, "priority": chance.randrange(3)}
        options["outlive"] = chance.randrange(4) == 0
        options["slow"] = chance.randrange(4) == 0
        options["on_sync"] = self.on_sync
        if chance.randrange(4) == 0:
            options["deadline"] = mh.now() + chance.random() * 0.01
        what = chance.randrange(7)
        if what == 0:
            return self.pool.enqueue_steps(self.steps, **options)
        if what == 1:
            return self.pool.enqueue(self.spin, chance.randrange(2000), **options)
        functions = [self.nap, self.fail, self.stubborn, self.meet, int]
        return self.pool.enqueue(functions[what - 2], **options)

    def look(self) -> None:
        """Look whether the numbers add up, all the time."""
        while not self.over.is_set():
            stats = self.pool.stats()
            if not adds_up(stats) or stats.busy > THREADS or stats.queued > DEPTH + THREADS or stats.done > KEPT:
                self.wrong.append(stats)
            time.sleep(0.0005)


def soak(loop: mh.EventLoop, pool: mh.ThreadPool, seconds: float) -> None:
    load = Load(loop, pool)
    threads = [threading.Thread(target=load.submit, args=(number,)) for number in range(SUBMITTERS)]
    threads.append(threading.Thread(target=load.look))
    for thread in threads:
        thread.start()
    try:
        time.sleep(seconds / 4)
        gc.collect()
        before = (resident(), len(os.listdir("/proc/self/fd")), threading.active_count())
        time.sleep(seconds * 3 / 4)
    finally:
        load.over.set()
        for thread in threads:
            thread.join(LONG)
    wait_until(lambda: pool.stats().queued + pool.stats().busy + pool.stats().syncing_parked == 0)
    gc.collect()
    stats = pool.stats()
    assert load.wrong == []
    assert stats.submitted == sum(load.accepted) == stats.finished + stats.stopped
    assert stats.refused == sum(load.refused)
    wait_until(lambda: load.ended == stats.submitted)
    wait_until(lambda: len(pool.jobs()) == pool.stats().done)
    assert pool.stats().done <= KEPT
    assert len(os.listdir("/proc/self/fd")) <= before[1] + 1
    assert threading.active_count() <= before[2]
    assert resident() - before[0] < GROWTH
    assert stats.submitted > 100 * seconds, "too little happened for a soak"
    assert stats.finished > 0
    assert stats.stopped > 0


@pytest.fixture
def pool(make_pool):
    return make_pool(THREADS, max_queue_depth=DEPTH, max_done=KEPT, name="soak")


@pytest.mark.race
@pytest.mark.thread_unsafe  # it looks at the memory and the threads of the process
def test_four_seconds_at_full_load_leave_nothing_behind(make_loop, joined, pool):
    """FAULT 26. Random work, owners that die: the counts add up at every look, and at the end all is over."""
    loop = make_loop()
    with joined(loop, 2):
        soak(loop, pool, 4)


@pytest.mark.stress
def test_a_minute_at_full_load_leaves_nothing_behind(make_loop, joined, pool):
    """FAULT 26. The same for a minute."""
    faulthandler.cancel_dump_traceback_later()  # pytest's, which would come first
    loop = make_loop()
    with joined(loop, 2):
        soak(loop, pool, 60)
