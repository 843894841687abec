"""An event loop that any number of threads may turn together, and blocking work that stays under control.

The layers, an arrow only ever points down:

    manyhands.cli, manyhands.testing     the command line; tools for tests
    manyhands.debug                      a page that shows what every thread is doing
    Actor                                a strand with a mailbox: one message at a time
    manyhands.server                     blocking web applications: connections on the loop, requests as jobs
    Proactor, Operation                  operations that complete: read, write and sync files
    ThreadPool, Job, manyhands.blocking  blocking calls under control: state, bound, stop
    run, task groups, locks, run_job     coroutines that the loop runs, and what stands between them
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
from manyhands import coroutines as coroutines
from manyhands import debug as debug
from manyhands import errors as errors
from manyhands import from_thread as from_thread
from manyhands._actor import Actor as Actor
from manyhands._core import Strand as Strand
from manyhands._core import Task as Task
from manyhands._core import Timer as Timer
from manyhands._core import Watch as Watch
from manyhands._core import __version__ as __version__
from manyhands._core import check_in as check_in
from manyhands._core import current_job as current_job
from manyhands._core import now as now
from manyhands._core import sleep_blocking as sleep_blocking
from manyhands._default_pool import default_pool as default_pool
from manyhands._default_pool import set_default_pool as set_default_pool
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
from manyhands._operation import Operation as Operation
from manyhands._pool import ThreadPool as ThreadPool
from manyhands._proactor import Proactor as Proactor
from manyhands._reply import Reply as Reply
from manyhands._signal_watch import SignalWatch as SignalWatch
from manyhands._stats import LoopStats as LoopStats
from manyhands._stats import PoolStats as PoolStats
from manyhands._streams._connect import connect_tcp as connect_tcp
from manyhands._streams._connect import connect_unix as connect_unix
from manyhands._streams._listener import Listener as Listener
from manyhands._streams._listener import create_tcp_listener as create_tcp_listener
from manyhands._streams._listener import create_unix_listener as create_unix_listener
from manyhands._streams._ready import notify_closing as notify_closing
from manyhands._streams._ready import wait_readable as wait_readable
from manyhands._streams._ready import wait_writable as wait_writable
from manyhands._streams._stream import SocketStream as SocketStream
from manyhands._streams._tls import TLSStream as TLSStream
from manyhands._streams._tls_listener import TLSListener as TLSListener
from manyhands._tasks._condition import Condition as Condition
from manyhands._tasks._condition import ConditionStatistics as ConditionStatistics
from manyhands._tasks._event import Event as Event
from manyhands._tasks._group import TaskGroup as TaskGroup
from manyhands._tasks._group import TaskHandle as TaskHandle
from manyhands._tasks._group import TaskStatus as TaskStatus
from manyhands._tasks._group import create_task_group as create_task_group
from manyhands._tasks._job import run_job as run_job
from manyhands._tasks._limiter import CapacityLimiter as CapacityLimiter
from manyhands._tasks._limiter import CapacityLimiterStatistics as CapacityLimiterStatistics
from manyhands._tasks._lock import Lock as Lock
from manyhands._tasks._lock import LockStatistics as LockStatistics
from manyhands._tasks._memory import MemoryObjectReceiveStream as MemoryObjectReceiveStream
from manyhands._tasks._memory import MemoryObjectSendStream as MemoryObjectSendStream
from manyhands._tasks._memory import MemoryObjectStreamStatistics as MemoryObjectStreamStatistics
from manyhands._tasks._memory import create_memory_object_stream as create_memory_object_stream
from manyhands._tasks._run import current_task as current_task
from manyhands._tasks._run import get_running_tasks as get_running_tasks
from manyhands._tasks._run import run as run
from manyhands._tasks._scope import CancelScope as CancelScope
from manyhands._tasks._scope import fail_after as fail_after
from manyhands._tasks._scope import fail_at as fail_at
from manyhands._tasks._scope import move_on_after as move_on_after
from manyhands._tasks._scope import move_on_at as move_on_at
from manyhands._tasks._semaphore import Semaphore as Semaphore
from manyhands._tasks._semaphore import SemaphoreStatistics as SemaphoreStatistics
from manyhands._tasks._signal import SignalReceiver as SignalReceiver
from manyhands._tasks._signal import open_signal_receiver as open_signal_receiver
from manyhands._tasks._sleep import cancel_shielded_checkpoint as cancel_shielded_checkpoint
from manyhands._tasks._sleep import checkpoint as checkpoint
from manyhands._tasks._sleep import checkpoint_if_cancelled as checkpoint_if_cancelled
from manyhands._tasks._sleep import current_effective_deadline as current_effective_deadline
from manyhands._tasks._sleep import current_time as current_time
from manyhands._tasks._sleep import sleep as sleep
from manyhands._tasks._sleep import sleep_forever as sleep_forever
from manyhands._tasks._sleep import sleep_until as sleep_until
from manyhands._threads import ThreadedEventLoop as ThreadedEventLoop
from manyhands.blocking import wake_accept as wake_accept
from manyhands.errors import ActorStopped as ActorStopped
from manyhands.errors import BadDescriptor as BadDescriptor
from manyhands.errors import BrokenResourceError as BrokenResourceError
from manyhands.errors import BusyResourceError as BusyResourceError
from manyhands.errors import Cancelled as Cancelled
from manyhands.errors import ClosedResourceError as ClosedResourceError
from manyhands.errors import DelimiterNotFound as DelimiterNotFound
from manyhands.errors import EndOfStream as EndOfStream
from manyhands.errors import ForkedError as ForkedError
from manyhands.errors import IncompleteRead as IncompleteRead
from manyhands.errors import JobAborted as JobAborted
from manyhands.errors import JobCancelled as JobCancelled
from manyhands.errors import JobStopped as JobStopped
from manyhands.errors import LoopClosed as LoopClosed
from manyhands.errors import LoopStopped as LoopStopped
from manyhands.errors import ManyhandsError as ManyhandsError
from manyhands.errors import NotPollable as NotPollable
from manyhands.errors import OperationCancelled as OperationCancelled
from manyhands.errors import OperationPending as OperationPending
from manyhands.errors import PoolFinished as PoolFinished
from manyhands.errors import QueueFull as QueueFull
from manyhands.errors import StrandClosed as StrandClosed
from manyhands.errors import TaskCancelled as TaskCancelled
from manyhands.errors import WatchExists as WatchExists
from manyhands.errors import WatchRemoved as WatchRemoved
from manyhands.errors import WouldBlock as WouldBlock
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
    "Actor",
    "ActorStopped",
    "BadDescriptor",
    "BrokenResourceError",
    "BusyResourceError",
    "CancelScope",
    "Cancelled",
    "CapacityLimiter",
    "CapacityLimiterStatistics",
    "ClosedResourceError",
    "Condition",
    "ConditionStatistics",
    "Delay",
    "DelimiterNotFound",
    "EndOfStream",
    "ErrorReport",
    "Event",
    "EventLoop",
    "Events",
    "ForkedError",
    "IncompleteRead",
    "Job",
    "JobAborted",
    "JobCancelled",
    "JobGroup",
    "JobSnapshot",
    "JobStatus",
    "JobStopped",
    "Listener",
    "Lock",
    "LockStatistics",
    "LoopClosed",
    "LoopStats",
    "LoopStopped",
    "ManyhandsError",
    "MemoryObjectReceiveStream",
    "MemoryObjectSendStream",
    "MemoryObjectStreamStatistics",
    "Message",
    "NotPollable",
    "Operation",
    "OperationCancelled",
    "OperationPending",
    "PoolFinished",
    "PoolStats",
    "Proactor",
    "QueueFull",
    "RemovalReason",
    "Reply",
    "Semaphore",
    "SemaphoreStatistics",
    "SignalReceiver",
    "SignalWatch",
    "SocketStream",
    "StopReason",
    "Strand",
    "StrandClosed",
    "StrandState",
    "TLSListener",
    "TLSStream",
    "Task",
    "TaskCancelled",
    "TaskGroup",
    "TaskHandle",
    "TaskStatus",
    "ThreadPool",
    "ThreadedEventLoop",
    "Timer",
    "Watch",
    "WatchExists",
    "WatchRemoved",
    "WouldBlock",
    "WouldDeadlock",
    "blocking",
    "cancel_shielded_checkpoint",
    "check_in",
    "checkpoint",
    "checkpoint_if_cancelled",
    "connect_tcp",
    "connect_unix",
    "coroutines",
    "create_memory_object_stream",
    "create_task_group",
    "create_tcp_listener",
    "create_unix_listener",
    "current_effective_deadline",
    "current_job",
    "current_task",
    "current_time",
    "debug",
    "default_pool",
    "errors",
    "fail_after",
    "fail_at",
    "from_thread",
    "get_running_tasks",
    "move_on_after",
    "move_on_at",
    "notify_closing",
    "now",
    "open_signal_receiver",
    "run",
    "run_job",
    "set_default_pool",
    "sleep",
    "sleep_blocking",
    "sleep_forever",
    "sleep_until",
    "wait_readable",
    "wait_writable",
    "wake_accept",
]

# Tracebacks and reprs name what a user imports, not the file that it lives in.
for _name in __all__:
    _value = globals()[_name]
    if callable(_value) and getattr(_value, "__module__", "").startswith("manyhands."):
        _value.__module__ = "manyhands"
