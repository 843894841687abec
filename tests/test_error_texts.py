"""What the text and the fields of an error say: what was expected, what came, what to do."""

from __future__ import annotations

import math
import os
import tempfile

import pytest

import manyhands as mh


def test_every_error_of_the_library_is_a_manyhands_error():
    """T92. One tree, so that one `except` is enough; each is also what a stranger would expect."""
    from manyhands import errors

    for name in ("LoopClosed", "LoopStopped", "ForkedError", "WouldDeadlock", "QueueFull"):
        assert issubclass(getattr(errors, name), errors.ManyhandsError)
        assert issubclass(getattr(errors, name), RuntimeError)
    for name in ("NotPollable", "BadDescriptor"):
        assert issubclass(getattr(errors, name), errors.ManyhandsError)
        assert issubclass(getattr(errors, name), OSError)
    for name in ("WatchExists", "WatchRemoved", "StrandClosed"):
        assert issubclass(getattr(errors, name), errors.ManyhandsError)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda loop, a: loop.add(a, mh.Events.READ, 42), TypeError, ["handler", "42"]),
        (lambda loop, a: loop.add(a, mh.Events(0), print), ValueError, ["READ", "pause"]),
        (lambda loop, a: loop.add(a, "read", print), TypeError, ["Events", "'read'"]),
        (lambda loop, a: loop.add(-1, mh.Events.READ, print), (ValueError, mh.BadDescriptor), ["-1"]),
        (lambda loop, a: loop.add(True, mh.Events.READ, print), TypeError, ["True"]),
        (lambda loop, a: loop.add("3", mh.Events.READ, print), TypeError, ["fileno", "'3'"]),
        (lambda loop, a: loop.add(a, mh.Events.READ, print, strand="one"), TypeError, ["strand", "str"]),
        (lambda loop, a: loop.add(a, mh.Events.READ, print, on_error=42), TypeError, ["on_error", "42"]),
        (lambda loop, a: loop.add(a, mh.Events.READ, print, on_removed=42), TypeError, ["on_removed", "42"]),
        (lambda loop, a: loop.post(42), TypeError, ["callback", "42"]),
        (lambda loop, a: loop.call_later(-1, print), ValueError, ["delay", "-1"]),
        (lambda loop, a: loop.call_later(math.nan, print), ValueError, ["delay", "nan"]),
        (lambda loop, a: loop.call_later("soon", print), TypeError, ["delay", "str"]),
        (lambda loop, a: loop.call_later(1, 42), TypeError, ["callback", "42"]),
        (lambda loop, a: loop.call_every(0, print), ValueError, ["interval", "0"]),
        (lambda loop, a: loop.call_every(-1, print), ValueError, ["interval", "-1"]),
        (lambda loop, a: loop.call_at(math.nan, print), ValueError, ["when", "nan"]),
        (lambda loop, a: loop.join(timeout=-1), ValueError, ["timeout", "-1"]),
        (lambda loop, a: loop.join(timeout="1"), TypeError, ["timeout", "str"]),
        (lambda loop, a: loop.join(max_handlers=-1), ValueError, ["max_handlers", "-1"]),
        (lambda loop, a: loop.run_ready(max_handlers="1"), TypeError, ["max_handlers", "'1'"]),
        (lambda loop, a: loop.stop(timeout=-1), ValueError, ["timeout", "-1"]),
        (lambda loop, a: loop.wait(timeout=math.nan), ValueError, ["timeout", "nan"]),
        (lambda loop, a: loop.close(timeout=-1), ValueError, ["timeout", "-1"]),
        (lambda loop, a: loop.get("3"), TypeError, ["fileno", "'3'"]),
        (lambda loop, a: mh.EventLoop(poller="kqueue"), ValueError, ["epoll", "poll", "select", "kqueue"]),
        (lambda loop, a: mh.EventLoop(name=7), TypeError, ["name", "7"]),
        (lambda loop, a: mh.EventLoop(on_error=7), TypeError, ["on_error", "7"]),
        (lambda loop, a: mh.EventLoop(slow_handler=-1), ValueError, ["slow_handler", "-1"]),
        (lambda loop, a: mh.EventLoop(handover=-1), ValueError, ["handover", "-1"]),
        (lambda loop, a: mh.EventLoop(clock=7), TypeError, ["clock", "int"]),
        (lambda loop, a: mh.Delay(-1), ValueError, ["-1"]),
        (lambda loop, a: mh.ThreadedEventLoop(threads=0), ValueError, ["threads", "0"]),
        (lambda loop, a: mh.ThreadedEventLoop(threads="2"), TypeError, ["threads", "'2'"]),
    ],
)
def test_a_wrong_argument_is_refused_at_the_call_with_what_was_expected_and_what_came(
    make_loop, pair, call, error, words
):
    """T92. Wrong types and values raise at the call; the text names the argument and what came; nothing is left."""
    loop = make_loop()
    a, _ = pair()
    with pytest.raises(error) as refused:
        call(loop, a)
    text = str(refused.value).lower()
    for word in words:
        assert word.lower() in text, f"{word!r} is not in {text!r}"
    assert loop.get(a) is None
    assert loop.run_ready() == 0
    assert (loop.stats().watches, loop.stats().timers) == (0, 0)
    assert not loop.stopped


def test_the_error_of_a_second_watch_names_the_descriptor_and_the_first(make_loop, pair):
    """T92. `WatchExists` carries the number and the watch that has it."""
    loop = make_loop()
    a, _ = pair()
    first = loop.add(a, mh.Events.READ, print, name="till")
    with pytest.raises(mh.WatchExists) as refused:
        loop.add(a.fileno(), mh.Events.WRITE, print)
    assert refused.value.fd == a.fileno()
    assert refused.value.watch is first
    assert str(a.fileno()) in str(refused.value)
    assert "till" in str(refused.value)
    assert "remove" in str(refused.value) or "modify" in str(refused.value)


def test_the_error_of_a_removed_watch_says_how_it_ended(make_loop, pair):
    """T92. `WatchRemoved` carries the number and the reason."""
    loop = make_loop()
    a, _ = pair()
    watch = loop.add(a, mh.Events.READ, print)
    watch.remove()
    with pytest.raises(mh.WatchRemoved) as refused:
        watch.modify(mh.Events.WRITE)
    assert refused.value.fd == a.fileno()
    assert refused.value.reason is mh.RemovalReason.REMOVED
    assert str(a.fileno()) in str(refused.value)
    assert "add" in str(refused.value)


def test_the_errors_of_descriptors_carry_errno_and_the_number(make_loop):
    """T92. `NotPollable` for a regular file, `BadDescriptor` for a number that is not open: OSErrors with errno."""
    loop = make_loop()
    with tempfile.TemporaryFile() as file, pytest.raises(mh.NotPollable) as refused:
        loop.add(file, mh.Events.READ, print)
    assert refused.value.errno is not None
    assert refused.value.fd is not None
    assert "regular file" in str(refused.value)
    read_end, write_end = os.pipe()
    os.close(write_end)
    os.close(read_end)
    with pytest.raises(mh.BadDescriptor) as refused:
        loop.add(read_end, mh.Events.READ, print)
    assert refused.value.fd == read_end
    assert refused.value.errno is not None
    assert str(read_end) in str(refused.value)


@pytest.mark.parametrize("call", ["stop", "close", "restart"])
def test_the_error_of_a_wait_on_a_lent_thread_names_the_call_and_the_way_out(make_loop, call):
    """T92. `WouldDeadlock` carries the call; its text names the loop and, for a stop, what may be called instead."""
    reports: list[mh.ErrorReport] = []
    loop = make_loop(name="mill", on_error=reports.append)
    loop.post(getattr(loop, call))
    loop.join(until_idle=True)
    (report,) = reports
    assert isinstance(report.error, mh.WouldDeadlock)
    assert report.error.call.startswith(call)
    text = str(report.error)
    assert call in text
    assert "mill" in text
    if call == "stop":
        assert "request_stop" in text


def test_the_error_of_a_closed_loop_names_the_loop(make_loop):
    """T92. `LoopClosed` carries the name, and its text has it."""
    loop = make_loop(name="mill")
    loop.close()
    with pytest.raises(mh.LoopClosed, match="mill") as refused:
        loop.join()
    assert refused.value.loop == "mill"


def test_the_error_of_a_full_strand_says_what_to_do(make_loop):
    """T92. `QueueFull` names the strand and the limit."""
    loop = make_loop()
    strand = loop.strand(name="ledger", max_pending=1)
    strand.post(print)
    with pytest.raises(mh.QueueFull) as refused:
        strand.post(print)
    assert "ledger" in str(refused.value)
    assert "1" in str(refused.value)
    strand.close()
