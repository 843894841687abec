"""Threads: what each is at, and where.

A thread that serves a loop has a seat there, which says since when it has been in a handler. A thread that runs a job is named
by the job. The others of the process are told as far as the interpreter knows them.

Stacks of running threads are read only if something has run for a while, and where there is no GIL only their last frame: a
thread that goes on meanwhile may take away the frames below it.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import threading
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Final

from manyhands import _guards
from manyhands._job import threads_by_ident
from manyhands._sight import called_by, task_in
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

DEEPEST: Final = 100
"""Frames that are looked through for one of the program's own."""

_OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB: Final = sysconfig.get_path("stdlib") + os.sep


class ThreadRows:
    """The process's threads at one moment.

    Attributes:
        names: Identity -> name.
    """

    def __init__(self) -> None:
        self.names = threads_by_ident()
        self._frames = sys._current_frames()
        del self._frames[threading.get_ident()]  # it would refer to itself
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
            frame = self._frames.get(seat.thread) if seat.running >= BRIEF else None
            row["what"] = _what(loop, seat, frame)
            row["at"] = _place(frame)

    def add_pool(self, key: str, pool: ThreadPool, views: Sequence[View]) -> None:
        """Add those that run a pool's jobs, and those of its own that wait for one."""
        for job, status, age in views:
            if (thread := job._thread) and status in AT_WORK:
                # One that runs it in place keeps its place among those of its loop.
                row = self._rows.get(thread) or self._row(thread, "pool", key)
                row |= {"busy": True, "what": f"job {text(job.name)}", "job": job.id, "since": age}
                row["at"] = _place(self._frames.get(thread)) if age >= BRIEF else None
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
            row["at"] = _place(self._frames.get(thread))
            listed.append(row)
        self._frames.clear()  # a frame that is over keeps what its function had
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


def _what(loop: EventLoop, seat: _core.Seat, frame: FrameType | None) -> str:
    """What a loop has called."""
    watch = loop._watch_by_token(seat.watch)
    if watch is not None:
        return f"handler of watch {text(watch.name)}"
    task = task_in(loop, seat)
    if task is not None:
        return f"task {text(task.name)}"
    if frame is None:
        return "callback"
    called = called_by(loop, frame) if _guards.gil_enabled() else frame
    return f"callback {text(_name((called or frame).f_code))}"


def _place(frame: FrameType | None) -> str | None:
    """Where a thread is: in the program's own code if it came from there, else where it stands."""
    if frame is None:
        return None
    found, inner = frame, frame.f_back if _guards.gil_enabled() else None
    if _foreign(frame):
        for _ in range(DEEPEST):
            if inner is None:
                break
            if not _foreign(inner):
                found = inner
                break
            inner = inner.f_back
    path = found.f_code.co_filename.split(os.sep)
    return f"{text(_name(found.f_code))} ({text(os.sep.join(path[-2:]))}:{found.f_lineno})"


def _foreign(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name.startswith((_OURS, "<frozen")):
        return True
    return name.startswith(_STDLIB) and "site-packages" not in name


def _name(code: CodeType) -> str:
    return getattr(code, "co_qualname", code.co_name)
