"""What goes wrong in an actor: whom it is told, and that it costs only itself."""

from __future__ import annotations

import pytest

import manyhands as mh
from acting import Deliberate, Doer, Plain, fail
from support import LONG


@pytest.fixture(params=[1, 4], ids=["1 thread", "4 threads"])
def served(request, make_loop, joined):
    """Serve a loop by one thread, and by four."""
    loop = make_loop(handover=0)
    with joined(loop, request.param):
        yield loop


def test_an_exception_goes_to_whoever_asked_and_the_actor_goes_on(served):
    """T91. `ask` gets what `process` raised; `on_failure` does not hear of it; the next message is processed."""
    actor = Doer(served)
    failing, next_one = actor.ask(fail), actor.ask("next")
    with pytest.raises(Deliberate):
        failing.result(LONG)
    assert next_one.result(LONG) == "next"
    assert actor.told == ["on_start", fail, "next"]


def test_an_exception_of_a_sent_message_goes_to_on_failure_with_the_message(served):
    """T91. On the strand, before the next message."""
    actor = Doer(served)
    actor.send(fail)
    assert actor.ask("next").result(LONG) == "next"
    assert actor.told == ["on_start", fail, "Deliberate", "next"]


def test_by_default_an_exception_of_a_sent_message_goes_to_the_loop_s_on_error(make_loop):
    """T91. As that of any message: reported with its strand and what was called; the next one is processed."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)
    actor = Plain(loop, name="clerk")
    actor.send(fail)
    answered = actor.ask(lambda: "next")
    loop.join(until_idle=True)
    (report,) = reports
    assert (report.source, report.strand, type(report.error)) == ("message", actor.strand, Deliberate)
    assert "clerk" in repr(report.handler)
    assert answered.result() == "next"


def test_on_failure_may_stop_the_actor(make_loop):
    """T91. `STOP` stops at once: nothing that waits is processed."""
    loop = make_loop()

    class Fragile(Doer):
        def on_failure(self, error, message):
            return mh.STOP

    actor = Fragile(loop)
    actor.send(fail)
    left = actor.ask("left")
    loop.join(until_idle=True)
    with pytest.raises(mh.ActorStopped):
        left.result()
    assert actor.told == ["on_start", fail, "on_stop"]


def test_an_on_failure_that_raises_is_reported_and_the_actor_lives(make_loop):
    """T91. Both errors are to be seen: the second with the first as its context."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)

    class Clumsy(Plain):
        def on_failure(self, error, message):
            raise ZeroDivisionError

    actor = Clumsy(loop)
    actor.send(fail)
    answered = actor.ask(lambda: "next")
    loop.join(until_idle=True)
    (report,) = reports
    assert isinstance(report.error, ZeroDivisionError)
    assert isinstance(report.error.__context__, Deliberate)
    assert answered.result() == "next"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_leaves_join_and_the_asker_gets_an_error(make_loop, error):
    """T93. As from any callback (D9); the asker's thread is not ended by it, and the actor can be used on."""
    loop = make_loop()
    actor = Plain(loop)

    def end() -> None:
        raise error

    asked = actor.ask(end)
    after = actor.ask(lambda: "after")
    with pytest.raises(error):
        loop.join(until_idle=True)
    with pytest.raises(mh.ManyhandsError, match="interrupted") as told:
        asked.result()
    assert isinstance(told.value.__cause__, error)
    actor.send(end)
    with pytest.raises(error):
        loop.join(until_idle=True)
    assert after.result() == "after"
    assert actor.ask(lambda: "again") and loop.join(until_idle=True) == 1


@pytest.mark.parametrize("error", [GeneratorExit, mh.JobStopped])
def test_any_other_exception_is_the_message_s(make_loop, error):
    """T91. A BaseException that ends no program wedges nothing either."""
    loop = make_loop()
    actor = Doer(loop)

    def odd() -> None:
        raise error

    asked = actor.ask(odd)
    actor.send(odd)
    loop.join(until_idle=True)
    with pytest.raises(error):
        asked.result()
    assert actor.told[-1] == error.__name__
