"""Messages to a loop that ends: the terminal post, a stop, a drain, a close, and what is owed after them."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future

import pytest

import manyhands as mh
from manyhands.testing import wait_all_idle
from support import LONG, wait_until


@pytest.mark.parametrize("threads", [1, 4, 16])
def test_the_terminal_post_of_a_loop_runs_last_and_once_and_then_every_thread_leaves(make_loop, spawn, threads):
    """T53. A loop's terminal post runs last, once, and then every thread leaves."""
    loop = make_loop(handover=0)
    ran: list[object] = []
    crew = [spawn(loop.join) for _ in range(threads)]
    wait_until(lambda: loop.joined == threads)
    for number in range(100):
        loop.post(ran.append, number)
    loop.post_terminal(ran.append, "last")
    handled = [thread.result() for thread in crew]
    assert sorted(ran[:-1]) == list(range(100))
    assert ran[-1] == "last"
    assert sum(handled) == 101
    assert loop.stopped
    assert loop.joined == 0


@pytest.mark.race
def test_the_terminal_post_of_a_loop_waits_for_a_handler_that_still_runs(make_loop, spawn):
    """T53. "Last" means that nothing else is inside, not that nothing else is queued."""
    loop = make_loop(handover=0)
    entered, gate = threading.Event(), threading.Event()
    ran: list[str] = []

    def slow() -> None:
        entered.set()
        gate.wait(LONG)
        ran.append("slow")

    crew = [spawn(loop.join) for _ in range(3)]
    loop.post(slow)
    assert entered.wait(LONG)
    loop.post(ran.append, "quick")
    loop.post_terminal(ran.append, "last")
    wait_until(lambda: "quick" in ran)
    gate.set()
    for thread in crew:
        thread.result()
    assert ran == ["quick", "slow", "last"]


def test_after_the_terminal_post_the_loop_refuses_posts_until_it_is_restarted(make_loop):
    """T53. A terminal post is a drain: posts from outside raise `LoopStopped` at once, and again after it ran."""
    loop = make_loop(name="mill")
    ran: list[str] = []
    loop.post_terminal(ran.append, "last")
    with pytest.raises(mh.LoopStopped, match="mill") as refused:
        loop.post(ran.append, "late")
    assert refused.value.loop == "mill"
    loop.join()
    assert ran == ["last"]
    with pytest.raises(mh.LoopStopped):
        loop.post(ran.append, "later")
    loop.restart()
    loop.post(ran.append, "again")
    loop.join(until_idle=True)
    assert ran == ["last", "again"]


def test_what_the_loops_own_handlers_post_during_a_terminal_post_runs_before_it(make_loop):
    """T53. The drain takes the posts of the loop's own handlers, and the terminal callback comes after those too."""
    loop = make_loop()
    ran: list[str] = []

    def first() -> None:
        ran.append("first")
        loop.post(ran.append, "child")

    loop.post(first)
    loop.post_terminal(ran.append, "last")
    loop.join()
    assert ran == ["first", "child", "last"]


def test_a_terminal_post_without_a_callback_ends_the_loop_all_the_same(make_loop, joined):
    """T53. The callback of a terminal post may be left out."""
    loop = make_loop()
    ran: list[int] = []
    with joined(loop, 2) as crew:
        loop.post(ran.append, 1)
        loop.post_terminal()
        for thread in crew:
            thread.join(LONG)
        assert not any(thread.is_alive() for thread in crew)
    assert ran == [1]


def test_a_post_to_a_stopped_loop_waits_for_the_restart(make_loop):
    """T55. A post to a stopped loop waits for the restart."""
    loop = make_loop()
    ran: list[int] = []
    loop.request_stop()
    loop.post(ran.append, 1)
    loop.strand().post(ran.append, 2)
    assert loop.join() == 0
    assert ran == []
    loop.restart()
    assert loop.join(until_idle=True) == 2
    assert sorted(ran) == [1, 2]


@pytest.mark.parametrize("how", ["post", "post_urgent", "post_terminal"])
@pytest.mark.parametrize("where", ["loop", "strand"])
def test_a_post_to_a_drained_loop_is_refused_until_the_restart(make_loop, where, how):
    """T55. After a drain a post is refused."""
    loop = make_loop(name="mill")
    target = loop if where == "loop" else loop.strand()
    assert loop.stop(drain=True)
    with pytest.raises(mh.LoopStopped, match="mill"):
        getattr(target, how)(print)
    loop.restart()
    ran: list[int] = []
    getattr(target, how)(ran.append, 1)
    loop.join(until_idle=True)
    assert ran == [1]


@pytest.mark.parametrize("how", ["post", "post_urgent", "post_terminal"])
def test_a_post_to_a_closed_loop_raises(make_loop, how):
    """T55. To a closed loop a post raises `LoopClosed`, which names the loop."""
    loop = make_loop(name="mill")
    strand = loop.strand()
    loop.close()
    with pytest.raises(mh.LoopClosed, match="mill") as refused:
        getattr(loop, how)(print)
    assert refused.value.loop == "mill"
    with pytest.raises((mh.LoopClosed, mh.StrandClosed)):
        getattr(strand, how)(print)


def test_messages_that_never_ran_are_counted_in_one_warning_when_the_loop_is_closed(make_loop, caplog):
    """T55. Nothing is lost in silence: what waits when the loop is closed is counted in one record."""
    loop = make_loop(name="mill")
    ran: list[int] = []
    strand = loop.strand()
    for number in range(7):
        strand.post(ran.append, number)
    with caplog.at_level(logging.DEBUG, "manyhands.loop"):
        loop.close()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert ran == []
    assert len(warnings) == 1
    assert warnings[0].name == "manyhands.loop"
    assert "7" in warnings[0].getMessage()
    assert "mill" in warnings[0].getMessage()


def test_a_closed_loop_that_owed_nothing_logs_nothing(make_loop, joined, caplog):
    """T55. The warning is only for messages that never ran."""
    loop = make_loop()
    with caplog.at_level(logging.DEBUG, "manyhands"):
        with joined(loop):
            loop.post(int)
            wait_all_idle(loop)
        loop.close()
    assert caplog.records == []


@pytest.mark.race
@pytest.mark.parametrize("threads", [0, 1, 4])
@pytest.mark.parametrize("path", ["request_stop", "stop", "drain", "terminal post", "close"])
def test_every_callback_that_is_owed_runs_once_on_every_stop_path(make_loop, pair, spawn, path, threads):
    """T56. What was promised (the end of a watch, of a strand) comes exactly once, however the loop ends."""
    loop = make_loop(handover=0)
    owed: list[str] = []
    strand = loop.strand()
    for index in range(4):
        a, _ = pair()
        strand_of_it = strand if index % 2 else None
        loop.add(
            a, mh.Events.READ, print, strand=strand_of_it, on_removed=lambda *_, i=index: owed.append(f"watch {i}")
        )
    lonely = loop.strand()
    crew = [spawn(loop.join) for _ in range(threads)]
    wait_until(lambda: loop.joined == threads)
    a, _ = pair()
    removed = loop.add(a, mh.Events.READ, print)
    removed.remove(on_removed=lambda *_: owed.append("removed"))
    lonely.close(on_closed=lambda *_: owed.append("closed"))
    {
        "request_stop": loop.request_stop,
        "stop": loop.stop,
        "drain": lambda: loop.stop(drain=True),
        "terminal post": loop.post_terminal,
        "close": loop.close,
    }[path]()
    for thread in crew:
        thread.result()
    loop.close()
    assert sorted(owed) == ["closed", "removed", "watch 0", "watch 1", "watch 2", "watch 3"]


@pytest.mark.race
@pytest.mark.parametrize("threads", [1, 4])
def test_a_future_kept_by_a_message_completes_once_when_its_strand_closes(make_loop, joined, threads):
    """T56. A message that did not run is handed back by `close`, so that who waits for it can be told, once."""
    loop = make_loop(handover=0)
    errors_before = loop.stats().errors
    with joined(loop, threads):
        for cut in (0, 1, 50, 199):
            strand = loop.strand()
            futures: list[Future[int]] = [Future() for _ in range(200)]
            for number, future in enumerate(futures):
                strand.post(future.set_result, number)
                if number == cut:
                    left = strand.close()
                    break
            for message in left:
                assert message.callback.__self__.cancel()
            for future in futures[: cut + 1]:
                assert future.done()
        wait_all_idle(loop)
        assert loop.stats().errors == errors_before


@pytest.mark.parametrize("how", ["post", "post_urgent", "post_terminal"])
@pytest.mark.parametrize("where", ["loop", "strand"])
def test_a_message_that_cannot_be_called_is_refused_at_the_post(make_loop, where, how):
    """T48. Wrong types raise at the call, and nothing stays queued."""
    loop = make_loop()
    target = loop if where == "loop" else loop.strand()
    with pytest.raises(TypeError, match="42"):
        getattr(target, how)(42)
    assert loop.run_ready() == 0
    assert not loop.stopped
