"""A loop on a clock that the test moves."""

from __future__ import annotations

import manyhands as mh
from manyhands.testing import MockClock, wait_all_idle


class Served:
    """A loop on a MockClock with one thread in it, and what ran when."""

    def __init__(self, loop: mh.EventLoop, clock: MockClock) -> None:
        self.loop = loop
        self.clock = clock
        self.ran: list = []

    def advance(self, seconds: float) -> list:
        """What runs because the clock moves on by so much."""
        before = len(self.ran)
        self.clock.advance(seconds)
        wait_all_idle(self.loop)
        return self.ran[before:]

    def note(self, *args: object) -> None:
        self.ran.append((self.clock.now(), *args))
