"""A strand: one thread at a time, in order; urgent messages and the bound."""

from __future__ import annotations

import threading

import pytest

import manyhands as mh
from manyhands.testing import wait_all_idle
from slow_message import SlowMessage
from support import LONG, wait_until

# -- one at a time, in order -----------------------------------------------------------------------


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


# -- urgent and bounded ----------------------------------------------------------------------------


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
