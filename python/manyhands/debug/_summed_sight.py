"""SummedSight: several processes seen as one.

All of them are asked at once, and have `PATIENCE` together. Who has not answered by then is shown as such, and is not waited
for again until it has. A look is good for `FRESH` for everybody who asks.
"""

from __future__ import annotations

import itertools
import math
import platform
import selectors
import socket
import time
from collections.abc import Iterable
from typing import Any, Final

from manyhands import _core, _guards
from manyhands.debug._look import Looks
from manyhands.debug._rows import Row, text
from manyhands.debug._sums import Sum, check, merge_listed
from manyhands.debug._worker import Worker

__all__ = ["SummedSight", "WorkerSilent"]

FRESH: Final = 0.2
"""Seconds for which a look is good."""

PATIENCE: Final = 1.0
"""Seconds that the workers have for an answer, all together."""

AGAIN: Final = 5.0
"""Seconds after which one that has not answered is asked again; should an answer have been lost, it is heard of by this."""


class WorkerSilent(Exception):
    """A worker has not answered in time. The text is a sentence."""


class SummedSight(Looks):
    """Looks at the workers of a supervisor.

    Args:
        name: The program's.
        pid: The supervisor's.

    Threads: any.
    """

    def __init__(self, name: str, pid: int) -> None:
        super().__init__()
        self._name = name
        self._pid = pid
        self._workers: dict[int, Worker] = {}  # GUARDED BY: _lock, and so all of this
        self._gone = Sum()  # what those that have ended had done
        self._numbers = itertools.count(1)

    def hear(self, message: Row, sock: socket.socket | None) -> None:
        """Take in what the supervisor says of a worker: see `PageProcess`."""
        with self._lock:
            worker = self._workers.setdefault(message["worker"], Worker(message["worker"]))
            if sock is not None and (worker.pid != message["pid"] or not worker.connected):
                self._bury(worker)
                worker.begin(message["pid"], sock)
            elif sock is not None:
                sock.close()
            worker.state, worker.born, worker.restarts = message["state"], message["born"], message["restarts"]
            if worker.state in ("gone", "waiting"):
                self._bury(worker)
                if worker.state == "gone":
                    del self._workers[worker.number]
            self._good_until = -math.inf

    def _bury(self, worker: Worker) -> None:
        if worker.seen is not None:
            self._gone.keep(worker.seen)
        worker.end()

    def leave_out(self, *sources: object) -> None:
        """Nothing of this process is shown."""

    def trouble(self) -> str | None:
        """Say in a sentence why nobody can be served; None if somebody can."""
        workers = self.look()["workers"]
        if any(row["state"] == "serving" and row["answered"] for row in workers):
            return None
        return "No worker serves and answers."

    def stop(self, number: int, pid: int | None) -> bool | None:
        """Tell a job of the worker with this process id to stop.

        Returns:
            As `Job.stop`; None if there is no such worker, or no such job.

        Raises:
            WorkerSilent: it did not answer in time; it may yet do it.
        """
        with self._lock:
            worker = next((each for each in self._workers.values() if each.pid == pid and each.connected), None)
            if worker is None:
                return None
            question = next(self._numbers)
            if worker.ask(question, stop=number):
                self._wait([worker], question)
                self._good_until = -math.inf
            answer = worker.answer(question)
        if answer is None:
            raise WorkerSilent(f"Worker {worker.number} did not answer; if it goes on, it may yet stop job {number}.")
        return answer.get("stopped") if isinstance(answer.get("stopped"), bool) else None

    def _look(self) -> Row:
        """As `Sight`, and `workers`, a row for each of them."""
        self._ask_all()
        return self._sum()

    def _good_for(self, cost: float) -> float:  # noqa: ARG002 - most of it is the workers'
        return FRESH

    def _ask_all(self) -> None:
        question = next(self._numbers)
        workers = list(self._workers.values())
        asked = []
        for worker in workers:
            worker.hear()  # an answer that is late
            worker.answered = False
            if worker.state == "starting" or worker.last_asked < AGAIN:
                continue
            silent = worker.silent is not None
            if worker.ask(question) and not silent:
                asked.append(worker)
        self._wait(asked, question)
        beside = self._grown()
        for worker in asked:
            answer = worker.answer(question)
            if answer is None:
                continue
            try:
                worker.seen = check(answer["seen"], beside)
                beside.keep(worker.seen)
                worker.answered, worker.trouble = True, ""
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                worker.trouble = f"it said what makes no sense ({type(error).__name__})"

    def _wait(self, workers: Iterable[Worker], question: int) -> None:
        """Wait for their answers to a question, for `PATIENCE` at most."""
        deadline = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as selector:
            for worker in workers:
                if worker.connected:
                    selector.register(worker.fileno(), selectors.EVENT_READ, worker)
            while selector.get_map():
                left = deadline - time.monotonic()
                heard = selector.select(max(0.0, left))
                for key, _ in heard:
                    key.data.hear()
                    if not key.data.waits_for(question):
                        selector.unregister(key.fd)
                if left <= 0:
                    break

    def _grown(self) -> Sum:
        """Add up what all of them have ever done, as far as it was seen."""
        total = self._gone.copy_grown()
        for worker in self._workers.values():
            if worker.seen is not None:
                total.keep(worker.seen)
        return total

    def _sum(self) -> Row:
        total = self._grown()
        seen = []
        for worker in self._workers.values():
            if worker.seen is not None and worker.answered:
                total.add(worker.seen)
                seen.append((worker.number, worker.pid, worker.seen))
        now = time.monotonic()
        return {
            "process": {
                "name": text(self._name),
                "pid": self._pid,
                "python": platform.python_version(),
                "gil": any(said["process"]["gil"] for _, _, said in seen) if seen else _guards.gil_enabled(),
                "version": _core.__version__,
                "cpu_seconds": total.cpu_seconds,
                "resident_bytes": sum(int(said["process"]["resident_bytes"]) for _, _, said in seen),
                "time": now,
            },
            "workers": [_row(worker, now) for _, worker in sorted(self._workers.items())],
            **total.rows(),
            "threads": merge_listed(seen, "threads"),
            "jobs": merge_listed(seen, "jobs"),
        }


def _row(worker: Worker, now: float) -> dict[str, Any]:
    said = worker.seen if worker.answered else None
    return {
        "worker": worker.number,
        "pid": worker.pid,
        "state": worker.state,
        "answered": worker.answered,
        "silent": worker.silent,
        "trouble": worker.trouble or None,
        "age": max(0.0, now - worker.born),
        "restarts": worker.restarts,
        "cpu_seconds": float(worker.seen["process"]["cpu_seconds"]) if worker.seen else 0.0,
        "resident_bytes": int(said["process"]["resident_bytes"]) if said else None,
        "threads": int(said["threads"]["counted"]) if said else None,
        "connections": sum(sum(map(int, row["connections"].values())) for row in said["servers"]) if said else None,
        "busy": sum(int(row["busy"]) for row in said["pools"]) if said else None,
        "queued": sum(int(row["queued"]) for row in said["pools"]) if said else None,
    }
