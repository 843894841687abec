"""One strand with a watch against a plain model of it: any calls, in any order, from outside and from inside.

The model is a few Python lists. It is asked at each callback whether this may run now (in order, exactly once, not
while paused, nothing after the end), and after each settling whether anything that should have run did not.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import deque

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import manyhands as mh

LIMIT = 4
"""max_pending of the strand: small, so that it is often full."""

ACTIONS = (
    "nothing",
    "post",
    "urgent",
    "terminal",
    "pause strand",
    "resume strand",
    "pause watch",
    "resume watch",
    "modify watch",
    "send",
    "remove",
    "add",
    "close",
    "raise",
)
"""What a rule, a message or a handler may do next. The byte that a handler reads is an index into this."""

actions = st.sampled_from(ACTIONS)
chains = st.lists(actions, min_size=1, max_size=3)
"""A message does the first, and posts another that does the rest."""


class Deliberate(Exception):
    """What the action "raise" raises; any other error that the loop reports is a failure."""


class StrandMachine(RuleBasedStateMachine):
    """Runs the real strand and the model side by side, on one thread."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[mh.ErrorReport] = []
        self.deliberate = 0
        self.loop = mh.EventLoop(on_error=self.reports.append)
        self.here, self.there = socket.socketpair()
        for sock in (self.here, self.there):
            sock.setblocking(False)
        self.next_id = 0
        self.callbacks = 0
        self.unread: deque[str] = deque()
        self.ended: dict[int, mh.RemovalReason] = {}
        self.told: dict[int, mh.RemovalReason] = {}
        self.closings = 0
        self.closed_told = 0
        self.watch: mh.Watch | None = None
        self.new_strand()

    def new_strand(self) -> None:
        self.strand = self.loop.strand(max_pending=LIMIT)
        self.ordinary: deque[int] = deque()
        self.urgent: deque[int] = deque()
        self.terminal: int | None = None
        self.accepting = True
        self.closed = False
        self.paused = False
        self.watch = None
        self.watch_id = -1
        self.watch_paused = False

    # -- what the callbacks ask the model ----------------------------------------------------

    def enter(self, strand: mh.Strand, what: str) -> None:
        self.callbacks += 1
        assert strand is self.strand, f"{what} of a strand that has ended"
        assert not self.closed, f"{what} after the end"
        assert not self.paused, f"{what} while the strand is paused"

    def run_message(self, strand: mh.Strand, number: int, chain: list[str]) -> None:
        self.enter(strand, "a message")
        assert not self.urgent, "an ordinary message before an urgent one"
        assert self.ordinary.popleft() == number, "out of order"
        self.follow(chain)

    def run_urgent(self, strand: mh.Strand, number: int, chain: list[str]) -> None:
        self.enter(strand, "an urgent message")
        assert self.urgent.popleft() == number, "out of order"
        self.follow(chain)

    def run_terminal(self, strand: mh.Strand, number: int, chain: list[str]) -> None:
        self.enter(strand, "the terminal message")
        assert not self.urgent, "the terminal message before an urgent one"
        assert not self.ordinary, "the terminal message before an ordinary one"
        assert self.terminal == number
        self.terminal = None
        self.closed = True
        if self.watch is not None:
            self.end_watch(mh.RemovalReason.STRAND_CLOSED)
        self.follow([step for step in chain if step != "remove"] or ["nothing"])

    def handle(self, watch: mh.Watch, events: mh.Events) -> None:
        self.enter(watch.strand, "a handler")
        assert watch is self.watch, "a handler after its watch was removed"
        assert not self.watch_paused, "a handler while its watch is paused"
        assert events == mh.Events.READ
        action = ACTIONS[self.here.recv(1)[0]]
        assert action == self.unread.popleft(), "bytes out of order"
        if action == "raise":
            self.end_watch(mh.RemovalReason.HANDLER_ERROR)
        self.act(action, [])

    def on_removed(self, number: int, watch: mh.Watch, reason: mh.RemovalReason) -> None:
        self.callbacks += 1
        assert number in self.ended, "told of an end that has not come"
        assert number not in self.told, "told twice"
        self.told[number] = reason

    def on_closed(self, *_: object) -> None:
        self.callbacks += 1
        self.closed_told += 1

    def end_watch(self, reason: mh.RemovalReason) -> None:
        self.ended[self.watch_id] = reason
        self.watch = None

    # -- what is done, from outside or from a callback -----------------------------------------

    def follow(self, chain: list[str]) -> None:
        self.act(chain[0], chain[1:])

    def act(self, action: str, rest: list[str]) -> None:
        if action == "nothing":
            return
        if action == "raise":
            self.deliberate += 1
            raise Deliberate
        if action == "send":
            self.send("nothing")
        elif action in ("post", "urgent", "terminal"):
            self.post(action, rest or ["nothing"])
        elif action == "close":
            self.close()
        elif action == "add":
            self.add()
        elif action in ("pause strand", "resume strand"):
            if not self.closed:
                self.paused = action == "pause strand"
                if self.paused:
                    assert self.strand.pause(timeout=0) is True
                else:
                    self.strand.resume()
        elif self.watch is not None:
            self.change_watch(action)

    def change_watch(self, action: str) -> None:
        watch = self.watch
        if action == "pause watch":
            self.watch_paused = True
            assert watch.pause(timeout=0) is True
        elif action == "resume watch":
            self.watch_paused = False
            watch.resume()
        elif action == "modify watch":
            watch.modify(mh.Events.READ)
        elif action == "remove":
            self.end_watch(mh.RemovalReason.REMOVED)
            assert watch.remove(timeout=0) is True
            assert watch.removed

    def post(self, kind: str, chain: list[str]) -> None:
        number = self.next_id
        self.next_id += 1
        strand = self.strand
        call, callback = {
            "post": (strand.post, self.run_message),
            "urgent": (strand.post_urgent, self.run_urgent),
            "terminal": (strand.post_terminal, self.run_terminal),
        }[kind]
        full = kind == "post" and len(self.ordinary) >= LIMIT
        expected = mh.StrandClosed if not self.accepting else mh.QueueFull if full else None
        refused: Exception | None = None
        try:
            call(callback, strand, number, chain)
        except (mh.StrandClosed, mh.QueueFull) as error:
            refused = error
        if expected is not None or refused is not None:
            assert type(refused) is expected
            return
        if kind == "post":
            self.ordinary.append(number)
        elif kind == "urgent":
            self.urgent.append(number)
        else:
            self.terminal = number
            self.accepting = False

    def send(self, action: str) -> None:
        self.there.send(bytes([ACTIONS.index(action)]))
        self.unread.append(action)

    def add(self) -> None:
        if not self.accepting:
            return  # whether a closing strand takes a watch is nobody's business
        if self.watch is not None:
            with contextlib.suppress(mh.WatchExists):
                self.loop.add(self.here, mh.Events.READ, print, strand=self.strand)
                raise AssertionError("a second watch was added")
            return
        number = self.watch_id = self.next_id
        self.next_id += 1
        self.watch_paused = False
        self.watch = self.loop.add(
            self.here,
            mh.Events.READ,
            self.handle,
            strand=self.strand,
            on_removed=lambda watch, reason: self.on_removed(number, watch, reason),
        )

    def close(self) -> None:
        expected = [*self.urgent, *self.ordinary, *([] if self.terminal is None else [self.terminal])]
        if not self.closed and self.watch is not None:
            self.end_watch(mh.RemovalReason.STRAND_CLOSED)
        self.closed, self.accepting = True, False
        self.closings += 1
        left = self.strand.close(on_closed=self.on_closed, timeout=0)
        assert [message.args[1] for message in left] == expected
        self.urgent.clear()
        self.ordinary.clear()
        self.terminal = None

    # -- rules ---------------------------------------------------------------------------------

    @rule(action=st.sampled_from([action for action in ACTIONS if action not in ("raise", "send")]), chain=chains)
    def call_from_outside(self, action: str, chain: list[str]) -> None:
        self.act(action, chain)

    @rule(kind=st.sampled_from(["post", "post", "urgent"]), chain=chains)
    def post_from_outside(self, kind: str, chain: list[str]) -> None:
        self.post(kind, chain)

    @rule(action=actions)
    def send_a_byte(self, action: str) -> None:
        self.send(action)

    @rule(most=st.integers(1, 5))
    def run_some(self, most: int) -> None:
        before = self.callbacks
        handled = self.loop.run_ready(max_handlers=most)
        assert handled == self.callbacks - before
        assert handled <= most

    @rule()
    def run_one_tick(self) -> None:
        before = self.callbacks
        assert self.loop.run_ready() == self.callbacks - before

    @rule()
    def settle(self) -> None:
        """Serve until idle: then nothing that may run is left."""
        self.loop.join(until_idle=True)
        assert self.loop.run_ready() == 0
        if self.closed or not self.paused:
            assert not self.ordinary
            assert not self.urgent
            assert self.terminal is None
            assert self.told == self.ended
            if self.watch is not None and not self.watch_paused:
                assert not self.unread
        if self.closed:
            assert self.closed_told == self.closings

    @precondition(lambda self: self.closed)
    @rule()
    def go_on_with_a_new_strand(self) -> None:
        self.settle()
        assert self.strand.state is mh.StrandState.CLOSED
        self.closings = self.closed_told = 0
        self.new_strand()

    @invariant()
    def only_deliberate_errors_were_reported(self) -> None:
        for report in self.reports:
            if not isinstance(report.error, Deliberate):
                raise report.error
        assert len(self.reports) == self.deliberate

    @invariant()
    def the_strand_agrees(self) -> None:
        if not self.closed and self.terminal is None:
            assert self.strand.state is (mh.StrandState.PAUSED if self.paused else mh.StrandState.ACTIVE)
        if self.watch is not None:
            assert self.watch.paused is self.watch_paused
            assert not self.watch.removed
            assert self.loop.get(self.here) is self.watch
        elif self.accepting:
            assert self.loop.get(self.here) is None

    def teardown(self) -> None:
        owed = set(self.ended)
        if self.watch is not None:
            owed.add(self.watch_id)
            self.end_watch(mh.RemovalReason.LOOP_CLOSED)
        self.loop.close()
        self.here.close()
        self.there.close()
        assert set(self.told) == owed
        assert self.told == self.ended
        self.only_deliberate_errors_were_reported()


def test_a_strand_with_a_watch_does_what_its_model_does():
    """T47. Order, exactly once, nothing while paused, nothing after the end; T36, T42, T52, T53, T54 in any order."""
    logger = logging.getLogger("manyhands.loop")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # a loop closed with messages in it counts them, as it should
    try:
        run_state_machine_as_test(
            StrandMachine,
            settings=settings(
                max_examples=200,
                stateful_step_count=40,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        logger.setLevel(level)
