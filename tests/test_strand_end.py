"""The end of a strand: its terminal message and close."""

from __future__ import annotations

import threading

import pytest

import manyhands as mh
from manyhands.testing import MockClock, hold, wait_all_idle
from slow_message import SlowMessage
from support import LONG, wait_until

# -- the terminal message --------------------------------------------------------------------------


@pytest.mark.race
@pytest.mark.parametrize("threads", [1, 4, 16])
def test_the_terminal_message_is_the_last_and_runs_once(make_loop, joined, threads):
    """T52. All earlier ones run, later ones raise `StrandClosed`; with N threads it ends the strand once."""
    loop = make_loop(handover=0)
    strand = loop.strand(name="ledger")
    ran: list[object] = []
    with joined(loop, threads):
        for number in range(200):
            strand.post(ran.append, number)
        strand.post_terminal(ran.append, "terminal")
        for post in (strand.post, strand.post_urgent, strand.post_terminal):
            with pytest.raises(mh.StrandClosed, match="ledger") as refused:
                post(ran.append, "late")
            assert refused.value.strand is strand
        wait_all_idle(loop)
    assert ran == [*range(200), "terminal"]
    assert strand.state is mh.StrandState.CLOSED


def test_a_strand_is_closing_until_its_terminal_message_has_run(make_loop):
    """T52. The state says what is so: CLOSING while earlier messages run, CLOSED when the last has ended."""
    loop = make_loop()
    strand = loop.strand()
    states: list[mh.StrandState] = []
    strand.post(lambda: states.append(strand.state))
    strand.post_terminal(lambda: states.append(strand.state))
    assert strand.state is mh.StrandState.CLOSING
    loop.join(until_idle=True)
    assert states == [mh.StrandState.CLOSING, mh.StrandState.CLOSING]
    assert strand.state is mh.StrandState.CLOSED


def test_a_terminal_message_without_a_callback_ends_the_strand(make_loop):
    """T52. The callback may be left out."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[int] = []
    strand.post(ran.append, 1)
    strand.post_terminal()
    loop.join(until_idle=True)
    assert ran == [1]
    assert strand.state is mh.StrandState.CLOSED


@pytest.mark.race
def test_posts_race_the_terminal_message_and_what_was_accepted_runs_before_it(make_loop, joined, spawn):
    """T52. Closing the strand and putting into it is one step: accepted means run, refused means never run."""
    loop = make_loop(handover=0)
    with joined(loop, 2):
        for _ in range(30):
            strand = loop.strand()
            ran: list[object] = []
            start = threading.Barrier(4)

            def post_until_refused(
                poster: int, strand: mh.Strand = strand, ran: list[object] = ran, start: threading.Barrier = start
            ) -> int:
                start.wait(LONG)
                for number in range(1_000_000):
                    try:
                        strand.post(ran.append, (poster, number))
                    except mh.StrandClosed:
                        return number
                raise AssertionError("the strand was never closed")

            posters = [spawn(post_until_refused, number) for number in range(3)]
            start.wait(LONG)
            strand.post_terminal(ran.append, "terminal")
            accepted = [poster.result() for poster in posters]
            wait_all_idle(loop)
            assert ran[-1] == "terminal"
            assert len(ran) == sum(accepted) + 1
            for poster, count in enumerate(accepted):
                assert [message[1] for message in ran[:-1] if message[0] == poster] == list(range(count))


def test_the_watches_and_timers_of_a_strand_end_with_its_terminal_message(make_loop, pair):
    """T52. Its watches are then removed with STRAND_CLOSED, once each; its timers never fire."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    strand = loop.strand()
    ends: list[tuple[str, mh.RemovalReason]] = []
    ran: list[str] = []
    socks = [pair(), pair()]
    watches = [
        loop.add(
            a,
            mh.Events.READ,
            lambda watch, events: ran.append("handler"),
            strand=strand,
            on_removed=lambda watch, reason, i=i: ends.append((f"watch {i}", reason)),
        )
        for i, (a, _) in enumerate(socks)
    ]
    timer = strand.call_later(1, ran.append, "timer")
    strand.post_terminal(ran.append, "terminal")
    loop.join(until_idle=True)
    socks[0][1].send(b"x")
    clock.advance(2)
    loop.join(until_idle=True)
    assert ran == ["terminal"]
    assert sorted(ends) == [("watch 0", mh.RemovalReason.STRAND_CLOSED), ("watch 1", mh.RemovalReason.STRAND_CLOSED)]
    assert all(watch.removed for watch in watches)
    assert not timer.active
    assert loop.get(socks[0][0].fileno()) is None


def test_a_terminal_message_that_raises_ends_its_strand_all_the_same(make_loop):
    """T52. The error is reported, the strand is closed."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)
    strand = loop.strand()
    strand.post_terminal(lambda: 1 / 0)
    loop.join(until_idle=True)
    assert strand.state is mh.StrandState.CLOSED
    assert [(report.source, type(report.error)) for report in reports] == [("terminal", ZeroDivisionError)]


def test_a_terminal_message_to_a_paused_strand_waits_for_the_resume(make_loop):
    """T52. Pause stops everything, the end included."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[int] = []
    strand.pause()
    strand.post_terminal(ran.append, 1)
    loop.join(until_idle=True)
    assert ran == []
    strand.resume()
    loop.join(until_idle=True)
    assert ran == [1]
    assert strand.state is mh.StrandState.CLOSED


# -- close -----------------------------------------------------------------------------------------


def test_close_gives_back_what_did_not_run_in_the_order_it_would_have_run(make_loop):
    """T52. Nothing further starts, and nothing is lost in silence."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[str] = []
    strand.post(ran.append, "first")
    strand.post(ran.append, "second")
    strand.post_urgent(ran.append, "urgent")
    left = strand.close()
    assert strand.state is mh.StrandState.CLOSED
    assert strand.pending == 0
    assert all(isinstance(message, mh.Message) for message in left)
    assert [message.args for message in left] == [("urgent",), ("first",), ("second",)]
    loop.join(until_idle=True)
    assert ran == []
    for message in left:
        message.callback(*message.args)
    assert ran == ["urgent", "first", "second"]


def test_a_message_that_was_given_back_cannot_be_changed(make_loop):
    """T52. `Message` is a frozen record of what was posted."""
    loop = make_loop()
    strand = loop.strand()
    strand.post(print, 1)
    (message,) = strand.close()
    assert message == mh.Message(print, (1,))
    with pytest.raises(AttributeError):
        message.args = ()


def test_a_terminal_message_that_did_not_run_is_given_back_too(make_loop):
    """T52. `close` overtakes a terminal message that still waits, and the caller is told."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[str] = []
    strand.pause()
    strand.post(ran.append, "first")
    strand.post_terminal(ran.append, "terminal")
    assert [message.args for message in strand.close()] == [("first",), ("terminal",)]
    loop.join(until_idle=True)
    assert ran == []


def test_close_is_idempotent_and_later_posts_are_refused(make_loop):
    """T52. The second close gives back nothing; every kind of post raises `StrandClosed`."""
    loop = make_loop()
    strand = loop.strand(name="ledger")
    strand.post(print)
    assert len(strand.close()) == 1
    assert strand.close() == []
    for post in (strand.post, strand.post_urgent, strand.post_terminal):
        with pytest.raises(mh.StrandClosed, match="ledger"):
            post(print)
    for call in (strand.call_later, strand.call_at, strand.call_every):
        with pytest.raises(mh.StrandClosed, match="ledger"):
            call(1, print)


def test_the_end_of_a_strand_is_told_once(make_loop):
    """T52. `on_closed` runs on a joined thread, not inside the call, once."""
    loop = make_loop()
    strand = loop.strand()
    told: list[int] = []
    strand.close(on_closed=lambda *_: told.append(threading.get_ident()))
    assert told == []
    loop.join(until_idle=True)
    assert told == [threading.get_ident()]
    loop.join(until_idle=True)
    assert len(told) == 1


@pytest.mark.race
def test_close_from_outside_waits_for_the_message_that_runs(make_loop, joined, spawn):
    """T29. After `close` returned to an outside caller nothing of the strand runs or will run."""
    loop = make_loop(handover=0)
    strand = loop.strand()
    gate = SlowMessage()
    ran: list[int] = []

    def close() -> tuple[int, bool]:
        return len(strand.close()), gate.ended.is_set()

    with joined(loop, 2):
        strand.post(gate)
        strand.post(ran.append, 1)
        gate.wait_entered()
        closer = spawn(close)
        wait_until(lambda: strand.state is not mh.StrandState.ACTIVE)
        gate.open()
        assert closer.result() == (1, True)
        wait_all_idle(loop)
    assert ran == []


@pytest.mark.race
def test_close_with_a_time_limit_gives_back_what_waits_behind_a_stuck_message(make_loop, joined):
    """T46. The message inside cannot be taken back; those behind it are, and never run."""
    loop = make_loop(handover=0)
    strand = loop.strand()
    gate = SlowMessage()
    ran: list[int] = []
    closed = threading.Event()
    with joined(loop, 2):
        strand.post(gate)
        strand.post(ran.append, 1)
        gate.wait_entered()
        assert [message.args for message in strand.close(timeout=0.01, on_closed=lambda *_: closed.set())] == [(1,)]
        assert not closed.is_set()
        gate.open()
        assert closed.wait(LONG)
        wait_all_idle(loop)
    assert ran == []
    assert strand.state is mh.StrandState.CLOSED


def test_a_message_may_close_its_own_strand(make_loop):
    """T31. It gets the rest back at once; this message ends; nothing follows but `on_closed`."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[object] = []

    def first() -> None:
        ran.append([message.args for message in strand.close(on_closed=lambda *_: ran.append("closed"))])
        ran.append("first ended")

    strand.post(first)
    strand.post(ran.append, "second")
    loop.join(until_idle=True)
    assert ran == [[("second",)], "first ended", "closed"]


@pytest.mark.race
def test_close_races_a_strand_that_was_popped_and_nothing_of_it_runs(make_loop, joined):
    """T29. A thread has taken the strand off the queue and is not inside yet: close wins and hands the message back."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[int] = []
    with hold("strand.begin") as held, joined(loop):
        strand.post(ran.append, 1)
        held.wait_reached()
        left = strand.close(timeout=LONG)
        held.release()
        wait_all_idle(loop)
    assert len(left) == 1
    assert ran == []


@pytest.mark.race
def test_closers_race_and_each_message_is_given_back_once_or_run_once(make_loop, joined, spawn):
    """T52. Two threads close while others post: run + given back = accepted, for each of 30 strands."""
    loop = make_loop(handover=0)
    with joined(loop, 2):
        for _ in range(30):
            strand = loop.strand()
            ran: list[object] = []
            start = threading.Barrier(4)

            def post_until_refused(
                poster: int, strand: mh.Strand = strand, ran: list[object] = ran, start: threading.Barrier = start
            ) -> list[object]:
                start.wait(LONG)
                for number in range(1_000_000):
                    try:
                        strand.post(ran.append, (poster, number))
                    except mh.StrandClosed:
                        return [(poster, earlier) for earlier in range(number)]
                raise AssertionError("the strand was never closed")

            def close(strand: mh.Strand = strand, start: threading.Barrier = start) -> list[object]:
                start.wait(LONG)
                return [message.args[0] for message in strand.close()]

            posters = [spawn(post_until_refused, number) for number in range(2)]
            closers = [spawn(close) for _ in range(2)]
            accepted = [message for poster in posters for message in poster.result()]
            given_back = [message for closer in closers for message in closer.result()]
            wait_all_idle(loop)
            assert sorted(ran + given_back) == sorted(accepted)
