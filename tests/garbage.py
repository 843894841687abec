"""What the collector finds, and what notices that it was collected."""

from __future__ import annotations

import gc
from collections.abc import Callable


class Payload:
    """Something of the user's with a weak reference, callable as a handler, a message, a timer or a final callback."""

    def __init__(self, *held: object) -> None:
        self.held = list(held)
        self.itself = self

    def __call__(self, *_: object) -> None:
        assert self.itself is self, "cleared by the collector while it was still in use"


class Fragile(Payload):
    """A message that notes its number, or that the collector has cleared it or an argument."""

    def __init__(self, ran: list[int], cleared: list[BaseException], number: int) -> None:
        super().__init__()
        self.ran = ran
        self.cleared = cleared
        self.number = number

    def __call__(self, *args: object) -> None:
        cleared = self.cleared
        try:
            super().__call__()
            for arg in args:
                assert arg.itself is arg
            self.ran.append(self.number)
        except BaseException as error:
            cleared.append(error)


class Garbage:
    """A cycle that calls something when it is collected. (3.13t never frees a class: a local one would keep its loop.)"""

    def __init__(self, call: Callable[..., object], *args: object) -> None:
        self.cycle: object = self
        self.call = call
        self.args = args

    def __del__(self) -> None:
        self.call(*self.args)

    def __call__(self, *_: object) -> None: ...


def collect() -> None:
    """Twice: finalizers of the first pass may free what only the second can find."""
    gc.collect()
    gc.collect()
