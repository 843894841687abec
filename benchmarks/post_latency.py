"""How long from `post()` to the callback's first line, with joined threads that wait?

Beside it the least that waking a thread can cost from Python: a thread that blocks in `eventfd_read`, and one that
blocks in `epoll.poll()` and reads its eventfd then. In all three the poster sleeps between two posts, so that the
threads are waiting again, and the callback or the thread notes the clock as the first thing it does.

`apart`: the poster has one core, the joined threads the other, which was asleep. `together`: all on one core, where
no core has to be woken.

And the other way round: 1,000 posts in a row must not wake anybody a thousand times (`stats().wakes`).
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks._process import ALL_CORES, LOAD_CORES, SERVER_CORES, has_module, in_child
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, find, ratio_targets

QUESTION = "latency from post() to the callback with idle joined threads, beside a bare eventfd; wakes per 1,000 posts"

LIMIT = 2.0
WAKES_LIMIT = 20
BURST = 1000
PAUSE = 300e-6
"""Seconds between two posts: all threads wait again by then."""
BARE = ("eventfd", "eventfd and epoll")


@dataclass(frozen=True)
class Case:
    """Who is woken, and where."""

    what: str
    threads: int
    place: str


def measure(plan: Plan) -> Report:
    """Measure each case in a child of its own."""
    whats = [(what, 1) for what in BARE]
    if has_module("manyhands", plan.python):
        whats += [("post", threads) for threads in (1, 2, 4)]
    cases = [Case(what, threads, place) for place in ("apart", "together") for what, threads in whats]
    rows = {case: Row(vars(case)) for case in cases}
    for case in alternate(cases, plan.rounds):
        function = latency_of_post if case.what == "post" else latency_of_eventfd
        seen = in_child(function, python=plan.python, cores=ALL_CORES, posts=200 if plan.quick else 1500, **vars(case))
        rows[case].add(**seen)
    bursts = [Row({"what": f"burst of {BURST} posts", "threads": threads}) for threads in (1, 2, 4)]
    if len(whats) == len(BARE):
        bursts = []
    for row in alternate(bursts, plan.rounds) if bursts else ():
        threads = int(row.labels["threads"])
        row.add(**in_child(burst, python=plan.python, cores=ALL_CORES, threads=threads, bursts=20))
    columns = [
        Column("p50 us min", "p50_us", "minimum"),
        Column("median", "p50_us"),
        Column("spread", "p50_us", "spread"),
    ]
    columns += [Column("p10 us", "p10_us"), Column("p99 us", "p99_us"), Column("wakes", "wakes", digits=1)]
    columns += [Column("most wakes", "most_wakes", "maximum", 0), Column("us per post", "post_us")]
    return Report([*rows.values(), *bursts], columns, _targets(list(rows.values()), bursts))


def _targets(rows: list[Row], bursts: list[Row]) -> list[Target]:
    targets: list[Target] = []
    for place in ("apart", "together"):
        post, bare = (find(rows, what=what, place=place, threads=1) for what in ("post", BARE[0]))
        if post and bare:
            targets += ratio_targets(f"post / bare eventfd, {place}", post, bare, "p50_us", LIMIT)
    for row in bursts:
        name = f"wakes per {BURST} posts, {row.labels['threads']} joined, median"
        targets.append(Target(name, row.median("wakes"), WAKES_LIMIT))
    return targets


# ---- in the child ----


def latency_of_post(what: str, threads: int, place: str, posts: int) -> dict[str, float]:
    """Post to a loop that `threads` threads have joined."""
    import manyhands as mh

    loop = mh.EventLoop()
    stamps: list[int] = []

    def note() -> None:
        stamps.append(time.perf_counter_ns())

    with _waiting([loop.join] * threads, place):
        seen = _poke(lambda: loop.post(note), stamps, posts)
        loop.request_stop()
    return seen


def latency_of_eventfd(what: str, threads: int, place: str, posts: int) -> dict[str, float]:
    """Write to an eventfd that a thread waits for."""
    fd = os.eventfd(0)
    stamps: list[int] = []
    ended = threading.Event()
    poller = select.epoll()
    poller.register(fd, select.EPOLLIN)

    def wait() -> None:
        os.eventfd_read(fd)
        stamps.append(time.perf_counter_ns())

    def wait_in_epoll() -> None:
        poller.poll()
        stamps.append(time.perf_counter_ns())
        os.eventfd_read(fd)

    def run() -> None:
        once = wait if what == BARE[0] else wait_in_epoll
        while not ended.is_set():
            once()

    with _waiting([run], place):
        seen = _poke(lambda: os.eventfd_write(fd, 1), stamps, posts)
        ended.set()
        os.eventfd_write(fd, 1)
    return seen


def burst(threads: int, bursts: int) -> dict[str, float]:
    """Post BURST callbacks in a row, several times. Returns wakes per burst and microseconds per post."""
    import manyhands as mh

    loop = mh.EventLoop()
    last = threading.Event()
    wakes, seconds = [], []
    with _waiting([loop.join] * threads, "apart"):
        for _ in range(bursts):
            time.sleep(0.005)
            before, started = loop.stats().wakes, time.perf_counter()
            for _ in range(BURST - 1):
                loop.post(int)
            loop.post(last.set)
            seconds.append(time.perf_counter() - started)
            last.wait()
            last.clear()
            wakes.append(loop.stats().wakes - before)
        loop.request_stop()
    return {
        "wakes": sum(wakes) / bursts,
        "most_wakes": max(wakes),
        "post_us": sorted(seconds)[bursts // 2] / BURST * 1e6,
    }


@contextmanager
def _waiting(targets: list[Callable[[], object]], place: str) -> Iterator[None]:
    """Run `targets` in threads on the first core, and this thread on the last or on the same one."""
    os.sched_setaffinity(0, SERVER_CORES)
    waiters = [threading.Thread(target=target) for target in targets]
    for waiter in waiters:
        waiter.start()
    os.sched_setaffinity(0, LOAD_CORES if place == "apart" else SERVER_CORES)
    yield
    for waiter in waiters:
        waiter.join()


def _poke(poke: Callable[[], object], stamps: list[int], posts: int) -> dict[str, float]:
    latencies = []
    for number in range(posts):
        time.sleep(PAUSE)
        started = time.perf_counter_ns()
        poke()
        while len(stamps) <= number:
            time.sleep(PAUSE)
        latencies.append((stamps[number] - started) / 1000)
    latencies.sort()
    return {f"p{share}_us": latencies[posts * share // 100] for share in (10, 50, 99)}
