"""What an operation promises, whoever carries it out: it completes once, and its handler comes later."""

from __future__ import annotations

import contextvars
import gc
import os
import sys
import threading
import weakref

import pytest

import manyhands as mh
from gate import Gate
from manyhands import _core
from proactors import full, pipe_reads
from support import LONG, wait_until


def test_a_handler_never_runs_inside_the_call_that_started_its_operation(proactor, file, joined):
    """T86. Not even if the result is there, on a thread that serves the loop."""
    order, finished = [], threading.Event()

    def start():
        for offset in range(10):
            proactor.read(file, 1, offset, lambda operation: order.append(operation.result()))
        order.append("started")
        proactor.fsync(file, lambda _: proactor.loop.post(finished.set))

    with joined(proactor.loop):
        proactor.loop.post(start)
        assert finished.wait(LONG)
        wait_until(lambda: len(order) == 11)
    assert order[0] == "started"
    assert sorted(order[1:]) == [b"%d" % digit for digit in range(10)]


def test_two_thousand_chained_completions_do_not_grow_the_stack(proactor, file, joined):
    """T86. A handler that starts the next operation is called from the loop each time."""
    depths, finished = set(), threading.Event()
    left = iter(range(2_000))

    def next_one(operation=None):
        frame, depth = sys._getframe(), 0
        while frame is not None:
            frame, depth = frame.f_back, depth + 1
        if operation is not None:
            depths.add(depth)
        if next(left, None) is None:
            finished.set()
        else:
            proactor.read(file, 1, 0, next_one)

    with joined(proactor.loop):
        proactor.loop.post(next_one)
        assert finished.wait(LONG)
    assert len(depths) == 1


def test_an_operation_that_has_not_begun_is_cancelled_once(proactor, file, joined):
    """T89. Its handler is called once, its buffer is free at once, and it never begins."""
    calls, data = [], bytearray(b"xyz")
    with full(proactor):
        operation = proactor.write(file, data, 0, calls.append)
        with pytest.raises(BufferError):
            data.clear()
        assert not operation.done
        assert operation.cancel()
        assert operation.done
        data.clear()
        assert not operation.cancel()
        assert calls == []
    with joined(proactor.loop):
        with pytest.raises(mh.OperationCancelled, match="write of descriptor"):
            operation.result(LONG)
        assert proactor.read(file, 10, 0).result(LONG) == b"0123456789"
        wait_until(lambda: calls)
    assert calls == [operation]


def test_what_has_completed_cannot_be_cancelled(proactor, file, joined):
    """T89. The result stays."""
    with joined(proactor.loop):
        operation = proactor.read(file, 3, 0)
        assert operation.result(LONG) == b"012"
        assert not operation.cancel()
        assert operation.result() == b"012"


def test_a_cancel_in_flight_completes_when_the_kernel_says_so(ring, monkeypatch, joined):
    """T89. The buffer is the kernel's until then."""
    reader, writer = pipe_reads(ring, monkeypatch)
    calls, buffer = [], bytearray(3)
    operation = ring.read_into(reader, buffer, 0, calls.append)
    assert operation.cancel()
    assert not operation.done
    with pytest.raises(BufferError):
        buffer.clear()
    with joined(ring.loop):
        with pytest.raises(mh.OperationCancelled):
            operation.result(LONG)
        buffer.clear()
        wait_until(lambda: calls == [operation])
    os.close(reader)
    os.close(writer)


def test_data_that_was_first_is_the_result_of_a_cancelled_operation(ring, monkeypatch, joined):
    """T89. And the second cancel changes nothing."""
    reader, writer = pipe_reads(ring, monkeypatch)
    operation = ring.read(reader, 3, 0)
    os.write(writer, b"abc")
    assert ring._files._ring.wait(LONG)
    assert operation.cancel()
    assert operation.cancel()
    with joined(ring.loop):
        assert operation.result(LONG) == b"abc"
    os.close(reader)
    os.close(writer)


def test_the_end_of_the_thread_that_started_an_operation_ends_it_not(ring, monkeypatch, spawn, joined):
    """T89. The kernel ends what a thread has asked for when the thread ends; nobody is to see that."""
    reader, writer = pipe_reads(ring, monkeypatch)
    operation = spawn(ring.read, reader, 3, 0).result()
    with joined(ring.loop):
        os.write(writer, b"abc")
        assert operation.result(LONG) == b"abc"
    os.close(reader)
    os.close(writer)


def test_a_close_completes_what_is_pending_and_frees_its_buffers(proactor, file, joined):
    """T90. Every handler is called once, with ClosedResourceError; afterwards nothing is taken."""
    calls, data = [], bytearray(b"xyz")
    with joined(proactor.loop):
        with full(proactor):
            operations = [proactor.write(file, data, 0, calls.append) for _ in range(10)]
            assert not any(operation.done for operation in operations)
            proactor.close()
        assert all(operation.done for operation in operations)
        data.clear()
        wait_until(lambda: len(calls) == 10)
    assert set(calls) == set(operations)
    for operation in operations:
        with pytest.raises(mh.ClosedResourceError):
            operation.result()
    with pytest.raises(mh.ClosedResourceError, match="Proactor"):
        proactor.read(file, 1, 0)
    proactor.close()
    assert file.read() == b"0123456789"


def test_the_close_of_a_file_ends_its_operations_and_no_other(proactor, file, tmp_path, joined):
    """T90. It is closed by its own close()."""
    with open(tmp_path / "other", "w+b") as other:
        other.write(b"other")
        other.flush()
        with joined(proactor.loop):
            with full(proactor):
                ended, going_on = proactor.read(file, 1, 0), proactor.read(other, 5, 0)
                proactor.close(file)
                assert file.closed
                assert (ended.done, going_on.done) == (True, False)
            assert isinstance(ended.exception(), mh.ClosedResourceError)
            assert going_on.result(LONG) == b"other"
            number = os.dup(other.fileno())
            assert proactor.read(number, 5, 0).result(LONG) == b"other"
            proactor.close(number)
            with pytest.raises(OSError, match="not open"):
                proactor.read(number, 5, 0)


def test_a_close_takes_back_what_the_kernel_has(ring, monkeypatch, joined):
    """T90. A read that waits in the kernel ends, and its buffer with it."""
    reader, writer = pipe_reads(ring, monkeypatch)
    buffer = bytearray(3)
    operation = ring.read_into(reader, buffer, 0)
    ring.close(reader)
    assert operation.done
    buffer.clear()
    assert isinstance(operation.exception(), mh.ClosedResourceError)
    os.close(writer)


def test_the_close_of_the_loop_completes_what_is_pending(proactor, file):
    """T90. Handlers are final callbacks: they run on the thread that closes the loop."""
    calls = []
    with full(proactor):
        operation = proactor.read(file, 1, 0, lambda _: calls.append(threading.get_ident()))
        proactor.loop.close()
        assert calls == [threading.get_ident()]
        assert isinstance(operation.exception(), mh.ClosedResourceError)
        assert proactor.closed


def test_a_pool_that_is_finished_ends_the_operations_that_wait_for_it(make_proactor, file, joined):
    """T89. They have an end whatever becomes of the threads."""
    proactor = make_proactor("threads")
    with joined(proactor.loop):
        with full(proactor):
            operation = proactor.read(file, 1, 0)
            proactor.loop.pool.finish()
        with pytest.raises(mh.ClosedResourceError):
            operation.result(LONG)
        with pytest.raises(mh.PoolFinished):
            proactor.read(file, 1, 0)


def test_a_handler_that_raises_is_reported_and_costs_only_itself(make_loop, make_pool, file, backend, joined):
    """T86. To the loop's on_error, as the failure of a message."""
    reports = []
    loop = make_loop(pool=make_pool(), on_error=reports.append)
    proactor = mh.Proactor(loop, files=None if backend == "normal" else backend)

    def handler(operation):
        raise ZeroDivisionError(operation)

    with joined(loop):
        operation = proactor.read(file, 1, 0, handler)
        wait_until(lambda: reports)
        assert proactor.read(file, 1, 1).result(LONG) == b"1"
    (report,) = reports
    assert (report.source, report.handler, report.error.args) == ("operation", handler, (operation,))
    reports.clear()


def test_a_handler_runs_in_the_context_of_the_call(proactor, file, joined):
    """T86. In a copy of it: what the handler sets, nobody else sees."""
    variable = contextvars.ContextVar("variable", default="nothing")
    seen, finished = [], threading.Event()

    def handler(operation):
        seen.append(variable.get())
        variable.set("the handler's")
        finished.set()

    def call():
        variable.set("the caller's")
        proactor.read(file, 1, 0, handler)
        variable.set("later")

    contextvars.copy_context().run(call)
    with joined(proactor.loop):
        assert finished.wait(LONG)
    assert (seen, variable.get()) == (["the caller's"], "nothing")


def test_handlers_of_one_descriptor_run_one_at_a_time(proactor, file, tmp_path, joined):
    """T86. On the descriptor's strand; while one is inside, the next waits, and other descriptors' handlers run."""
    calls = []
    with open(tmp_path / "other", "w+b") as other, joined(proactor.loop, 2), Gate() as gate:
        proactor.read(file, 1, 0, gate)
        gate.wait_entered()
        second = proactor.read(file, 1, 1, lambda _: calls.append("second"))
        assert second.result(LONG) == b"1"
        proactor.read(other, 1, 0, lambda _: calls.append("other"))
        wait_until(lambda: calls)
        assert calls == ["other"]
        gate.open()
        wait_until(lambda: calls == ["other", "second"])


def test_a_handler_runs_on_the_strand_that_was_given(proactor, file, joined):
    """T86. In order with what else is on it."""
    calls, strand = [], proactor.loop.strand()
    with joined(proactor.loop, 2), Gate() as gate:
        strand.post(gate)
        gate.wait_entered()
        operation = proactor.read(file, 1, 0, lambda _: calls.append("handler"), strand=strand)
        assert operation.result(LONG) == b"0"
        proactor.read(file, 1, 0, lambda _: calls.append("the descriptor's"))
        wait_until(lambda: calls)
        assert calls == ["the descriptor's"]
        gate.open()
        wait_until(lambda: len(calls) == 2)


def test_a_call_that_a_thread_has_begun_is_finished_whatever_is_cancelled(make_proactor, file, joined, monkeypatch):
    """T89. Its data is the result."""
    proactor, pread = make_proactor("threads"), os.pread
    with joined(proactor.loop), Gate() as gate:
        monkeypatch.setattr(os, "pread", lambda *args: gate() or pread(*args))
        operation = proactor.read(file, 3, 0)
        gate.wait_entered()
        assert operation.cancel()
        assert not operation.done
        gate.open()
        assert operation.result(LONG) == b"012"


def test_a_close_that_has_waited_long_enough_completes_the_rest(make_proactor, file, joined, monkeypatch, logged):
    """T90. What comes later changes nothing, and is no second completion."""
    monkeypatch.setattr("manyhands._proactor.CLOSE_TIMEOUT", 0.01)
    proactor, pwrite, calls = make_proactor("threads"), os.pwrite, []
    with joined(proactor.loop), Gate() as gate:
        monkeypatch.setattr(os, "pwrite", lambda *args: gate() or pwrite(*args))
        operation = proactor.write(file, b"abc", 0, calls.append)
        gate.wait_entered()
        proactor.close()
        assert isinstance(operation.exception(), mh.ClosedResourceError)
        assert "is still under way" in logged.text
        gate.open()
        wait_until(lambda: not proactor.loop.pool._own_lane().stats().running)
        assert file.read() == b"abc3456789"
        assert isinstance(operation.exception(), mh.ClosedResourceError)
        assert operation.transferred == 0
        wait_until(lambda: calls == [operation])


def test_a_lent_thread_does_not_wait_for_an_operation(proactor, file, joined):
    """T86. It might be the one that is needed; without waiting it may look."""
    raised, finished = [], threading.Event()

    def start():
        operation = proactor.read(file, 1, 0)
        for timeout in (None, 0):
            try:
                operation.result(timeout)
            except (mh.WouldDeadlock, TimeoutError) as error:
                raised.append(type(error))
        finished.set()

    with full(proactor), joined(proactor.loop):
        proactor.loop.post(start)
        assert finished.wait(LONG)
    assert raised == [mh.WouldDeadlock, TimeoutError]


def test_a_wait_ends_with_its_time(proactor, file, spawn, joined):
    """T86. The operation goes on, and several threads may wait for it."""
    with full(proactor):
        operation = proactor.read(file, 1, 0)
        with pytest.raises(TimeoutError, match="has not completed after 0.01 s"):
            operation.result(0.01)
        waiting = [spawn(operation.result) for _ in range(3)]
        wait_until(lambda: len(operation._waiters) == 3)
    with joined(proactor.loop):
        assert [waiter.result() for waiter in waiting] == [b"0"] * 3


@pytest.mark.race
def test_cancels_race_completions_and_each_operation_completes_once(proactor, file, joined, spawn):
    """T89. With its data or with OperationCancelled; the handler is called once."""
    calls, rounds = [], 300
    with joined(proactor.loop, 2):

        def start():
            return [proactor.read(file, 1, 0, calls.append) for _ in range(rounds)]

        def start_and_cancel():
            operations = []
            for _ in range(rounds):
                operations.append(proactor.read(file, 1, 0, calls.append))
                operations[-1].cancel()
            return operations

        operations = [operation for call in (spawn(start), spawn(start_and_cancel)) for operation in call.result()]
        for operation in operations:
            error = operation.exception(LONG)
            assert isinstance(error, mh.OperationCancelled) or operation.result() == b"0"
        wait_until(lambda: len(calls) == 2 * rounds)
    assert set(calls) == set(operations)
    assert not proactor._pending


def test_a_call_that_meets_a_close_is_refused(proactor, file):
    """T90. The proactor had looked already; nothing is left of the call."""
    data = bytearray(b"xyz")
    proactor._files.close(deadline=0.0)
    with pytest.raises(mh.ClosedResourceError):
        proactor.write(file, data, 0)
    data.clear()
    assert not proactor._pending


def test_an_operation_that_starts_while_a_close_is_under_way_is_closed_and_not_cancelled(proactor, file, monkeypatch):
    """T90. The close has looked who is pending, and has not come to the files."""
    reader, writer = os.pipe()
    if proactor.backend == "threads":
        monkeypatch.setattr(proactor._files, "_run", lambda _operation: None)  # no thread has come to it either
    begin, close_sockets = proactor._files.read, proactor._sockets.close

    def read(operation, size, offset):
        operation._fd = reader  # the kernel has nothing to give

        def close(deadline):
            begin(operation, size, offset)
            close_sockets(deadline)

        monkeypatch.setattr(proactor._sockets, "close", close)
        proactor.close()

    monkeypatch.setattr(proactor._files, "read", read)
    assert isinstance(proactor.read(file, 1, 0).exception(LONG), mh.ClosedResourceError)
    os.close(reader)
    os.close(writer)


@pytest.mark.race
def test_a_close_races_calls_and_each_completes_or_is_refused(proactor, file, joined, spawn):
    """T90. Nothing is started that nobody ends."""
    calls, started = [], []

    def start():
        try:
            while True:
                started.append(proactor.read(file, 1, 0, calls.append))
        except mh.ClosedResourceError:
            return

    with joined(proactor.loop, 2):
        starting = spawn(start)
        wait_until(lambda: len(started) > 50)
        proactor.close()
        starting.result()
        for operation in started:
            assert isinstance(operation.exception(LONG), (mh.ClosedResourceError, type(None)))
        wait_until(lambda: len(calls) == len(started))
    assert set(calls) == set(started)


def test_a_ring_that_nobody_closed_lets_go_of_what_it_has():
    """T90. It asks the kernel for the end of it, and keeps what does not come back."""
    try:
        ring = _core.Ring()
    except OSError:
        pytest.skip("the kernel gives no io_uring here")

    class Buffer(bytearray):
        pass

    reader, writer = os.pipe()
    buffer = Buffer(3)
    alive = weakref.ref(buffer)
    ring.read_into(None, reader, buffer, 0)
    buffer.ring = ring  # a cycle, which the collector sees through
    del buffer, ring
    gc.collect()
    gc.collect()
    assert alive() is None
    os.close(reader)
    os.close(writer)
