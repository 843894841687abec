"""Replies: the futures that `Actor.ask` gives, for threads, callbacks, jobs and tasks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import weakref

import pytest

import manyhands as mh
from acting import Busy, Deliberate, Doer, Plain, fail, outcome
from manyhands.testing import hold
from support import LONG, wait_until


@pytest.fixture
def served(make_loop, joined):
    """Serve a loop by two threads."""
    loop = make_loop(handover=0)
    with joined(loop, 2):
        wait_until(lambda: loop.joined == 2)
        yield loop


def test_a_thread_waits_for_the_answer(served, spawn):
    """T91. `result()` returns or raises it, `exception()` returns the one or None; a timeout is one."""
    actor = Doer(served)
    assert (actor.ask(1).result(LONG), actor.ask(1).exception(LONG)) == (1, None)
    failing = actor.ask(fail)
    assert isinstance(failing.exception(LONG), Deliberate)
    with pytest.raises(Deliberate):
        failing.result()
    with Busy(actor):
        waiting = actor.ask("late")
        for timeout in (0, 0.001):
            with pytest.raises(TimeoutError, match=f"{actor.name}' has not answered after {timeout} s"):
                waiting.result(timeout)
        with pytest.raises(ValueError, match="timeout must be"):
            waiting.result(-1)
        waiter = spawn(waiting.result, LONG)
    assert waiter.result() == "late"


def test_done_callbacks_are_called_where_it_ends_and_at_once_when_it_has(served, logged):
    """T91. Once, with the reply; one that raises is logged, and costs nobody anything."""
    actor = Doer(served)
    called: list[tuple[object, int]] = []

    def note(reply) -> None:
        called.append((reply, threading.get_ident()))

    with Busy(actor):
        reply = actor.ask(threading.get_ident)
        reply.add_done_callback(fail)
        reply.add_done_callback(note)
    wait_until(lambda: called)
    assert called == [(reply, reply.result())]
    reply.add_done_callback(note)
    assert called[1:] == [(reply, threading.get_ident())]
    assert [record.name for record in logged.records] == ["concurrent.futures"]


def test_a_reply_is_a_future_that_others_can_wait_for(served):
    """T91. `concurrent.futures.wait`, `as_completed` and `asyncio.wrap_future` take it; a cancelled one is among them."""
    actor = Doer(served)
    with Busy(actor):
        replies = [actor.ask(number) for number in range(3)]
        assert replies[1].cancel()
    done, waiting = concurrent.futures.wait(replies, timeout=LONG)
    assert (done, waiting) == (set(replies), set())
    assert [outcome(reply) for reply in replies] == ["answered", "cancelled", "answered"]
    assert set(concurrent.futures.as_completed(replies, timeout=LONG)) == set(replies)

    async def ask() -> object:
        return await asyncio.wrap_future(actor.ask("question"))

    assert asyncio.run(ask()) == "question"


def test_nobody_but_its_actor_can_answer_a_reply(make_loop):
    """T91. A future's methods for executors are refused."""
    reply = Doer(make_loop()).ask(1)
    calls = (lambda: reply.set_result(1), lambda: reply.set_exception(Deliberate()), reply.set_running_or_notify_cancel)
    for call in calls:
        with pytest.raises(concurrent.futures.InvalidStateError):
            call()
    assert not reply.done()


# -- waits that would wait for themselves ----------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["result", "exception"])
def test_waiting_for_an_answer_inside_the_actor_raises_at_once(served, call):
    """T6. It would wait for itself; it may look, and it may have an answer that is there."""
    actor, other = Doer(served), Doer(served)
    there = other.ask("there")
    assert there.result(LONG) == "there"

    def wait_for_itself() -> str:
        reply = actor.ask(1)
        with pytest.raises(TimeoutError):
            getattr(reply, call)(timeout=0)
        with pytest.raises(mh.WouldDeadlock, match=rf"{call}\(\) of a reply of actor '{actor.name}'") as refused:
            getattr(reply, call)(timeout=LONG)
        assert (refused.value.call, refused.value.loop) == (f"{call}()", served.name)
        return there.result()

    assert actor.ask(wait_for_itself).result(LONG) == "there"


def test_waiting_for_an_answer_in_a_handler_of_any_loop_raises_at_once(served, make_loop):
    """T6. A thread that serves a loop waits for none (D6): two handlers cannot wait for each other."""
    actor, elsewhere = Doer(served), make_loop()
    seen: list[type] = []

    def handler() -> None:
        with Busy(actor):
            for call in (actor.ask(1).result, actor.wait):
                try:
                    call()
                except mh.WouldDeadlock as error:
                    seen.append(type(error))
            assert actor.wait(0) is False

    # Busy() waits for the actor's thread, which is another loop's, by an event: nothing that the library could see.
    elsewhere.post(handler)
    elsewhere.join(until_idle=True)
    assert seen == [mh.WouldDeadlock] * 2


def test_a_job_may_wait_for_an_answer_and_a_stop_ends_its_wait(served, make_pool):
    """T75i. A job's thread is lent to no loop: it waits by `result()`, or by `blocking.wait`, which a stop ends."""
    actor, pool = Doer(served), make_pool()
    assert pool.enqueue(lambda: actor.ask("for a job").result(LONG)).result(LONG) == "for a job"
    entered = threading.Event()

    def wait() -> None:
        reply = actor.ask("never")
        entered.set()
        mh.blocking.wait(reply)

    with Busy(actor):
        job = pool.enqueue(wait)
        assert entered.wait(LONG)
        job.stop()
        with pytest.raises(mh.JobCancelled):
            job.result(LONG)


def test_ctrl_c_ends_the_main_thread_s_wait_for_an_answer_and_for_an_end(script):
    """T93. Whenever it comes; reply and actor are as they were."""
    printed = script("""
class Slow(mh.Actor):
    def process(self, message):
        message.wait(LONG)
        return "answer"
with mh.ThreadedEventLoop(threads=1, slow_handler=60.0) as loop:
    actor = Slow(loop)
    release, waits = threading.Event(), threading.Event()
    reply = actor.ask(release)
    for wait in (reply.result, actor.wait):
        thread(lambda: (waits.wait(), to_process()))
        try:
            waits.set()
            wait()
        except KeyboardInterrupt:
            print("interrupted", end=" ")
        waits.clear()
    release.set()
    print(reply.result(LONG))
""")
    assert printed == "interrupted interrupted answer\n"


def test_in_a_forked_child_a_reply_and_an_actor_say_whose_they_are(script):
    """T96. Nobody answers there: every call that would have to raises `ForkedError`, no wait hangs."""
    printed = script("""
import os
class Plain(mh.Actor):
    def process(self, message): return message
loop = mh.EventLoop()
actor = Plain(loop)
reply = actor.ask(1)
pid = os.fork()
if pid == 0:
    for call in (reply.result, reply.exception, actor.wait, actor.stop, actor.start, lambda: actor.send(1),
                 lambda: actor.ask(1), lambda: actor.pending):
        try:
            call()
        except mh.ForkedError:
            print("forked", end=" ", flush=True)
    repr(actor), repr(reply)
    os._exit(0)
os.waitpid(pid, 0)
loop.join(until_idle=True)
print(reply.result())
loop.close()
""")
    assert printed == "forked " * 8 + "1\n"


def test_a_thread_that_waits_for_an_answer_does_not_keep_the_process_from_ending(script):
    """T98. Interpreter exit with no stop: it waits for the thread, so the thread is told."""
    printed = script("""
class Slow(mh.Actor):
    def process(self, message):
        return message.wait()
loop = mh.ThreadedEventLoop(threads=1, slow_handler=60.0)
loop.start()
actor, entered, never = Slow(loop), threading.Event(), threading.Event()
actor.send(never)
asked = [actor.ask(never)]
def wait():
    entered.set()
    try:
        asked[0].result()
    except mh.ActorStopped:
        print("told", flush=True)
threading.Thread(target=wait).start()
entered.wait()
""")
    assert printed == "told\n"


# -- cancelling ------------------------------------------------------------------------------------------------------


def test_a_reply_that_is_cancelled_before_its_turn_keeps_its_message_from_being_processed(served):
    """T91. `cancel()` is True; of one that is being processed it is False, and the answer comes."""
    actor = Doer(served)
    entered, release = threading.Event(), threading.Event()

    def message() -> str:
        entered.set()
        release.wait(LONG)
        return "answer"

    running, cancelled = actor.ask(message), actor.ask("cancelled")
    assert entered.wait(LONG)
    assert running.running()
    assert not running.cancel()
    assert cancelled.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        cancelled.result()
    release.set()
    assert running.result(LONG) == "answer"
    assert actor.ask("next").result(LONG) == "next"
    assert "cancelled" not in actor.told


@pytest.mark.race
def test_a_cancel_races_the_turn_of_its_message_and_one_of_them_wins(make_loop, joined, spawn):
    """T91. The thread that would process it is held in front of it: cancelled then, it is not processed."""
    loop = make_loop()
    actor = Doer(loop)
    reply = actor.ask("message")
    with hold("strand.begin") as held, joined(loop):
        held.wait_reached()
        assert reply.cancel()
        held.release()
        wait_until(lambda: actor.pending == 0)
        assert actor.ask("next").result(LONG) == "next"
    assert actor.told == ["on_start", "next"]
    for number in range(100):
        reply = actor.ask(number)
        turn = spawn(loop.run_ready)
        won = reply.cancel()
        turn.result()
        assert won == (number not in actor.told) == reply.cancelled()


# -- in a task -------------------------------------------------------------------------------------------------------


def test_a_task_awaits_the_answer(served):
    """T91. A value of any kind, an exception, and one that was there before."""
    actor = Doer(served)

    async def main() -> None:
        for value in (7, None, (1, 2), Deliberate):
            assert await actor.ask(lambda value=value: value) == value
        with pytest.raises(Deliberate):
            await actor.ask(fail)
        there = actor.ask("there")
        concurrent.futures.wait([there])
        assert await there == await there == "there"

    mh.run(main)


def test_a_task_that_is_cancelled_cancels_what_it_asked(served):
    """T91. The message is not processed if its turn has not come; the actor goes on."""
    actor = Doer(served)
    replies: list[mh.Reply] = []

    async def main(gate) -> None:
        with mh.CancelScope() as scope:
            replies.append(actor.ask("never"))
            replies[0].add_done_callback(lambda _: gate.open())
            scope.cancel()
            await replies[0]
        assert scope.cancelled_caught
        assert await actor.ask("next") == "next"

    with Busy(actor) as gate:
        mh.run(main, gate)
    assert replies[0].cancelled()
    assert "never" not in actor.told


def test_a_task_that_asks_an_actor_that_stops_gets_the_error(served):
    """T91. Awaiting ends too."""
    actor = Doer(served)

    async def main() -> None:
        with Busy(actor):
            reply = actor.ask("left")
            served.post(actor.stop)
            with pytest.raises(mh.ActorStopped):
                await reply

    mh.run(main)


# -- lifetimes -------------------------------------------------------------------------------------------------------


def test_a_reply_with_an_exception_is_freed_without_the_collector(make_loop):
    """T99. What was raised has frames, and none of them holds the reply."""
    loop = make_loop()
    actor = Plain(loop)
    gc.disable()
    try:
        reply = actor.ask(fail)
        loop.join(until_idle=True)
        assert outcome(reply) == "Deliberate"
        ref = weakref.ref(reply)
        del reply
        assert ref() is None
    finally:
        gc.enable()
