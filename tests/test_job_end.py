"""The end of a job: who hears of it when its owner's loop is gone, and what the job lets go of."""

from __future__ import annotations

import contextvars
import gc
import logging
import threading
import weakref

import pytest

import manyhands as mh
from gate import Gate
from pooling import Deliberate, Stoppable, occupied, outcome
from support import LONG, wait_until
from turning import nothing

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


@pytest.mark.parametrize("outlive", [True, False])
def test_on_done_is_called_by_the_pool_if_the_owners_loop_is_closed(make_pool, make_loop, outlive):
    """T71. Once, in the context of the enqueue, on a thread that runs no jobs; it may call the pool."""
    pool, loop = make_pool(1), make_loop()
    called: list[tuple[mh.Job, str, str, int]] = []

    def on_done(job: mh.Job) -> None:
        called.append((job, threading.current_thread().name, colour.get(), pool.enqueue(pow, 2, 3).result(LONG)))

    with Gate() as gate:
        context = contextvars.copy_context()
        context.run(colour.set, "red")
        job = context.run(pool.enqueue, gate, owner=loop.strand(), outlive=outlive, on_done=on_done)
        gate.wait_entered()
        loop.close(LONG)
    outcome(job)
    wait_until(lambda: called)
    assert [(job, "mh-pool-x0", "red", 8)] == called
    assert pool.destroy(LONG) == []
    assert len(called) == 1


def test_on_done_of_a_job_that_never_ran_is_called_by_the_pool_if_its_loop_was_closed(make_pool, make_loop):
    """T62. The close stops it; nobody serves the loop any more."""
    pool, loop = make_pool(1), make_loop()
    called: list[mh.Job] = []
    with occupied(pool):
        job = pool.enqueue(nothing, owner=loop.strand(), on_done=called.append)
        loop.close(LONG)
        assert outcome(job) == ("aborted", mh.StopReason.OWNER_GONE)
        wait_until(lambda: called == [job])


def test_on_done_of_a_loop_that_is_stopped_waits_for_its_close(make_pool, make_loop):
    """T71. A stopped loop may be restarted: its callbacks are its own until it is closed."""
    ended = threading.Event()
    pool, loop = make_pool(1, on_end=lambda job: ended.set()), make_loop()
    called: list[threading.Thread] = []
    loop.request_stop()
    pool.enqueue(nothing, owner=loop.strand(), on_done=lambda job: called.append(threading.current_thread()))
    assert ended.wait(LONG)
    assert called == []
    loop.close(LONG)
    assert called == [threading.current_thread()]


@pytest.mark.race
def test_a_loop_that_closes_as_the_job_ends_has_its_on_done_called_once(make_pool, make_loop):
    """T71. By the closing thread or by the pool: never by neither, never by both."""
    pool = make_pool(2)
    called: list[int] = []
    for number in range(100):
        loop = make_loop()
        meeting = threading.Barrier(2)
        job = pool.enqueue(
            meeting.wait, owner=loop.strand(), outlive=True, on_done=lambda job, number=number: called.append(number)
        )
        meeting.wait(LONG)
        loop.close(LONG)
        outcome(job)
        wait_until(lambda number=number: number in called)
    assert pool.destroy(LONG) == []
    assert called == list(range(100))


@pytest.mark.parametrize("error", [Deliberate, SystemExit])
def test_an_error_in_such_an_on_done_is_logged_and_the_next_is_called(make_pool, make_loop, logged, error):
    """T72. As that of every callback that the pool calls."""
    pool, loop = make_pool(1), make_loop()
    called: list[mh.Job] = []

    def raises(job: mh.Job) -> None:
        raise error

    with Gate() as gate, logged.at_level(logging.ERROR, "manyhands.pool"):
        strand = loop.strand()
        first = pool.enqueue(gate, owner=strand, outlive=True, on_done=raises)
        second = pool.enqueue(nothing, owner=strand, outlive=True, on_done=called.append)
        gate.wait_entered()
        loop.close(LONG)
        gate.open()
        outcome(first)
        wait_until(lambda: called == [second])
        wait_until(lambda: f"on_done {raises!r} of job {first.name!r} raised" in logged.text)


class Thing:
    """Something that a weak reference can be made to."""

    def __call__(self, *_: object) -> None:
        pass


def gone(*alive: weakref.ref) -> bool:
    """Whether nothing of this is left."""
    gc.collect()
    return [ref() for ref in alive] == [None] * len(alive)


@pytest.mark.parametrize("how", ["finished", "raised", "stopped", "never ran"])
@pytest.mark.parametrize("owned", [True, False])
def test_an_ended_job_that_is_held_lets_go_of_its_context_and_its_callbacks(make_pool, loop, joined, how, owned):
    """T99. Whoever keeps a job for its result keeps nothing of what it was enqueued with but its name, user and owner."""
    pool = make_pool(1)
    variable: contextvars.ContextVar[Thing] = contextvars.ContextVar("variable")
    things = [Thing() for _ in range(6)]
    alive = [weakref.ref(thing) for thing in things]
    context = contextvars.copy_context()
    context.run(variable.set, things.pop())
    options = {"cleanup": things.pop()}
    if owned:
        options |= {"owner": loop.strand(), "on_sync": things.pop(), "on_done": things.pop()}
    stoppable = Stoppable()
    work = {"finished": nothing, "raised": raise_deliberate}.get(how, stoppable)
    with joined(loop):
        with occupied(pool):
            job = context.run(pool.enqueue, work, things.pop(), **options)
            job.add_done_callback(things.pop())
            if how == "never ran":
                job.stop()
        if how == "stopped":
            stoppable.wait_entered()
            job.stop()
        outcome(job)
        del context, options, things
        wait_until(lambda: gone(*alive))
    assert job.done()


def raise_deliberate(_argument: object) -> None:
    """Raise what only a test raises, without holding the argument in the traceback's frame."""
    del _argument
    raise Deliberate
