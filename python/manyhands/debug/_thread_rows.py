"""Threads: what each is at, and where.

A thread that serves a loop has a seat there, which says since when it has been in a handler. A thread that runs a job is named
by the job. The others of the process are told as far as the interpreter knows them.

Where a thread is is told only if what it runs has run for a while.
"""

from __future__ import annotations

import os
import re
import sysconfig
from types import CodeType
from typing import TYPE_CHECKING, Final

from manyhands._job import threads_by_ident
from manyhands._sight import called_by, task_in
from manyhands._stacks import Place, stacks_of
from manyhands.debug._rows import AT_WORK, Row, View, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from manyhands import _core
    from manyhands._loop import EventLoop
    from manyhands._pool import ThreadPool

__all__ = ["ThreadRows"]

MOST_THREADS: Final = 200
"""How many are listed."""

BRIEF: Final = 0.005
"""Seconds. What has run for less is over before anybody reads where it is."""

_OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_COMMANDS: Final = _OURS + "cli" + os.sep
"""A program that uses the library, as the user's does."""

_STDLIB: Final = sysconfig.get_path("stdlib") + os.sep


class ThreadRows:
    """The process's threads at one moment.

    Attributes:
        names: Identity -> name.
    """

    def __init__(self) -> None:
        self.names = threads_by_ident()
        self._stacks = stacks_of()
        self._rows: dict[int, Row] = {}

    def add_loop(self, key: str, loop: EventLoop) -> None:
        """Add those that serve a loop."""
        for seat in loop._seats():
            row = self._row(seat.thread, "loop", key)
            if seat.running is None:
                row["what"] = "waits"
                continue
            row["busy"] = True
            row["since"] = seat.running
            stack = self._stacks.get(seat.thread, []) if seat.running >= BRIEF else []
            row["what"] = _what(loop, seat, stack)
            row["at"] = _place(stack)

    def add_pool(self, key: str, pool: ThreadPool, views: Sequence[View]) -> None:
        """Add those that run a pool's jobs, and those of its own that wait for one."""
        for job, status, age in views:
            if (thread := job._thread) and status in AT_WORK:
                # One that runs it in place keeps its place among those of its loop.
                row = self._rows.get(thread) or self._row(thread, "pool", key)
                # Since when is known of the loop's threads; of the pool's only when the job was accepted.
                since = age if row["since"] is None else row["since"]
                row |= {"busy": True, "what": f"job {text(job.name)}", "job": job.id, "since": since}
                row["at"] = _place(self._stacks.get(thread, [])) if age >= BRIEF else None
        of_pool = re.compile(rf"mh-{re.escape(pool.name)}-x?\d+")
        for ident, name in self.names.items():
            if ident is not None and ident not in self._rows and of_pool.fullmatch(name):
                self._row(ident, "pool", key)["what"] = "waits"

    def rows(self) -> Row:
        """The threads, those of loops and pools first."""
        listed = list(self._rows.values())
        others = [thread for thread in self.names if thread is not None and thread not in self._rows]
        counted = len(listed) + len(others)
        for thread in others[: max(0, MOST_THREADS - len(listed))]:
            row = self._row(thread, "other", None)
            row["at"] = _place(self._stacks.get(thread, []))
            listed.append(row)
        return {"counted": counted, "listed": listed[:MOST_THREADS]}

    def _row(self, thread: int, kind: str, of: str | None) -> Row:
        row = {
            "id": thread,
            "name": text(self.names.get(thread, str(thread))),
            "kind": kind,
            "of": of,
            "busy": False,
            "what": None,
            "job": None,
            "since": None,
            "at": None,
        }
        self._rows[thread] = row
        return row


def _what(loop: EventLoop, seat: _core.Seat, stack: Sequence[Place]) -> str:
    """What a loop has called."""
    watch = loop._watch_by_token(seat.watch)
    if watch is not None:
        return f"handler of watch {text(watch.name)}"
    task = task_in(loop, seat)
    if task is not None:
        return f"task {text(task.name)}"
    called = called_by(loop, stack)
    return "callback" if called is None else f"callback {text(_name(called[0]))}"


def _place(stack: Sequence[Place]) -> str | None:
    """Where a thread is: in the program's own code if it came from there, else where it stands."""
    if not stack:
        return None
    code, line = next((place for place in stack if not _foreign(place[0])), stack[0])
    path = code.co_filename.split(os.sep)
    return f"{text(_name(code))} ({text(os.sep.join(path[-2:]))}:{line})"


def _foreign(code: CodeType) -> bool:
    name = code.co_filename
    if name.startswith((_OURS, "<frozen")):
        return not name.startswith(_COMMANDS)
    return name.startswith(_STDLIB) and "site-packages" not in name


def _name(code: CodeType) -> str:
    return getattr(code, "co_qualname", code.co_name)
