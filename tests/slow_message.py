"""A message that stays inside until the test lets it go, and says when it has ended."""

from __future__ import annotations

import threading

from gate import Gate


class SlowMessage(Gate):
    """A gate that says as well when it was left."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()

    def __call__(self, *args: object) -> None:
        super().__call__(*args)
        self.ended.set()
