"""Actors: messages one at a time, in order, wherever a thread is free; what fails costs only itself."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import queue
import threading
import weakref

import pytest

import manyhands as mh
from acting import Busy, Deliberate, Doer, Plain, fail
from garbage import Garbage
from gate import Gate
from manyhands.testing import wait_all_idle
from support import LONG, wait_collected, wait_until

trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="nobody")


@pytest.fixture(params=[1, 4], ids=["1 thread", "4 threads"])
def served(request, make_loop, joined):
    """Serve a loop by one thread, and by four."""
    loop = make_loop(handover=0)
    with joined(loop, request.param):
        yield loop


# -- order, and one at a time ----------------------------------------------------------------------------------------


@pytest.mark.race
def test_an_actor_processes_one_message_at_a_time_in_the_order_of_each_sender(served, spawn):
    """T91. Four senders, each message once, each sender's in its order; `Doer` asserts that nobody else is inside."""
    actor = Doer(served)

    def sender(name: int) -> None:
        for number in range(200):
            actor.send((name, number))

    for call in [spawn(sender, name) for name in range(4)]:
        call.result()
    actor.stop(drain=True)
    assert actor.wait(LONG)
    assert actor.told[0] == "on_start"
    assert actor.told[-1] == "on_stop"
    processed = actor.told[1:-1]
    assert len(processed) == 800
    for name in range(4):
        assert [number for sender, number in processed if sender == name] == list(range(200))


def test_actors_run_in_parallel(make_loop, joined):
    """T91. Two actors meet inside their messages: neither waits for the other's to end."""
    loop = make_loop(handover=0)
    meeting = threading.Barrier(2, timeout=LONG)
    with joined(loop, 2):
        replies = [Plain(loop).ask(meeting.wait) for _ in range(2)]
        assert sorted(reply.result(LONG) for reply in replies) == [0, 1]


def test_a_message_is_processed_on_a_thread_that_serves_the_loop_and_never_in_the_send(make_loop):
    """T91. With nobody joined nothing happens; whoever joins processes."""
    loop = make_loop()
    actor = Doer(loop)
    actor.send("one")
    reply = actor.ask(threading.get_ident)
    assert (actor.told, actor.pending) == ([], 3)
    loop.join(until_idle=True)
    assert reply.result() == threading.get_ident()
    assert actor.told[:2] == ["on_start", "one"]
    assert actor.pending == 0


def test_an_actor_may_send_to_itself_and_go_on_with_what_it_asked_itself(served):
    """T91. A message sent in `process` is processed after it, and an answer that is not waited for comes back."""
    actor = Doer(served)
    steps: queue.SimpleQueue[str] = queue.SimpleQueue()

    def first() -> None:
        actor.send(lambda: steps.put("second"))
        actor.ask(lambda: "third").add_done_callback(lambda reply: steps.put(reply.result()))
        steps.put("first")

    actor.send(first)
    assert [steps.get(timeout=LONG) for _ in range(3)] == ["first", "second", "third"]


def test_handlers_and_timers_on_the_actor_s_strand_never_run_beside_process(make_loop, joined, pair):
    """T91. `actor.strand` is the actor: a watch and a timer there wait for the message, and end with it."""
    loop = make_loop(handover=0)
    actor = Doer(loop)
    a, b = pair()
    seen: queue.SimpleQueue[int] = queue.SimpleQueue()
    with joined(loop, 4):
        with Busy(actor):
            watch = loop.add(a, mh.Events.READ, lambda *_: seen.put(len(a.recv(9)) + actor.inside), strand=actor.strand)
            actor.strand.call_later(0, lambda: seen.put(10 + actor.inside))
            b.send(b"x")
            wait_until(lambda: actor.pending == 2)
        assert sorted(seen.get(timeout=LONG) for _ in range(2)) == [1, 10]
        late = actor.strand.call_later(LONG, fail)
        actor.stop()
        assert actor.wait(LONG)
    assert watch.removed
    assert not late.active


def test_a_full_mailbox_refuses_and_loses_nothing(make_loop):
    """T91. Beyond `max_pending` `QueueFull`, for `send` and `ask`; what was taken is processed, what was not is not."""
    loop = make_loop()
    actor = Doer(loop, max_pending=2)
    actor.send(1)
    actor.send(2)
    for call in (actor.send, actor.ask):
        with pytest.raises(mh.QueueFull, match=r"'Doer-\d+' has max_pending=2") as refused:
            call(3)
        assert refused.value.strand is actor.strand
    loop.join(until_idle=True)
    assert actor.told == ["on_start", 1, 2]
    actor.send(4)
    loop.join(until_idle=True)
    assert actor.told[-1] == 4


def test_process_sees_the_context_of_whoever_sent_the_message(make_loop):
    """T91. Context travels (D13): each message has a copy of its sender's, and changes nobody's."""
    loop = make_loop()
    actor = Doer(loop)
    seen: list[str] = []

    def look() -> None:
        seen.append(trace.get())
        trace.set("changed by the message")

    def sender(name: str) -> None:
        trace.set(name)
        actor.send(look)
        actor.ask(look).add_done_callback(lambda _: seen.append(trace.get()))
        trace.set("changed after the send")

    for name in ("ann", "bob"):
        contextvars.Context().run(sender, name)
    actor.send(look)
    loop.join(until_idle=True)
    assert seen == ["ann", "ann", "changed by the message", "bob", "bob", "changed by the message", "nobody"]


# -- the first call --------------------------------------------------------------------------------------------------


def test_on_start_is_called_by_start_without_a_message_and_once(make_loop):
    """T91. `start()` twice and a message: one call, first."""
    loop = make_loop()
    actor = Doer(loop)
    assert loop.join(until_idle=True) == 0
    assert actor.told == []
    actor.start()
    actor.start()
    loop.join(until_idle=True)
    assert actor.told == ["on_start"]
    actor.send(1)
    loop.join(until_idle=True)
    assert actor.told == ["on_start", 1]


@pytest.mark.race
def test_two_first_senders_race_and_on_start_is_called_once_before_both(make_loop, spawn):
    """T91. One is held inside its call of `start()`; the other posts its own, and its message, which is processed."""
    loop = make_loop()

    gates = [Gate()]

    class Slow(Doer):
        def start(self) -> None:
            if gates:
                gates.pop()()
            super().start()

    actor, gate = Slow(loop), gates[0]
    with gate:
        slow = spawn(actor.send, "slow")
        gate.wait_entered()
        actor.send("fast")
        loop.join(until_idle=True)
    slow.result()
    loop.join(until_idle=True)
    assert actor.told == ["on_start", "fast", "slow"]


def test_an_actor_whose_on_start_raises_is_stopped_and_its_askers_are_told(make_loop):
    """T91. The error is reported once; what waits is answered with `ActorStopped`; `on_stop` is called all the same."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)

    class Unable(Doer):
        on_start = fail

    actor = Unable(loop)
    replies = [actor.ask(1), actor.ask(2)]
    loop.join(until_idle=True)
    for reply in replies:
        with pytest.raises(mh.ActorStopped, match="before it came to this message"):
            reply.result()
    assert [(report.source, type(report.error)) for report in reports] == [("message", Deliberate)]
    assert actor.told == ["on_stop"]
    assert actor.stopped


# -- finalizers, lifetimes -------------------------------------------------------------------------------------------


@pytest.mark.race
def test_finalizers_may_send_ask_cancel_and_stop_at_any_moment(served):
    """T97. From `__del__` in collections inside `process`, and on a thread that does nothing else: no deadlock."""
    actor, victims = Doer(served, max_pending=None), [Doer(served) for _ in range(20)]
    finalized: list[int] = []

    def finalize(number: int) -> None:
        actor.send(number)
        actor.ask(number).cancel()
        victims[number % 20].stop()
        finalized.append(number)

    def collect_inside(number: int) -> None:
        Garbage(finalize, number)
        gc.collect()

    threshold = gc.get_threshold()
    gc.set_threshold(2, 2, 2)
    try:
        for number in range(20):
            actor.send(lambda number=number: collect_inside(number))
            Garbage(finalize, 100 + number)
            victims[number % 20].stop()
    finally:
        gc.set_threshold(*threshold)
    # Again and again: a collection beside another one does nothing.
    wait_until(lambda: gc.collect() is not None and len(finalized) == 40)
    wait_all_idle(served)
    assert {number for number in actor.told if isinstance(number, int)} == set(finalized)
    assert all(victim.stopped for victim in victims)


def test_an_actor_lives_until_it_is_stopped_and_no_longer(make_loop):
    """T99. The loop keeps it, whoever else has forgotten it; a stopped one can be collected."""
    loop = make_loop()
    actor = Plain(loop)
    ref = weakref.ref(actor)
    del actor
    gc.collect()
    ref().send(fail)  # it would not be there
    ref().stop()
    loop.join(until_idle=True)
    wait_collected(ref)


def test_a_reply_that_was_refused_is_kept_by_nobody(make_loop):
    """T99. A full mailbox that is asked again and again costs no memory."""
    actor = Doer(make_loop(), max_pending=1)
    actor.send(1)
    for _ in range(3):
        with contextlib.suppress(mh.QueueFull):
            actor.ask(2)
    gc.collect()
    assert not any(isinstance(found, mh.Reply) for found in gc.get_objects())


def test_the_end_of_an_actor_is_the_end_of_the_jobs_that_it_owns(make_loop, make_pool, joined):
    """T75b. An actor's strand may own jobs: they are told to stop when it does."""
    loop, pool = make_loop(), make_pool()
    actor = Plain(loop)
    with joined(loop):
        job = actor.ask(lambda: pool.enqueue(mh.sleep_blocking, 3 * LONG, owner=actor.strand)).result(LONG)
        actor.stop()
        with pytest.raises(mh.JobAborted) as stopped:
            job.result(LONG)
    assert stopped.value.reason is mh.StopReason.OWNER_GONE


# -- misuse ----------------------------------------------------------------------------------------------------------


def test_what_is_wrong_is_refused_at_the_call(make_loop):
    """T92. The loop, a process that is a coroutine, a constructor that was not called, a process that is missing."""
    loop = make_loop()
    with pytest.raises(TypeError, match="loop must be an EventLoop, and got 'loop'"):
        mh.Actor("loop")
    with pytest.raises(TypeError, match="process.* must be a plain function"):

        class Asynchronous(mh.Actor):
            async def process(self, message): ...

    class Unmade(mh.Actor):
        def __init__(self): ...

    with pytest.raises(RuntimeError, match=r"Actor.__init__ was not called"):
        Unmade().send(1)
    asked = mh.Actor(loop).ask("question")
    loop.join(until_idle=True)
    with pytest.raises(NotImplementedError, match="'question'"):
        asked.result()
    loop.close()
    with pytest.raises(mh.LoopClosed):
        Plain(loop)


def test_an_actor_and_its_reply_say_who_they_are(make_loop):
    """T92. Names in reprs, in `dump()` and in errors: given, or made of the class and a number."""
    loop = make_loop()
    clerk, other = Doer(loop, name="clerk"), Doer(loop)
    reply = clerk.ask(1)
    assert repr(clerk) == "<Doer 'clerk'>"
    assert repr(reply) == "<manyhands.Reply of actor 'clerk': pending>"
    assert other.name.startswith("Doer-")
    assert "strand 'clerk'" in loop.dump()
    clerk.stop()
    loop.join(until_idle=True)
    assert repr(clerk) == "<Doer 'clerk' stopped>"
    with pytest.raises(mh.ActorStopped, match="'clerk' was stopped and takes no message") as refused:
        clerk.send(1)
    assert refused.value.actor == "clerk"
    assert isinstance(refused.value, mh.StrandClosed)
