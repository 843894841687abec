"""Messages to a loop: each runs once, on a joined thread, never inside the post, in order per poster and strand."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from manyhands.testing import hold, wait_all_idle
from support import LONG, wait_until

POSTERS = 4

EACH = 500


@pytest.mark.race
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_messages_of_each_poster_run_once_in_their_order_on_joined_threads(make_loop, joined, spawn, threads):
    """T47. `post` from any thread runs exactly once on a joined thread, in order per poster and strand."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[tuple[int, int]] = []
    runners: set[int] = set()

    def note(poster: int, number: int) -> None:
        ran.append((poster, number))
        runners.add(threading.get_ident())

    def post_all(poster: int) -> None:
        for number in range(EACH):
            strand.post(note, poster, number)

    with joined(loop, threads) as crew:
        for poster in [spawn(post_all, number) for number in range(POSTERS)]:
            poster.result()
        wait_all_idle(loop)
        crew_idents = {thread.ident for thread in crew}
    assert len(ran) == POSTERS * EACH
    for poster in range(POSTERS):
        assert [number for who, number in ran if who == poster] == list(range(EACH))
    assert runners <= crew_idents


@pytest.mark.race
@pytest.mark.parametrize("threads", [1, 4])
def test_a_message_to_the_loop_itself_runs_exactly_once(make_loop, joined, spawn, threads):
    """T47. Messages without a strand of their poster's choice are not lost and not run twice either."""
    loop = make_loop()
    ran: list[tuple[int, int]] = []

    def post_all(poster: int) -> None:
        for number in range(EACH):
            loop.post(ran.append, (poster, number))

    with joined(loop, threads):
        for poster in [spawn(post_all, number) for number in range(POSTERS)]:
            poster.result()
        wait_all_idle(loop)
    counted = Counter(ran)
    assert set(counted) == {(poster, number) for poster in range(POSTERS) for number in range(EACH)}
    assert set(counted.values()) == {1}


def test_two_messages_to_the_loop_run_at_the_same_time(make_loop, joined):
    """T47. A message to the loop is on a strand of its own: two of them meet inside when two threads have joined."""
    loop = make_loop(handover=0)
    meeting = threading.Barrier(2)
    met = [threading.Event(), threading.Event()]

    def meet(which: int) -> None:
        meeting.wait(LONG)
        met[which].set()

    with joined(loop, 2):
        loop.post(meet, 0)
        loop.post(meet, 1)
        assert all(event.wait(LONG) for event in met)


def test_each_message_runs_its_own_callback_with_its_own_arguments(make_loop):
    """T48. Each message runs its own callback."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[object] = []
    strand.post(lambda: ran.append("first"))
    strand.post(lambda *args: ran.append(args), 1, "two", None)
    strand.post(ran.extend, ["third", "fourth"])
    loop.join(until_idle=True)
    assert ran == ["first", (1, "two", None), "third", "fourth"]


@pytest.mark.parametrize("how", ["post", "post_urgent"])
@pytest.mark.parametrize("where", ["loop", "own strand", "other strand"])
def test_a_post_from_inside_a_handler_runs_after_the_handler(make_loop, how, where):
    """T49. `post` never runs inline, not even from a joined thread."""
    loop = make_loop()
    own, other = loop.strand(), loop.strand()
    target = {"loop": loop, "own strand": own, "other strand": other}[where]
    ran: list[str] = []

    def poster() -> None:
        getattr(target, how)(ran.append, "message")
        ran.append("poster ended")

    own.post(poster)
    loop.join(until_idle=True)
    assert ran == ["poster ended", "message"]


def test_a_post_from_outside_runs_nothing_until_somebody_joins(make_loop):
    """T49. With nobody joined a post only queues."""
    loop = make_loop()
    ran: list[int] = []
    loop.post(ran.append, 1)
    loop.strand().post(ran.append, 2)
    assert ran == []
    assert loop.run_ready() == 2
    assert sorted(ran) == [1, 2]


@pytest.mark.parametrize("threads", [1, 4])
def test_a_thousand_posts_to_a_loop_that_just_woke_cost_at_most_twenty_wakes(make_loop, joined, threads):
    """T50. 1,000 posts: all run, with at most 20 writes to the eventfd; a wake under way is not asked for again."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[int] = []
    with joined(loop, threads):
        wait_all_idle(loop)
        before = loop.stats().wakes
        with hold("poll.returned") as held:
            strand.post(ran.append, 0)
            held.wait_reached()
            for number in range(1, 1000):
                strand.post(ran.append, number)
        wait_all_idle(loop)
        wakes = loop.stats().wakes - before
    assert ran == list(range(1000))
    assert 1 <= wakes <= 20


def test_a_thousand_posts_to_an_idle_loop_cost_at_most_twenty_wakes(make_loop, joined):
    """T50. The same with nothing held: the thread that runs them races with the thread that posts them.

    A busy machine, which keeps the poster waiting between two posts, has a wake for many: of a hundred rounds one is enough.
    """
    loop = make_loop()
    strand = loop.strand()
    ran: list[int] = []
    wakes: list[int] = []
    with joined(loop):
        while len(wakes) < 100 and not any(1 <= count <= 20 for count in wakes):
            wait_all_idle(loop)
            ran.clear()
            before = loop.stats().wakes
            for number in range(1000):
                strand.post(ran.append, number)
            wait_all_idle(loop)
            assert ran == list(range(1000))
            wakes.append(loop.stats().wakes - before)
    assert 1 <= min(wakes) <= 20


@pytest.mark.race
def test_a_post_races_a_thread_on_its_way_into_the_poller_and_is_not_lost(make_loop, joined):
    """T50. The thread has decided to wait and is not in the system call yet: the wake must still reach it."""
    loop = make_loop()
    ran = threading.Event()
    with hold("poll.enter") as held, joined(loop):
        held.wait_reached()
        loop.post(ran.set)
        held.release()
        assert ran.wait(LONG)


@pytest.mark.race
def test_a_post_races_the_draining_of_the_queue_and_runs_once(make_loop, joined, spawn):
    """T50. A message is queued and not announced yet while the loop takes it: not lost, not run twice."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[str] = []
    with hold("post.queued") as held:
        poster = spawn(strand.post, ran.append, "first")
        held.wait_reached()
        with joined(loop):
            wait_until(lambda: ran == ["first"])
            held.release()
            poster.result()
            wait_all_idle(loop)
            strand.post(ran.append, "second")
            wait_all_idle(loop)
    assert ran == ["first", "second"]


@pytest.mark.race
def test_a_post_races_the_wake_of_another_and_both_run(make_loop, joined, spawn):
    """T50. The second post relies on a wake that the first has promised and not made yet."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[str] = []
    with joined(loop), hold("post.queued") as held:
        wait_all_idle(loop)
        poster = spawn(strand.post, ran.append, "first")
        held.wait_reached()
        strand.post(ran.append, "second")
        held.release()
        poster.result()
        wait_all_idle(loop)
    assert ran == ["first", "second"]


@pytest.mark.race
def test_a_post_while_its_strand_is_being_emptied_is_not_lost(make_loop, joined):
    """T50. The strand was popped and its word is not RUNNING yet: what is posted now runs in this turn or the next."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[int] = []
    with hold("strand.begin") as held, joined(loop):
        strand.post(ran.append, 1)
        held.wait_reached()
        strand.post(ran.append, 2)
        held.release()
        wait_all_idle(loop)
    assert ran == [1, 2]


def voluntary_switches(native_id: int) -> int:
    """How often the thread gave up its core by waiting: a thread that was woken has one more."""
    for line in Path(f"/proc/self/task/{native_id}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise AssertionError("no voluntary_ctxt_switches line: is this Linux?")


def test_a_post_wakes_one_thread_of_sixteen(make_loop, joined):
    """T51. A post wakes one waiting thread, not all of 16; seen in the kernel's own count of waits."""
    loop = make_loop(handover=1.0)
    woken: list[int] = []
    with joined(loop, 16) as crew:
        for _ in range(5):
            wait_all_idle(loop)
            ran = threading.Event()
            wakes = loop.stats().wakes
            before = {thread.native_id: voluntary_switches(thread.native_id) for thread in crew}
            loop.post(ran.set)
            assert ran.wait(LONG)
            wait_all_idle(loop)
            assert loop.stats().wakes - wakes <= 2
            woken.append(sum(voluntary_switches(native_id) > count for native_id, count in before.items()))
    assert min(woken) <= 2, f"threads that woke for one message, five times: {woken}"


def test_an_urgent_message_to_the_loop_runs_before_ordinary_ones(make_loop):
    """T53. An urgent message overtakes ordinary ones."""
    loop = make_loop()
    ran: list[str] = []
    loop.post(ran.append, "first")
    loop.post(ran.append, "second")
    loop.post_urgent(ran.append, "urgent")
    loop.post_urgent(ran.append, "urgent too")
    loop.join(until_idle=True)
    assert ran == ["urgent", "urgent too", "first", "second"]
