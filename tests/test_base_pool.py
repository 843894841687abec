"""BasePool: pooled coroutines without a loop, driven by hand."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from typing import Any

import pytest

import manyhands as mh
from coroutining import FORMS
from gate import Gate
from manyhands.coroutines import TIMEOUT, BasePool, running, task_local, wait, wait_until
from support import wait_until as wait_for


class Hand:
    """A BasePool on a clock that is a number."""

    def __init__(self, **options: Any) -> None:
        self.time = 0.0
        self.pool = BasePool(now=lambda: self.time, **options)
        self.seen: list[Any] = []

    def check(self, time: float | None = None) -> tuple[float | None, int]:
        self.time = self.time if time is None else time
        return self.pool.check_timeout()


@pytest.fixture
def hand():
    made = Hand()
    yield made
    made.pool.close()


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


def test_nothing_runs_but_in_check_timeout(hand, form):
    """T76. `work` and `notify` run nobody; `check_timeout` says how many it ran and when it is to be called again."""

    def body():
        hand.seen.append((yield hand.pool.wait("event", 5)))
        hand.seen.append((yield hand.pool.wait("event")))
        hand.seen.append((yield hand.pool.wait("event", 1)))

    assert hand.check() == (None, 0)
    task_id = hand.pool.work(form(body))
    assert hand.check(1) == (6, 1)
    assert hand.check(5.9) == (6, 0)
    assert hand.check(6) == (None, 1)
    assert hand.pool.notify(task_id, "event", 1, 2)
    assert hand.seen == [TIMEOUT]
    assert hand.check(7) == (8, 1)
    assert hand.check(100) == (None, 1)
    assert hand.seen == [TIMEOUT, (1, 2), TIMEOUT]
    assert hand.pool.stats().alive == 0


def test_the_time_can_be_passed_in(form):
    """T77. `check_timeout(now=...)`: the deadline of a wait counts from the later of it and the clock; it is never early."""
    pool = BasePool(now=lambda: 0.0)
    seen = []

    def body():
        for _ in range(2):
            seen.append((yield pool.wait("event", 5)))

    pool.work(form(body))
    assert pool.check_timeout(2) == (7, 1)
    assert pool.check_timeout(6.999) == (7, 0)
    assert pool.check_timeout(now=7) == (12, 1)
    assert pool.check_timeout(12) == (None, 1)
    assert seen == [TIMEOUT, TIMEOUT]
    for wrong in ("1", True, 1j):
        with pytest.raises(TypeError):
            pool.check_timeout(wrong)


def test_a_number_alone_is_an_event_here_and_a_timeout_is_checked(hand):
    """T77. `pool.wait(5)` waits for the event 5; a timeout that is no number is refused at the call."""

    def body():
        hand.seen.append((yield hand.pool.wait(5)))
        hand.seen.append((yield wait(3)))

    task_id = hand.pool.work(body)
    assert hand.check() == (None, 1)
    assert not hand.pool.notify(task_id, 4)
    assert hand.pool.notify(task_id, 5, "five")
    assert hand.check() == (3, 1)
    assert hand.check(3) == (None, 1)
    assert hand.seen == [("five",), 0]
    with pytest.raises(TypeError):
        hand.pool.wait("event", "soon")
    with pytest.raises(ValueError, match="0 or more"):
        hand.pool.wait("event", -1)
    with pytest.raises(TypeError):
        BasePool(now=0)


def test_there_is_no_wait_until(hand):
    """T82. It needs a clock that calls: TypeError in the coroutine, which goes on."""
    assert not hasattr(hand.pool, "wait_until")

    def body():
        with pytest.raises(TypeError, match="BasePool has no wait_until"):
            yield wait_until(lambda: True)
        hand.seen.append("on")

    hand.pool.work(body)
    hand.check()
    hand.check()
    assert hand.seen == ["on"]


def test_what_becomes_ready_meanwhile_is_left_for_the_next_call(hand, form):
    """T78. Two that notify each other for ever, one that waits for 0 s: each call runs each once and says to call at once."""

    def ball():
        other = yield hand.pool.wait("other")
        while True:
            hand.pool.notify(other[0], "ball")
            yield hand.pool.wait("ball")
            hand.seen.append(running())

    def zero():
        while True:
            yield hand.pool.wait("never", 0)

    a, b, c = (hand.pool.work(form(body)) for body in (ball, ball, zero))
    assert hand.check() == (0, 3)
    hand.pool.notify(a, "other", b)
    assert hand.check() == (0, 2)
    hand.pool.notify(b, "other", a)
    for _ in range(5):
        deadline, ran = hand.check()
        assert deadline == 0
        assert ran in (2, 3)
    assert {a, b} == set(hand.seen)
    assert c not in hand.seen


def test_timeout_and_notify_at_one_instant_exactly_one_wins(hand, form):
    """T84. The deadline has passed and nobody has looked: a notify still wins; once the timeout was delivered it is False."""

    def body():
        for _ in range(2):
            hand.seen.append((yield hand.pool.wait("event", 5)))

    task_id = hand.pool.work(form(body))
    hand.check()
    hand.time = 5
    assert hand.pool.notify(task_id, "event", "in time")
    assert not hand.pool.notify(task_id, "event", "again")
    assert hand.check() == (10, 1)
    assert hand.check(10) == (None, 1)
    assert not hand.pool.notify(task_id, "event", "late")
    assert hand.seen == [("in time",), TIMEOUT]


def test_two_at_once_are_refused_and_nothing_is_broken(hand, spawn):
    """T84. A second thread, and the coroutine itself: RuntimeError; `work` and `notify` may come meanwhile from anywhere."""
    with Gate() as gate:

        def body():
            with pytest.raises(RuntimeError, match="one thread at a time"):
                hand.pool.check_timeout()
            gate()
            hand.seen.append((yield hand.pool.wait("event")))

        task_id = hand.pool.work(body)
        driving = spawn(hand.pool.check_timeout)
        gate.wait_entered()
        with pytest.raises(RuntimeError, match="one thread at a time"):
            hand.pool.check_timeout()
        assert not hand.pool.notify(task_id, "event")
        hand.pool.work(hand.seen.append, "second")
        gate.open()
        assert driving.result() == (0, 1)
    assert hand.pool.notify(task_id, "event", 1)
    assert hand.check() == (None, 2)
    assert hand.seen == ["second", (1,)]


@pytest.mark.race
def test_threads_that_take_turns_lose_nothing(spawn):
    """T84. Three threads drive in turn, or are refused, while one notifies 300 times: as many deliveries as True."""
    hand = Hand()
    over = threading.Event()

    async def body():
        while (got := await hand.pool.wait("event")) != ("end",):
            hand.seen.append(got)

    def drive():
        while not over.wait(1e-5):
            with contextlib.suppress(RuntimeError):
                hand.pool.check_timeout()

    task_id = hand.pool.work(body)
    threads = [spawn(drive) for _ in range(3)]
    said = 0
    while said < 300:
        said += hand.pool.notify(task_id, "event", said)
        over.wait(1e-5)
    wait_for(lambda: hand.pool.notify(task_id, "event", "end"))
    over.set()
    for thread in threads:
        thread.result()
    hand.check()
    assert hand.seen == [(number,) for number in range(300)]
    assert hand.pool.stats().alive == 0


def test_an_error_is_logged_and_ctrl_c_leaves_the_rest_for_the_next_call(hand, logged):
    """T76. ZeroDivisionError: a record, the others run; KeyboardInterrupt: raised, and the others run next time."""

    def interrupted():
        raise KeyboardInterrupt

    hand.pool.work(lambda: 1 / 0)
    hand.pool.work(interrupted)
    hand.pool.work(hand.seen.append, 1)
    with pytest.raises(KeyboardInterrupt):
        hand.check()
    assert hand.seen == []
    assert hand.check() == (None, 1)
    assert hand.seen == [1]
    assert [record.exc_info[0] for record in logged.records] == [ZeroDivisionError]
    assert hand.pool.stats().alive == 0


def test_places_slots_and_storage_are_those_of_the_other_pool(form):
    """T80. grow_by=2, limit=3, idle_limit=1; T81: the storage is empty at the start."""
    hand = Hand(grow_by=2, limit=3, idle_limit=1)

    def body():
        hand.seen.append(task_local.get("key"))
        task_local.set("key", 1)
        yield hand.pool.wait("go", 1)

    ids = [hand.pool.work(form(body)) for _ in range(3)]
    assert hand.pool.stats().slots == 3
    with pytest.raises(mh.QueueFull):
        hand.pool.work(body)
    hand.check()
    hand.check(1)
    assert (hand.pool.stats().alive, hand.pool.stats().idle) == (0, 1)
    assert hand.pool.work(form(body)) not in ids
    hand.check()
    assert hand.seen == [None] * 4
    hand.pool.close()


@pytest.mark.parametrize("where", ["outside", "inside", "beside"])
def test_close_ends_every_coroutine_and_refuses_work(hand, spawn, where):
    """T80. From outside at once; from a coroutine, or from another thread while one runs, before `check_timeout` returns."""
    with Gate() as gate:

        def waits():
            try:
                yield hand.pool.wait("event")
            finally:
                hand.seen.append("closed")

        def closes():
            if where == "inside":
                hand.pool.close()
            gate()
            hand.seen.append("after")
            yield hand.pool.wait("event", 5)

        hand.pool.work(waits)
        if where == "outside":
            hand.check()
            hand.pool.close()
        else:
            hand.pool.work(closes)
            driving = spawn(hand.pool.check_timeout)
            gate.wait_entered()
            hand.pool.close()
            assert hand.seen == []
            gate.open()
            assert driving.result()[0] is None
    assert hand.seen == (["closed"] if where == "outside" else ["after", "closed"])
    assert hand.pool.stats().alive == 0
    with pytest.raises(mh.PoolFinished):
        hand.pool.work(print)
    assert hand.check() == (None, 0)


def test_waits_that_were_notified_leave_no_deadline_behind(hand):
    """T80. 10,000 waits of 1,000 s, each notified, behind one of 500 s: the heap has stayed below 200 entries."""

    async def behind():
        await hand.pool.wait("never", 500)

    async def body():
        for _ in range(10_000):
            await hand.pool.wait("event", 1000)

    task_id = hand.pool.work(body)
    hand.pool.work(behind)
    hand.check()
    most = 0
    while hand.pool.notify(task_id, "event"):
        deadline, _ = hand.check()
        most = max(most, len(hand.pool._queue._heap))
    assert most < 200
    assert deadline == 500


def test_a_pool_that_nobody_has_is_collected():
    """T80. With a coroutine that waits for ever: its cleanup runs, nothing is left."""
    hand = Hand()
    cleaned = []

    def body(pool):
        try:
            yield pool.wait("event")
        finally:
            cleaned.append(1)

    hand.pool.work(body, hand.pool)
    hand.check()
    known = weakref.ref(hand.pool)
    del hand
    for _ in range(3):
        gc.collect()
    assert known() is None
    assert cleaned == [1]
