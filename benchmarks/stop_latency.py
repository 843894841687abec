"""How long does a job go on after its client has hung up?

A hundred connections on a loop, and a job for each, all of them running. Then every client closes its socket. The
watch's handler reads the end of the stream and removes the watch; the pool asks the watch's job to stop; the job
notices at its next check-in. Each job's time is from the close of its socket to the first line of its `except`.

* `busy`: the job works 10 ms at a time (it blocks where nothing can wake it: `time.sleep`) and checks in between. It
  cannot notice earlier than at its next check-in, so 10 ms are its own.
* `sleeping`: the job is in `mh.sleep_blocking(30)`, which a stop ends at once.
* `receiving`: the job is in `manyhands.blocking.recv` of a socket on which nothing comes.

`free ms` is when the last thread of the pool was free again, counted from the first close.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from benchmarks._process import ALL_CORES, has_module, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate

QUESTION = "from a client's hang-up to the stop of its job, for 100 jobs at once"

JOBS = 100
KINDS = ("busy", "sleeping", "receiving")
CHECK_IN_MS = 10.0
"""Between two check-ins of a busy job, in milliseconds."""
MARGIN_MS = 5.0
LOOP_THREADS = 2


def measure(plan: Plan) -> Report:
    """Measure each kind of job in a child of its own."""
    if not has_module("manyhands", plan.python):
        return Report([], [], notes=["skipped: no manyhands"])
    rows = {kind: Row({"job": kind, "jobs": JOBS}) for kind in KINDS}
    for kind in alternate(list(rows), plan.rounds):
        rows[kind].add(**in_child(run, python=plan.python, cores=ALL_CORES, kind=kind))
    columns = [Column("p50 ms", "p50_ms"), Column("worst ms min", "worst_ms", "minimum"), Column("median", "worst_ms")]
    columns += [Column("spread", "worst_ms", "spread"), Column("free ms", "free_ms")]
    busy = rows["busy"]
    targets = [
        Target(f"busy: ms to the last stop, {name}", value, CHECK_IN_MS + MARGIN_MS)
        for name, value in (("min", busy.minimum("worst_ms")), ("median", busy.median("worst_ms")))
    ]
    return Report(list(rows.values()), columns, targets)


# ---- in the child ----


def run(kind: str) -> dict[str, float]:
    """Run the jobs, hang up, and wait until all have stopped."""
    import manyhands as mh
    from manyhands import blocking

    silent, _other_end = socket.socketpair()
    started = threading.Barrier(JOBS + 1)
    stopped = [0.0] * JOBS

    def work_busily() -> None:
        while True:
            time.sleep(CHECK_IN_MS / 1000)
            mh.check_in()

    works: dict[str, Callable[[], object]] = {
        "busy": work_busily,
        "sleeping": lambda: mh.sleep_blocking(30),
        "receiving": lambda: blocking.recv(silent, 1),
    }

    def job(number: int) -> None:
        started.wait()
        try:
            works[kind]()
        except mh.JobStopped:
            stopped[number] = time.perf_counter()
            raise

    def on_ready(watch: mh.Watch, events: mh.Events) -> None:
        if not watch.source.recv(1):
            watch.remove()

    loop = mh.EventLoop()
    pool = mh.ThreadPool(JOBS, name="stop")
    clients = []
    for number in range(JOBS):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        watch = loop.add(ours, mh.Events.READ, on_ready, close=True)
        pool.enqueue(job, number, owner=watch, keep=False)
        clients.append(theirs)
    threads = [threading.Thread(target=loop.join) for _ in range(LOOP_THREADS)]
    for thread in threads:
        thread.start()
    started.wait()
    time.sleep(0.1)  # all of them are at work
    closed = []
    for client in clients:
        closed.append(time.perf_counter())
        client.close()
    while pool.stats().busy:
        time.sleep(0.0005)
    free = time.perf_counter()
    loop.request_stop()
    for thread in threads:
        thread.join()
    loop.close()
    pool.destroy()
    latencies = sorted((end - begin) * 1000 for begin, end in zip(closed, stopped, strict=True))
    assert latencies[0] > 0, "a job ended that nobody had asked to"
    return {"p50_ms": latencies[JOBS // 2], "worst_ms": latencies[-1], "free_ms": (free - closed[0]) * 1000}
