"""Sockets, by operations: what each gives, and that each completes once, whatever comes between."""

from __future__ import annotations

import contextvars
import gc
import itertools
import os
import socket
import struct
import sys
import threading

import pytest

import manyhands as mh
from gate import Gate
from support import LONG, wait_until

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: the close sends a reset."""


@pytest.fixture
def proactor(make_proactor):
    """One proactor. How it reads files has nothing to do with sockets: threads are there without a ring too."""
    return make_proactor("threads")


@pytest.fixture
def listener():
    """A listening socket that does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def proactor_here(make_pool, monkeypatch):
    """Make a proactor on the loop of the running task."""
    pool = make_pool()
    monkeypatch.setattr("manyhands._proactor.default_pool", lambda: pool)
    return lambda: mh.Proactor(mh.current_task().group.owner, files="threads")


def tcp() -> socket.socket:
    """A socket to connect."""
    made = socket.socket()
    made.setblocking(False)
    return made


def task_of(proactor, sock):
    """The task of a socket's one operation."""
    (task,) = proactor._sockets._slots[sock.fileno()].tasks()
    return task


# What each gives.


@pytest.mark.parametrize("threads", [1, 4])
def test_a_connection_is_accepted_used_in_both_directions_and_ended(proactor, listener, joined, threads):
    """T88. Every operation of sockets, once, on one thread and on four."""
    with joined(proactor.loop, threads), tcp() as client:
        accepting = proactor.accept(listener)
        assert proactor.connect(client, listener.getsockname()).result(LONG) is None
        server, address = accepting.result(LONG)
        with server:
            assert address == client.getsockname()
            assert not server.getblocking()
            asked = [proactor.receive(server, 100), proactor.receive(client, 100)]
            assert proactor.send(client, b"request").result(LONG) == 7
            assert proactor.send_all(server, bytearray(b"answer")).result(LONG) is None
            assert [operation.result(LONG) for operation in asked] == [b"request", b"answer"]
            assert [operation.transferred for operation in asked] == [7, 6]
            buffer = bytearray(b"------")
            filling = proactor.receive_into(client, memoryview(buffer)[1:4])
            server.sendall(b"abcd")
            assert filling.result(LONG) == filling.transferred == 3
            assert buffer == b"-abc--"
            server.shutdown(socket.SHUT_WR)
            assert proactor.receive(client, 100).result(LONG) == b"d"
            assert proactor.receive(client, 100).result(LONG) == b""
            assert proactor.receive_into(client, buffer).result(LONG) == 0
            proactor.close(server)


def test_receive_gives_what_there_is_and_exactly_waits_for_all(proactor, pair, joined):
    """T88. Fewer bytes than asked for are no end; at the end `receive_exactly` carries what it had."""
    here, there = pair()
    with joined(proactor.loop):
        there.send(b"abc")
        assert proactor.receive(here, 2).result(LONG) == b"ab"
        exactly = proactor.receive_exactly(here, 4)
        there.send(b"de")
        with pytest.raises(TimeoutError):
            exactly.result(0)
        there.send(b"fgh")
        assert exactly.result(LONG) == b"cdef"
        assert exactly.transferred == 4
        exactly = proactor.receive_exactly(here, 10)
        there.shutdown(socket.SHUT_WR)
        with pytest.raises(mh.IncompleteRead) as raised:
            exactly.result(LONG)
        assert raised.value.partial == b"gh"
        assert exactly.transferred == 2


def test_send_all_waits_for_room_and_send_does_not(proactor, pair, joined):
    """T88. `send` gives how many the kernel took; of a `send_all` that is cancelled `transferred` says how far it came."""
    here, there = pair()
    data = os.urandom(3_000_000)
    with joined(proactor.loop):
        sent = proactor.send(here, data).result(LONG)
        assert 0 < sent < len(data)
        rest = proactor.send_all(here, memoryview(data)[sent:])
        received = bytearray()
        while len(received) < len(data):
            received += proactor.receive(there, 1 << 20).result(LONG)
        assert rest.result(LONG) is None
        assert rest.transferred == len(data) - sent
        assert received == data
        stuck = proactor.send_all(here, data)
        wait_until(lambda: stuck.transferred and task_of(proactor, here).state == "SUSPENDED")
        assert stuck.cancel()
        with pytest.raises(mh.OperationCancelled):
            stuck.result(LONG)
        assert 0 < stuck.transferred < len(data)


def test_a_lost_connection_is_the_operations_error(proactor, listener, joined):
    """T88. With the kernel's error as its cause; the one that sends gets one too."""
    with joined(proactor.loop), socket.create_connection(listener.getsockname()) as client:
        server, _ = proactor.accept(listener).result(LONG)
        with server:
            receiving = proactor.receive(server, 10)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            with pytest.raises(mh.BrokenResourceError) as raised:
                receiving.result(LONG)
            assert isinstance(raised.value.__cause__, ConnectionResetError)
            with pytest.raises(mh.BrokenResourceError):
                proactor.send_all(server, b"x").result(LONG)


def test_a_refused_connection_is_an_oserror_and_the_next_socket_connects(proactor, listener, joined):
    """T88. Also one with the same number, of which nothing is known any more."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()
    with joined(proactor.loop):
        first = tcp()
        number = first.fileno()
        with pytest.raises(ConnectionRefusedError):
            proactor.connect(first, nobody).result(LONG)
        first.close()
        with tcp() as second:
            assert second.fileno() == number
            proactor.connect(second, listener.getsockname()).result(LONG)
            server, _ = proactor.accept(listener).result(LONG)
            with server:
                server.send(b"hello")
                assert proactor.receive(second, 10).result(LONG) == b"hello"


def test_a_connection_is_made_when_the_kernel_says_so_and_not_before(proactor, joined):
    """T88. A socket that is not connected is writable to the kernel, and that is no answer."""
    # A backlog that is full drops what asks, so the connection stays on its way.
    with socket.socket() as busy, joined(proactor.loop, 2):
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        waiting = [tcp() for _ in range(4)]
        try:
            operations = [proactor.connect(sock, busy.getsockname()) for sock in waiting]
            wait_until(lambda: any(operation.done for operation in operations))
            *_, last = operations
            wait_until(lambda: task_of(proactor, waiting[-1]).state == "SUSPENDED")
            assert not last.done
            with pytest.raises(mh.OperationPending):
                proactor.connect(waiting[-1], busy.getsockname())
            last.cancel()
            with pytest.raises(mh.OperationCancelled):
                last.result(LONG)
        finally:
            for sock in waiting:
                proactor.close(sock)


def test_a_connection_that_was_reset_before_it_was_taken_is_an_error(proactor, listener, joined):
    """T88. The listener goes on."""
    with joined(proactor.loop):
        lost = socket.create_connection(listener.getsockname())
        lost.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        lost.close()
        with pytest.raises(ConnectionAbortedError):
            proactor.accept(listener).result(LONG)
        with socket.create_connection(listener.getsockname()) as client:
            server, address = proactor.accept(listener).result(LONG)
            server.close()
            assert address == client.getsockname()


def test_a_number_that_another_socket_got_has_nothing_of_the_one_before(proactor, pair, joined):
    """T90. Whoever closes a socket by itself, and not by the proactor, costs the next one nothing."""
    here, there = pair()
    with joined(proactor.loop):
        there.send(b"x")
        assert proactor.receive(here, 10).result(LONG) == b"x"
        number = here.fileno()
        here.close()
        there.close()
        here, there = pair()
        assert number in {here.fileno(), there.fileno()}
        if here.fileno() != number:
            here, there = there, here
        operation = proactor.receive(here, 10)
        wait_until(lambda: task_of(proactor, here).state == "SUSPENDED")
        there.send(b"y")
        assert operation.result(LONG) == b"y"
        with socket.socket(fileno=os.dup(here.fileno())) as other:
            os.dup2(other.fileno(), number)
            there.send(b"z")
            assert proactor.receive(here, 10).result(LONG) == b"z"


# When the handler comes.


def test_a_handler_never_runs_inside_the_call_that_started_its_operation(proactor, pair, joined):
    """T86. Not if the data is there, and not on the thread that serves the loop."""
    here, there = pair()
    there.send(b"0123456789")
    order, finished = [], threading.Event()

    def receive(left):
        inside.append(True)
        proactor.receive(here, 1, lambda operation: handle(operation, left))
        inside.pop()

    def handle(operation, left):
        order.append((operation.result(), len(inside)))
        if left:
            receive(left - 1)
        else:
            finished.set()

    inside: list[bool] = []
    with joined(proactor.loop):
        proactor.loop.post(receive, 9)
        assert finished.wait(LONG)
    assert order == [(b"%d" % digit, 0) for digit in range(10)]


def test_twenty_thousand_chained_completions_do_not_grow_the_stack(proactor, pair, joined):
    """T86. Each is there at once, and each handler is called from the loop."""
    here, there = pair()
    count = 20_000
    there.send(bytes(count))
    depths, finished = set(), threading.Event()
    left = itertools.count(1)

    def handle(_operation):
        frame, depth = sys._getframe(), 0
        while frame is not None:
            frame, depth = frame.f_back, depth + 1
        depths.add(depth)
        if next(left) == count:
            finished.set()
        else:
            proactor.receive(here, 1, handle)

    with joined(proactor.loop):
        proactor.receive(here, 1, handle)
        assert finished.wait(3 * LONG)
    assert len(depths) == 1
    assert proactor._sockets.pending == 0


def test_a_handler_that_raises_is_reported_and_costs_only_itself(make_proactor, pair, joined):
    """T86. To the loop's on_error; the socket is received from as before."""
    reports = []
    proactor = make_proactor("threads", on_error=reports.append)
    here, there = pair()

    def handler(operation):
        raise ZeroDivisionError(operation)

    with joined(proactor.loop):
        operation = proactor.receive(here, 1, handler)
        there.send(b"xy")
        wait_until(lambda: reports)
        assert proactor.receive(here, 1).result(LONG) == b"y"
    (report,) = reports
    assert (report.source, report.handler, report.error.args) == ("operation", handler, (operation,))
    reports.clear()


def test_a_handler_runs_in_the_context_of_the_call(proactor, pair, joined):
    """T86. In a copy of it."""
    here, there = pair()
    variable = contextvars.ContextVar("variable", default="nothing")
    seen, finished = [], threading.Event()

    def handler(_operation):
        seen.append(variable.get())
        variable.set("the handler's")
        finished.set()

    def call():
        variable.set("the caller's")
        proactor.receive(here, 1, handler)
        variable.set("later")

    contextvars.copy_context().run(call)
    there.send(b"x")
    with joined(proactor.loop):
        assert finished.wait(LONG)
    assert (seen, variable.get()) == (["the caller's"], "nothing")


def test_handlers_of_one_socket_run_one_at_a_time(proactor, pair, joined):
    """T86. While one is inside, the other direction waits; another socket does not."""
    (here, there), (other, far) = pair(), pair()
    calls = []
    there.send(b"x")
    far.send(b"x")
    with joined(proactor.loop, 4), Gate() as gate:
        proactor.receive(here, 1, gate)
        gate.wait_entered()
        proactor.send(here, b"y", lambda _: calls.append("second"))
        proactor.receive(other, 1, lambda _: calls.append("other"))
        wait_until(lambda: calls)
        assert calls == ["other"]
        gate.open()
        wait_until(lambda: calls == ["other", "second"])


def test_a_strand_that_was_given_holds_the_handler_and_not_the_operation(proactor, pair, joined):
    """T86. What is on that strand delays who is told; the data has come."""
    here, there = pair()
    strand, calls = proactor.loop.strand(), []
    with joined(proactor.loop, 2), Gate() as gate:
        strand.post(gate)
        gate.wait_entered()
        operation = proactor.receive(here, 1, calls.append, strand=strand)
        there.send(b"x")
        assert operation.result(LONG) == b"x"
        there.send(b"y")
        assert proactor.receive(here, 1).result(LONG) == b"y"
        assert calls == []
        gate.open()
        wait_until(lambda: calls == [operation])


# One in each direction.


def test_a_second_operation_in_one_direction_is_refused_and_the_other_direction_is_free(proactor, pair, joined):
    """T87. The first one goes on."""
    here, there = pair()
    data = bytes(3_000_000)
    with joined(proactor.loop):
        receiving = proactor.receive(here, 10)
        sending = proactor.send_all(here, data)
        for start in (
            lambda: proactor.receive(here, 10),
            lambda: proactor.receive_into(here, bytearray(1)),
            lambda: proactor.receive_exactly(here, 1),
            lambda: proactor.accept(here),
        ):
            with pytest.raises(mh.OperationPending, match="receives"):
                start()
        with pytest.raises(mh.OperationPending, match="sends") as raised:
            proactor.send(here, b"x")
        assert (raised.value.fd, raised.value.direction) == (here.fileno(), "send")
        assert not receiving.done
        assert not sending.done
        there.send(b"still there")
        assert receiving.result(LONG) == b"still ther"
        left = len(data)
        while left:
            left -= len(proactor.receive(there, 1 << 20).result(LONG))
        sending.result(LONG)
    assert "0 pending" in repr(proactor)


def test_a_socket_is_watched_or_operated_on_and_not_both(proactor, pair, joined):
    """T87. WatchExists, whichever was first; a close gives the number back."""
    here, there = pair()
    with joined(proactor.loop):
        watch = proactor.loop.add(here, mh.Events.READ, lambda *_: None)
        with pytest.raises(mh.WatchExists):
            proactor.receive(here, 1)
        with pytest.raises(mh.WatchExists):
            proactor.connect(here, "/nowhere")
        watch.remove()
        there.send(b"x")
        assert proactor.receive(here, 1).result(LONG) == b"x"
        with pytest.raises(mh.WatchExists):
            proactor.loop.add(here, mh.Events.READ, lambda *_: None)
        number = here.fileno()
        proactor.close(here)
        assert here.fileno() == -1
        os.dup2(there.fileno(), number)
        with socket.socket(fileno=number) as again:
            proactor.loop.add(again, mh.Events.READ, lambda *_: None).remove()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p, s: p.receive(s, 0), ValueError, ["max_bytes", "0"]),
        (lambda p, s: p.receive(s, 2**31), ValueError, ["max_bytes", str(2**31 - 1)]),
        (lambda p, s: p.receive(s, 1.0), TypeError, ["max_bytes", "1.0"]),
        (lambda p, s: p.receive_exactly(s, 0), ValueError, ["count", "0"]),
        (lambda p, s: p.receive_into(s, bytearray()), ValueError, ["buffer", "one byte"]),
        (lambda p, s: p.receive_into(s, b"0123"), BufferError, ["written"]),
        (lambda p, s: p.send(s, "text"), TypeError, ["str"]),
        (lambda p, s: p.send_all(s, memoryview(b"0123")[::2]), BufferError, ["contiguous"]),
        (lambda p, s: p.receive(s, 1, 42), TypeError, ["handler", "42"]),
        (lambda p, s: p.connect(s, ("127.0.0.1", 1, 2, 3, 4)), (TypeError, OSError), []),
        (lambda p, _: p.receive(0, 1), TypeError, ["socket", "0"]),
        (lambda p, _: p.accept(sys.stdin), TypeError, ["socket"]),
    ],
)
def test_a_wrong_argument_is_refused_at_the_call(proactor, pair, call, error, words):
    """T92. With what was expected and what came; nothing is pending, and the socket is as it was."""
    here, _there = pair()
    with pytest.raises(error) as raised:
        call(proactor, here)
    assert all(word in str(raised.value) for word in words), raised.value
    assert "0 pending" in repr(proactor)


def test_a_socket_that_blocks_or_was_closed_is_refused_at_the_call(proactor):
    """T92. So is everything when the proactor was closed."""
    with socket.socket() as blocking:
        with pytest.raises(ValueError, match="must not block"):
            proactor.receive(blocking, 1)
        with pytest.raises(ValueError, match="must not block"):
            proactor.connect(blocking, ("127.0.0.1", 1))
    with pytest.raises(ValueError, match="is closed"):
        proactor.accept(blocking)
    proactor.close(blocking)
    proactor.close()
    with tcp() as sock, pytest.raises(mh.ClosedResourceError, match="Proactor"):
        proactor.receive(sock, 1)


# Cancelled.


@pytest.mark.parametrize("first", ["the data", "the cancel"])
def test_of_a_cancel_and_the_data_one_is_first_and_decides(proactor, pair, joined, first):
    """T89. Forced both ways; one completion each, and a byte is received once."""
    here, there = pair()
    calls = []
    with joined(proactor.loop, 2), Gate() as gate:
        operation = proactor.receive(here, 10, calls.append)
        task = task_of(proactor, here)
        wait_until(lambda: task.state == "SUSPENDED")
        # Nobody can step the task as long as its strand is held, so the order of the two is the test's.
        proactor._strand(here.fileno()).post(gate)
        gate.wait_entered()
        if first == "the data":
            there.send(b"abc")
            wait_until(lambda: task.state == "QUEUED")
            assert operation.cancel()
        else:
            assert operation.cancel()
            there.send(b"abc")
        assert not operation.done
        gate.open()
        if first == "the data":
            assert operation.result(LONG) == b"abc"
        else:
            with pytest.raises(mh.OperationCancelled):
                operation.result(LONG)
            assert proactor.receive(here, 10).result(LONG) == b"abc"
        assert not operation.cancel()
        wait_until(lambda: calls)
    proactor.loop.run_ready()
    assert calls == [operation]


def test_what_has_not_begun_can_be_cancelled_and_leaves_the_data(proactor, pair, joined):
    """T89. Half of a `receive_exactly` that is cancelled is there for the next one."""
    here, there = pair()
    there.send(b"abc")
    operation = proactor.receive(here, 10)
    assert operation.cancel()
    with joined(proactor.loop):
        with pytest.raises(mh.OperationCancelled):
            operation.result(LONG)
        exactly = proactor.receive_exactly(here, 10)
        wait_until(lambda: task_of(proactor, here).state == "SUSPENDED")
        exactly.cancel()
        with pytest.raises(mh.OperationCancelled):
            exactly.result(LONG)
        assert proactor.receive(here, 10).result(LONG) == b"abc"


@pytest.mark.race
def test_cancels_race_data_and_each_operation_completes_once(proactor, pair, joined):
    """T89. Each byte is received once: by the operation that was cancelled too late, or by the next."""
    here, there = pair()
    calls, started, received, rounds = [], [], bytearray(), 300
    with joined(proactor.loop, 2):
        for turn in range(rounds):
            operation = proactor.receive(here, 10, calls.append)
            started.append(operation)
            there.send(bytes([turn % 251]))
            for _ in range(turn % 7):
                operation.done  # noqa: B018 - time passes
            operation.cancel()
            if isinstance(operation.exception(LONG), mh.OperationCancelled):
                operation = proactor.receive(here, 10, calls.append)
                started.append(operation)
            received += operation.result(LONG)
        wait_until(lambda: len(calls) == len(started))
    assert calls == started
    assert received == bytes(turn % 251 for turn in range(rounds))


# Closed.


@pytest.mark.parametrize("served", [0, 1, 4])
def test_a_close_completes_what_is_pending_and_frees_its_buffers(proactor, pair, joined, served):
    """T90. When it returns; also if nobody serves the loop, and if an operation had not begun."""
    here, there = pair()
    calls, buffer, data = [], bytearray(10), bytearray(3_000_000)
    with joined(proactor.loop, served):
        operations = [proactor.receive_into(here, buffer, calls.append), proactor.send_all(here, data, calls.append)]
        if served:
            wait_until(lambda: operations[1].transferred)
            with pytest.raises(BufferError):
                data.clear()
        proactor.close(here)
        assert all(operation.done for operation in operations)
        buffer.clear()
        data.clear()
        assert here.fileno() == -1
        for operation in operations:
            with pytest.raises(mh.ClosedResourceError, match=r"receive_into|send_all"):
                operation.result()
        if not served:
            proactor.loop.run_ready()
        wait_until(lambda: len(calls) == 2)
    assert set(calls) == set(operations)
    there.recv(1 << 20)
    assert "0 pending" in repr(proactor)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_handler_closes_its_own_socket(proactor, pair, joined, threads):
    """T90. The other direction has completed and its buffer is free when the call returns."""
    here, there = pair()
    data, seen, finished = bytearray(3_000_000), [], threading.Event()

    def handler(_operation):
        proactor.close(here)
        data.clear()
        seen.append(sending.exception(0))
        finished.set()

    with joined(proactor.loop, threads):
        sending = proactor.send_all(here, data)
        wait_until(lambda: sending.transferred)
        proactor.receive(here, 1, handler)
        there.send(b"x")
        assert finished.wait(LONG)
    assert isinstance(seen.pop(), mh.ClosedResourceError)


def test_a_close_while_a_handler_is_inside_is_completed_when_that_has_ended(proactor, pair, joined, monkeypatch):
    """T90. The close waits for so long, and then says the truth: it is pending, and soon is not."""
    monkeypatch.setattr("manyhands._proactor.CLOSE_TIMEOUT", 0.01)
    here, there = pair()
    with joined(proactor.loop), Gate() as gate:
        proactor.receive(here, 1, gate)
        there.send(b"x")
        gate.wait_entered()
        operation = proactor.receive(here, 1)
        proactor.close(here)
        assert here.fileno() == -1
        assert not operation.done
        gc.collect()
        gate.open()
        assert isinstance(operation.exception(LONG), mh.ClosedResourceError)
    assert not proactor._sockets._leaving


@pytest.mark.parametrize("who", ["the proactor", "the loop"])
def test_the_close_of_the_proactor_or_the_loop_completes_everything(proactor, pair, listener, who):
    """T90. Sockets stay open; handlers that are owed by a loop that is closed run on the thread that closes it."""
    here, there = pair()
    calls, buffer = [], bytearray(1)
    operations = [proactor.accept(listener, calls.append), proactor.receive_into(here, buffer, calls.append)]
    proactor.loop.run_ready()
    operations.append(proactor.send_all(there, b"never begun", calls.append))
    if who == "the proactor":
        proactor.close()
        assert calls == []
        proactor.loop.run_ready()
    else:
        proactor.loop.close()
        assert proactor.closed
    assert set(calls) == set(operations)
    assert all(isinstance(operation.exception(), mh.ClosedResourceError) for operation in operations)
    buffer.clear()
    assert min(here.fileno(), there.fileno(), listener.fileno()) >= 0


def test_a_call_that_meets_a_close_completes(proactor, pair):
    """T90. The proactor had looked already; the operation ends as one that was first."""
    here, _there = pair()
    proactor._sockets.close(deadline=0.0)
    buffer = bytearray(1)
    operation = proactor.receive_into(here, buffer)
    assert isinstance(operation.exception(0), mh.ClosedResourceError)
    buffer.clear()


@pytest.mark.race
def test_a_close_races_calls_and_each_completes_or_is_refused(proactor, pair, joined, spawn):
    """T90. Nothing is started that nobody ends."""
    calls, started = [], []

    def start():
        try:
            while True:
                started.append(proactor.send(here, b"", calls.append))
                started[-1].exception(LONG)
        except mh.ClosedResourceError:
            return

    here, _there = pair()
    with joined(proactor.loop, 2):
        starting = spawn(start)
        wait_until(lambda: len(started) > 50)
        proactor.close()
        starting.result()
        for operation in started:
            assert isinstance(operation.exception(LONG), (mh.ClosedResourceError, type(None)))
        wait_until(lambda: len(calls) == len(started))
    assert calls == started


# In tasks.


@pytest.mark.parametrize("threads", [1, 4])
def test_a_task_awaits_operations(proactor_here, pair, threads):
    """T86. Of a proactor on the loop that runs the task; one that has completed is there at once."""
    here, there = pair()

    async def answer(proactor):
        asked = await proactor.receive_exactly(there, 7)
        await proactor.send_all(there, asked.upper())

    async def main():
        with proactor_here() as proactor:
            async with mh.create_task_group() as group:
                group.start_soon(answer, proactor)
                await proactor.send_all(here, b"request")
                operation = proactor.receive_exactly(here, 7)
                assert await operation == b"REQUEST"
                assert await operation == b"REQUEST"
            there.shutdown(socket.SHUT_WR)
            with pytest.raises(mh.IncompleteRead):
                await proactor.receive_exactly(here, 1)

    mh.run(main, threads=threads)


def test_a_cancelled_scope_cancels_the_operation_that_its_task_awaits(proactor_here, pair):
    """T89. The buffer is free soon, and what comes later is for the next one."""
    here, there = pair()

    async def main():
        buffer = bytearray(10)
        with proactor_here() as proactor:
            with mh.CancelScope() as scope:
                operation = proactor.receive_into(here, buffer)
                async with mh.create_task_group() as group:
                    group.start_soon(stop, scope)
                    await operation
            assert scope.cancelled_caught
            with mh.fail_after(LONG):
                while not operation.done:
                    await mh.checkpoint()
            assert isinstance(operation.exception(), mh.OperationCancelled)
            buffer.clear()
            there.send(b"x")
            assert await proactor.receive(here, 10) == b"x"

    async def stop(scope):
        await mh.checkpoint()
        scope.cancel()

    mh.run(main)


def test_a_task_closes_what_another_one_awaits(proactor_here, pair):
    """T90. ClosedResourceError is raised there."""
    here, _there = pair()

    async def receive(proactor, raised):
        with pytest.raises(mh.ClosedResourceError):
            await proactor.receive(here, 10)
        raised.append(True)

    async def main():
        raised = []
        with proactor_here() as proactor:
            async with mh.create_task_group() as group:
                group.start_soon(receive, proactor, raised)
                while not proactor._sockets.pending:
                    await mh.checkpoint()
                proactor.close(here)
        assert raised == [True]

    mh.run(main)


# What is nobody's.


def test_an_interrupt_that_meets_an_operation_leaves_the_join(proactor, pair, monkeypatch, spawn):
    """T93. And the operation has completed, with an error that has it as its cause."""
    here, _there = pair()

    async def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("manyhands._socket_operations.receive", lambda _: interrupted)
    operation = proactor.receive(here, 1)
    try:
        with pytest.raises(KeyboardInterrupt):
            spawn(proactor.loop.join).result()
    finally:
        proactor.loop.request_stop()
    error = operation.exception(0)
    assert isinstance(error, mh.ManyhandsError)
    assert isinstance(error.__cause__, KeyboardInterrupt)


@pytest.mark.fault
def test_a_proactor_of_the_parent_takes_no_socket_in_the_child(subprocess_python):
    """FAULT 11. The parent's operation goes on."""
    done = subprocess_python(
        """
import os, socket, threading, warnings
import manyhands as mh

warnings.simplefilter("ignore", DeprecationWarning)
here, there = socket.socketpair()
here.setblocking(False)
loop = mh.EventLoop()
proactor = mh.Proactor(loop, files="threads")
operation = proactor.receive(here, 3)
thread = threading.Thread(target=loop.join)
thread.start()
pid = os.fork()
if not pid:
    for use in (lambda: proactor.receive(here, 1), lambda: proactor.send(here, b"x"), lambda: operation.result(1)):
        try:
            use()
        except mh.ForkedError:
            continue
        os._exit(1)
    os._exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
there.send(b"abc")
assert operation.result(10) == b"abc"
loop.request_stop()
thread.join()
loop.close()
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
