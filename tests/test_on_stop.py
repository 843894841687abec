"""Stops of what cannot check in: on_stop breaks a foreign call; and stops from finalizers and signal handlers."""

from __future__ import annotations

import gc
import signal
import socket
import sqlite3
import threading

import pytest

import manyhands as mh
from gate import Gate
from pooling import Deliberate, Stoppable, fail, occupied, outcome
from support import LONG, wait_until

CALLER = mh.StopReason.CALLER


def test_on_stop_interrupts_a_query_of_sqlite(make_pool):
    """T75i. A query that would run for minutes ends in its own way, OperationalError, when the job is told to stop."""
    inside = threading.Event()
    endless = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT count(seen(i)) FROM n"

    def query() -> None:
        database = sqlite3.connect(":memory:", check_same_thread=False)
        database.create_function("seen", 1, lambda i: inside.set())
        try:
            with mh.current_job().on_stop(database.interrupt):
                database.execute(endless).fetchall()
        except sqlite3.OperationalError:
            mh.check_in()
            raise
        finally:
            database.close()

    job = make_pool(1).enqueue(query)
    assert inside.wait(LONG)
    job.stop()
    assert outcome(job) == ("cancelled", CALLER)


def test_on_stop_shuts_a_socket_under_recv(make_pool):
    """T75i. A plain recv() of a blocking socket ends when its socket is shut down."""
    here, there = socket.socketpair()
    entered = threading.Event()

    def receive() -> bytes:
        with mh.current_job().on_stop(lambda: here.shutdown(socket.SHUT_RDWR)):
            entered.set()
            came = here.recv(1)
            mh.check_in()
            return came

    with here, there:
        job = make_pool(1).enqueue(receive)
        assert entered.wait(LONG)
        job.stop()
        assert outcome(job) == ("cancelled", CALLER)


def test_on_stop_is_called_once_and_not_by_the_stopper(make_pool):
    """T75i. On a thread of the pool: a stop may come from a signal handler, where nothing may block."""
    pool = make_pool(1, name="mill")
    calls: list[str] = []
    broken = threading.Event()
    entered = threading.Event()

    def call_back() -> None:
        calls.append(threading.current_thread().name)
        broken.set()

    def work() -> None:
        with mh.current_job().on_stop(call_back):
            entered.set()
            assert broken.wait(LONG)
        mh.check_in()

    job = pool.enqueue(work)
    assert entered.wait(LONG)
    job.stop()
    job.stop()
    assert outcome(job) == ("cancelled", CALLER)
    pool.destroy(LONG)
    assert len(calls) == 1
    assert calls[0].startswith("mh-mill-x")


def test_on_stop_after_the_stop_is_called_at_once(make_pool):
    """T75i. In the registering thread: there is nobody else to whom it would be news."""
    calls: list[int] = []
    with Gate() as gate:

        def work() -> int:
            gate()
            with mh.current_job().on_stop(lambda: calls.append(threading.get_ident())):
                assert calls == [threading.get_ident()]
            return threading.get_ident()

        job = make_pool(1).enqueue(work)
        gate.wait_entered()
        job.stop()
    job.result(LONG)
    assert len(calls) == 1


def test_on_stop_that_was_left_is_not_called(make_pool):
    """T75i. What was to be broken is over: the database may be somebody else's by now."""
    calls: list[int] = []
    with Gate() as gate:

        def work() -> None:
            with mh.current_job().on_stop(lambda: calls.append(1)):
                pass
            gate()

        pool = make_pool(1)
        job = pool.enqueue(work)
        gate.wait_entered()
        job.stop()
    job.exception(LONG)
    pool.destroy(LONG)
    assert calls == []


def test_the_block_is_not_left_while_its_callback_runs(make_pool):
    """T75i. What the callback breaks may be something else as soon as the block has been left: so that waits."""
    left = threading.Event()
    with Gate() as gate:

        def work() -> None:
            with mh.current_job().on_stop(gate):
                gate.wait_entered()
            left.set()

        job = make_pool(1).enqueue(work)
        wait_until(job.running)
        job.stop()
        gate.wait_entered()
        assert not left.wait(0.05)
    assert outcome(job) == ("returned", None)
    assert left.is_set()


def test_a_callback_whose_block_was_left_meanwhile_is_not_called(make_pool):
    """T75i. Two are due; while the first runs, the block of the second is left: it is not called any more."""
    calls: list[int] = []
    registered = threading.Event()
    pool = make_pool(1)
    with Gate() as gate:

        def work() -> None:
            job = mh.current_job()
            with job.on_stop(gate):
                with job.on_stop(lambda: calls.append(1)):
                    registered.set()
                    gate.wait_entered()
                gate.open()

        job = pool.enqueue(work)
        assert registered.wait(LONG)
        job.stop()
        assert outcome(job) == ("returned", None)
    pool.destroy(LONG)
    assert calls == []


@pytest.mark.race
def test_leaving_on_stop_races_the_stop_and_nothing_is_called_after_it_was_left(make_pool):
    """T75i. Called at most once; when the block has been left, the callback has ended or never comes."""
    pool = make_pool(2)
    for _ in range(200):
        state = {"left": False, "calls": 0, "late": False}
        entered = threading.Event()

        def call_back(state=state) -> None:
            state["calls"] += 1
            state["late"] |= state["left"]

        def work(state=state, entered=entered, call_back=call_back) -> None:
            with mh.current_job().on_stop(call_back):
                entered.set()
            state["left"] = True

        job = pool.enqueue(work)
        assert entered.wait(LONG)
        job.stop()
        outcome(job)
        assert state["calls"] <= 1
        assert not state["late"]


def test_every_on_stop_is_called_and_one_that_raises_harms_no_other(make_pool, caplog):
    """T75i. Nested ones are all called; the error is logged."""
    called = threading.Event()
    entered = threading.Event()

    def work() -> None:
        job = mh.current_job()
        with job.on_stop(fail), job.on_stop(called.set), job.on_stop(fail):
            entered.set()
            assert called.wait(LONG)
        mh.check_in()

    job = make_pool(1).enqueue(work)
    assert entered.wait(LONG)
    job.stop()
    assert outcome(job) == ("cancelled", CALLER)
    wait_until(lambda: caplog.text.count("Deliberate") >= 2)
    caplog.clear()  # its records hold the frames, and those the job


@pytest.mark.parametrize("wrong", [None, 7])
def test_on_stop_wants_something_to_call(make_pool, wrong):
    """T75i. TypeError at the call."""
    job = make_pool(1).enqueue(lambda: mh.current_job().on_stop(wrong))
    assert outcome(job) == ("raised", TypeError)


# ----------------------------------------------------------------------------------- finalizers and signal handlers


class Cycle:
    """Garbage whose finalizer uses the pool, whenever the collector comes by."""

    def __init__(self, use) -> None:
        self.myself = self
        self.use = use

    def __del__(self) -> None:
        self.use()


@pytest.mark.parametrize("where", ["here", "inside on_submit", "in a job"])
def test_a_finalizer_may_use_the_pool_at_any_moment(make_pool, where):
    """T75g. submit, enqueue and stop from __del__ while the collector runs inside a call of the same pool."""
    pool = make_pool(
        2, max_queue_depth=None, on_submit=(lambda job: gc.collect()) if where == "inside on_submit" else None
    )
    refused: list[BaseException] = []
    made: list[mh.Job] = []

    def use() -> None:
        try:
            made.append(pool.submit(int))
            pool.enqueue(int).stop()
            made[0].stop()
            pool.stats()
        except BaseException as error:
            refused.append(error)

    def churn() -> None:
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for _ in range(50):
                Cycle(use)
                job = pool.enqueue(int)
                job.stop()
                pool.jobs()
        finally:
            gc.set_threshold(*threshold)
        gc.collect()

    with occupied(pool):
        if where == "in a job":
            pool.enqueue(churn).result(LONG)
        else:
            churn()
    gc.collect()
    assert refused == []
    assert len(made) == 50
    for job in made:
        outcome(job)


def test_finish_from_a_finalizer_inside_an_enqueue(make_pool):
    """T75g. The pool ends in the middle of its own call: the call is taken or refused, and nothing hangs."""
    for _ in range(20):
        jobs: list[mh.Job] = []

        def on_submit(job: mh.Job, jobs=jobs) -> None:
            if len(jobs) > 30:  # a free-threaded interpreter collects when it likes
                gc.collect()

        pool = make_pool(1, max_queue_depth=None, on_submit=on_submit)
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            Cycle(pool.finish)
            while not pool.finished:
                jobs.append(pool.enqueue(int))
        except mh.PoolFinished:
            pass
        finally:
            gc.set_threshold(*threshold)
        gc.collect()
        for job in jobs:
            outcome(job)
        assert pool.destroy(LONG) == []


SIGNALS = """
import os, signal, sys, threading
import manyhands as mh

pool = mh.ThreadPool(2, max_queue_depth=None)
use = sys.argv[1]
hits = 0
target = pool.enqueue(mh.sleep_blocking, 60)
waiting = [pool.enqueue(mh.sleep_blocking, 60) for _ in range(3)]

def on_signal(number, frame):
    global hits
    hits += 1
    if use == "submit":
        pool.submit(int)
    elif use == "stop":
        target.stop()
        waiting[hits % 3].stop()
    elif use == "cancel":
        target.cancel()
    else:
        pool.finish()

signal.signal(signal.SIGALRM, on_signal)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
try:
    while hits < 300:
        job = pool.enqueue(int)
        job.stop()
        pool.stats()
        pool.jobs()
        job.done()
except mh.PoolFinished:
    assert use == "finish"
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_DFL)
signal.alarm(20)
target.stop()
for job in waiting:
    job.stop()
left = pool.destroy(10)
assert left == [], left
print("ok")
"""


@pytest.mark.parametrize("use", ["submit", "stop", "cancel", "finish"])
def test_a_signal_handler_may_use_the_pool_at_any_moment(subprocess_python, use):
    """T75g. Thousands of signals while the main thread is inside the pool's own calls: no deadlock."""
    done = subprocess_python(SIGNALS, args=(use,), timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "ok"), done.stderr


def test_a_signal_handler_stops_the_job_that_its_own_thread_waits_for(make_pool):
    """T75g. The main thread waits in result(); the handler of a signal that comes meanwhile stops the job."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("needs the main thread")
    willing = Stoppable()
    job = make_pool(1).enqueue(willing)
    before = signal.signal(signal.SIGUSR1, lambda number, frame: job.stop())
    try:
        willing.wait_entered()
        main = threading.main_thread().ident
        sender = threading.Timer(0.02, signal.pthread_kill, (main, signal.SIGUSR1))
        sender.start()
        with pytest.raises(mh.JobCancelled):
            job.result(LONG)
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_stop_of_a_job_whose_callback_raises_is_a_stop(make_pool, caplog):
    """T71. Done callbacks of a queued job that is stopped run on a thread of the pool; what they raise is logged."""
    pool = make_pool(1)
    called = threading.Event()

    def raises(job: mh.Job) -> None:
        called.set()
        raise Deliberate

    with occupied(pool):
        job = pool.enqueue(int)
        job.add_done_callback(raises)
        assert job.stop() is True
        assert called.wait(LONG)
    assert outcome(job) == ("cancelled", CALLER)
    wait_until(lambda: "Deliberate" in caplog.text)
    caplog.clear()  # its records hold the frames, and those the job
