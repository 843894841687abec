"""The end of an actor: by a stop, a drain, its loop; every ask ends exactly once, no accepted message is lost in silence."""

from __future__ import annotations

import contextlib
import threading
import warnings

import pytest

import manyhands as mh
from acting import Busy, Deliberate, Doer, Endings, Plain, fail, outcome
from garbage import collect
from manyhands.testing import hold, wait_all_idle
from support import LONG, wait_until


@pytest.fixture(params=[1, 4], ids=["1 thread", "4 threads"])
def served(request, make_loop, joined):
    """Serve a loop by one thread, and by four."""
    loop = make_loop(handover=0)
    with joined(loop, request.param):
        wait_until(lambda: loop.joined == request.param)
        yield loop


def test_stop_ends_the_running_message_and_begins_no_other(served, logged):
    """T91. Asks are answered with `ActorStopped` when `stop()` returns; sends are counted in a warning; `on_stop` is last."""
    actor = Doer(served, name="clerk")
    with Busy(actor) as gate:
        running = actor.ask("running next")
        for number in range(3):
            actor.send(number)
        actor.stop()
        assert outcome(running) == "ActorStopped"
        with pytest.raises(mh.ActorStopped, match=r"before it came to this message: stop\(drain=True\)"):
            running.result()
        for call in (actor.send, actor.ask, lambda _: actor.start()):
            with pytest.raises(mh.ActorStopped, match="'clerk' was stopped and takes no message"):
                call("late")
        assert not actor.stopped
        assert not actor.wait(0)
    assert actor.wait(LONG)
    assert actor.stopped
    assert actor.told == ["on_start", gate, "on_stop"]
    warned = [record.getMessage() for record in logged.records if record.name == "manyhands.loop"]
    assert [text for text in warned if "clerk" in text] == [
        "actor 'clerk' was stopped with 3 message(s) that were not processed; stop(drain=True) processes them"
    ]


def test_a_drain_processes_what_is_in_the_mailbox_first(served):
    """T91. Nothing is refused that was taken, nothing is taken later, also from the actor itself; `on_stop` is last."""
    actor = Doer(served)

    def send_more() -> str:
        with pytest.raises(mh.ActorStopped):
            actor.send("more")
        return "refused"

    with Busy(actor) as gate:
        reply = actor.ask(send_more)
        actor.send(1)
        actor.stop(drain=True)
        actor.stop(drain=True)
        with pytest.raises(mh.ActorStopped):
            actor.send("late")
    assert actor.wait(LONG)
    assert reply.result(LONG) == "refused"
    assert actor.told == ["on_start", gate, send_more, 1, "on_stop"]


def test_a_stop_cuts_a_drain_short(served):
    """T91. What the drain had not come to is answered; `on_stop` is called once."""
    actor = Doer(served)
    with Busy(actor) as gate:
        reply = actor.ask(1)
        actor.stop(drain=True)
        actor.stop()
        actor.stop()
        assert outcome(reply) == "ActorStopped"
    assert actor.wait(LONG)
    assert actor.told == ["on_start", gate, "on_stop"]


def test_an_actor_may_stop_itself(served):
    """T91. In `process`: the message's own answer is given; in `on_start`: nothing is processed."""
    actor = Doer(served)
    last, left = actor.ask(actor.stop), None
    assert last.result(LONG) is None
    assert actor.wait(LONG)
    assert actor.told == ["on_start", actor.stop, "on_stop"]

    class Reluctant(Doer):
        def on_start(self) -> None:
            self.stop()

    actor = Reluctant(served)
    with contextlib.suppress(mh.ActorStopped):  # on_start may be quicker than the message
        left = actor.ask(1)
    assert actor.wait(LONG)
    assert left is None or outcome(left) == "ActorStopped"
    assert actor.told == ["on_stop"]


def test_an_actor_that_was_never_started_ends_too(make_loop):
    """T91. `on_stop` is called once for every actor, by whoever serves the loop, or closes it."""
    loop = make_loop()
    stopped, drained, closed = (Doer(loop) for _ in range(3))
    stopped.stop()
    drained.stop(drain=True)
    loop.join(until_idle=True)
    assert (stopped.told, drained.told, closed.told) == (["on_stop"], ["on_stop"], [])
    loop.close()
    assert closed.told == ["on_stop"]
    assert closed.wait(0)
    for actor in (stopped, closed):
        actor.stop()
        actor.stop(drain=True)
    assert (stopped.told, closed.told) == (["on_stop"], ["on_stop"])


def test_an_on_stop_that_raises_is_reported_and_the_actor_has_ended(make_loop):
    """T91. As a final callback of a strand; whoever waits is told."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)

    class Clumsy(Plain):
        on_stop = fail

    actor = Clumsy(loop)
    actor.stop()
    loop.join(until_idle=True)
    assert [(report.source, type(report.error)) for report in reports] == [("on_closed", Deliberate)]
    assert actor.wait(0)


def test_waiting_for_its_own_end_raises_at_once(served):
    """T6. In `process`, in `on_stop`, and when the actor has been told to stop as well; looking is allowed."""
    seen: list[object] = []

    class Impatient(Doer):
        def on_stop(self) -> None:
            self.look()

        def look(self) -> None:
            seen.append(self.wait(0))
            with pytest.raises(mh.WouldDeadlock, match=f"wait.. of actor '{self.name}'"):
                self.wait(LONG)

    actor = Impatient(served)
    actor.ask(actor.look).result(LONG)
    actor.stop()
    assert actor.wait(LONG)
    assert seen == [False, False]
    with pytest.raises(ValueError, match="timeout must be"):
        Plain(served).wait(-1)


# -- races -----------------------------------------------------------------------------------------------------------


@pytest.mark.race
@pytest.mark.parametrize("drain", [False, True], ids=["stop", "drain"])
def test_sends_and_asks_race_the_stop_and_the_account_is_exact(served, spawn, logged, drain):
    """T91. What was taken was processed, or counted, or answered with an error; what was refused was neither."""
    endings = Endings()
    for _ in range(20):
        actor = Doer(served, max_pending=None)
        start = threading.Barrier(4, timeout=LONG)
        sent: list[int] = []
        asked: list[mh.Reply] = []

        def sender(first: int, actor=actor, start=start, sent=sent, asked=asked) -> None:
            start.wait()
            try:
                for number in range(first, first + 200, 2):
                    actor.send(number)
                    sent.append(number)
                    asked.append(endings.of(actor.ask(number + 1)))
            except mh.ActorStopped:
                pass

        senders = [spawn(sender, first) for first in (0, 1000, 2000)]
        start.wait()
        wait_until(lambda asked=asked: asked)
        logged.clear()
        actor.stop(drain=drain)
        for call in senders:
            call.result()
        assert actor.wait(LONG)
        wait_all_idle(served)
        processed = [number for number in actor.told if isinstance(number, int)]
        assert len(processed) == len(set(processed))
        lost = [record.args[1] for record in logged.records if "were not processed" in record.msg]
        assert len(sent) == len([number for number in processed if number % 2 == 0]) + sum(lost)
        ends = [outcome(reply) for reply in asked]
        assert ends.count("answered") == len([number for number in processed if number % 2])
        assert ends.count("ActorStopped") == (0 if drain else len(asked) - ends.count("answered"))
        if drain:
            assert lost == []
        assert actor.told[-1] == "on_stop"
    assert set(endings.counts.values()) == {1}


@pytest.mark.race
def test_a_stop_races_a_send_that_is_on_its_way_and_the_message_is_accounted_for(make_loop, spawn, logged):
    """T91. The sender is held behind the mailbox, before its call returns; the stop comes; the ask was answered by it."""
    loop = make_loop()
    actor = Doer(loop)
    actor.start()
    with hold("post.queued") as held:
        asking = spawn(actor.ask, 1)
        held.wait_reached()
        actor.stop()
    assert outcome(asking.result()) == "ActorStopped"
    loop.join(until_idle=True)
    assert actor.told == ["on_stop"]


@pytest.mark.race
def test_a_stop_races_the_message_that_a_thread_has_taken_and_one_of_them_ends_it(make_loop, joined):
    """T91. The thread is held with the strand in its hands, before the message: the stop answers it, nothing runs."""
    loop = make_loop()
    actor = Doer(loop)
    endings = Endings()
    reply = endings.of(actor.ask(1))
    with hold("strand.begin") as held, joined(loop):
        held.wait_reached()
        actor.stop()
        held.release()
        assert actor.wait(LONG)
    assert actor.told in (["on_stop"], ["on_start", "on_stop"])
    assert (outcome(reply), endings.counts) == ("ActorStopped", {reply: 1})


@pytest.mark.race
def test_stops_race_and_on_stop_is_called_once(served, spawn):
    """T91. Four threads stop, two of them draining, while a message runs."""
    for _ in range(20):
        actor = Doer(served)
        start = threading.Barrier(4, timeout=LONG)

        def stop(drain: bool, actor=actor, start=start) -> None:
            start.wait()
            actor.stop(drain=drain)

        with Busy(actor):
            for call in [spawn(stop, drain) for drain in (False, True, False, True)]:
                call.result()
        assert actor.wait(LONG)
        assert actor.told.count("on_stop") == 1


# -- the end of the loop ---------------------------------------------------------------------------------------------


def test_what_a_stopped_loop_has_not_processed_is_processed_after_the_restart(make_loop, joined):
    """T55. The loop's stop ends no actor: as posts, messages wait for the restart."""
    loop = make_loop()
    actor = Doer(loop)
    with joined(loop):
        actor.ask(0).result(LONG)
        assert loop.stop(LONG)
    actor.send(1)
    reply = actor.ask(2)
    loop.restart()
    loop.join(until_idle=True)
    assert (reply.result(), actor.told) == (2, ["on_start", 0, 1, 2])


def test_a_drained_loop_takes_no_message_and_no_drain_from_outside(make_loop):
    """T55. `LoopStopped` says which of the two has stopped; a stop at once is taken."""
    loop = make_loop()
    actor = Doer(loop)
    loop.stop(drain=True)
    for call in (lambda: actor.send(1), lambda: actor.ask(1), actor.start, lambda: actor.stop(drain=True)):
        with pytest.raises(mh.LoopStopped):
            call()
    actor.stop()
    loop.restart()
    loop.join(until_idle=True)
    assert actor.told == ["on_stop"]


def test_the_loop_s_close_ends_its_actors(make_loop, spawn):
    """T56. Pending asks are answered, those who wait come back, `on_stop` runs on the closing thread; sends are refused."""
    loop = make_loop()
    actor = Doer(loop)
    closer: list[int] = []
    actor.on_stop = lambda: closer.append(threading.get_ident())
    reply = actor.ask(1)
    waiting = spawn(reply.exception), spawn(actor.wait)
    loop.close()
    assert isinstance(waiting[0].result(), mh.ActorStopped)
    assert waiting[1].result() is True
    assert closer == [threading.get_ident()]
    for call in (actor.send, actor.ask):
        with pytest.raises(mh.ActorStopped):
            call(2)


def test_a_done_callback_that_is_interrupted_costs_no_other_actor_its_end(make_loop):
    """T93. KeyboardInterrupt leaves `close()` when every ask of every actor was answered, and every one has ended."""
    loop = make_loop()
    actors = [Doer(loop) for _ in range(3)]

    def interrupt(reply: object) -> None:
        raise KeyboardInterrupt

    replies = [actor.ask(1) for actor in actors]
    replies[1].add_done_callback(interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.close()
    assert [outcome(reply) for reply in replies] == ["ActorStopped"] * 3
    loop.close()
    assert [actor.told for actor in actors] == [["on_stop"]] * 3


def test_actors_are_made_while_their_loop_is_closed_and_each_is_refused_or_ends(make_loop, spawn):
    """T56. The account is exact: an actor that was made is ended by the loop."""
    loop = make_loop()
    made: list[Doer] = []

    def make() -> None:
        try:
            while True:
                made.append(Doer(loop))
        except mh.LoopClosed:
            pass

    makers = [spawn(make) for _ in range(2)]
    wait_until(lambda: len(made) > 20)
    loop.close()
    for call in makers:
        call.result()
    assert all(actor.told == ["on_stop"] for actor in made)


def test_actors_of_a_forgotten_loop_are_collected_with_it():
    """T99. Nothing keeps them; no final callback runs."""
    loop = mh.EventLoop()
    actor = Doer(loop)
    told = actor.told
    actor.ask(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del loop, actor
        collect()
    assert told == []
