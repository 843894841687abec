"""What a look at a loop from outside shows: for `dump()`, and for the monitor's log."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

from manyhands._stacks import Place, stacks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from manyhands import _core
    from manyhands._loop import EventLoop

__all__ = ["called_by", "dump", "task_in", "tasks_below", "what_runs"]

_SHOWN = 20
"""How many timers `dump()` lists."""


def tasks_below(group: _core.Group) -> list[_core.Task]:
    """The tasks of a group and of the groups that they have open; a task comes before those that it waits for."""
    found = group.tasks()
    for task in found:
        inner = task.scope
        while inner is not None and inner.group is not task.group:
            if inner.group is not None:
                found.extend(inner.group.tasks())
            inner = inner.parent
    return found


def task_in(loop: EventLoop, seat: _core.Seat) -> _core.Task | None:
    """Find the task whose step a thread is in.

    A step leaves nothing but its task's address behind, so that it costs nothing. The task is looked for below what the loop
    holds; a task at that address that does not run came after the one that did.
    """
    if seat.task:
        for group in [loop._root, *loop._strays]:
            for task in tasks_below(group) if group is not None else ():
                if id(task) == seat.task and task.state == "RUNNING":
                    return task
    return None


def what_runs(loop: EventLoop, seat: _core.Seat) -> str:
    """Say what a thread that serves the loop is in: a task or a watch by its name, or just a callback."""
    watch = loop._watch_by_token(seat.watch)
    if watch is not None:
        return f"the handler of watch {watch.name!r}"
    if not seat.task:
        return "a callback"
    task = task_in(loop, seat)
    return "a task" if task is None else f"task {task.name!r}"


def dump(loop: EventLoop) -> str:
    """Show threads with what they run, watches, strands, timers and its pool, as text for a log or a bug report."""
    stats = loop.stats()
    state = "closed" if loop.closed else "stopped" if loop.stopped else "open"
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = [
        (
            f"loop {loop.name!r}: {state}, poller {loop._poller}, {stats.joined} joined, {stats.ready} ready, "
            f"{stats.watches} watches, {stats.timers} timers, {stats.handled} handled, {stats.errors} errors"
        )
    ]
    for seat in loop._seats():
        name = names.get(seat.thread, str(seat.thread))
        if seat.running is None:
            lines.append(f"  thread {name!r}: waits ({seat.handled} handled)")
            continue
        what, where = what_runs(loop, seat), _place(loop, seat.thread)
        lines.append(f"  thread {name!r}: runs {what}, {where}, for {seat.running:.3f} s")
    for watch in sorted(loop._watches(), key=lambda watch: watch.fd):
        paused = " paused" if watch.paused else ""
        lines.append(f"  watch {watch.name!r}: fd {watch.fd} {watch.events!r}{paused}")
    for strand, phase, items, running in loop._strands():
        inside = " running" if running else ""
        lines.append(f"  strand {strand!r}: {phase}{inside}, {items} pending")
    timers = loop._timers()
    for due, interval, callback in timers[:_SHOWN]:
        every = "" if interval is None else f", every {interval:g} s"
        lines.append(f"  timer: in {due:.3f} s{every}: {getattr(callback, '__qualname__', callback)!r}")
    if len(timers) > _SHOWN:
        lines.append(f"  and {len(timers) - _SHOWN} timers more")
    if loop._pool is not None:
        lines.append(loop._pool.dump())
    return "\n".join(lines)


def called_by(loop: EventLoop, stack: Sequence[Place]) -> Place | None:
    """Of a stack, find what the loop called, whatever that has called."""
    serve = loop._serve.__code__
    for place, (caller, _) in itertools.pairwise(stack):
        if caller is serve:
            return place
    return stack[-1] if stack else None


def _place(loop: EventLoop, thread: int) -> str:
    """Say where a thread's callback is."""
    place = called_by(loop, stacks_of([thread]).get(thread, ()))
    if place is None:
        return "?"
    code, line = place
    return f"{getattr(code, 'co_qualname', code.co_name)} at {code.co_filename}:{line}"
