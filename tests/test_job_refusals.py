"""What the pool refuses at the call: each its own clear error, and nothing of the refused job is left."""

from __future__ import annotations

import threading

import pytest

import manyhands as mh
from gate import Gate
from pooling import occupied, outcome
from support import LONG, wait_until


def never(*_: object) -> None:
    raise AssertionError("a refused job was run, or cleaned up")


WRONG_JOBS = {
    "function": ({"function": 7}, TypeError),
    "function=None": ({"function": None}, TypeError),
    "cleanup": ({"cleanup": "no"}, TypeError),
    "on_sync": ({"on_sync": 1}, TypeError),
    "on_done": ({"on_done": 1, "owner": True}, TypeError),
    "owner": ({"owner": "no owner"}, TypeError),
    "name": ({"name": 7}, TypeError),
    "priority": ({"priority": 1.5}, TypeError),
    "priority=None": ({"priority": None}, TypeError),
    "deadline": ({"deadline": "soon"}, TypeError),
    "deadline=nan": ({"deadline": float("nan")}, ValueError),
    "on_done without owner": ({"on_done": never}, ValueError),
    "outlive without owner": ({"outlive": True}, ValueError),
}
"""The argument that is wrong -> what is given, what comes."""


@pytest.mark.parametrize("form", ["enqueue", "enqueue_steps"])
@pytest.mark.parametrize("what", WRONG_JOBS)
def test_a_wrong_argument_is_refused_at_the_call_by_its_name(make_pool, loop, what, form):
    """T70. TypeError for a wrong type, ValueError for a wrong value; the job of the refused call leaves nothing."""
    options, error = WRONG_JOBS[what]
    options = {"function": never, "cleanup": never, **options}
    if options.get("owner") is True:
        options["owner"] = loop.strand()
    function = options.pop("function")
    pool = make_pool(1)
    with pytest.raises(error) as refused:
        getattr(pool, form)(function, **options)
    assert what.split()[0].split("=")[0] in str(refused.value)
    assert pool.jobs() == []
    assert pool.stats().submitted == 0


def test_a_function_that_makes_no_generator_is_no_stepwise_job(make_pool):
    """T66a. enqueue_steps wants a generator function; what it cannot see at the call ends the job with TypeError."""
    pool = make_pool(1)
    try:
        job = pool.enqueue_steps(int)
    except TypeError:
        return
    assert outcome(job) == ("raised", TypeError)


WRONG_POOLS = {
    "threads=0": ({"threads": 0}, ValueError),
    "threads=-1": ({"threads": -1}, ValueError),
    "threads=True": ({"threads": True}, (TypeError, ValueError)),
    "threads=1.5": ({"threads": 1.5}, TypeError),
    "max_queue_depth=-1": ({"max_queue_depth": -1}, ValueError),
    "max_queue_depth=True": ({"max_queue_depth": True}, (TypeError, ValueError)),
    "max_queue_depth=1.5": ({"max_queue_depth": 1.5}, TypeError),
    "when_full": ({"when_full": "explode"}, ValueError),
    "full_timeout=-1": ({"full_timeout": -1}, ValueError),
    "full_timeout=nan": ({"full_timeout": float("nan")}, ValueError),
    "name": ({"name": 7}, TypeError),
    "max_done=-1": ({"max_done": -1}, ValueError),
    "slow_share=-1": ({"slow_share": -0.1}, ValueError),
    "slow_share=0": ({"slow_share": 0}, ValueError),
    "slow_share=2": ({"slow_share": 1.1}, ValueError),
    "stop_warning=-1": ({"stop_warning": -1}, ValueError),
    "stop_warning=nan": ({"stop_warning": float("nan")}, ValueError),
    "on_submit": ({"on_submit": 7}, TypeError),
    "on_start": ({"on_start": 7}, TypeError),
    "on_end": ({"on_end": 7}, TypeError),
}
"""The argument that is wrong -> what is given, what comes."""


@pytest.mark.parametrize("what", WRONG_POOLS)
def test_a_pool_with_a_wrong_argument_is_not_made(what):
    """T70. A negative depth, no threads, an unknown policy: each is named, with what was expected."""
    options, error = WRONG_POOLS[what]
    with pytest.raises(error) as refused:
        mh.ThreadPool(**options)
    assert what.split("=")[0] in str(refused.value)


def test_the_smallest_pool_is_allowed(make_pool):
    """T70. One thread, depth 0, nothing kept, nothing slow."""
    pool = make_pool(1, max_queue_depth=0, max_done=0, slow_share=0.01, full_timeout=0)
    assert pool.enqueue(int, slow=True).result(LONG) == 0


OWNERS = ["strand", "strand with a terminal message", "watch", "loop of the strand", "loop of the watch"]


@pytest.mark.parametrize("closed", OWNERS)
def test_an_owner_that_has_ended_is_refused(make_pool, make_loop, pair, closed):
    """T68. StrandClosed, WatchRemoved or LoopClosed at the call; neither the job nor its cleanup runs."""
    loop = make_loop()
    strand = loop.strand()
    watch = loop.add(pair()[0], mh.Events.READ, print)
    if closed == "strand":
        strand.close()
    elif closed == "strand with a terminal message":
        strand.post_terminal()
        loop.join(until_idle=True)
    elif closed == "watch":
        watch.remove()
    else:
        loop.close()
    owner = watch if "watch" in closed else strand
    error = mh.LoopClosed if "loop" in closed else mh.WatchRemoved if owner is watch else mh.StrandClosed
    pool = make_pool(1)
    with pytest.raises(error):
        pool.enqueue(never, owner=owner, cleanup=never)
    assert pool.jobs() == []
    assert pool.stats().submitted == 0
    assert pool.enqueue(int).result(LONG) == 0


def test_an_answer_that_nobody_waits_for_is_refused(make_pool, loop):
    """T67. Before, after and without a sync: RuntimeError, and the job is as it was."""
    pool = make_pool(1)
    with Gate() as gate:
        queued_behind = pool.enqueue(gate)
        gate.wait_entered()
        queued = pool.enqueue(int, owner=loop.strand(), on_sync=never)
        for job in (queued_behind, queued):
            with pytest.raises(RuntimeError):
                job.answer(1)
            assert not job.stop_requested
    assert queued.result(LONG) == 0
    with pytest.raises(RuntimeError):
        queued.answer(1)
    assert queued.result() == 0


@pytest.mark.parametrize("missing", ["owner", "on_sync"])
def test_a_sync_without_whom_to_meet_is_refused(make_pool, loop, missing):
    """T66. ValueError inside the job, which says what is missing."""
    options = {"owner": loop.strand(), "on_sync": never}
    del options[missing]
    job = make_pool(1).enqueue(lambda: mh.current_job().sync(), **options)
    assert outcome(job) == ("raised", ValueError)
    assert missing in str(job.exception())


@pytest.mark.parametrize("call", ["sync", "check_in"])
def test_the_inside_of_a_job_belongs_to_the_thread_that_runs_it(make_pool, loop, call):
    """T66. sync() and check_in() of a job elsewhere: RuntimeError, whatever its state."""
    pool = make_pool(1)
    with Gate() as gate:
        job = pool.enqueue(gate, owner=loop.strand(), on_sync=never)
        gate.wait_entered()
        with pytest.raises(RuntimeError):
            getattr(job, call)()
    outcome(job)
    with pytest.raises(RuntimeError):
        getattr(job, call)()


@pytest.mark.parametrize("timeout", [-1, float("nan"), "soon"])
def test_a_sync_with_a_wrong_timeout_is_refused(make_pool, loop, timeout):
    """T69. ValueError or TypeError inside the job; on_sync is not called."""
    job = make_pool(1).enqueue(lambda: mh.current_job().sync(timeout=timeout), owner=loop.strand(), on_sync=never)
    assert outcome(job)[1] in (ValueError, TypeError)


def test_when_writable_needs_a_watch(make_pool, loop, joined):
    """T66. A strand has no descriptor that could become writable: ValueError or TypeError."""
    job = make_pool(1).enqueue(lambda: mh.current_job().sync(when_writable=True), owner=loop.strand(), on_sync=never)
    assert outcome(job)[1] in (ValueError, TypeError)


def test_check_in_outside_a_job_does_nothing():
    """T61. And sleep_blocking sleeps: code that checks in can be used anywhere."""
    mh.check_in()
    mh.sleep_blocking(0)
    mh.sleep_blocking(0.001)
    with pytest.raises((ValueError, TypeError)):
        mh.sleep_blocking(-1)


@pytest.mark.parametrize("how", ["result", "exception", "group"])
def test_a_job_that_waits_for_a_job_of_its_own_full_pool_is_told(make_pool, how):
    """T75b. WouldDeadlock, which names both; the thread is free, and the job it waited for runs after all."""
    pool = make_pool(1)

    def outer() -> None:
        if how == "group":
            with pool.job_group() as group:
                inner.append(group.enqueue(int, name="inner"))
        else:
            inner.append(pool.enqueue(int, name="inner"))
            getattr(inner[0], how)()

    inner: list[mh.Job] = []
    job = pool.enqueue(outer, name="outer")
    error = job.exception(LONG)
    if isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, mh.WouldDeadlock)
    assert "outer" in str(error)
    assert "inner" in str(error)
    wait_until(inner[0].done)


@pytest.mark.parametrize("how", ["result", "exception"])
def test_a_job_that_waits_for_its_own_end_is_told(make_pool, how):
    """With threads to spare: it is not they that are missing. A look, which does not wait, is allowed."""
    pool = make_pool(2)

    def work() -> None:
        with pytest.raises(TimeoutError):
            getattr(mh.current_job(), how)(0)
        getattr(mh.current_job(), how)()

    error = pool.enqueue(work, name="itself").exception(LONG)
    assert isinstance(error, mh.WouldDeadlock)
    assert "itself" in str(error)


def test_jobs_that_fill_the_pool_and_wait_for_queued_ones_are_told_in_turn(make_pool):
    """T75b. Two threads, two jobs that each wait for another: the last that would wait gets the error."""
    pool = make_pool(2)
    both = threading.Barrier(2)

    def outer() -> int:
        inner = pool.enqueue(int)
        both.wait(LONG)
        return inner.result(LONG)

    jobs = [pool.enqueue(outer) for _ in range(2)]
    outcomes = [outcome(job) for job in jobs]
    assert ("raised", mh.WouldDeadlock) in outcomes
    assert set(outcomes) <= {("raised", mh.WouldDeadlock), ("returned", 0)}


def test_a_job_may_wait_for_another_while_a_thread_is_left(make_pool):
    """T75b. Nothing is refused that can work: there is a thread for the other job, or it runs already."""
    pool = make_pool(2)
    assert pool.enqueue(lambda: pool.enqueue(pow, 2, 3).result(LONG)).result(LONG) == 8
    with Gate() as gate:
        running = pool.enqueue(gate)
        gate.wait_entered()

        def wait_for_the_running() -> object:
            entered.set()
            return running.result(LONG)

        entered = threading.Event()
        waiting = pool.enqueue(wait_for_the_running)
        assert entered.wait(LONG)
        gate.open()
        assert outcome(waiting) == ("returned", None)


def test_a_job_may_wait_for_a_job_of_another_full_pool(make_pool):
    """T75b. Somebody else's pool is somebody else's: it will have a thread some day."""
    pool, other = make_pool(1), make_pool(1)
    with occupied(other):
        inner = other.enqueue(pow, 2, 3)
        entered = threading.Event()
        waiting = pool.enqueue(lambda: (entered.set(), inner.result(LONG)))
        assert entered.wait(LONG)
    assert waiting.result(LONG)[1] == 8
