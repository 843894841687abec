"""Who hears of an error: the hooks, the report that they get, and the log."""

from __future__ import annotations

import dataclasses
import logging
import traceback

import pytest

import manyhands as mh
from manyhands.testing import MockClock, wait_all_idle
from oops import Oops, oops


def records_of_errors(caplog) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_the_report_of_a_watch_says_which_and_why(make_loop, pair):
    """T92. Every field of `ErrorReport` that applies is filled, the others are None."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)
    a, b = pair()
    watch = loop.add(a, mh.Events.READ, oops, name="till")
    b.send(b"x")
    loop.join(until_idle=True)
    (report,) = reports
    assert report.loop is loop
    assert report.source == "watch"
    assert report.watch is watch
    assert report.timer is None
    assert report.events == mh.Events.READ
    assert report.handler is oops
    assert isinstance(report.error, Oops)
    assert report.error.__traceback__ is not None


def test_the_report_of_a_message_says_which_and_why(make_loop):
    """T92. The strand and the callback of the message are in the report; the fields that do not apply are None."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)
    strand = loop.strand()
    strand.post(oops, 1)
    loop.join(until_idle=True)
    (report,) = reports
    assert (report.loop, report.source, report.strand) == (loop, "message", strand)
    assert (report.watch, report.timer, report.events) == (None, None, None)
    assert report.handler is oops
    assert isinstance(report.error, Oops)


def test_the_report_of_a_timer_says_which_and_why(make_loop):
    """T92. The timer and its strand are in the report."""
    clock = MockClock()
    reports: list[mh.ErrorReport] = []
    loop = make_loop(clock=clock, on_error=reports.append)
    strand = loop.strand()
    timer = strand.call_later(1, oops)
    clock.advance(1)
    loop.join(until_idle=True)
    (report,) = reports
    assert (report.loop, report.source, report.strand) == (loop, "timer", strand)
    assert report.timer == timer
    assert (report.watch, report.events) == (None, None)
    assert report.handler is oops


def test_a_report_cannot_be_changed(make_loop):
    """T92. It is a frozen record: the first hook cannot mislead whoever reads it next."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(on_error=reports.append)
    loop.post(oops)
    loop.join(until_idle=True)
    assert dataclasses.is_dataclass(reports[0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        reports[0].source = "timer"


def test_the_hook_of_the_watch_is_asked_instead_of_the_loops(make_loop, pair):
    """T92. The watch's own hook first, else the loop's: one error, one report."""
    told: list[str] = []
    loop = make_loop(on_error=lambda report: told.append("loop"))
    a, b = pair()
    c, d = pair()
    loop.add(a, mh.Events.READ, oops, on_error=lambda report: told.append("watch"))
    loop.add(c, mh.Events.READ, oops)
    b.send(b"x")
    loop.join(until_idle=True)
    assert told == ["watch"]
    d.send(b"x")
    loop.join(until_idle=True)
    assert told == ["watch", "loop"]


def test_a_hook_runs_on_the_thread_and_in_the_turn_of_what_raised(make_loop, joined):
    """T92. The strand's rule holds for the hook too: the next message waits until it has returned."""
    order: list[str] = []
    loop = make_loop(on_error=lambda report: order.append("hook"), handover=0)
    strand = loop.strand()
    with joined(loop, 3):
        strand.post(oops)
        strand.post(order.append, "next")
        wait_all_idle(loop)
    assert order == ["hook", "next"]


def test_without_a_hook_an_error_is_one_record_with_its_traceback(make_loop, pair, logged):
    """T92. The default: one ERROR record on the logger `manyhands.loop`, which names the loop and the watch."""
    loop = make_loop(name="mill")
    a, b = pair()
    loop.add(a, mh.Events.READ, oops, name="till")
    b.send(b"x")
    with logged.at_level(logging.DEBUG, "manyhands"):
        loop.join(until_idle=True)
    (record,) = records_of_errors(logged)
    assert record.name == "manyhands.loop"
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Oops)
    assert "oops" in "".join(traceback.format_exception(record.exc_info[1]))
    assert "mill" in record.getMessage()
    assert "till" in record.getMessage()


@pytest.mark.parametrize("source", ["message", "timer"])
def test_without_a_hook_the_record_names_the_callback(make_loop, logged, source):
    """T92. A message has no name of its own: the record says which callback raised, and what it was."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    if source == "message":
        loop.post(oops)
    else:
        loop.call_later(1, oops)
        clock.advance(1)
    with logged.at_level(logging.DEBUG, "manyhands"):
        loop.join(until_idle=True)
    (record,) = records_of_errors(logged)
    assert "oops" in record.getMessage()
    assert source in record.getMessage()


@pytest.mark.parametrize("whose", ["watch", "loop"])
def test_a_hook_that_raises_is_logged_once_and_the_loop_lives(make_loop, pair, logged, whose):
    """FAULT 7. The hook's own error is one record, and so is what it was called for; the loop goes on."""

    def bad_hook(report: mh.ErrorReport) -> None:
        raise LookupError("the hook is broken")

    loop = make_loop(on_error=bad_hook if whose == "loop" else None)
    a, b = pair()
    watch = loop.add(a, mh.Events.READ, oops, on_error=bad_hook if whose == "watch" else None)
    b.send(b"x")
    ran: list[int] = []
    with logged.at_level(logging.DEBUG, "manyhands"):
        loop.join(until_idle=True)
        loop.post(ran.append, 1)
        loop.join(until_idle=True)
    raised = [type(record.exc_info[1]) for record in records_of_errors(logged)]
    assert sorted(raised, key=str) == sorted([Oops, LookupError], key=str)
    assert watch.removed
    assert ran == [1]


@pytest.mark.parametrize("threads", [1, 4])
def test_a_thousand_errors_are_a_thousand_reports(make_loop, joined, pair, threads):
    """FAULT 7. 1000/1000 to the hook with the watch's name, and the watch that was kept serves on."""
    reports: list[mh.ErrorReport] = []

    def hook(report: mh.ErrorReport) -> object:
        reports.append(report)
        return mh.KEEP

    def handler(watch: mh.Watch, events: mh.Events) -> None:
        watch.source.recv(1)
        raise Oops(watch)

    loop = make_loop(handover=0)
    socks = [pair() for _ in range(10)]
    watches = [loop.add(a, mh.Events.READ, handler, name=f"till {n}", on_error=hook) for n, (a, _) in enumerate(socks)]
    with joined(loop, threads):
        for _ in range(100):
            for _, b in socks:
                b.send(b"x")
        wait_all_idle(loop)
        assert loop.joined == threads
    assert len(reports) == 1000
    assert loop.stats().errors == 1000
    for number, watch in enumerate(watches):
        own = [report for report in reports if report.watch is watch]
        assert len(own) == 100
        assert f"till {number}" in repr(own[0].watch)
        assert not watch.removed
