"""The threads that a loop owns, seen from outside."""

from __future__ import annotations

import threading

import manyhands as mh
from support import wait_until


def thread_names(prefix: str) -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(prefix))


def started(loop: mh.ThreadedEventLoop, count: int) -> None:
    loop.start()
    wait_until(lambda: loop.joined == count)
