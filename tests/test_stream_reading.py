"""What a stream's reader gets: some bytes, exactly so many, up to a delimiter, into a buffer; and nothing is stranded."""

from __future__ import annotations

import array
import contextlib
import random
import socket

import pytest

import manyhands as mh
from streaming import each_kind, linked, run, until_waiting


def test_receive_gives_what_there_is_and_at_most_what_was_asked_for():
    """T88."""

    async def main() -> None:
        async with linked() as (stream, peer):
            peer.sendall(b"abcdef")
            assert await stream.receive(4) == b"abcd"
            assert await stream.receive(4) == b"ef"
            peer.sendall(b"x")
            assert await stream.receive(2**40) == b"x"
            peer.close()
            for _ in range(2):
                with pytest.raises(mh.EndOfStream):
                    await stream.receive()

    run(main)


@pytest.mark.parametrize("held", [bytes, memoryview, lambda data: {data: 0}], ids=["object", "view", "key"])
def test_bytes_that_somebody_holds_never_change(held):
    """T88. A thread fills the bytes that it gave last anew, if nobody has them any more; of every hash it knows nothing."""

    async def main() -> None:
        async with linked() as (stream, peer):
            kept = []
            for n in range(6):
                peer.sendall(bytes([n]) * 1000)
                kept.append(held(await stream.receive_exactly(1000) if n == 3 else await stream.receive()))
                hash(await echoed(stream, peer, 100 + n))
            for n in range(6):
                assert next(iter(kept[n])) in (n, bytes([n]) * 1000)
                assert kept[n] == held(bytes([n]) * 1000)
            assert {await echoed(stream, peer, 7), await echoed(stream, peer, 8)} == {b"\x07" * 1000, b"\x08" * 1000}

    async def echoed(stream: mh.SocketStream, peer: socket.socket, n: int) -> bytes:
        peer.sendall(bytes([n]) * 1000)
        return await stream.receive()

    run(main)


@pytest.mark.parametrize("method", ["receive", "receive_exactly"])
def test_a_count_that_makes_no_sense_is_refused_at_the_call(method):
    """Issue: bad input. Nothing is taken."""

    async def main() -> None:
        async with linked() as (stream, peer):
            peer.sendall(b"x")
            for count in (0, -1, -(2**62)):
                with pytest.raises(ValueError, match=f"at least 1, and got {count}"):
                    getattr(stream, method)(count)
            for count in (2**63, -(2**63) - 1):
                with pytest.raises(OverflowError):
                    getattr(stream, method)(count)
            for count in (1.5, "1", None, b"1"):
                with pytest.raises(TypeError):
                    getattr(stream, method)(count)
            assert await getattr(stream, method)(1) == b"x"

    run(main)


def test_an_exact_count_that_no_memory_holds_is_an_error_and_takes_nothing():
    """FAULT 18. It is refused before anything is read."""

    async def main() -> None:
        async with linked() as (stream, peer):
            peer.sendall(b"x")
            with pytest.raises((MemoryError, OverflowError)):
                stream.receive_exactly(2**62)
            assert await stream.receive() == b"x"

    run(main)


@each_kind
def test_exactly_so_many_bytes_are_gathered_from_many_pieces(poller, threads):
    """T88."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            receiving = group.create_task(stream.receive_exactly(6))
            for piece in (b"a", b"bc", b"d"):
                await until_waiting(receiving)
                peer.sendall(piece)
            peer.sendall(b"efrest")
            assert await receiving == b"abcdef"
            assert await stream.receive_exactly(4) == b"rest"

    run(main, poller=poller, threads=threads)


def test_the_end_before_all_has_come_carries_what_came():
    """T88."""

    async def main() -> None:
        for read in (lambda stream: stream.receive_exactly(10), lambda stream: stream.receive_until(b"\n")):
            async with linked() as (stream, peer):
                peer.sendall(b"half")
                peer.close()
                with pytest.raises(mh.IncompleteRead) as short:
                    await read(stream)
                assert short.value.partial == b"half"
                with pytest.raises(mh.IncompleteRead) as short:
                    await read(stream)
                assert short.value.partial == b""
                with pytest.raises(mh.EndOfStream):
                    await stream.receive()

    run(main)


@each_kind
def test_what_a_cancelled_exact_receive_has_read_is_read_by_the_next(poller, threads):
    """T89. Ten times in a row, and before what came later."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            for number in range(10):
                receiving = group.create_task(stream.receive_exactly(100))
                await until_waiting(receiving)
                peer.sendall(bytes([number]))
                for _ in range(number):
                    await mh.checkpoint()  # it may have been read or not
                receiving.cancel()
                with pytest.raises(mh.TaskCancelled):
                    await receiving
            peer.sendall(b"rest")
            assert await stream.receive_exactly(14) == bytes(range(10)) + b"rest"
            assert stream.buffered == 0

    run(main, poller=poller, threads=threads)


def test_lines_are_found_across_the_borders_of_chunks():
    """T88. Each border once, with a delimiter of several bytes."""

    async def main() -> None:
        text = b"first\r\n\r\nsecond\r\n\r\nrest"
        for cut in range(1, len(text)):
            async with linked("unix") as (stream, peer), mh.create_task_group() as group:
                receiving = group.create_task(stream.receive_until(b"\r\n\r\n"))
                peer.sendall(text[:cut])
                if cut < len(b"first\r\n\r\n"):
                    await until_waiting(receiving)
                peer.sendall(text[cut:])
                assert await receiving == b"first\r\n\r\n"
                assert await stream.receive_until(b"\r\n\r\n") == b"second\r\n\r\n"
                assert await stream.receive_exactly(4) == b"rest"
                assert stream.buffered == 0

    run(main)


def test_a_delimiter_that_is_not_there_is_an_error_and_the_bytes_are_still_to_be_read():
    """T88."""

    async def main() -> None:
        async with linked() as (stream, peer):
            peer.sendall(b"0123456789\n")
            for limit in (1, 5, 10):
                with pytest.raises(mh.DelimiterNotFound) as missing:
                    await stream.receive_until(b"\n", limit)
                assert missing.value.max_bytes == limit
            assert await stream.receive_until(b"\n", 11) == b"0123456789\n"
            for delimiter, limit in ((b"", 10), (b"\n", 0), (b"\n", -5)):
                with pytest.raises(ValueError, match="at least"):
                    stream.receive_until(delimiter, limit)
            with pytest.raises(TypeError):
                stream.receive_until("\n")

    run(main)


def test_a_receive_until_that_was_cancelled_loses_nothing():
    """T89."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            receiving = group.create_task(stream.receive_until(b"\n"))
            peer.sendall(b"be")
            while not stream.buffered:
                await mh.checkpoint()
            receiving.cancel()
            with pytest.raises(mh.TaskCancelled):
                await receiving
            peer.sendall(b"gun\nmore")
            assert await stream.receive_until(b"\n") == b"begun\n"
            assert await stream.receive(2) == b"mo"
            assert await stream.receive_exactly(2) == b"re"

    run(main)


def test_a_buffer_of_the_caller_is_filled_and_cannot_be_resized_meanwhile():
    """T90."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            buffer = bytearray(4)
            receiving = group.create_task(stream.receive_into(buffer))
            await until_waiting(receiving)
            with pytest.raises(BufferError):
                buffer.append(0)
            peer.sendall(b"abcdef")
            assert await receiving == 4
            assert buffer == b"abcd"
            buffer.append(0)
            view = memoryview(buffer)[1:]
            assert await stream.receive_into(view) == 2
            assert buffer == b"aefd\0"
            numbers = array.array("I", [0])
            peer.sendall(b"\1\0\0\0")
            assert await stream.receive_into(numbers) == 4
            assert list(numbers) == [1]
            for wrong in (b"constant", memoryview(b"constant"), "text", 3):
                with pytest.raises((TypeError, BufferError)):
                    stream.receive_into(wrong)
            with pytest.raises(ValueError, match="room"):
                stream.receive_into(bytearray())

    run(main)


@each_kind
def test_the_end_behind_data_in_one_edge_is_seen(poller, threads):
    """T88a. Data and the end come before anybody looks: one edge, a short read, and no second edge."""

    async def main() -> None:
        for family in ("tcp", "unix"):
            async with linked(family) as (stream, peer), mh.create_task_group() as group:
                # The first edge is over before: the cached readiness says that there is nothing.
                receiving = group.create_task(stream.receive())
                await until_waiting(receiving)
                peer.sendall(b"1")
                assert await receiving == b"1"
                peer.sendall(b"last words")
                peer.close()
                assert await stream.receive() == b"last words"
                with pytest.raises(mh.EndOfStream):
                    await stream.receive()

    run(main, poller=poller, threads=threads)


@each_kind
def test_data_behind_ancillary_data_on_a_unix_socket_is_not_stranded(poller, threads):
    """T88a. The kernel ends a read at a message with ancillary data: a short read that is not all."""

    async def main() -> None:
        async with linked("unix") as (stream, peer), mh.create_task_group() as group:
            receiving = group.create_task(stream.receive())
            await until_waiting(receiving)
            peer.sendall(b"1")
            assert await receiving == b"1"
            peer.sendall(b"plain")
            with socket.socket() as passenger:
                socket.send_fds(peer, [b"with a descriptor"], [passenger.fileno()])
            peer.sendall(b"plain again")
            expected = b"plainwith a descriptorplain again"
            assert await stream.receive_exactly(len(expected)) == expected

    run(main, poller=poller, threads=threads)


@each_kind
def test_data_behind_urgent_data_is_not_stranded(poller, threads):
    """T88a. A read ends at the urgent mark, and what is behind it gives no edge of its own."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            receiving = group.create_task(stream.receive())
            await until_waiting(receiving)
            peer.sendall(b"1")
            assert await receiving == b"1"
            peer.sendall(b"before")
            peer.send(b"!", socket.MSG_OOB)
            peer.sendall(b"behind")
            assert await stream.receive_exactly(12) == b"beforebehind"

    run(main, poller=poller, threads=threads)


def test_one_byte_at_a_time_is_exact_and_in_order(spawn):
    """FAULT 17. Written one by one, and read one by one."""
    data = random.Random(17).randbytes(20_000)

    async def main() -> bytes:
        async with linked() as (stream, peer):

            def write() -> None:
                for n in range(len(data)):
                    peer.send(data[n : n + 1])

            call = spawn(write)
            received = b"".join([await stream.receive(1) for _ in range(len(data))])
            call.result()
            for n in range(1000):
                await stream.send(data[n : n + 1])
            await stream.send_eof()
            got = b""
            while part := peer.recv(1):
                got += part
            assert got == data[:1000]
            return received

    assert run(main) == data


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_called_in_whatever_order_the_bytes_are_those_that_were_sent(seed):
    """T88, T89. Random calls, some of them cancelled, against random pieces."""
    chance = random.Random(seed)
    data = bytes(chance.choices(b"abc\n", k=60_000))

    async def main() -> bytes:
        got = []
        async with linked(chance.choice(["tcp", "unix"])) as (stream, peer), mh.create_task_group() as group:

            async def write() -> None:
                peer.setblocking(False)
                left = memoryview(data)
                while left:
                    size = chance.choice([1, 2, 100, 5000, 30_000])
                    with contextlib.suppress(BlockingIOError):
                        left = left[peer.send(left[:size]) :]
                    for _ in range(chance.randrange(4)):
                        await mh.checkpoint()
                peer.shutdown(socket.SHUT_WR)

            async def read() -> None:
                limit = chance.choice([1, 3, 1000, 100_000])
                call = chance.randrange(4)
                if call == 0:
                    got.append(await stream.receive(limit))
                elif call == 1:
                    got.append(await stream.receive_exactly(limit))
                elif call == 2:
                    got.append(await stream.receive_until(b"\n\n", limit + 1))
                else:
                    buffer = bytearray(limit)
                    count = await stream.receive_into(buffer)
                    got.append(bytes(buffer[:count]))

            group.start_soon(write)
            while True:
                try:
                    with mh.CancelScope() as scope:
                        if chance.random() < 0.3:
                            group.start_soon(_cancel, scope, chance.randrange(3))
                        await read()
                except mh.DelimiterNotFound:
                    got.append(await stream.receive(1))
                except mh.IncompleteRead as short:
                    got.append(short.partial)
                except mh.EndOfStream:
                    return b"".join(got)

    assert run(main) == data


async def _cancel(scope: mh.CancelScope, turns: int) -> None:
    for _ in range(turns):
        await mh.checkpoint()
    scope.cancel()
