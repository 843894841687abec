"""`/metrics`: what Prometheus reads, by its own parser."""

from __future__ import annotations

import sys

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

import manyhands as mh
from dashing import HOSTILE, ask, wait_seen
from manyhands.debug import _metrics
from manyhands.server import Server
from pooling import occupied
from serving import Client, hello
from support import LONG

dashboard = mh.debug.dashboard


def families(page, accept: str = "", parser=parse):
    """Name -> family."""
    status, headers, body = ask(page, "/metrics", headers={"Accept": accept} if accept else None)
    assert status == 200, body
    assert headers["content-type"].startswith("application/openmetrics-text" if accept else "text/plain")
    return {family.name: family for family in parser(body.decode())}


def value(family, **labels):
    """The one sample with these labels."""
    (found,) = (sample.value for sample in family.samples if labels.items() <= sample.labels.items())
    return found


def test_the_figures_are_those_of_stats(make_loop, make_pool):
    """Gauges, counters and histograms of a loop and a pool, by their names."""
    loop, pool = make_loop(name="kitchen"), make_pool(2, name="reports")
    for _ in range(3):
        loop.post(int)
    loop.join(until_idle=True)
    with dashboard(loop, pool) as page, occupied(pool):
        pool.enqueue(int).result(LONG)
        wait_seen(page, lambda data: sum(count for _, count in data["pools"][0]["run_seconds"]) == 1)
        found = families(page)
    assert value(found["manyhands_loop_handled"], loop="kitchen") == 3
    assert value(found["manyhands_pool_busy_jobs"], pool="reports") == 1
    assert value(found["manyhands_pool_submitted_jobs"], pool="reports") == 2
    assert value(found["manyhands_loop_handler_seconds"], loop="kitchen", le="+Inf") == 3
    assert value(found["manyhands_pool_run_seconds"], pool="reports", le="+Inf") == 1
    assert value(found["process_open_fds"]) > 0


def test_a_histogram_counts_upwards(make_loop):
    """Each bucket has those of the smaller ones too, in order of its bound."""
    loop = make_loop()
    for _ in range(9):
        loop.post(int)
    loop.join(until_idle=True)
    with dashboard(loop) as page:
        samples = families(page)["manyhands_loop_handler_seconds"].samples
    (counted,) = (sample.value for sample in samples if sample.name.endswith("_count"))
    assert counted == 9
    samples = [sample for sample in samples if sample.name.endswith("_bucket")]
    bounds = [float(sample.labels["le"]) for sample in samples]
    counts = [sample.value for sample in samples]
    assert bounds == sorted(bounds)
    assert counts == sorted(counts)
    assert (bounds[-1], counts[-1]) == (float("inf"), 9)


def test_the_sum_of_a_histogram_is_that_of_the_middles_of_its_buckets():
    """The core adds up no times: it is never more than half too high or a quarter too low, but for what has no bound."""
    assert _metrics._estimate([(0.001, 2), (0.002, 4), (0.004, 0), (None, 3)]) == pytest.approx(0.001 + 0.006 + 0.012)
    assert _metrics._estimate([(1.0, 0), (None, 0)]) == 0


def test_the_names_are_as_prometheus_wants_them(loop, make_pool):
    """A prefix, base units, help for each; what only grows is a counter, whose samples end in _total."""
    with dashboard(loop, make_pool()) as page:
        found = families(page)
    ours = [family for name, family in found.items() if name.startswith("manyhands_")]
    assert len(ours) > 25
    for family in ours:
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_ms", "_millis", "_us", "_count"))
        assert (family.type == "counter") == any(sample.name.endswith("_total") for sample in family.samples)


def test_both_dialects_are_spoken(loop, make_pool):
    """A scraper that asks for OpenMetrics gets it."""
    with dashboard(loop, make_pool()) as page:
        found = families(page, "application/openmetrics-text; version=1.0.0", parse_open)
    assert "manyhands_loop_handled" in found


def test_a_hostile_name_is_a_label_and_nothing_else(make_pool):
    """Quotes, line breaks, escapes: the parser finds one sample a pool, with the name that the page has."""
    names = [name for name in HOSTILE if "\ud800" not in name]  # what is no text is a name for a job only
    pools = [make_pool(1, name=name) for name in names]
    with dashboard(*pools) as page:
        keys = [row["key"] for row in wait_seen(page, lambda data: data["pools"])["pools"]]
        family = families(page)["manyhands_pool_threads_limit"]
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"pool": key}, 1) for key in keys]
    assert len(set(keys)) == len(names)


def test_connections_are_counted_by_state():
    """One series a state."""
    with Server(hello, threads=1, name="shop") as server, dashboard(server) as page, Client(server.address) as client:
        client.ask()
        wait_seen(page, lambda data: data["servers"][0]["connections"] == {"idle": 1})
        assert value(families(page)["manyhands_server_connections"], server="shop", state="idle") == 1


def test_refused_requests_are_counted_by_status():
    """One series a status."""
    with Server(hello, threads=1, name="shop") as server, dashboard(server) as page:
        for data in (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
            with Client(server.address) as client:
                client.sendall(data)
                client.rest()
        wait_seen(page, lambda data: data["servers"][0]["refused"] == {"400": 1, "505": 1})
        refused = families(page)["manyhands_server_refused_requests"]
        assert value(refused, server="shop", status="400") == 1


def test_without_the_package_it_says_which_extra_to_install(loop, monkeypatch):
    """501 and a sentence; the page goes on without."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "manyhands.debug._metrics", raising=False)
    with dashboard(loop) as page:
        status, _, body = ask(page, "/metrics")
        assert status == 501
        assert b"pip install 'manyhands[prometheus]'" in body
        assert ask(page, "/data.json")[0] == 200
