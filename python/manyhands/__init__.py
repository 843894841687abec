"""An event loop that any number of threads may turn together, and blocking work that stays under control.

The layers, an arrow only ever points down:

    manyhands.cli, manyhands.testing     the command line; tools for tests
    manyhands.server                     blocking web applications: connections on the loop, requests as jobs
    ThreadPool, Job, manyhands.blocking  blocking calls under control: state, bound, stop
    ThreadedEventLoop                    a loop that owns its threads
    EventLoop, Watch, Timer, Strand      a loop that threads join
    manyhands._core                      the compiled part: poller, strands, run queue, timers, parking

Everything that runs, runs on a strand: one thread inside at a time, in order. Strands are served by whichever thread has
joined the loop: in parallel on free-threaded Python, correctly on any other.
"""

import sys as _sys

if not _sys.platform.startswith("linux"):
    raise ImportError(f"manyhands needs Linux (it waits by epoll), and this is {_sys.platform}")

from manyhands import blocking as blocking
from manyhands import errors as errors
from manyhands._core import Strand as Strand
from manyhands._core import Timer as Timer
from manyhands._core import Watch as Watch
from manyhands._core import __version__ as __version__
from manyhands._core import check_in as check_in
from manyhands._core import current_job as current_job
from manyhands._core import now as now
from manyhands._core import sleep_blocking as sleep_blocking
from manyhands._events import KEEP as KEEP
from manyhands._events import STOP as STOP
from manyhands._events import Delay as Delay
from manyhands._events import ErrorReport as ErrorReport
from manyhands._events import Events as Events
from manyhands._events import Message as Message
from manyhands._events import RemovalReason as RemovalReason
from manyhands._events import StrandState as StrandState
from manyhands._job import CHECKING_IN as CHECKING_IN
from manyhands._job import FINISHED as FINISHED
from manyhands._job import RUNNING as RUNNING
from manyhands._job import STOPPED as STOPPED
from manyhands._job import STOPPING as STOPPING
from manyhands._job import SYNC as SYNC
from manyhands._job import Job as Job
from manyhands._job import JobSnapshot as JobSnapshot
from manyhands._job import JobStatus as JobStatus
from manyhands._job import StopReason as StopReason
from manyhands._job_group import JobGroup as JobGroup
from manyhands._loop import EventLoop as EventLoop
from manyhands._loop import SignalWatch as SignalWatch
from manyhands._pool import ThreadPool as ThreadPool
from manyhands._pool import default_pool as default_pool
from manyhands._pool import set_default_pool as set_default_pool
from manyhands._stats import LoopStats as LoopStats
from manyhands._stats import PoolStats as PoolStats
from manyhands._threads import ThreadedEventLoop as ThreadedEventLoop
from manyhands.blocking import wake_accept as wake_accept
from manyhands.errors import BadDescriptor as BadDescriptor
from manyhands.errors import ForkedError as ForkedError
from manyhands.errors import JobAborted as JobAborted
from manyhands.errors import JobCancelled as JobCancelled
from manyhands.errors import JobStopped as JobStopped
from manyhands.errors import LoopClosed as LoopClosed
from manyhands.errors import LoopStopped as LoopStopped
from manyhands.errors import ManyhandsError as ManyhandsError
from manyhands.errors import NotPollable as NotPollable
from manyhands.errors import PoolFinished as PoolFinished
from manyhands.errors import QueueFull as QueueFull
from manyhands.errors import StrandClosed as StrandClosed
from manyhands.errors import WatchExists as WatchExists
from manyhands.errors import WatchRemoved as WatchRemoved
from manyhands.errors import WouldDeadlock as WouldDeadlock

__all__ = [
    "CHECKING_IN",
    "FINISHED",
    "KEEP",
    "RUNNING",
    "STOP",
    "STOPPED",
    "STOPPING",
    "SYNC",
    "BadDescriptor",
    "Delay",
    "ErrorReport",
    "EventLoop",
    "Events",
    "ForkedError",
    "Job",
    "JobAborted",
    "JobCancelled",
    "JobGroup",
    "JobSnapshot",
    "JobStatus",
    "JobStopped",
    "LoopClosed",
    "LoopStats",
    "LoopStopped",
    "ManyhandsError",
    "Message",
    "NotPollable",
    "PoolFinished",
    "PoolStats",
    "QueueFull",
    "RemovalReason",
    "SignalWatch",
    "StopReason",
    "Strand",
    "StrandClosed",
    "StrandState",
    "ThreadPool",
    "ThreadedEventLoop",
    "Timer",
    "Watch",
    "WatchExists",
    "WatchRemoved",
    "WouldDeadlock",
    "blocking",
    "check_in",
    "current_job",
    "default_pool",
    "errors",
    "now",
    "set_default_pool",
    "sleep_blocking",
    "wake_accept",
]

# Tracebacks and reprs name what a user imports, not the file that it lives in.
for _name in __all__:
    _value = globals()[_name]
    if callable(_value) and getattr(_value, "__module__", "").startswith("manyhands."):
        _value.__module__ = "manyhands"
