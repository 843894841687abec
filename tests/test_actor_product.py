"""Every state of a message at every end of its actor: it ends exactly once, as the table says."""

from __future__ import annotations

import itertools

import pytest

import manyhands as mh
from acting import Doer, Endings, fail, outcome
from gate import Gate
from manyhands.testing import wait_all_idle
from support import LONG, wait_until

EXPECTED = {
    # What becomes of the message that the state is about, and of one behind it.
    ("not started", "stop"): ("refused", "refused"),
    ("not started", "drain"): ("refused", "refused"),
    ("not started", "loop.stop"): ("answered", "answered"),
    ("not started", "loop.close"): ("refused", "refused"),
    ("queued", "stop"): ("ActorStopped", "ActorStopped"),
    ("queued", "drain"): ("answered", "answered"),
    ("queued", "loop.stop"): ("answered", "answered"),
    ("queued", "loop.close"): ("ActorStopped", "ActorStopped"),
    ("running", "stop"): ("answered", "ActorStopped"),
    ("running", "drain"): ("answered", "answered"),
    ("running", "loop.stop"): ("answered", "answered"),
    ("running", "loop.close"): ("answered", "ActorStopped"),
    ("failing", "stop"): ("Deliberate", "ActorStopped"),
    ("failing", "drain"): ("Deliberate", "answered"),
    ("failing", "loop.stop"): ("Deliberate", "answered"),
    ("failing", "loop.close"): ("Deliberate", "ActorStopped"),
}


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(("state", "end"), list(EXPECTED))
def test_in_every_state_at_every_end_every_message_ends_exactly_once(make_loop, spawn, logged, state, end, threads):
    """T56. Of two messages, sent or asked, in each of the four states, at each of the four ends; then the loop is closed."""
    endings = Endings()
    for ways in itertools.product(("send", "ask"), repeat=2):
        loop = make_loop(handover=0)
        actor, gate = Doer(loop), Gate()
        first = {"running": gate, "failing": lambda gate=gate: (gate(), fail())}.get(state, "first")
        messages = [first, "second"]
        replies: dict[int, mh.Reply] = {}
        refused: list[int] = []

        def put(actor=actor, messages=messages, ways=ways, replies=replies, refused=refused) -> None:
            for index, (message, way) in enumerate(zip(messages, ways, strict=True)):
                try:
                    if way == "ask":
                        replies[index] = endings.of(actor.ask(message))
                    else:
                        actor.send(message)
                except mh.ActorStopped:
                    refused.append(index)

        crew = []
        if state != "not started":
            put()
        if state in ("running", "failing"):
            crew = [spawn(loop.join) for _ in range(threads)]
            gate.wait_entered()
            # One that comes after loop.close() is refused.
            wait_until(lambda loop=loop: loop.joined == threads)
        match end:
            case "stop" | "drain":
                actor.stop(drain=end == "drain")
            case "loop.stop":
                loop.request_stop()
            case "loop.close":
                closing = spawn(loop.close)
                wait_until(lambda loop=loop: loop.stopped or loop.closed)
        gate.open()
        if end == "loop.close":
            closing.result()
        if state == "not started":
            put()
        if end == "loop.stop":
            for call in crew:
                call.result()
            loop.restart()
            crew = []
        if end != "loop.close":
            crew = crew or [spawn(loop.join) for _ in range(threads)]
            wait_until(lambda loop=loop: loop.joined == threads)
            wait_all_idle(loop)
            loop.stop(LONG)
        for call in crew:
            call.result()
        loop.close()
        expected = EXPECTED[state, end]
        for index, wanted in enumerate(expected):
            assert (index in refused) == (wanted == "refused"), (ways, index)
            if index in replies:
                assert outcome(replies[index]) == wanted, (ways, index)
            assert (messages[index] in actor.told) == (wanted in ("answered", "Deliberate")), (ways, index)
        assert actor.told[-1] == "on_stop"
        assert actor.told.count("on_stop") == 1
        assert actor.stopped
    assert set(endings.counts.values()) <= {1}
