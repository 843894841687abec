"""Signals as something that a task receives."""

from __future__ import annotations

import math
import signal
from typing import TYPE_CHECKING

from manyhands._tasks._memory import create_memory_object_stream
from manyhands._tasks._scope import current_loop

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from manyhands._signal_watch import SignalWatch

__all__ = ["SignalReceiver", "open_signal_receiver"]


class SignalReceiver:
    """Signals, to be iterated over. Made by `open_signal_receiver`."""

    def __init__(self, signals: tuple[int, ...]) -> None:
        self._signals = [signal.Signals(signum) for signum in signals]
        self._watches: list[SignalWatch] = []
        self._send, self._receive = create_memory_object_stream[signal.Signals](math.inf)

    def __enter__(self) -> Self:
        loop = current_loop()
        try:
            for signum in self._signals:
                self._watches.append(loop.on_signal(signum, self._came))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _came(self, signum: int) -> None:
        self._send.send_nowait(signal.Signals(signum))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._watches:
            self._watches.pop().remove()
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> signal.Signals:
        return await self._receive.receive()


def open_signal_receiver(*signals: int) -> SignalReceiver:
    """Receive signals as they come, in a task.

    ```python
    with manyhands.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        async for signum in signals:
            ...
    ```

    While the block runs the signals do nothing else; at its end the handlers of before are put back.

    Raises:
        ValueError: no such signal; at the beginning of the block: the task is not on the main thread, where Python
            handles signals. With `run(..., threads=1)` every task is.
    """
    return SignalReceiver(signals)
