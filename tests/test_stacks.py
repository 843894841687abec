"""Stacks of threads that run: read by the monitor, by `dump()` and by the dashboard."""

from __future__ import annotations

import sys
import threading

import pytest

from manyhands import _core
from manyhands._stacks import stack_text, stacks_of
from support import LONG, wait_until


class Diving:
    """A thread that goes down and up again, without end."""

    def __init__(self) -> None:
        self.over = False
        self.dives = 0
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.over:
            self.dives += 1
            for depth in range(40):
                self.dive(depth)

    def dive(self, depth: int) -> int:
        return self.dive(depth - 1) + 1 if depth else 0


@pytest.mark.race
def test_the_stack_of_a_thread_that_runs_is_one_that_it_had():
    """Whenever it is read: dives upon dives, and below them what began them. Read while it runs, it is mixed up."""
    divers = [Diving() for _ in range(3)]
    for diver in divers:
        diver.thread.start()
    try:
        wait_until(lambda: all(diver.dives for diver in divers))
        for _ in range(300):
            found = stacks_of([diver.thread.ident for diver in divers])
            for diver in divers:
                names = [code.co_name for code, _ in found[diver.thread.ident]]
                dives = names.index("run") if "run" in names else names.index("dive") + names.count("dive")
                assert set(names[:dives]) <= {"dive"}
                assert names[dives:][-4:] == ["run", "run", "_bootstrap_inner", "_bootstrap"]
                assert all(line >= code.co_firstlineno for code, line in found[diver.thread.ident])
    finally:
        for diver in divers:
            diver.over = True
            diver.thread.join(LONG)


def test_a_stack_reads_as_in_a_traceback():
    """The outermost first, with the lines."""
    text = stack_text(threading.get_ident())
    assert text.index("test_a_stack_reads_as_in_a_traceback") < text.index("stacks_of")
    assert "text = stack_text(threading.get_ident())" in text


def test_a_thread_that_has_ended_has_no_stack():
    """It is said so, as is one that never was."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert stack_text(thread.ident) == stack_text(None) == "  (the thread has ended)\n"
    assert stacks_of([thread.ident or 0]) == {}


def test_so_many_frames_and_no_more_are_looked_at():
    """A stack may be deep."""
    frame = sys._getframe()
    assert [len(stack) for stack in _core.stacks([frame, frame], 2)] == [2, 2]
    assert _core.stacks([frame], 0) == [[]]
    assert _core.stacks([], 10) == []


def test_what_is_no_frame_is_refused():
    """Before anybody is stopped."""
    with pytest.raises(TypeError, match="frames"):
        _core.stacks([1], 10)
