"""Memory object streams: every item to one receiver, whoever waits, is cancelled or closes. The product of cancellations is
in test_task_lock.py.
"""

from __future__ import annotations

import gc
import math
import os
import threading
import weakref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import manyhands as mh
from between import on_threads, run, until
from manyhands.errors import (
    BrokenResourceError,
    Cancelled,
    ClosedResourceError,
    EndOfStream,
    WouldBlock,
)
from support import wait_collected


def closing(*ends):
    for end in ends:
        end.close()


@on_threads
@pytest.mark.parametrize("room", [0, 1, 10, math.inf])
def test_every_item_is_received_once(room, threads):
    """T85. Several senders and receivers, each with a clone; the end comes when the last sender has closed."""

    async def main():
        send, receive = mh.create_memory_object_stream[int](room)
        got = []

        async def sender(end, base):
            with end:
                for n in range(base, base + 100):
                    await end.send(n)

        async def receiver(end):
            async with end:
                got.extend([item async for item in end])

        async with mh.create_task_group() as group:
            with send, receive:
                for n in range(4):
                    group.start_soon(sender, send.clone(), n * 100)
                    group.start_soon(receiver, receive.clone())
        assert sorted(got) == list(range(400))
        assert send.statistics() == mh.MemoryObjectStreamStatistics(0, room, 0, 0, 0, 0)

    run(main, threads=threads)


@on_threads
def test_items_come_in_the_order_in_which_they_were_sent(threads):
    """T47. Of one sender always; of waiting senders in the order in which they came."""

    async def main():
        send, receive = mh.create_memory_object_stream[int](2)
        async with mh.create_task_group() as group:
            with send, receive:
                for n in range(6):
                    group.start_soon(wait_and_send, send, n)
                    await until(lambda n=n: sum(_used(send)) == n + 1)
                assert send.statistics() == mh.MemoryObjectStreamStatistics(2, 2, 1, 1, 4, 0)
                assert [await receive.receive() for _ in range(6)] == list(range(6))

    async def wait_and_send(send, n):
        await send.send(n)

    run(main, threads=threads)


def _used(end):
    statistics = end.statistics()
    return statistics.current_buffer_used, statistics.tasks_waiting_send


def test_without_waiting_it_is_done_or_refused():
    """T54. A full buffer and an empty one say WouldBlock, a closed end what is closed."""

    async def main():
        send, receive = mh.create_memory_object_stream[int](1)
        with pytest.raises(WouldBlock):
            receive.receive_nowait()
        send.send_nowait(1)
        with pytest.raises(WouldBlock):
            send.send_nowait(2)
        assert receive.receive_nowait() == 1
        send.send_nowait(3)
        send.close()
        with pytest.raises(ClosedResourceError):
            send.send_nowait(4)
        assert receive.receive_nowait() == 3
        with pytest.raises(EndOfStream):
            receive.receive_nowait()
        receive.close()
        with pytest.raises(ClosedResourceError):
            receive.receive_nowait()
        send, receive = mh.create_memory_object_stream[int](1)
        receive.close()
        with pytest.raises(BrokenResourceError):
            send.send_nowait(5)
        with pytest.raises(BrokenResourceError):
            await send.send(5)
        send.close()
        for call in (send.clone, receive.clone):
            with pytest.raises(ClosedResourceError):
                call()
        with pytest.raises(ClosedResourceError):
            await send.send(6)
        with pytest.raises(ClosedResourceError):
            await receive.receive()

    run(main)


@on_threads
@pytest.mark.parametrize(
    ("who", "closes", "error"),
    [
        ("receive", "send", EndOfStream),
        ("receive", "receive", ClosedResourceError),
        ("receive by iterating", "send", StopAsyncIteration),
        ("send", "receive", BrokenResourceError),
        ("send", "send", ClosedResourceError),
    ],
)
def test_closing_an_end_ends_what_waits(who, closes, error, threads):
    """T85. On both sides, and on its own only those who wait through the handle that was closed."""

    async def main():
        send, receive = mh.create_memory_object_stream[str](0)
        other_send, other_receive = send.clone(), receive.clone()
        caught = []

        async def waits():
            with pytest.raises(error):
                if who == "send":
                    await send.send("item")
                elif who == "receive by iterating":
                    await receive.__anext__()
                else:
                    await receive.receive()
            caught.append(error)

        async with mh.create_task_group() as group:
            group.start_soon(waits)
            await until(lambda: max(send.statistics().tasks_waiting_send, send.statistics().tasks_waiting_receive))
            ends = {"send": (send, other_send), "receive": (receive, other_receive)}[closes]
            ends[0].close()
            if not who.startswith(closes):
                await mh.checkpoint()
                assert caught == []
                ends[1].close()
        assert caught == [error]
        closing(send, receive, other_send, other_receive)
        assert send.statistics() == mh.MemoryObjectStreamStatistics(0, 0, 0, 0, 0, 0)

    run(main, threads=threads)


@pytest.mark.race
@on_threads
def test_an_item_passes_by_a_receiver_that_was_cancelled(threads):
    """T85. It is the next one's; and a sender that was cancelled has not sent."""

    async def main():
        send, receive = mh.create_memory_object_stream[int](0)
        scope, got = mh.CancelScope(), []

        async def first():
            with scope:
                got.append(await receive.receive())

        async def second():
            got.append(await receive.receive())

        async def sender(n):
            with scope:
                await send.send(n)

        async with mh.create_task_group() as group:
            for n, function in enumerate((first, second)):
                group.start_soon(function)
                await until(lambda n=n: send.statistics().tasks_waiting_receive == n + 1)
            scope.cancel()
            send.send_nowait(1)
        assert got == [1]
        scope = mh.CancelScope()
        async with mh.create_task_group() as group:
            group.start_soon(sender, 2)
            await until(lambda: send.statistics().tasks_waiting_send == 1)
            scope.cancel()
            with pytest.raises(WouldBlock):
                receive.receive_nowait()
        assert send.statistics() == mh.MemoryObjectStreamStatistics(0, 0, 1, 1, 0, 0)
        closing(send, receive)

    run(main, threads=threads)


@pytest.mark.race
def test_nothing_is_lost_or_received_twice_while_everybody_is_cancelled_at_random():
    """T85. Senders note what was sent, receivers what came; what is in the buffer at the end makes up the difference."""

    async def main():
        send, receive = mh.create_memory_object_stream[int](3)
        sent, received = [], []

        async def sender(base):
            for n in range(base, base + 80):
                with mh.CancelScope() as scope:
                    if n % 3 == 0:
                        group.start_soon(cancel, scope)
                    await send.send(n)
                    sent.append(n)

        async def receiver():
            for n in range(80):
                with mh.CancelScope() as scope:
                    if n % 2 == 0:
                        group.start_soon(cancel, scope)
                    received.append(await receive.receive())

        async def cancel(scope):
            scope.cancel()

        async def watch():
            # Whoever is left alone at the end is let go.
            while len(ended) < 8:
                await mh.checkpoint()
                if len(ended) >= 4 and len(ended) + sum(_waits(send)) == 8:
                    group.cancel_scope.cancel()

        ended = []

        async def noted(function, *args):
            try:
                await function(*args)
            finally:
                ended.append(1)

        async with mh.create_task_group() as group:
            for n in range(4):
                group.start_soon(noted, sender, n * 100)
                group.start_soon(noted, receiver)
            group.start_soon(watch)
        while True:
            try:
                received.append(receive.receive_nowait())
            except WouldBlock:
                break
        assert sorted(received) == sorted(sent)
        closing(send, receive)

    run(main, threads=4)


def _waits(end):
    statistics = end.statistics()
    return statistics.tasks_waiting_send, statistics.tasks_waiting_receive


OPS = st.lists(
    st.one_of(
        st.just(("send", 0)),
        st.just(("receive", 0)),
        st.just(("send_nowait", 0)),
        st.just(("receive_nowait", 0)),
        st.tuples(st.just("cancel"), st.integers(0, 8)),
        st.just(("settle", 0)),
    ),
    max_size=30,
)


@settings(
    max_examples=int(os.environ.get("MANYHANDS_MACHINE_STEPS", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(ops=OPS, room=st.integers(0, 2), ends=st.sampled_from(["senders", "receivers"]))
def test_a_stream_does_what_plain_lists_would(ops, room, ends):
    """T85. Any history of sends, receives and cancellations, with a close at the end, against a model of a few lines."""

    async def main():
        send, receive = mh.create_memory_object_stream[int](room)
        buffer, senders, receivers, expected = [], [], [], []
        scopes, outcomes = [], []

        async def task(n, *, sends):
            with scopes[n]:
                try:
                    outcomes[n] = (await send.send(n)) or "sent" if sends else await receive.receive()
                except Cancelled:
                    outcomes[n] = "cancelled"
                    raise
                except (EndOfStream, BrokenResourceError, ClosedResourceError) as error:
                    outcomes[n] = type(error).__name__

        def model_send(item, *, waits):
            if receivers:
                expected[receivers.pop(0)] = item
            elif len(buffer) < room:
                buffer.append(item)
            else:
                if waits:
                    senders.append(item)
                return False
            return True

        def model_receive():
            if not buffer and not senders:
                return None
            item = buffer.pop(0) if buffer else None
            if senders:
                moved = senders.pop(0)
                expected[moved] = "sent"
                if item is None:
                    return moved
                buffer.append(moved)
            return item

        async def settle():
            for _ in range(3):
                await mh.checkpoint()

        async with mh.create_task_group() as group:
            for op, k in ops:
                n = len(scopes)
                match op:
                    case "send" | "receive":
                        await settle()
                        scopes.append(mh.CancelScope())
                        outcomes.append("waits")
                        expected.append("waits")
                        if op == "send":
                            if model_send(n, waits=True):
                                expected[n] = "sent"
                        elif (item := model_receive()) is not None:
                            expected[n] = item
                        else:
                            receivers.append(n)
                        group.create_task(task(n, sends=op == "send"))
                        await settle()
                    case "send_nowait":
                        try:
                            send.send_nowait(-1)
                        except WouldBlock:
                            assert not model_send(-1, waits=False)
                        else:
                            assert model_send(-1, waits=False)
                    case "receive_nowait":
                        try:
                            item = receive.receive_nowait()
                        except WouldBlock:
                            item = None
                        assert item == model_receive()
                    case "cancel" if scopes:
                        k %= n  # noqa: PLW2901 - whichever there is
                        scopes[k].cancel()
                        for line in (senders, receivers):
                            if k in line:
                                line.remove(k)
                                expected[k] = "cancelled"
                    case "settle":
                        await settle()
                        assert outcomes == expected
                        assert send.statistics() == mh.MemoryObjectStreamStatistics(
                            len(buffer), room, 1, 1, len(senders), len(receivers)
                        )
            (send if ends == "senders" else receive).close()
            for waiting, other in ((receivers, "EndOfStream"), (senders, "BrokenResourceError")):
                for n in waiting:
                    own = (waiting is senders) == (ends == "senders")
                    expected[n] = "ClosedResourceError" if own else other
            await settle()
            assert outcomes == expected
        closing(send, receive)
        # What was not received goes with the last receiver.
        assert send.statistics() == mh.MemoryObjectStreamStatistics(0, room, 0, 0, 0, 0)

    run(main)


def test_an_end_that_nobody_closed_is_closed_by_the_collector_and_says_so():
    """T99. The other side would wait for ever."""

    async def main():
        send, receive = mh.create_memory_object_stream[int](1)
        ended = []

        async def receiver():
            with receive:
                ended.extend([item async for item in receive])
            ended.append("end")

        async with mh.create_task_group() as group:
            group.start_soon(receiver)
            await until(lambda: receive.statistics().tasks_waiting_receive)
            send.send_nowait(1)
            ends = [send]
            del send
            with pytest.warns(ResourceWarning, match="MemoryObjectSendStream was not closed"):
                ends.clear()
        assert ended == [1, "end"]

    run(main)


def test_a_stream_in_a_cycle_with_what_it_holds_is_collected():
    """T99. The collector is shown the items, in the buffer and with a sender that waits."""

    class Item:
        pass

    async def main():
        send, receive = mh.create_memory_object_stream[Item](1)
        first, second = Item(), Item()
        first.stream = second.stream = (send, receive)
        seen = [weakref.ref(first), weakref.ref(second)]
        send.send_nowait(first)
        with mh.CancelScope() as scope:
            async with mh.create_task_group() as group:
                group.start_soon(_send, send, second)
                await until(lambda: send.statistics().tasks_waiting_send)
                gc.collect()
                assert all(ref() is not None for ref in seen)
                scope.cancel()
        closing(send, receive)
        return seen

    async def _send(send, item):
        await send.send(item)

    seen = run(main)
    wait_collected(*seen)


def test_items_are_sent_by_threads_and_by_finalizers():
    """T97. send_nowait takes no lock of Python's, and wakes a loop that waits in its poller."""

    class Sends:
        def __init__(self, send):
            self.send = send
            self.me = self

        def __del__(self):
            self.send.send_nowait("finalizer")

    async def main():
        send, receive = mh.create_memory_object_stream[str](math.inf)
        with send, receive:
            thread = threading.Thread(target=send.send_nowait, args=("thread",))
            thread.start()
            assert await receive.receive() == "thread"
            thread.join()
            Sends(send)
            gc.collect()
            assert await receive.receive() == "finalizer"

    run(main)


def test_whatever_is_sent_is_what_comes():
    """T88. Also what an await could take apart: None, tuples, exceptions, StopIteration itself."""

    async def main():
        send, receive = mh.create_memory_object_stream(math.inf)
        items = [None, (), (1, 2), KeyError("k"), StopIteration(3), EndOfStream(), send]
        with send, receive:
            for item in items:
                await send.send(item)
            for item in items:
                assert await receive.receive() is item
            await send.aclose()
            with pytest.raises(EndOfStream):
                await receive.receive()
            await receive.aclose()

    run(main)


@pytest.mark.parametrize(("size", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("1", TypeError)])
def test_a_buffer_size_that_cannot_be_is_refused(size, error):
    """T54. No bound is asked for by math.inf, and not by a number that is none."""
    with pytest.raises(error, match="max_buffer_size must be"):
        mh.create_memory_object_stream(size)


def test_a_sender_that_only_sends_lets_others_run():
    """T85d. What succeeds at once spends the task's budget."""

    async def main():
        send, receive = mh.create_memory_object_stream[int](math.inf)
        others = 0

        async def other():
            nonlocal others
            while not done:
                others += 1
                await mh.checkpoint()

        done = []
        with send, receive:
            async with mh.create_task_group() as group:
                group.start_soon(other)
                for n in range(200):
                    await send.send(n)
                for _ in range(200):
                    await receive.receive()
                done.append(1)
        assert others >= 5

    run(main)
