"""Blocking calls that a stop can end: for code below a job.

In a job that is told to stop, each of these raises `JobStopped`: those that wait for a descriptor at once, those that wait
for a queue, a lock or an event within `LOOK` seconds, `run` when its child has ended. What a call has taken it gives back
to its caller: a stop is looked for before an item, a lock, a connection or a byte is taken, never after.

Outside a job they block like the calls that they stand for; a Ctrl-C on the main thread interrupts them.

What these are not: a way to stop somebody else's call. That is `Job.on_stop` (close the socket, interrupt the query), or, for
a thread that is blocked in a plain `accept()`, `wake_accept`.
"""

from __future__ import annotations

from manyhands.blocking._patience import LOOK as LOOK
from manyhands.blocking._process import KILL_AFTER as KILL_AFTER
from manyhands.blocking._process import run as run
from manyhands.blocking._sockets import WAKE_TIMEOUT as WAKE_TIMEOUT
from manyhands.blocking._sockets import accept as accept
from manyhands.blocking._sockets import connect as connect
from manyhands.blocking._sockets import recv as recv
from manyhands.blocking._sockets import send as send
from manyhands.blocking._sockets import wait_readable as wait_readable
from manyhands.blocking._sockets import wake_accept as wake_accept
from manyhands.blocking._waiting import acquire as acquire
from manyhands.blocking._waiting import get as get
from manyhands.blocking._waiting import wait as wait

__all__ = [
    "accept",
    "acquire",
    "connect",
    "get",
    "recv",
    "run",
    "send",
    "wait",
    "wait_readable",
    "wake_accept",
]

# Tracebacks and reprs name what a user imports, not the file that it lives in.
for _name in __all__:
    globals()[_name].__module__ = "manyhands.blocking"
