"""Metrics: what there is to see, in the format of Prometheus.

Named by its conventions: a prefix, base units, `_total` behind what only grows. The core counts how many fell into each bucket
and adds up no times, so the `_sum` of a histogram is an estimate: each counts as the middle of its bucket, whose upper end is
twice its lower one. What is in the last, which has no upper end, counts as its lower one. Source: prometheus.io, "Metric and
label naming".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

__all__ = ["metrics"]

Row = dict[str, Any]

LOOP_GAUGES: Final = {
    "joined": ("manyhands_loop_joined_threads", "Threads that serve the loop."),
    "parked": ("manyhands_loop_parked_threads", "Of these, threads that sleep until they are woken."),
    "ready": ("manyhands_loop_ready_entries", "Strands, messages and timers that wait to be run."),
    "watches": ("manyhands_loop_watches", "Descriptors that are watched."),
    "timers": ("manyhands_loop_timers", "Timers that are set."),
    "strands": ("manyhands_loop_strands", "Strands that live."),
}
LOOP_COUNTERS: Final = {
    "handled": ("manyhands_loop_handled", "Handlers, messages and timers that were run."),
    "polls": ("manyhands_loop_polls", "Waits in the poller."),
    "wakes": ("manyhands_loop_wakes", "Threads that were woken because there was something to do."),
    "standbys": ("manyhands_loop_standbys", "Threads that were woken to take over the waiting."),
    "errors": ("manyhands_loop_errors", "Callbacks that raised."),
}
LOOP_HISTOGRAMS: Final = {
    "handler_seconds": ("manyhands_loop_handler_seconds", "How long handlers, messages and timers took."),
}
POOL_GAUGES: Final = {
    "limit": ("manyhands_pool_threads_limit", "Threads that the pool may have."),
    "threads": ("manyhands_pool_threads", "Threads that it has."),
    "busy": ("manyhands_pool_busy_jobs", "Jobs that have a thread."),
    "queued": ("manyhands_pool_queued_jobs", "Jobs that have not begun."),
    "running": ("manyhands_pool_running_jobs", "Jobs that run."),
    "syncing_held": ("manyhands_pool_syncing_held_jobs", "Jobs that wait for their owner and hold a thread."),
    "syncing_parked": ("manyhands_pool_syncing_parked_jobs", "Jobs that wait for their owner without a thread."),
    "stopping": ("manyhands_pool_stopping_jobs", "Jobs that were told to stop and have not ended."),
    "done": ("manyhands_pool_done_jobs", "Jobs that have ended and were not reaped."),
    "oldest_wait": ("manyhands_pool_oldest_wait_seconds", "How long the job that waits longest has waited."),
}
POOL_COUNTERS: Final = {
    "submitted": ("manyhands_pool_submitted_jobs", "Jobs that were taken."),
    "refused": ("manyhands_pool_refused_jobs", "Jobs that were refused because the queue was full."),
    "finished": ("manyhands_pool_finished_jobs", "Jobs that ended by themselves."),
    "stopped": ("manyhands_pool_stopped_jobs", "Jobs that were stopped."),
    "dropped": ("manyhands_pool_dropped_jobs", "Ended jobs that were not reaped in time."),
}
POOL_HISTOGRAMS: Final = {
    "wait_seconds": ("manyhands_pool_wait_seconds", "How long jobs waited before they began."),
    "run_seconds": ("manyhands_pool_run_seconds", "How long jobs took."),
}
"""What a row has -> the metric's name, without `_total`, and its help."""


def metrics(seen: Row, accept: str) -> tuple[str, bytes]:
    """Write down what was seen.

    Args:
        seen: As `Sight.look()` returns it.
        accept: The Accept header: which of its formats the scraper knows.

    Returns:
        The content type and the text.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(seen))
    if "workers" not in seen:
        ProcessCollector(registry=registry)  # of several workers it would tell of the one that asks them
    encode, kind = choose_encoder(accept)
    return kind, encode(registry)


class _Collector(Collector):
    """Gives a registry what was seen."""

    def __init__(self, seen: Row) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        """Every metric, with the samples of every loop, pool and server."""
        loops, pools = self._seen["loops"], self._seen["pools"]
        yield from _counts("loop", loops, LOOP_GAUGES, LOOP_COUNTERS)
        yield from _histograms("loop", loops, LOOP_HISTOGRAMS)
        yield from _counts("pool", pools, POOL_GAUGES, POOL_COUNTERS)
        yield from _histograms("pool", pools, POOL_HISTOGRAMS)
        yield from _workers(self._seen.get("workers", ()))
        yield from _by_state(
            "manyhands_loop_tasks",
            "Tasks that have not ended.",
            "loop",
            ((row["key"], row["tasks"] or {}) for row in loops),
        )
        yield from _by_state(
            "manyhands_server_connections",
            "Clients that are connected.",
            "server",
            ((row["key"], row["connections"]) for row in self._seen["servers"]),
        )
        refused = CounterMetricFamily(
            "manyhands_server_refused_requests",
            "Requests that were malformed, too long or too slow.",
            labels=["server", "status"],
        )
        for row in self._seen["servers"]:
            # What is counted from the beginning has a rate from the beginning.
            for status, count in sorted({"400": 0, **row["refused"]}.items()):
                refused.add_metric([row["key"], status], count)
        if refused.samples:
            yield refused


def _counts(
    label: str, rows: list[Row], gauges: dict[str, tuple[str, str]], counters: dict[str, tuple[str, str]]
) -> Iterator[Metric]:
    for field, (name, purpose) in gauges.items():
        gauge = GaugeMetricFamily(name, purpose, labels=[label])
        for row in rows:
            gauge.add_metric([row["key"]], row[field] or 0)
        yield gauge
    for field, (name, purpose) in counters.items():
        counter = CounterMetricFamily(name, purpose, labels=[label])
        for row in rows:
            counter.add_metric([row["key"]], row[field])
        yield counter


def _histograms(label: str, rows: list[Row], histograms: dict[str, tuple[str, str]]) -> Iterator[Metric]:
    for field, (name, purpose) in histograms.items():
        family = HistogramMetricFamily(name, f"{purpose} Its sum is an estimate.", labels=[label])
        for row in rows:
            family.add_metric([row["key"]], list(_cumulative(row[field])), _estimate(row[field]))
        yield family


def _cumulative(buckets: list[tuple[float | None, int]]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in buckets:
        total += count
        yield "+Inf" if bound is None else repr(bound), total


def _estimate(buckets: list[tuple[float | None, int]]) -> float:
    total = lower = 0.0
    for bound, count in buckets:
        total += count * (lower if bound is None else (lower + bound) / 2)
        lower = lower if bound is None else bound
    return total


def _workers(rows: Sequence[Row]) -> Iterator[Metric]:
    """How each worker is, by its number, which the one that is started in its place has too."""
    if not rows:
        return
    up = GaugeMetricFamily("manyhands_worker_up", "1 if the worker serves and answers.", labels=["worker"])
    restarts = CounterMetricFamily(
        "manyhands_worker_restarts", "Workers that were started because one had ended by itself.", labels=["worker"]
    )
    cpu = CounterMetricFamily(
        "manyhands_worker_cpu_seconds", "Processor time that the worker has used.", labels=["worker"]
    )
    memory = GaugeMetricFamily("manyhands_worker_resident_memory_bytes", "Memory of the worker.", labels=["worker"])
    for row in rows:
        label = [str(row["worker"])]
        up.add_metric(label, int(row["answered"] and row["state"] == "serving"))
        restarts.add_metric(label, row["restarts"])
        cpu.add_metric(label, row["cpu_seconds"])
        if row["resident_bytes"] is not None:
            memory.add_metric(label, row["resident_bytes"])
    yield from (up, restarts, cpu, memory)


def _by_state(name: str, purpose: str, label: str, rows: Iterable[tuple[str, dict[str, int]]]) -> Iterator[Metric]:
    gauge = GaugeMetricFamily(name, purpose, labels=[label, "state"])
    for key, states in rows:
        for state, count in sorted(states.items()):
            gauge.add_metric([key, state.lower()], count)
    yield gauge
