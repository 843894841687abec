"""A program of tasks for a command: the first signal ends it in order, the second at once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

import manyhands as mh
from manyhands._guards import Ending


class _Program:
    """What a signal ends."""

    def __init__(self) -> None:
        self.scope = mh.CancelScope()

    def request_stop(self, *, drain: bool = False) -> None:
        """Cancel every task."""
        self.scope.cancel()


def run_until_signal(
    function: Callable[[], Coroutine[Any, Any, object]], *, threads: int, poller: str = "epoll"
) -> str:
    """Run `function()` until SIGINT or SIGTERM cancels it.

    Returns:
        The signal's name.
    """
    program = _Program()

    async def main() -> None:
        with program.scope:
            await function()

    with Ending(cast("Any", program)) as ending:
        mh.run(main, threads=threads, poller=poller)
    return ending.signal_name or "itself"
