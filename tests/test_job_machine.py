"""Jobs against a plain model of the table: anything at any moment, in any order.

Every rule is one thing that somebody may do: submit, let a job go on, let it raise, stop it, close its owner, answer it,
let its time pass, reap it, detach it. The model says which statuses may be seen then, and what must have come of a job in
the end. MANYHANDS_MACHINE_STEPS asks for more steps than an ordinary run has time for (`make machine`: 10,000).
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import manyhands as mh
from pooling import ARROWS, ENDED, Deliberate, F, P, Q, R, S, Y, adds_up, outcome
from support import LONG, wait_until

STEPS = int(os.environ.get("MANYHANDS_MACHINE_STEPS", "3000"))
EACH = 40
"""Steps of one history."""

THREADS = 3
CALLER = mh.StopReason.CALLER

STOPS = {
    "stop": CALLER,
    "owner": mh.StopReason.OWNER_GONE,
    "deadline": mh.StopReason.DEADLINE,
    "sync timeout": mh.StopReason.SYNC_TIMEOUT,
    "on_sync raises": mh.StopReason.SYNC_FAILED,
    "finish": mh.StopReason.POOL_FINISHING,
}

orders = st.sampled_from(["return", "raise", "sync", "sync with a timeout", "sync that fails", "check in"])


one_in_three = st.integers(0, 2)
"""What ends a job is done if this is 0: most of a history should be of jobs that live."""


class Told:
    """What a job's function is told to do next by the machine, and what it noted."""

    def __init__(self, machine: JobMachine, stepwise: bool) -> None:
        self.machine = machine
        self.stepwise = stepwise
        self.orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.told: list[mh.StopReason] = []
        self.cleaned = 0
        self.job: mh.Job
        self.seen: list[mh.JobStatus] = [Q]
        self.reasons: set[mh.StopReason] = set()
        self.owner: mh.Strand | None = None
        self.outlives = False
        self.late = False
        self.stubborn = False
        self.detached = False
        self.reaped = False
        self.ordered: str | None = None
        self.doing: str | None = None

    def look(self) -> mh.JobStatus:
        """Note the status, which must have come along an arrow or several from the one before."""
        status = self.job.status
        if status is not self.seen[-1]:
            assert status in reachable(self.seen[-1]), f"{self.seen[-1]} -> {status}"
            self.seen.append(status)
        return status

    # The job's side.

    def work(self) -> object:
        job = mh.current_job()
        while True:
            order = self.doing = self.orders.get(timeout=3 * LONG)
            if order == "return":
                return "returned"
            if order == "raise":
                raise Deliberate
            try:
                if order == "check in":
                    mh.check_in()
                elif order == "sync with a timeout":
                    job.sync(order, timeout=0.002)
                else:
                    job.sync(order, timeout=3 * LONG)
            except mh.JobStopped as stopped:
                self.told.append(stopped.reason)
                raise

    def steps(self):
        job = mh.current_job()
        while True:
            order = self.doing = self.orders.get(timeout=3 * LONG)
            if order == "return":
                return "returned"
            if order == "raise":
                raise Deliberate
            if order == "check in":
                word = yield mh.CHECKING_IN
            elif order == "sync with a timeout":
                word = yield mh.SYNC(order, timeout=0.002)
            else:
                word = yield mh.SYNC(order, timeout=3 * LONG)
            if word is mh.STOPPING:
                self.told.append(job.reason)
                if not self.stubborn:
                    return mh.STOPPED

    def cleanup(self, job: mh.Job) -> None:
        self.cleaned += 1

    @staticmethod
    def on_sync(job: mh.Job, value: str) -> None:
        if value == "sync that fails":
            raise Deliberate


def reachable(status: mh.JobStatus) -> set[mh.JobStatus]:
    """Whatever can come after a status, at once or later."""
    found: set[mh.JobStatus] = set()
    new = set(ARROWS[status])
    while new:
        found |= new
        new = set().union(*(ARROWS[one] for one in new)) - found
    return found


class JobMachine(RuleBasedStateMachine):
    """A pool of three threads, a loop with one joined thread, and jobs that do what they are told."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.loop = mh.EventLoop(on_error=lambda report: None)
        self.thread = threading.Thread(target=self.loop.join, name="machine-loop")
        self.thread.start()
        self.pool = mh.ThreadPool(THREADS, max_queue_depth=None, max_done=10_000)
        self.all: list[Told] = []
        self.finished = False

    @rule(
        target=jobs,
        stepwise=st.booleans(),
        owned=st.booleans(),
        outlives=st.booleans(),
        late=one_in_three,
        stubborn=st.booleans(),
        priority=st.integers(-1, 1),
    )
    def submit(self, stepwise: bool, owned: bool, outlives: bool, late: int, stubborn: bool, priority: int) -> Told:
        """A stubborn one goes on when it is told to stop, and must not be told again; only the stepwise can."""
        told = Told(self, stepwise)
        told.late = late == 0
        told.stubborn = stubborn
        told.owner = self.loop.strand()
        told.outlives = owned and outlives
        options = {"deadline": mh.now() + 0.003} if told.late else {}
        if told.late:
            told.reasons.add(STOPS["deadline"])
        enqueue: Callable[..., mh.Job] = self.pool.enqueue_steps if stepwise else self.pool.enqueue
        try:
            told.job = enqueue(
                told.steps if stepwise else told.work,
                owner=told.owner,
                outlive=told.outlives,
                on_sync=told.on_sync,
                cleanup=told.cleanup,
                priority=priority,
                **options,
            )
        except mh.PoolFinished:
            assert self.finished
            told.seen = []
            return told
        assert not self.finished
        self.all.append(told)
        return told

    @rule(place=st.integers(0, 5), order=orders)
    def order_one_that_runs(self, place: int, order: str) -> None:
        """Let one of those that have a thread go on."""
        running = [told for told in self.all if told.look() is R]
        if running:
            told = running[place % len(running)]
            self.order(told, order)
            # A stepwise one may run and wait for a thread; any may end, or sync, by an earlier order.
            wait_until(lambda: told.stepwise or told.orders.empty() or told.look() is not R)

    @rule(told=jobs, order=orders)
    def order_any(self, told: Told, order: str) -> None:
        """It goes on when it has a thread."""
        self.order(told, order)

    def order(self, told: Told, order: str) -> None:
        if not told.seen or told.ordered in ("return", "raise"):
            return
        told.ordered = order
        if order == "sync with a timeout":
            told.reasons.add(STOPS["sync timeout"])
        if order == "sync that fails":
            told.reasons.add(STOPS["on_sync raises"])
        told.orders.put(order)

    @rule(told=jobs, really=one_in_three)
    def stop(self, told: Told, really: int) -> None:
        if not told.seen or really:
            return
        before = told.look()
        told.reasons.add(CALLER)
        answered = told.job.stop()
        if before in ENDED:
            assert answered is False
        if before is Q:
            assert told.look() in (S, P, R, F, Y)
        if answered:
            assert told.job.stop_requested

    @rule(told=jobs, really=one_in_three)
    def close_owner(self, told: Told, really: int) -> None:
        if told.seen and told.owner is not None and not really:
            if not told.outlives and not told.detached:
                told.reasons.add(STOPS["owner"])
            told.owner.close()
            told.owner = None

    @rule(told=jobs)
    def answer(self, told: Told) -> None:
        if told.seen:
            before = told.look()
            try:
                told.job.answer("an answer")
            except RuntimeError:
                assert before is not Y or told.look() is not Y or told.job.reason or told.stepwise
            else:
                assert before in (Q, R, Y, P)

    @rule(told=jobs)
    def reap(self, told: Told) -> None:
        if told.seen:
            before = told.look()
            try:
                status = told.job.reap()
            except RuntimeError:
                assert before not in ENDED or told.reaped or told.detached or told.outlives
            else:
                assert not told.reaped
                assert status in ENDED
                assert status is told.look()
                told.reaped = True

    @rule(told=jobs, really=one_in_three)
    def detach(self, told: Told, really: int) -> None:
        if told.seen and not really:
            told.job.detach()
            told.detached = True
            assert told.job.owner is None

    @rule()
    def let_time_pass(self) -> None:
        """Deadlines and sync timeouts of 2 or 3 ms come."""
        threading.Event().wait(0.004)

    @rule(really=st.integers(0, 30))
    def finish(self, really: int) -> None:
        """Rarely: most of a history should happen in a pool that takes jobs."""
        if really == 0 and not self.finished:
            self.finished = True
            for told in self.all:
                told.reasons.add(STOPS["finish"])
            self.pool.finish()

    @invariant()
    def statuses_move_along_the_table(self) -> None:
        for told in self.all:
            told.look()

    @invariant()
    def the_numbers_add_up(self) -> None:
        stats = self.pool.stats()
        assert adds_up(stats), stats
        assert stats.submitted == len(self.all)
        assert stats.busy <= stats.threads <= THREADS

    def teardown(self) -> None:
        """Everybody is told to end, in one way or another; then the books are looked through."""
        try:
            for told in self.all:
                self.see_it_told(told)
            for told in self.all:
                told.orders.put("check in")
                told.orders.put("return")
            self.pool.finish()
            for told in self.all:
                self.settle(told)
            wait_until(lambda: self.pool.stats().busy == 0)
            stats = self.pool.stats()
            assert stats.submitted == stats.finished + stats.stopped == len(self.all)
            assert self.pool.destroy(LONG) == []
            assert [told.cleaned for told in self.all] == [1] * len(self.all)
        finally:
            self.loop.request_stop()
            self.thread.join(LONG)
            self.loop.close()

    def see_it_told(self, told: Told) -> None:
        """Whoever is late, or syncs in vain, is told without anybody's doing."""
        if told.late:
            wait_until(lambda: told.job.done() or told.job.stop_requested)
        if told.doing in ("sync with a timeout", "sync that fails"):
            wait_until(lambda: told.look() is not Y or told.doing == "sync")

    def settle(self, told: Told) -> None:
        how, what = outcome(told.job, 3 * LONG)
        status = told.look()
        assert status in ENDED
        assert len(told.told) <= 1, "told twice"
        reason = told.job.reason
        assert reason is None or reason in told.reasons | {STOPS["finish"]}
        if status is S:
            assert what is reason
            assert how == ("cancelled" if reason is CALLER else "aborted")
            assert told.job.cancelled() is (reason is CALLER)
            assert told.told in ([], [reason])
        else:
            assert (how, what) in [("returned", "returned"), ("raised", Deliberate)]
            assert not told.job.cancelled()


def test_statuses_move_along_the_table_whatever_comes():
    """T60. Random histories of submits, stops, syncs, closes, deadlines; three thousand steps, or as many as are asked for."""
    run_state_machine_as_test(
        JobMachine,
        settings=settings(
            max_examples=max(1, STEPS // EACH),
            stateful_step_count=EACH,
            deadline=None,
            database=None,
            derandomize="MANYHANDS_MACHINE_STEPS" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_model_knows_every_status():
    """T60. The table of the model has six rows, and both ends are ends."""
    assert set(ARROWS) == set(mh.JobStatus)
    assert reachable(Q) == {R, Y, P, F, S}
    assert [ARROWS[status] for status in ENDED] == [set(), set()]
