"""The stacks of threads, also of those that run meanwhile: see crates/py/src/frames.rs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Collection
from types import CodeType
from typing import Final

from manyhands import _core

__all__ = ["Place", "stack_text", "stacks_of"]

Place = tuple[CodeType, int]
"""A frame's code, and the line that it is at."""

DEEPEST: Final = 100
"""Frames of a stack that are looked at."""


def stacks_of(threads: Collection[int] | None = None) -> dict[int, list[Place]]:
    """The stacks of these threads, or of all: identity -> places, the innermost first. A thread that has ended is not there."""
    frames = sys._current_frames()  # noqa: SLF001 - the documented way to other threads
    wanted = [ident for ident in frames if threads is None or ident in threads]
    last = [frames[ident] for ident in wanted]
    frames.clear()
    found = _core.stacks(last, DEEPEST)
    last.clear()  # a frame that is over keeps what its function had
    return dict(zip(wanted, found, strict=True))


def stack_text(thread: int | None) -> str:
    """The stack of a thread as a traceback has it."""
    places = stacks_of([thread]).get(thread) if thread is not None else None
    if not places:
        return "  (the thread has ended)\n"
    summary = traceback.StackSummary.from_list(
        [traceback.FrameSummary(code.co_filename, line, code.co_name) for code, line in reversed(places)]
    )
    return "".join(summary.format())
