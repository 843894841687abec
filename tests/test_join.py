"""Ways of joining: until idle, with a limit, for one tick; and what the properties tell meanwhile."""

from __future__ import annotations

import threading
import time

import pytest

import manyhands as mh
from gate import Gate
from manyhands import testing
from manyhands.testing import hold, wait_all_idle
from support import wait_until

READ = mh.Events.READ


def needs_points(test):
    """Needs a build with named points, and them for itself: a point holds whoever of the process comes first."""
    test = pytest.mark.skipif(not testing.points_compiled(), reason="a build without named points")(test)
    return pytest.mark.thread_unsafe(reason="named points are the process's")(test)


def nothing(*_args: object) -> None:
    pass


def read_all(watch, _events) -> None:
    watch.source.recv(65536)


def test_join_until_idle_returns_how_many_handlers_ran(make_loop, pair):
    """T15. Messages, a watch and a timer that was due are each counted once."""
    loop = make_loop()
    a, b = pair()
    loop.add(a, READ, read_all)
    b.send(b"x")
    for _ in range(3):
        loop.post(nothing)
    loop.call_later(0, nothing)

    assert loop.join(until_idle=True) == 5


def test_join_with_a_timeout_returns_how_many_handlers_ran(make_loop):
    """T15. A join that ends by its timeout says what it did, and not before the time is over."""
    loop = make_loop()
    for _ in range(3):
        loop.post(nothing)
    started = time.monotonic()

    assert loop.join(0.03) == 3
    assert time.monotonic() - started >= 0.03
    assert loop.joined == 0
    assert not loop.stopped


def test_run_ready_returns_how_many_handlers_ran(make_loop):
    """T15. `run_ready()` runs what was ready at entry and says how much that was."""
    loop = make_loop()
    assert loop.run_ready() == 0
    for _ in range(3):
        loop.post(nothing)

    assert loop.run_ready() == 3
    assert loop.run_ready() == 0


def test_run_ready_is_one_tick(make_loop, pair):
    """What a handler posts, and a descriptor that stays ready, wait for the next `run_ready()`."""
    loop = make_loop()
    ran = []
    a, b = pair()
    b.send(b"never read")
    loop.add(a, READ, lambda *_: ran.append("watch"))

    def again() -> None:
        ran.append("message")
        loop.post(again)

    loop.post(again)
    for tick in range(1, 4):
        assert loop.run_ready() == 2
        assert sorted(ran) == ["message"] * tick + ["watch"] * tick


def test_run_ready_runs_all_that_a_strand_held(make_loop):
    """What was ready at entry is also the fiftieth message of one strand."""
    loop = make_loop()
    strand = loop.strand()
    ran: list[int] = []
    for number in range(50):
        strand.post(ran.append, number)

    assert loop.run_ready() == 50
    assert ran == list(range(50))


def test_run_ready_runs_a_timer_that_is_due(make_loop):
    """A timer that was due at entry is ready; one of later is not."""
    clock = testing.MockClock()
    loop = make_loop(clock=clock)
    ran = []
    loop.call_at(1.0, ran.append, "one")
    loop.call_at(2.0, ran.append, "two")
    assert loop.run_ready() == 0
    clock.advance(1.0)

    assert loop.run_ready() == 1
    assert ran == ["one"]


def test_run_ready_stops_at_max_handlers(make_loop):
    """With `max_handlers` the rest stays for the next call."""
    loop = make_loop()
    for _ in range(3):
        loop.post(nothing)

    assert loop.run_ready(max_handlers=2) == 2
    assert loop.run_ready(max_handlers=2) == 1


def test_join_leaves_after_max_handlers(make_loop):
    """`join(max_handlers=2)` runs two and leaves the rest to whoever comes next."""
    loop = make_loop()
    ran = []
    for number in range(3):
        loop.post(ran.append, number)

    assert loop.join(max_handlers=2) == 2
    assert len(ran) == 2
    assert loop.join(max_handlers=1) == 1
    assert sorted(ran) == [0, 1, 2]


@pytest.mark.race
def test_a_thread_that_leaves_after_max_handlers_leaves_the_rest_to_the_others(make_loop, spawn):
    """Ten threads take one message each: whoever leaves wakes another for what is left."""
    loop = make_loop()
    threads = [spawn(lambda: loop.join(max_handlers=1)) for _ in range(10)]
    wait_until(lambda: loop.joined == 10)
    wait_all_idle(loop)
    for _ in range(10):
        loop.post(nothing)

    assert [thread.result() for thread in threads] == [1] * 10


def test_future_timers_and_idle_watches_do_not_keep_a_loop_busy(make_loop, pair):
    """`join(until_idle=True)` does not wait for what may come later."""
    loop = make_loop()
    a, _b = pair()
    loop.add(a, READ, nothing)
    loop.call_later(3600, nothing)

    assert loop.join(until_idle=True) == 0


def test_until_idle_follows_a_chain_of_messages(make_loop):
    """Each message posts the next: the loop is idle when the last has run."""
    loop = make_loop()

    def chain(left: int) -> None:
        if left:
            loop.post(chain, left - 1)

    loop.post(chain, 9)
    assert loop.join(until_idle=True) == 10


def test_until_idle_waits_for_a_handler_on_another_thread(make_loop, joined, spawn):
    """A loop with somebody inside a handler is not idle."""
    loop = make_loop()
    released = threading.Event()
    with joined(loop), Gate() as gate:
        loop.post(gate)
        gate.wait_entered()

        def join_until_idle() -> bool:
            loop.join(until_idle=True)
            return released.is_set()

        waiting = spawn(join_until_idle)
        wait_until(lambda: loop.joined == 2)
        with pytest.raises(TimeoutError):
            wait_all_idle(loop, timeout=0.05)
        released.set()
        gate.open()
        assert waiting.result() is True


@needs_points
@pytest.mark.race
def test_a_loop_whose_poller_has_just_returned_is_not_idle(spawn, make_loop, pair):
    """`wait_all_idle` sees also what is in the interval: the poller has returned it, and it is not queued yet."""
    loop = make_loop()
    a, b = pair()
    handled = []
    loop.add(a, READ, lambda watch, _events: handled.append(watch.source.recv(10)))
    b.send(b"x")
    with hold("poll.returned") as held:
        serving = spawn(loop.join)
        held.wait_reached()
        with pytest.raises(TimeoutError):
            wait_all_idle(loop, timeout=0.1)
    wait_all_idle(loop)
    assert handled == [b"x"]
    loop.request_stop()
    assert serving.result() == 1


def test_join_with_a_timeout_of_zero_does_not_wait(make_loop, spawn):
    """`join(0)` returns at once when there is nothing to do."""
    loop = make_loop()
    loop.call_later(3600, nothing)
    assert spawn(loop.join, 0).result() == 0


def test_wait_with_nobody_joined_returns_true(make_loop):
    """Nobody is inside, so nobody is waited for."""
    loop = make_loop()
    assert loop.wait() is True
    assert loop.wait(0) is True


def test_wait_does_not_stop_the_loop(make_loop, joined, spawn):
    """`wait()` only waits: False while somebody is joined, True when all have left."""
    loop = make_loop()
    with joined(loop, 2):
        wait_until(lambda: loop.joined == 2)
        assert loop.wait(0) is False
        assert loop.wait(0.02) is False
        assert not loop.stopped
        waiting = spawn(loop.wait)
        loop.request_stop()
        assert waiting.result() is True


def test_properties_tell_the_state(make_loop):
    """`name`, `joined`, `stopped` and `closed` can be read at any time, from a handler and after the close."""
    loop = make_loop(name="kitchen")
    inside = []
    loop.post(lambda: inside.append((loop.name, loop.joined, loop.stopped, loop.closed)))
    loop.join(until_idle=True)
    assert inside == [("kitchen", 1, False, False)]
    assert (loop.name, loop.joined, loop.stopped, loop.closed) == ("kitchen", 0, False, False)
    loop.close()
    assert (loop.name, loop.joined, loop.closed) == ("kitchen", 0, True)


@pytest.mark.parametrize("name", ["name", "joined", "stopped", "closed"])
def test_properties_cannot_be_set(make_loop, name):
    """The state is the loop's own."""
    loop = make_loop()
    with pytest.raises(AttributeError):
        setattr(loop, name, 1)
