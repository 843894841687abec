"""A handler that stays inside until the test lets it go."""

from __future__ import annotations

import threading
from typing import Self

from support import LONG


class Gate:
    """A callable to post, or to call in a handler: it says when it is entered and blocks until `open()`.

    A context manager, so that a test that fails does not leave a thread behind it: `with joined(loop), Gate() as gate:`
    (the gate last, as it must be opened before the threads are waited for).
    """

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.open()

    def __call__(self, *_args: object) -> None:
        self._entered.set()
        if not self._opened.wait(LONG):
            raise TimeoutError("nobody opened the gate")

    def open(self) -> None:
        self._opened.set()

    @property
    def entered(self) -> bool:
        """Whether somebody has come."""
        return self._entered.is_set()

    def wait_entered(self) -> None:
        if not self._entered.wait(LONG):
            raise TimeoutError("nobody came to the gate")
