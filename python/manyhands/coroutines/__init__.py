"""Pooled coroutines: functions that wait in the middle, for a time or for each other's events.

    CoroutinePool                    on an EventLoop's joined threads, or on any time service
    BasePool                         driven by hand, without a loop
    wait, wait_until                 what a coroutine awaits (`async def`) or yields (generator)
    notify, running, task_local      who runs, what is its own, and how it is resumed

Each coroutine runs on a strand: one thread at a time, in order. What the pool keeps and reuses are the strands.
"""

from manyhands.coroutines._base_pool import BasePool as BasePool
from manyhands.coroutines._coroutine_pool import CoroutinePool as CoroutinePool
from manyhands.coroutines._roster import CoroutineStats as CoroutineStats
from manyhands.coroutines._roster import notify as notify
from manyhands.coroutines._service import TimeService as TimeService
from manyhands.coroutines._task import TaskId as TaskId
from manyhands.coroutines._task import TaskLocal as TaskLocal
from manyhands.coroutines._task import running as running
from manyhands.coroutines._task import task_local as task_local
from manyhands.coroutines._wait import TIMEOUT as TIMEOUT
from manyhands.coroutines._wait import Timeout as Timeout
from manyhands.coroutines._wait import Wait as Wait
from manyhands.coroutines._wait import wait as wait
from manyhands.coroutines._wait import wait_until as wait_until

__all__ = [
    "TIMEOUT",
    "BasePool",
    "CoroutinePool",
    "CoroutineStats",
    "TaskId",
    "TaskLocal",
    "TimeService",
    "Timeout",
    "Wait",
    "notify",
    "running",
    "task_local",
    "wait",
    "wait_until",
]

# Tracebacks and reprs name what a user imports, not the file that it lives in.
for _name in __all__:
    _value = globals()[_name]
    if callable(_value) and getattr(_value, "__module__", "").startswith("manyhands."):
        _value.__module__ = "manyhands.coroutines"
