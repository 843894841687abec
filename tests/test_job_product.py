"""The whole product: {state} x {who stops} x {what the job makes of it} x {does somebody wait} x {is the pool finishing}.

What must come of each is computed from a table of a few lines, written down from the promises and not from the code.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass

import pytest

import manyhands as mh
from gate import Gate
from pooling import Deliberate, F, P, Q, R, S, Stoppable, Y, fail, outcome
from support import LONG, wait_until
from turning import nothing

CALLER = mh.StopReason.CALLER
POOL_FINISHING = mh.StopReason.POOL_FINISHING

REASONS = {
    "caller": CALLER,
    "owner": mh.StopReason.OWNER_GONE,
    "deadline": mh.StopReason.DEADLINE,
    "sync timeout": mh.StopReason.SYNC_TIMEOUT,
    "pool": POOL_FINISHING,
}

STATES = [Q, R, Y, P, F, S]


@dataclass(frozen=True)
class Case:
    state: mh.JobStatus
    who: str
    raises: bool
    waiter: bool
    finishing: bool

    def __str__(self) -> str:
        words = [self.state.name, self.who]
        words += [word for word in ("raises", "waiter", "finishing") if getattr(self, word)]
        return " ".join(words)

    @property
    def possible(self) -> bool:
        """A sync can only be late while there is one."""
        return self.who != "sync timeout" or self.state is Y

    @property
    def first(self) -> mh.StopReason:
        """Why the job is stopped: the first that asks. In STOPPING and STOPPED the test's own caller was there before."""
        if self.state in (P, S):
            return CALLER
        return POOL_FINISHING if self.finishing else REASONS[self.who]

    @property
    def expected(self) -> tuple[mh.JobStatus, tuple[str, object], mh.StopReason | None, list[mh.StopReason]]:
        """Status, outcome, reason, and what the job was told."""
        if self.state is F:
            return F, ("returned", None), None, []
        stopped = ("cancelled" if self.first is CALLER else "aborted", self.first)
        if self.state in (Q, S):
            return S, stopped, self.first, []
        if self.raises:
            return F, ("raised", Deliberate), self.first, [self.first]
        return S, stopped, self.first, [self.first]


PRODUCT = [Case(*values) for values in itertools.product(STATES, REASONS, *[(False, True)] * 3)]
CASES = [case for case in PRODUCT if case.possible]


def test_the_product_is_whole():
    """T60. 240 cases, of which a sync timeout outside of a sync (40) cannot be."""
    assert len(PRODUCT) == 6 * 5 * 2 * 2 * 2
    assert len(CASES) == 240 - 40


class Arrangement:
    """A pool, an owner, and one job brought into the state of the case."""

    def __init__(self, case: Case, loop: mh.EventLoop, allowance: float) -> None:
        self.case = case
        self.pool = mh.ThreadPool(1)
        self.strand = loop.strand()
        self.cleaned: list[mh.Job] = []
        self.gate = Gate()  # keeps the pool's thread from a queued job
        self.listen = Gate()  # keeps a job that was asked from hearing it
        self.function = Stoppable(then=fail if case.raises else None)
        self.limit = mh.now() + (allowance if case.who in ("deadline", "sync timeout") else 3 * LONG)
        self.deadline = self.limit if case.who == "deadline" else None
        self.sync_timeout = allowance if case.who == "sync timeout" else 3 * LONG
        self.job = self.arrange()

    def arrange(self) -> mh.Job:
        state = self.case.state
        body = {R: self.function, Y: self.sync, P: self.listening}.get(state, int)
        if state in (Q, S):
            self.pool.enqueue(self.gate)
            self.gate.wait_entered()
        job = self.pool.enqueue(
            (lambda: None) if body is int else body,
            owner=self.strand,
            cleanup=self.cleaned.append,
            on_sync=nothing,
            deadline=self.deadline,
        )
        if state is R:
            self.function.wait_entered(job)
        elif state is Y:
            wait_until(lambda: job.status is not R and job.status is not Q)
        elif state is P:
            wait_until(lambda: self.listen.entered or job.done())
            job.stop()
        elif state is F:
            wait_until(job.done)
        elif state is S:
            job.stop()
        return job

    def sync(self) -> None:
        try:
            mh.current_job().sync(timeout=self.sync_timeout)
        except mh.JobStopped as stopped:
            self.function.told.append(stopped.reason)
            if self.case.raises:
                raise Deliberate from None
            raise

    def listening(self) -> None:
        self.listen()
        self.function()

    def stop(self) -> None:
        """Let whoever it is of the case stop the job, and check the answer."""
        alive = self.case.state not in (F, S) and not (self.case.finishing and self.case.state is Q)
        if self.case.who == "caller":
            assert self.job.stop() is alive or (self.case.finishing and self.case.state in (R, Y))
        elif self.case.who == "owner":
            self.strand.close()
        elif self.case.who == "pool":
            self.pool.finish()
        else:
            wait_until(lambda: mh.now() > self.limit)


@pytest.fixture(scope="module")
def shared_loop():
    """One loop with two joined threads, for every case."""
    loop = mh.EventLoop()
    threads = [threading.Thread(target=loop.join) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: loop.joined == 2)
    yield loop
    loop.stop()
    for thread in threads:
        thread.join()
    loop.close()


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case_of_the_product_ends_as_the_table_says(shared_loop, spawn, case):
    """T60. Status, outcome, reason; told at most once, and that once if it ran; cleaned up once."""
    # A case with a time limit is arranged before that passes, or again with more time: a machine may be busy.
    for allowance in (0.02, 0.2, 2.0):
        arranged = Arrangement(case, shared_loop, allowance)
        job, pool = arranged.job, arranged.pool
        in_state = job.status is case.state
        waiting = spawn(outcome, job) if case.waiter else None
        if case.finishing:
            pool.finish()
        if in_state and mh.now() < arranged.limit:
            break
        arranged.gate.open()
        arranged.listen.open()
        pool.destroy(LONG)
    assert in_state, job.status
    try:
        arranged.stop()
    finally:
        arranged.listen.open()
        if case.state is not Q:
            arranged.gate.open()
    status, expected, reason, told = case.expected
    try:
        assert outcome(job) == expected
    finally:
        arranged.gate.open()
    if waiting is not None:
        assert waiting.result() == expected
    assert job.status is status
    assert job.reason is reason
    assert arranged.function.told == told
    assert job.stop() is False
    assert pool.destroy(LONG) == []
    assert arranged.cleaned == [job]
    assert (job.status, job.reason) == (status, reason), "the end of a job changed"
