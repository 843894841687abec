"""Waiting for any descriptor: `wait_readable`, `wait_writable`, `notify_closing`."""

from __future__ import annotations

import os
import socket
import tempfile

import pytest

import manyhands as mh
from streaming import each_kind, run, until_waiting


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
            for second in (mh.wait_readable, mh.wait_writable):
                with pytest.raises(mh.BusyResourceError, match="waiting for"):
                    await second(one)
            two.send(b"x")
            await waiting
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
