"""A strand: one thread at a time, in order; pause, resume, close and the terminal message."""

from __future__ import annotations

import threading

import pytest
from gate import Gate
from support import LONG, wait_until

import manyhands as mh
from manyhands.testing import MockClock, hold, wait_all_idle


class SlowMessage(Gate):
    """A gate that says as well when it was left."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()

    def __call__(self, *args: object) -> None:
        super().__call__(*args)
        self.ended.set()


# -- one at a time, in order --------------------------------------------------------------------


@pytest.mark.race
def test_a_strand_is_served_by_one_thread_at_a_time(make_loop, joined, spawn):
    """T47. Eight threads joined, four posters: never two messages of one strand at once."""
    loop = make_loop(handover=0)
    strand = loop.strand()
    inside: list[int] = []
    overlaps: list[int] = []
    ran: list[int] = []

    def message(number: int) -> None:
        inside.append(number)
        if len(inside) != 1:
            overlaps.append(number)
        ran.append(number)
        inside.remove(number)

    def post_all(start: int) -> None:
        for number in range(start, start + 500):
            strand.post(message, number)

    with joined(loop, 8):
        for poster in [spawn(post_all, start) for start in range(0, 2000, 500)]:
            poster.result()
        wait_all_idle(loop)
    assert overlaps == []
    assert sorted(ran) == list(range(2000))


@pytest.mark.race
def test_the_messages_and_the_watches_of_a_strand_exclude_each_other(make_loop, joined, pair):
    """T47. A watch put on a strand runs in order with the strand's messages, never beside them."""
    loop = make_loop(handover=0)
    strand = loop.strand()
    inside: list[str] = []
    overlaps: list[str] = []
    received: list[bytes] = []
    socks = [pair() for _ in range(3)]

    def guarded(what: str) -> None:
        inside.append(what)
        if len(inside) != 1:
            overlaps.append(what)
        inside.remove(what)

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        guarded("handler")
        received.append(watch.source.recv(1))

    for a, _ in socks:
        assert loop.add(a, mh.Events.READ, handler, strand=strand).strand is strand
    with joined(loop, 4):
        for _ in range(100):
            for _, b in socks:
                b.send(b"x")
            strand.post(guarded, "message")
        wait_until(lambda: len(received) == 300)
        wait_all_idle(loop)
    assert overlaps == []


def test_two_strands_run_at_the_same_time(make_loop, joined):
    """T47. Different strands run in parallel: a barrier of two inside two messages passes."""
    loop = make_loop(handover=0)
    meeting = threading.Barrier(2)
    met = [threading.Event(), threading.Event()]

    def meet(which: int) -> None:
        meeting.wait(LONG)
        met[which].set()

    with joined(loop, 2):
        loop.strand().post(meet, 0)
        loop.strand().post(meet, 1)
        assert all(event.wait(LONG) for event in met)


def test_a_strand_that_posts_to_itself_for_ever_does_not_starve_another(make_loop):
    """T47. Fair by budget (D11): a busy strand gives the thread back after a fixed number of items."""
    loop = make_loop()
    busy, quiet = loop.strand(name="busy"), loop.strand(name="quiet")
    turns: list[int] = []

    def again() -> None:
        turns.append(1)
        if len(turns) < 100_000:
            busy.post(again)

    busy.post(again)
    quiet.post(loop.request_stop)
    loop.join()
    assert len(turns) < 10_000


def test_a_busy_strand_does_not_starve_descriptors(make_loop, pair):
    """T47. Fair by budget (D11): the poller is asked even when there is always work."""
    loop = make_loop()
    busy = loop.strand()
    a, b = pair()
    turns: list[int] = []

    def again() -> None:
        turns.append(1)
        if len(turns) < 100_000:
            busy.post(again)

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        loop.request_stop()

    loop.add(a, mh.Events.READ, handler)
    b.send(b"x")
    busy.post(again)
    loop.join()
    assert len(turns) < 50_000


def test_a_strand_without_a_reference_still_runs_what_was_posted(make_loop):
    """T47. A message keeps its strand alive, not the other way round."""
    loop = make_loop()
    ran: list[int] = []
    loop.strand().post(ran.append, 1)
    loop.join(until_idle=True)
    assert ran == [1]


def test_a_strand_has_a_name_and_shows_what_waits_on_it(make_loop):
    """T47. `name`, `pending` and `state` say what a reader of `dump()` needs to know."""
    loop = make_loop()
    strand = loop.strand(name="ledger")
    assert strand.name == "ledger"
    assert strand.state is mh.StrandState.ACTIVE
    assert strand.pending == 0
    strand.post(int)
    strand.post(int)
    assert strand.pending == 2
    assert "ledger" in loop.dump()
    loop.join(until_idle=True)
    assert strand.pending == 0


# -- urgent and bounded -------------------------------------------------------------------------


def test_an_urgent_message_overtakes_what_waits_but_not_what_runs(make_loop):
    """T53. Urgent ones run before ordinary ones and in their own order, never inside the running handler."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[str] = []

    def first() -> None:
        strand.post(ran.append, "ordinary from inside")
        strand.post_urgent(ran.append, "urgent 1")
        strand.post_urgent(ran.append, "urgent 2")
        ran.append("first ended")

    strand.post(first)
    strand.post(ran.append, "second")
    loop.join(until_idle=True)
    assert ran == ["first ended", "urgent 1", "urgent 2", "second", "ordinary from inside"]


@pytest.mark.race
def test_an_urgent_message_waits_for_the_handler_that_runs(make_loop, joined):
    """T53. With an idle thread at hand an urgent message still does not run beside its strand's handler."""
    loop = make_loop(handover=0)
    strand = loop.strand()
    gate = SlowMessage()
    early: list[bool] = []
    with joined(loop, 3):
        strand.post(gate)
        gate.wait_entered()
        strand.post_urgent(lambda: early.append(not gate.ended.is_set()))
        other = threading.Event()
        loop.post(other.set)
        assert other.wait(LONG)
        gate.open()
        wait_all_idle(loop)
    assert early == [False]


def test_a_full_strand_refuses_and_loses_nothing(make_loop):
    """T54. Full raises `QueueFull` with the limit; what was taken runs once; then there is room again."""
    loop = make_loop()
    strand = loop.strand(name="ledger", max_pending=3)
    ran: list[int] = []
    for number in range(3):
        strand.post(ran.append, number)
    with pytest.raises(mh.QueueFull, match="3") as refused:
        strand.post(ran.append, 3)
    assert refused.value.limit == 3
    assert strand.pending == 3
    loop.join(until_idle=True)
    assert ran == [0, 1, 2]
    strand.post(ran.append, 4)
    loop.join(until_idle=True)
    assert ran == [0, 1, 2, 4]


def test_urgent_and_terminal_messages_are_not_counted_against_the_bound(make_loop):
    """T54. A full strand takes urgent messages and its terminal one: control must get through."""
    loop = make_loop()
    strand = loop.strand(max_pending=1)
    ran: list[str] = []
    strand.post(ran.append, "ordinary")
    for number in range(5):
        strand.post_urgent(ran.append, f"urgent {number}")
    strand.post_terminal(ran.append, "terminal")
    loop.join(until_idle=True)
    assert ran == [*(f"urgent {number}" for number in range(5)), "ordinary", "terminal"]


@pytest.mark.race
def test_posters_racing_for_the_last_places_lose_nothing_and_run_nothing_twice(make_loop, joined, spawn):
    """T54. What `post` accepted is what runs, exactly, with four posters against a bound of 10."""
    loop = make_loop(handover=0)
    strand = loop.strand(max_pending=10)
    ran: list[tuple[int, int]] = []

    def post_all(poster: int) -> list[tuple[int, int]]:
        accepted = []
        for number in range(1000):
            try:
                strand.post(ran.append, (poster, number))
            except mh.QueueFull:
                continue
            accepted.append((poster, number))
        return accepted

    with joined(loop, 2):
        accepted = [message for poster in [spawn(post_all, n) for n in range(4)] for message in poster.result()]
        wait_all_idle(loop)
    assert sorted(ran) == sorted(accepted)
    assert len(accepted) >= 10


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, "many"])
def test_a_bound_that_is_not_a_positive_number_is_refused(make_loop, bad):
    """T54. Wrong types and values raise at the call and say what came."""
    loop = make_loop()
    with pytest.raises((TypeError, ValueError), match="max_pending"):
        loop.strand(max_pending=bad)


# -- pause and resume ---------------------------------------------------------------------------


def test_a_paused_strand_starts_nothing_and_goes_on_where_it_was(make_loop):
    """T36. Pause stops everything on the strand: messages, urgent ones too, wait and keep their order."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[str] = []
    strand.post(ran.append, "first")
    assert strand.pause() is True
    assert strand.state is mh.StrandState.PAUSED
    strand.post(ran.append, "second")
    strand.post_urgent(ran.append, "urgent")
    assert loop.join(until_idle=True) == 0
    assert ran == []
    strand.resume()
    assert strand.state is mh.StrandState.ACTIVE
    loop.join(until_idle=True)
    assert ran == ["urgent", "first", "second"]


@pytest.mark.race
def test_after_pause_returned_true_no_message_runs_and_none_starts(make_loop, joined, spawn):
    """T36. Seen from outside, with three threads at work: 50 rounds of pause while posts go on."""
    loop = make_loop(handover=0)
    strand = loop.strand()
    inside: list[int] = []
    ran: list[int] = []
    enough = threading.Event()

    def message(number: int) -> None:
        inside.append(number)
        ran.append(number)
        inside.clear()

    def keep_posting() -> int:
        number = 0
        while not enough.is_set():
            strand.post(message, number)
            number += 1
            if strand.pending > 1000:
                enough.wait(0.001)
        return number

    with joined(loop, 3):
        poster = spawn(keep_posting)
        for _ in range(50):
            assert strand.pause() is True
            seen = len(ran)
            assert inside == []
            other = threading.Event()
            loop.post(other.set)
            assert other.wait(LONG)
            assert len(ran) == seen
            strand.resume()
        enough.set()
        posted = poster.result()
        wait_all_idle(loop)
    assert ran == list(range(posted))


@pytest.mark.race
def test_pause_races_a_strand_that_was_popped_and_nothing_of_it_runs(make_loop, joined):
    """T36. A thread has taken the strand off the queue and is not inside yet: pause wins, and returns at once."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[int] = []
    with hold("strand.begin") as held, joined(loop):
        strand.post(ran.append, 1)
        held.wait_reached()
        assert strand.pause(timeout=LONG) is True
        held.release()
        wait_all_idle(loop)
        assert ran == []
        strand.resume()
        wait_all_idle(loop)
    assert ran == [1]


@pytest.mark.race
def test_pause_from_outside_waits_for_the_message_that_runs(make_loop, joined, spawn):
    """T36. True means that nobody is inside any more."""
    loop = make_loop()
    strand = loop.strand()
    gate = SlowMessage()

    def pause() -> tuple[bool, bool]:
        return strand.pause(), gate.ended.is_set()

    with joined(loop):
        strand.post(gate)
        gate.wait_entered()
        pauser = spawn(pause)
        wait_until(lambda: strand.state is mh.StrandState.PAUSED)
        gate.open()
        assert pauser.result() == (True, True)
        strand.resume()


def test_pause_with_a_time_limit_returns_false_while_a_message_is_stuck(make_loop, joined):
    """T46. The strand is paused for what comes next all the same."""
    loop = make_loop(handover=0)
    strand = loop.strand()
    gate = SlowMessage()
    ran: list[int] = []
    with joined(loop, 2):
        strand.post(gate)
        strand.post(ran.append, 1)
        gate.wait_entered()
        assert strand.pause(timeout=0.01) is False
        gate.open()
        wait_all_idle(loop)
        assert gate.ended.is_set()
        assert ran == []
        strand.resume()
        wait_all_idle(loop)
    assert ran == [1]


def test_a_message_may_pause_its_own_strand(make_loop):
    """T38. It returns True at once; this message ends; no other starts."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[object] = []

    def first() -> None:
        ran.append(strand.pause())
        ran.append("first ended")

    strand.post(first)
    strand.post(ran.append, "second")
    loop.join(until_idle=True)
    assert ran == [True, "first ended"]
    strand.resume()
    loop.join(until_idle=True)
    assert ran == [True, "first ended", "second"]


@pytest.mark.race
def test_on_a_lent_thread_pause_of_a_busy_strand_returns_false_and_does_not_wait(make_loop, joined):
    """T39. A handler never waits for another handler: False says that somebody is still inside."""
    loop = make_loop(handover=0)
    busy, other = loop.strand(), loop.strand()
    gate = SlowMessage()
    answer: list[bool] = []
    answered = threading.Event()

    def ask() -> None:
        answer.append(busy.pause())
        answered.set()

    with joined(loop, 2):
        busy.post(gate)
        gate.wait_entered()
        other.post(ask)
        assert answered.wait(LONG), "pause() waited on a lent thread"
        gate.open()
        wait_all_idle(loop)
    assert answer == [False]
    assert busy.state is mh.StrandState.PAUSED


@pytest.mark.race
def test_two_messages_that_pause_each_others_strands_do_not_deadlock(make_loop, joined):
    """T39. The message of A pauses B while the message of B pauses A."""
    loop = make_loop(handover=0)
    strands = [loop.strand(), loop.strand()]
    meeting = threading.Barrier(2)
    ended = [threading.Event(), threading.Event()]

    def pause_other(mine: int) -> None:
        meeting.wait(LONG)
        strands[1 - mine].pause()
        ended[mine].set()

    with joined(loop, 2):
        for mine in (0, 1):
            strands[mine].post(pause_other, mine)
        assert all(event.wait(LONG) for event in ended)


def test_pause_of_a_strand_is_a_flag(make_loop):
    """T42. Twice paused and once resumed is active; resume of an active strand is harmless."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[int] = []
    strand.resume()
    strand.pause()
    strand.pause()
    strand.post(ran.append, 1)
    strand.resume()
    loop.join(until_idle=True)
    assert ran == [1]


@pytest.mark.race
def test_resume_while_a_pause_still_waits_lets_both_return(make_loop, joined, spawn):
    """T44. The pause returns when its message has ended, and the strand is active."""
    loop = make_loop()
    strand = loop.strand()
    gate = SlowMessage()
    ran = threading.Event()
    with joined(loop):
        strand.post(gate)
        gate.wait_entered()
        pauser = spawn(strand.pause)
        wait_until(lambda: strand.state is mh.StrandState.PAUSED)
        strand.resume()
        strand.post(ran.set)
        gate.open()
        pauser.result()
        assert ran.wait(LONG)


def test_a_paused_strand_is_still_bounded(make_loop):
    """T54. Posts to a paused strand queue up to `max_pending` and are refused beyond."""
    loop = make_loop()
    strand = loop.strand(max_pending=2)
    ran: list[int] = []
    strand.pause()
    strand.post(ran.append, 1)
    strand.post(ran.append, 2)
    with pytest.raises(mh.QueueFull):
        strand.post(ran.append, 3)
    strand.resume()
    loop.join(until_idle=True)
    assert ran == [1, 2]


def test_readiness_of_a_paused_strand_is_delivered_once_after_resume(make_loop, pair):
    """T40. What came while the strand was paused is one pending bit, delivered without new traffic."""
    loop = make_loop()
    strand = loop.strand()
    a, b = pair()
    received: list[bytes] = []
    loop.add(a, mh.Events.READ, lambda watch, events: received.append(a.recv(100)), strand=strand)
    strand.pause()
    b.send(b"one ")
    loop.join(until_idle=True)
    b.send(b"two")
    loop.join(until_idle=True)
    assert received == []
    strand.resume()
    loop.join(until_idle=True)
    assert received == [b"one two"]


def test_timers_of_a_paused_strand_stay_due_and_run_once_after_resume(make_loop):
    """T100. A timer that falls due while its strand is paused is pending once, also a periodic one."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    strand = loop.strand()
    ran: list[str] = []
    strand.call_later(1, ran.append, "once")
    strand.call_every(1, ran.append, "tick")
    strand.pause()
    clock.advance(5.5)
    loop.join(until_idle=True)
    assert ran == []
    strand.resume()
    loop.join(until_idle=True)
    assert sorted(ran) == ["once", "tick"]
    clock.advance(0.5)
    loop.join(until_idle=True)
    assert sorted(ran) == ["once", "tick", "tick"]


def test_a_drain_does_not_wait_for_a_paused_strand(make_loop):
    """T11. A drain ends when no strand that is not paused has an item; the paused one keeps its messages."""
    loop = make_loop()
    paused, active = loop.strand(), loop.strand()
    ran: list[str] = []
    paused.pause()
    paused.post(ran.append, "paused")
    active.post(ran.append, "active")
    assert loop.stop(timeout=LONG, drain=True) is True
    assert ran == ["active"]
    assert paused.pending == 1
    loop.restart()
    paused.resume()
    loop.join(until_idle=True)
    assert ran == ["active", "paused"]


@pytest.mark.parametrize("bad", [-1, float("nan"), "soon"])
def test_a_senseless_time_limit_is_refused(make_loop, bad):
    """T46. A negative or senseless timeout raises at the call, and nothing has been paused."""
    loop = make_loop()
    strand = loop.strand()
    with pytest.raises((TypeError, ValueError), match="timeout"):
        strand.pause(timeout=bad)
    assert strand.state is mh.StrandState.ACTIVE


# -- the terminal message -----------------------------------------------------------------------


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


# -- close --------------------------------------------------------------------------------------


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


def test_close_removes_the_watches_of_the_strand(make_loop, pair):
    """T30. Each ends once with STRAND_CLOSED, told on a joined thread though its strand is closed."""
    loop = make_loop()
    strand = loop.strand()
    a, b = pair()
    ends: list[mh.RemovalReason] = []
    ran: list[int] = []
    watch = loop.add(
        a,
        mh.Events.READ,
        lambda watch, events: ran.append(1),
        strand=strand,
        on_removed=lambda watch, reason: ends.append(reason),
    )
    strand.close()
    b.send(b"x")
    loop.join(until_idle=True)
    assert watch.removed
    assert ends == [mh.RemovalReason.STRAND_CLOSED]
    assert ran == []
    loop.add(a, mh.Events.READ, lambda watch, events: ran.append(a.recv(1)[0]))
    loop.join(until_idle=True)
    assert ran == [ord("x")]


def test_a_timer_of_a_closed_strand_never_fires(make_loop):
    """T100. Closing a strand cancels its timers."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    strand = loop.strand()
    ran: list[int] = []
    timers = [strand.call_later(1, ran.append, 1), strand.call_at(loop.now() + 1, ran.append, 2)]
    timers.append(strand.call_every(1, ran.append, 3))
    strand.close()
    assert not any(timer.active for timer in timers)
    clock.advance(10)
    loop.join(until_idle=True)
    assert ran == []


def test_a_watch_cannot_be_added_to_a_closed_strand(make_loop, pair):
    """T52. It raises `StrandClosed` and leaves nothing registered."""
    loop = make_loop()
    a, _ = pair()
    strand = loop.strand(name="ledger")
    strand.close()
    with pytest.raises(mh.StrandClosed, match="ledger"):
        loop.add(a, mh.Events.READ, print, strand=strand)
    assert loop.get(a.fileno()) is None
    loop.add(a, mh.Events.READ, print).remove()


def test_a_watch_cannot_be_added_to_a_strand_of_another_loop(make_loop, pair):
    """T48. It raises ValueError that names the loop it was asked of, and leaves nothing registered."""
    here, there = make_loop(name="here"), make_loop(name="there")
    a, _ = pair()
    with pytest.raises(ValueError, match="here"):
        here.add(a, mh.Events.READ, print, strand=there.strand())
    assert here.get(a.fileno()) is None


def test_a_watch_of_its_own_strand_ends_that_strand_when_it_is_removed(make_loop, pair):
    """T30. Messages posted before still run, later posts raise `StrandClosed`, then `on_removed` comes."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    a, _ = pair()
    ran: list[object] = []
    watch = loop.add(a, mh.Events.READ, print)
    timer = watch.strand.call_later(1, ran.append, "timer")
    watch.strand.post(ran.append, "message")
    watch.remove(on_removed=lambda watch, reason: ran.append(reason))
    with pytest.raises(mh.StrandClosed):
        watch.strand.post(ran.append, "late")
    loop.join(until_idle=True)
    clock.advance(2)
    loop.join(until_idle=True)
    assert ran == ["message", mh.RemovalReason.REMOVED]
    assert not timer.active


def test_a_removed_watch_leaves_a_shared_strand_alone(make_loop, pair):
    """T30. A strand that was given lives on; `on_removed` runs on it, in order with its messages."""
    loop = make_loop()
    strand = loop.strand()
    a, _ = pair()
    ran: list[str] = []
    watch = loop.add(a, mh.Events.READ, print, strand=strand)
    strand.post(ran.append, "before")
    watch.remove(on_removed=lambda watch, reason: ran.append("removed"))
    strand.post(ran.append, "after")
    loop.join(until_idle=True)
    assert sorted(ran) == ["after", "before", "removed"]
    assert strand.state is mh.StrandState.ACTIVE


def test_the_last_place_in_a_full_strand_is_never_taken_by_the_library(make_loop, pair):
    """T54. The library's own completions are neither refused by a full strand nor counted."""
    loop = make_loop()
    strand = loop.strand(max_pending=1)
    a, _ = pair()
    ran: list[str] = []
    watch = loop.add(a, mh.Events.READ, print, strand=strand)
    strand.post(ran.append, "message")
    watch.remove(on_removed=lambda watch, reason: ran.append("removed"))
    loop.join(until_idle=True)
    assert sorted(ran) == ["message", "removed"]
