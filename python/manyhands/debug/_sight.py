"""Sight: what loops, pools and servers are at, as plain values that become JSON, metrics or a table.

Whoever looks must not weigh on who works. So the counts are those that the core keeps anyway; nothing is installed into a
loop or a pool; one look is taken at a time, and it is good for a while for everybody who asks: for `FRESH` at least, and
so long that looking takes a tenth of one thread at most, however much there is to see. What is listed is bounded;
what is counted is not.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import os
from collections.abc import Iterator, Sequence
from typing import Final

from manyhands import _guards
from manyhands._loop import EventLoop
from manyhands._pool import ThreadPool
from manyhands.debug._look import Looks
from manyhands.debug._rows import Row, View, interest, job_row, keyed, loop_row, pool_row, process_row, server_row
from manyhands.debug._thread_rows import ThreadRows
from manyhands.errors import ManyhandsError
from manyhands.server import Server

__all__ = ["Sight", "Source"]

Source = EventLoop | ThreadPool | Server

FRESH: Final = 0.2
"""Seconds for which a look is good, at least."""

SHARE: Final = 10
"""It is good for so many times the processor's time that it took."""

MOST_JOBS: Final = 200
"""How many are listed."""


class Sight(Looks):
    """Looks at loops, pools and servers.

    Args:
        sources: What is looked at; none for every loop and every pool of the process.

    Threads: any.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        super().__init__()
        self._sources = sources
        self._left_out: tuple[Source, ...] = ()

    def leave_out(self, *sources: Source) -> None:
        """Do not show these: the dashboard's own."""
        self._left_out = sources

    def _good_for(self, cost: float) -> float:
        return max(FRESH, SHARE * cost)

    def trouble(self) -> str | None:
        """Say why nobody can be served; whoever answers this can."""
        return None

    def stop(self, number: int, pid: int | None = None) -> bool | None:
        """Tell a job to stop.

        Args:
            number: The job's.
            pid: Of the process that is meant, if one is: this one, or it has no such job.

        Returns:
            As `Job.stop`; None if no pool that is shown has such a job.
        """
        if pid is not None and pid != os.getpid():
            return None
        for pool in self._find()[1]:
            for job, _, _ in pool._views():
                if job.id == number:
                    stopped = job.stop()
                    with self._lock:
                        self._good_until = -math.inf
                    return stopped
        return None

    def _find(self) -> tuple[list[EventLoop], list[ThreadPool], list[Server]]:
        """Find the loops, pools and servers, each once."""
        loops: dict[int, EventLoop] = {}
        pools: dict[int, ThreadPool] = {}
        servers: dict[int, Server] = {}
        for source in self._sources or _everything():
            if isinstance(source, Server):
                servers[id(source)] = source
                loops[id(source.loop)] = source.loop
                pools[id(source.pool)] = source.pool
            elif isinstance(source, EventLoop):
                loops[id(source)] = source
                if source.pool is not None:
                    pools[id(source.pool)] = source.pool
            else:
                pools[id(source)] = source
        for source in self._left_out:
            loops.pop(id(source), None)
            pools.pop(id(source), None)
        return list(loops.values()), list(pools.values()), list(servers.values())

    def _look(self) -> Row:
        loops, pools, servers = self._find()
        threads = ThreadRows()
        loop_rows, pool_rows = [], []
        jobs: list[tuple[View, str]] = []
        counted = 0
        for key, loop in keyed(loops):
            with contextlib.suppress(ManyhandsError):  # it was closed: there is nothing to see any more
                loop_rows.append(loop_row(key, loop))
                threads.add_loop(key, loop)
        for key, pool in keyed(pools):
            views = pool._views()
            counted += len(views)
            pool_rows.append(pool_row(key, pool))
            threads.add_pool(key, pool, views)
            jobs += [(view, key) for view in heapq.nsmallest(MOST_JOBS, views, key=interest)]
        return {
            "process": process_row(),
            "loops": loop_rows,
            "pools": pool_rows,
            "servers": [server_row(key, server) for key, server in keyed(servers)],
            "threads": threads.rows(),
            "jobs": {
                "counted": counted,
                "listed": [
                    job_row(view, key, threads.names)
                    for view, key in heapq.nsmallest(MOST_JOBS, jobs, key=lambda job: interest(job[0]))
                ],
            },
        }


def _everything() -> Iterator[Source]:
    loops = [reference() for reference in list(_guards._loops.values())]
    pools = [reference() for reference in list(_guards._pools.values())]
    yield from (loop for loop in loops if isinstance(loop, EventLoop))
    yield from (pool for pool in pools if isinstance(pool, ThreadPool))
