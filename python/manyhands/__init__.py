"""An event loop that any number of threads may turn together, and blocking work that stays under control.

The layers, an arrow only ever points down:

    manyhands.cli, manyhands.testing     the command line; tools for tests
    ThreadedEventLoop                    a loop that owns its threads
    EventLoop, Watch, Timer, Strand      a loop that threads join
    manyhands._core                      the compiled part: poller, strands, run queue, timers, parking

Everything that runs, runs on a strand: one thread inside at a time, in order. Strands are served by whichever thread has
joined the loop: in parallel on free-threaded Python, correctly on any other.
"""

import sys as _sys

if not _sys.platform.startswith("linux"):
    raise ImportError(f"manyhands needs Linux (it waits by epoll), and this is {_sys.platform}")

from manyhands import errors as errors
from manyhands._core import Strand as Strand
from manyhands._core import Timer as Timer
from manyhands._core import Watch as Watch
from manyhands._core import __version__ as __version__
from manyhands._events import KEEP as KEEP
from manyhands._events import STOP as STOP
from manyhands._events import Delay as Delay
from manyhands._events import ErrorReport as ErrorReport
from manyhands._events import Events as Events
from manyhands._events import Message as Message
from manyhands._events import RemovalReason as RemovalReason
from manyhands._events import StrandState as StrandState
from manyhands._loop import EventLoop as EventLoop
from manyhands._loop import SignalWatch as SignalWatch
from manyhands._stats import LoopStats as LoopStats
from manyhands._threads import ThreadedEventLoop as ThreadedEventLoop
from manyhands.errors import BadDescriptor as BadDescriptor
from manyhands.errors import ForkedError as ForkedError
from manyhands.errors import LoopClosed as LoopClosed
from manyhands.errors import LoopStopped as LoopStopped
from manyhands.errors import ManyhandsError as ManyhandsError
from manyhands.errors import NotPollable as NotPollable
from manyhands.errors import QueueFull as QueueFull
from manyhands.errors import StrandClosed as StrandClosed
from manyhands.errors import WatchExists as WatchExists
from manyhands.errors import WatchRemoved as WatchRemoved
from manyhands.errors import WouldDeadlock as WouldDeadlock

__all__ = [
    "KEEP",
    "STOP",
    "BadDescriptor",
    "Delay",
    "ErrorReport",
    "EventLoop",
    "Events",
    "ForkedError",
    "LoopClosed",
    "LoopStats",
    "LoopStopped",
    "ManyhandsError",
    "Message",
    "NotPollable",
    "QueueFull",
    "RemovalReason",
    "SignalWatch",
    "Strand",
    "StrandClosed",
    "StrandState",
    "ThreadedEventLoop",
    "Timer",
    "Watch",
    "WatchExists",
    "WatchRemoved",
    "WouldDeadlock",
    "errors",
]

# Tracebacks and reprs name what a user imports, not the file that it lives in.
for _name in __all__:
    _value = globals()[_name]
    if getattr(_value, "__module__", "").startswith("manyhands.") and not _name.islower():
        _value.__module__ = "manyhands"
