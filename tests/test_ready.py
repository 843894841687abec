"""Waiting for any descriptor: `wait_readable`, `wait_writable`, `notify_closing`."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile

import pytest

import manyhands as mh
from manyhands.testing import hold
from streaming import each_kind, run, until_waiting


def fill(sock: socket.socket) -> None:
    """Until nothing can be written."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536))


def drain(sock: socket.socket) -> None:
    """Until nothing is left to read."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while sock.recv(2**20):
            pass


@each_kind
def test_a_task_waits_for_a_pipe_again_and_again(poller, threads):
    """T24. By number; nothing stays registered in between."""

    async def main() -> None:
        loop = mh.current_task().group.owner
        reading, writing = os.pipe2(os.O_NONBLOCK)
        try:
            async with mh.create_task_group() as group:
                for _ in range(5):
                    waiting = group.create_task(mh.wait_readable(reading))
                    await until_waiting(waiting)
                    os.write(writing, b"x")
                    await waiting
                    assert loop.get(reading) is None
                    assert os.read(reading, 10) == b"x"
                await mh.wait_writable(writing)
                os.write(writing, b"x" * 4096)
                await mh.wait_readable(reading)
                await mh.wait_readable(reading)
        finally:
            os.close(reading)
            os.close(writing)

    run(main, poller=poller, threads=threads)


def test_an_object_with_a_number_will_do_and_the_end_is_readable(pair):
    """T32."""
    one, two = pair()

    async def main() -> None:
        await mh.wait_writable(one)
        async with mh.create_task_group() as group:
            waiting = group.create_task(mh.wait_readable(one))
            await until_waiting(waiting)
            two.close()
            await waiting
        assert one.recv(1) == b""

    run(main)


def test_a_second_waiter_is_refused_and_so_is_a_watched_descriptor(pair):
    """T85b."""
    one, two = pair()

    async def main() -> None:
        loop = mh.current_task().group.owner
        async with mh.create_task_group() as group:
            waiting = group.create_task(mh.wait_readable(one))
            await until_waiting(waiting)
            with pytest.raises(mh.BusyResourceError, match="waiting for"):
                await mh.wait_readable(one)
            await mh.wait_writable(one)
            fill(one)
            writing = group.create_task(mh.wait_writable(one))
            await until_waiting(writing)
            for second in (mh.wait_readable, mh.wait_writable):
                with pytest.raises(mh.BusyResourceError, match="waiting for"):
                    await second(one)
            two.send(b"x")
            await waiting
            drain(two)
            await writing
        watch = loop.add(one, mh.Events.WRITE, lambda watch, _: watch.pause())
        with pytest.raises(mh.BusyResourceError):
            await mh.wait_readable(one)
        watch.remove()
        await mh.wait_readable(one)

    run(main)


@each_kind
def test_a_cancelled_wait_leaves_nothing_registered(poller, threads, pair):
    """T85, T89."""
    one, two = pair()

    async def main() -> None:
        loop = mh.current_task().group.owner
        for _ in range(10):
            async with mh.create_task_group() as group:
                waiting = group.create_task(mh.wait_readable(one))
                await until_waiting(waiting)
                waiting.cancel()
            assert loop.get(one) is None
        with mh.CancelScope() as scope:
            scope.cancel()
            await mh.wait_readable(one)
        assert loop.get(one) is None
        two.send(b"x")
        await mh.wait_readable(one)

    run(main, poller=poller, threads=threads)


@each_kind
def test_whoever_waits_is_told_that_the_descriptor_is_about_to_be_closed(poller, threads, pair):
    """T90. And then it may be closed, and its number reused."""
    one, _ = pair()

    async def wait() -> None:
        with pytest.raises(mh.ClosedResourceError):
            await mh.wait_readable(one)

    async def main() -> None:
        loop = mh.current_task().group.owner
        async with mh.create_task_group() as group:
            await until_waiting(group.create_task(wait()))
            assert mh.notify_closing(one)
            assert loop.get(one) is None
            assert not mh.notify_closing(one)
            one.close()

    run(main, poller=poller, threads=threads)


@each_kind
@pytest.mark.parametrize("first", ["reader", "writer"])
def test_a_reader_and_a_writer_wait_for_one_descriptor_and_each_is_woken_by_its_own(poller, threads, pair, first):
    """T85b. Whoever is woken first, the other waits on; and they may do it again."""
    one, two = pair()

    async def main() -> None:
        loop = mh.current_task().group.owner
        for _ in range(3):
            fill(one)
            async with mh.create_task_group() as group:
                reader = group.create_task(mh.wait_readable(one))
                writer = group.create_task(mh.wait_writable(one))
                await until_waiting(reader)
                await until_waiting(writer)
                if first == "reader":
                    two.send(b"x")
                    await reader
                    assert not writer.done()
                    assert loop.get(one).events == mh.Events.WRITE
                    drain(two)
                    await writer
                else:
                    drain(two)
                    await writer
                    assert not reader.done()
                    assert loop.get(one).events == mh.Events.READ
                    two.send(b"x")
                    await reader
            assert loop.get(one) is None
            drain(one)

    run(main, poller=poller, threads=threads)


@each_kind
@pytest.mark.parametrize("cancelled", ["reader", "writer"])
def test_a_cancelled_wait_leaves_the_other_of_its_descriptor(poller, threads, pair, cancelled):
    """T85, T85b. What it asked for is asked for no more, and the other is woken as before."""
    one, two = pair()

    async def main() -> None:
        loop = mh.current_task().group.owner
        fill(one)
        async with mh.create_task_group() as group:
            waiting = {
                "reader": group.create_task(mh.wait_readable(one)),
                "writer": group.create_task(mh.wait_writable(one)),
            }
            for each in waiting.values():
                await until_waiting(each)
            gone = waiting.pop(cancelled)
            gone.cancel()
            with pytest.raises(mh.TaskCancelled):
                await gone
            (left,) = waiting.values()
            assert loop.get(one).events == (mh.Events.WRITE if cancelled == "reader" else mh.Events.READ)
            assert not left.done()
            two.send(b"x") if cancelled == "writer" else drain(two)
            await left
        assert loop.get(one) is None

    run(main, poller=poller, threads=threads)


@each_kind
def test_a_reader_and_a_writer_are_both_told_that_the_descriptor_is_about_to_be_closed(poller, threads, pair):
    """T90."""
    one, _ = pair()

    async def wait(ready) -> None:
        with pytest.raises(mh.ClosedResourceError):
            await ready(one)

    async def main() -> None:
        fill(one)
        async with mh.create_task_group() as group:
            for ready in (mh.wait_readable, mh.wait_writable):
                await until_waiting(group.create_task(wait(ready)))
            assert mh.notify_closing(one)
            one.close()

    run(main, poller=poller, threads=threads)


@each_kind
def test_a_hang_up_wakes_a_reader_and_a_writer(poller, threads, pair):
    """T32, T85b."""
    one, two = pair()

    async def main() -> None:
        fill(one)
        async with mh.create_task_group() as group:
            for ready in (mh.wait_readable, mh.wait_writable):
                await until_waiting(group.create_task(ready(one)))
            two.close()

    run(main, poller=poller, threads=threads)


@pytest.mark.parametrize("next_wait", [mh.wait_readable, mh.wait_writable])
def test_a_number_that_is_another_file_s_by_now_can_be_waited_for(pair, next_wait):
    """T27. Whoever waits for the file that was closed behind the loop's back is told, and is in nobody's way."""
    one, two = pair()
    other, peer = pair()

    async def wait() -> None:
        with pytest.raises(mh.ClosedResourceError):
            await mh.wait_readable(one)

    async def main() -> None:
        async with mh.create_task_group() as group:
            old = group.create_task(wait())
            await until_waiting(old)
            os.dup2(other.fileno(), one.fileno())
            peer.send(b"x")
            await next_wait(one)
            await old
            assert one.recv(1) == b"x"

    run(main)
    two.close()


@pytest.mark.race
def test_a_writer_that_comes_while_the_reader_is_woken_is_served(pair):
    """T85b. The handler of their watch is about to run, and finds one more to be told."""
    one, two = pair()

    async def main() -> None:
        fill(one)
        async with mh.create_task_group() as group:
            reader = group.create_task(mh.wait_readable(one))
            await until_waiting(reader)
            with hold("watch.dispatch") as held:
                two.send(b"x")
                while not held.reached:
                    await mh.checkpoint()
                writer = group.create_task(mh.wait_writable(one))
                await until_waiting(writer)
            await reader
            assert not writer.done()
            drain(two)
            await writer

    run(main, threads=3)


def test_a_watch_ends_with_the_descriptor_that_is_about_to_be_closed(pair):
    """T27, T30. Its final callback says FD_GONE, and the number is not closed for the caller."""
    one, two = pair()
    ended = []

    async def main() -> None:
        loop = mh.current_task().group.owner
        number = os.dup(one.fileno())
        watch = loop.add(number, mh.Events.READ, print, close=True, on_removed=lambda _, reason: ended.append(reason))
        assert mh.notify_closing(number)
        assert watch.removed
        await mh.sleep(0)
        os.write(number, b"still open")
        assert two.recv(100) == b"still open"
        os.close(number)
        assert not mh.notify_closing(number)

    run(main)
    assert ended == [mh.RemovalReason.FD_GONE]


def test_what_cannot_be_waited_for_is_refused(pair):
    """T33. A regular file, a number that is not open, one below zero, no number at all."""

    async def main() -> None:
        with tempfile.TemporaryFile() as file, pytest.raises(mh.NotPollable):
            await mh.wait_readable(file)
        closed = os.dup(0)
        os.close(closed)
        for number in (closed, -1):
            with pytest.raises((mh.BadDescriptor, ValueError)):
                await mh.wait_readable(number)
        with pytest.raises((TypeError, ValueError)):
            await mh.wait_readable("text")
        assert not mh.notify_closing(-1)
        assert not mh.notify_closing(2**20)

    run(main)
    with socket.socket() as sock, pytest.raises(RuntimeError, match="manyhands.run"):
        mh.notify_closing(sock)
