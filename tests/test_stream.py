"""A stream's life: sending, two at once, cancelling, closing, and what must not happen to its number."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import threading

import pytest

import manyhands as mh
from manyhands.testing import hold
from streaming import each_kind, linked, receive_all, reset, run, until_waiting
from support import LONG

BIG = bytes(range(256)) * 32768  # 8 MiB: more than the kernel takes


@each_kind
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_what_is_sent_arrives_whole_and_in_order(poller, threads, family, spawn):
    """T88. A send waits while the peer does not read, and gives it everything; the answer comes back the same way."""

    async def main() -> bytes:
        async with linked(family) as (stream, peer):
            call = spawn(lambda: (received := receive_all(peer), peer.sendall(received), peer.close()))
            await stream.send(BIG)
            await stream.send_eof()
            answer = b"".join([chunk async for chunk in stream])
            call.result()
            return answer

    assert run(main, poller=poller, threads=threads) == BIG


@each_kind
def test_a_second_receiver_is_refused_and_the_first_gets_its_data(poller, threads):
    """T85b. Whatever either of them asked for; a send goes on beside."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            first = group.create_task(stream.receive_exactly(5))
            await until_waiting(first)
            for second in (stream.receive(), stream.receive_exactly(1), stream.receive_until(b"\n")):
                with pytest.raises(mh.BusyResourceError, match="receiving"):
                    await second
            await stream.send(b"beside")
            peer.sendall(b"hello")
            assert await first == b"hello"
            assert peer.recv(6) == b"beside"

    run(main, poller=poller, threads=threads)


def test_a_second_sender_is_refused_and_the_first_sends_all(spawn):
    """T85b. An end is refused as well: it would come in the middle."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            first = group.create_task(stream.send(BIG))
            await until_waiting(first)
            with pytest.raises(mh.BusyResourceError, match="sending"):
                await stream.send(b"x")
            with pytest.raises(mh.BusyResourceError):
                await stream.send_eof()
            call = spawn(receive_all, peer)
            await first
            await stream.send_eof()
            assert call.result() == BIG

    run(main)


def test_after_send_eof_the_peer_sees_the_end_and_may_go_on_sending():
    """T88, FAULT 3. A later send is refused on this side."""

    async def main() -> None:
        async with linked() as (stream, peer):
            await stream.send(b"all")
            await stream.send_eof()
            await stream.send_eof()
            assert receive_all(peer) == b"all"
            peer.sendall(b"answer")
            assert await stream.receive() == b"answer"
            with pytest.raises(mh.ClosedResourceError, match="sending side"):
                await stream.send(b"x")

    run(main)


def test_a_closed_stream_refuses_everything_and_closes_twice():
    """Issue: bad input. ClosedResourceError from each operation; the descriptor is gone."""

    async def main() -> None:
        async with linked() as (stream, _):
            number = stream.fileno()
            await stream.aclose()
            await stream.aclose()
            assert stream.closed
            assert stream.fileno() == -1
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)
            for operation in (
                stream.receive(),
                stream.receive_exactly(1),
                stream.receive_until(b"x"),
                stream.receive_into(bytearray(1)),
                stream.send(b""),
                stream.send_eof(),
                stream.wait_ready(write=True),
            ):
                with pytest.raises(mh.ClosedResourceError):
                    await operation
            with pytest.raises(mh.ClosedResourceError):
                _ = stream.local_address
            with pytest.raises(mh.ClosedResourceError):
                stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    run(main)


@each_kind
def test_closing_ends_a_receive_and_a_send_that_are_pending_once_each(poller, threads):
    """T90, FAULT 4."""

    async def ended(operation) -> str:
        try:
            await operation
        except mh.ClosedResourceError:
            return "closed"
        return "done"

    async def main() -> None:
        async with linked() as (stream, _), mh.create_task_group() as group:
            tasks = [group.create_task(ended(stream.receive())), group.create_task(ended(stream.send(BIG)))]
            for task in tasks:
                await until_waiting(task)
            await stream.aclose()
            assert [await task for task in tasks] == ["closed", "closed"]

    run(main, poller=poller, threads=threads)


def test_a_bytearray_can_be_resized_after_its_send_and_not_during():
    """T90. Also after one that was cancelled."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            data = bytearray(b"short")
            await stream.send(data)
            data += b"er"
            assert peer.recv(100) == b"short"

            data = bytearray(BIG)
            sending = group.create_task(stream.send(data))
            await until_waiting(sending)
            with pytest.raises(BufferError):
                data.append(0)
            sending.cancel()
            with pytest.raises(mh.TaskCancelled):
                await sending
            data.append(0)

    run(main)


def test_the_buffer_of_a_send_that_a_close_ended_is_free():
    """T90."""

    async def main() -> None:
        async with linked() as (stream, _):
            data = bytearray(BIG)

            async def send() -> None:
                with pytest.raises(mh.ClosedResourceError):
                    await stream.send(data)
                data.append(0)

            async with mh.create_task_group() as group:
                await until_waiting(group.create_task(send()))
                await stream.aclose()

    run(main)


def test_whatever_is_a_buffer_is_sent_and_nothing_else():
    """Issue: bad input. bytes, bytearray, memoryview, array, nothing at all; no text, no strided view."""

    async def main() -> None:
        async with linked() as (stream, peer):
            numbers = array.array("i", [1, 2])
            for data in (b"a", bytearray(b"b"), memoryview(b"xcx")[1:2], numbers, b"", bytearray(), memoryview(b"")):
                await stream.send(data)
            await stream.send_eof()
            assert receive_all(peer) == b"abc" + numbers.tobytes()
            for data in ("text", None, 5, ["x"]):
                with pytest.raises(TypeError, match="contiguous buffer, and got"):
                    stream.send(data)
            with pytest.raises(BufferError):
                stream.send(memoryview(b"abcd")[::2])

    run(main)


@each_kind
def test_a_cancelled_receive_takes_nothing_and_leaves_nothing(poller, threads):
    """T89, T85. What comes later is the next receiver's."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            for _ in range(3):
                receiving = group.create_task(stream.receive())
                await until_waiting(receiving)
                receiving.cancel()
                with pytest.raises(mh.TaskCancelled):
                    await receiving
            peer.sendall(b"later")
            assert await stream.receive() == b"later"

    run(main, poller=poller, threads=threads)


def test_a_receive_in_a_cancelled_scope_takes_nothing_also_if_there_is_something():
    """T89."""

    async def main() -> None:
        async with linked() as (stream, peer):
            peer.sendall(b"there")
            with mh.CancelScope() as scope:
                scope.cancel()
                await stream.receive()
            assert scope.cancelled_caught
            assert await stream.receive_exactly(5) == b"there"

    run(main)


def test_a_send_that_was_cancelled_half_way_makes_the_stream_useless_for_sending():
    """T89. The peer cannot know what is missing: neither another send nor a proper end is let through."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            sending = group.create_task(stream.send(BIG))
            await until_waiting(sending)
            sending.cancel()
            with pytest.raises(mh.TaskCancelled):
                await sending
            with pytest.raises(mh.BrokenResourceError, match="half-way"):
                await stream.send(b"x")
            with pytest.raises(mh.BrokenResourceError, match="half-way"):
                await stream.send_eof()
            peer.sendall(b"read")
            assert await stream.receive() == b"read"

    run(main)


def test_a_send_that_was_cancelled_before_anything_was_out_costs_nothing(spawn):
    """T89."""

    async def main() -> None:
        async with linked() as (stream, peer):
            with mh.CancelScope() as scope:
                scope.cancel()
                await stream.send(b"never")
            await stream.send(b"sent")
            assert peer.recv(100) == b"sent"

    run(main)


@each_kind
def test_a_reset_is_an_error_for_the_reader_and_the_writer_and_never_an_end(poller, threads):
    """FAULT 4. The kernel tells it once, to whoever asks first; the other hears of it all the same."""

    async def main() -> None:
        async with linked() as (stream, peer):
            await stream.send(b"unread")
            reset(peer)
            with pytest.raises(mh.BrokenResourceError) as first:
                await stream.receive()
            assert isinstance(first.value.__cause__, ConnectionResetError)
            for _ in range(2):
                with pytest.raises(mh.BrokenResourceError):
                    await stream.send(b"x")
                with pytest.raises(mh.BrokenResourceError):
                    await stream.receive()
                with pytest.raises(mh.BrokenResourceError):
                    await stream.receive_exactly(1)
                with pytest.raises(mh.BrokenResourceError):
                    await stream.receive_until(b"\n")

    run(main, poller=poller, threads=threads)


def test_a_reset_that_the_writer_was_told_of_is_no_end_for_the_reader():
    """FAULT 4."""

    async def main() -> None:
        async with linked() as (stream, peer):
            await stream.send(b"unread")
            reset(peer)
            with pytest.raises(mh.BrokenResourceError):
                while True:
                    await stream.send(b"x")
            with pytest.raises(mh.BrokenResourceError):
                await stream.receive()

    run(main)


def test_the_answer_of_a_peer_that_has_closed_can_be_read_after_a_send_has_failed():
    """FAULT 5. EPIPE is no reset: what came before ends properly."""

    async def main() -> None:
        async with linked("unix") as (stream, peer):
            peer.sendall(b"refused")
            peer.close()
            with pytest.raises(mh.BrokenResourceError) as failed:
                await stream.send(b"request")
            assert isinstance(failed.value.__cause__, BrokenPipeError)
            assert await stream.receive() == b"refused"
            with pytest.raises(mh.EndOfStream):
                await stream.receive()

    run(main)


def test_an_operation_is_awaited_once_and_by_one_task():
    """Issue: bad input."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            peer.sendall(b"xy")
            once = stream.receive(1)
            assert await once == b"x"
            with pytest.raises(RuntimeError, match="once"):
                await once
            assert await stream.receive() == b"y"
            stream.receive()  # never awaited: nothing of it is left

            shared = stream.receive()

            async def wait() -> bytes:
                return await shared

            first = group.create_task(wait())
            await until_waiting(first)
            with pytest.raises(RuntimeError, match="task that began it"):
                await shared
            peer.sendall(b"z")
            assert await first == b"z"

    run(main)


def test_an_operation_outside_of_a_task_is_refused():
    """Issue: bad input."""
    kept = []

    async def main() -> None:
        async with linked() as (stream, _):
            kept.append(stream.receive())

    run(main)
    with pytest.raises(RuntimeError, match="manyhands.run"):
        next(kept.pop().__await__())


def test_a_stream_of_another_run_is_refused_and_can_be_closed():
    """Issue: bad input. Its loop is closed: nothing would ever wake whoever waits."""

    async def opened() -> tuple[mh.SocketStream, socket.socket]:
        ours, theirs = socket.socketpair()
        listening = socket.create_server(("127.0.0.1", 0))
        with listening, ours, theirs:
            stream = await mh.connect_tcp(*listening.getsockname())
            return stream, listening.accept()[0]

    async def used(stream: mh.SocketStream) -> None:
        with pytest.raises(RuntimeError, match="another loop"):
            await stream.receive()

    stream, peer = run(opened)
    with peer:
        run(used, stream)
        assert stream.close()
        assert peer.recv(1) == b""


def test_a_stream_that_nobody_closed_is_closed_when_it_is_collected_and_says_so():
    """T99."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            kept = [await mh.connect_tcp(*listening.getsockname())]
            peer, _ = listening.accept()
        with peer:
            with pytest.warns(ResourceWarning, match="was not closed"):
                kept.clear()
            peer.settimeout(LONG)
            assert peer.recv(1) == b""

    run(main)


@each_kind
def test_a_stream_whose_descriptor_was_closed_and_reused_touches_the_new_owner_never(poller, threads):
    """FAULT 6, T26a. Whoever waits on the old one is told when the number gets its next owner."""

    async def main() -> None:
        async with linked() as (old, _), mh.create_task_group() as group:

            async def wait() -> None:
                with pytest.raises(mh.ClosedResourceError):
                    await old.receive()

            waiting = group.create_task(wait())
            await until_waiting(waiting)
            number = old.fileno()
            ours, theirs = socket.socketpair()
            with theirs:
                os.dup2(ours.fileno(), number, inheritable=False)
                ours.close()
                new = await _adopt(number)
                async with new:
                    await waiting
                    assert old.closed
                    theirs.sendall(b"for the new one")
                    assert await new.receive() == b"for the new one"
                    assert not old.close()
                    await new.send(b"still open")
                    assert theirs.recv(100) == b"still open"

    run(main, poller=poller, threads=threads)


async def _adopt(number: int) -> mh.SocketStream:
    loop = mh.current_task().group.owner
    return mh.SocketStream(loop, number, tcp=False)


@each_kind
def test_closing_a_stream_whose_descriptor_was_closed_behind_its_back_closes_nobody_elses(poller, threads):
    """FAULT 6. Nobody of this loop has the number, so it is the kernel who knows."""

    async def main() -> None:
        async with linked() as (stream, _):
            number = stream.fileno()
            ours, theirs = socket.socketpair()
            with theirs:
                os.dup2(ours.fileno(), number, inheritable=False)
                ours.close()
                stream.close()
                os.write(number, b"not closed")
                assert theirs.recv(100) == b"not closed"
                os.close(number)

    run(main, poller=poller, threads=threads)


def test_a_stream_displaces_a_watch_whose_descriptor_was_closed():
    """FAULT 6. The watch ends with FD_GONE."""
    ended = []

    async def main() -> None:
        loop = mh.current_task().group.owner
        ours, theirs = socket.socketpair()
        with theirs:
            number = ours.detach()
            loop.add(number, mh.Events.READ, print, on_removed=lambda _, reason: ended.append(reason))
            other, peer = socket.socketpair()
            os.dup2(other.fileno(), number, inheritable=False)
            other.close()
            async with await _adopt(number) as stream:
                peer.sendall(b"x")
                assert await stream.receive() == b"x"
            peer.close()

    run(main)
    assert ended == [mh.RemovalReason.FD_GONE]


def test_a_watch_displaces_a_stream_whose_descriptor_was_closed():
    """FAULT 6."""

    async def main() -> None:
        loop = mh.current_task().group.owner
        async with linked() as (stream, _), mh.create_task_group() as group:

            async def wait() -> None:
                with pytest.raises(mh.ClosedResourceError):
                    await stream.receive()

            await until_waiting(group.create_task(wait()))
            number = stream.fileno()
            ours, theirs = socket.socketpair()
            os.dup2(ours.fileno(), number, inheritable=False)
            ours.close()
            happened = mh.Event()
            watch = loop.add(number, mh.Events.READ, lambda *_: happened.set())
            theirs.sendall(b"x")
            await happened.wait()
            watch.remove(close=True)
            theirs.close()

    run(main)


def test_the_descriptor_of_a_stream_can_have_no_watch():
    """T20. One descriptor is either watched or a stream's."""

    async def main() -> None:
        loop = mh.current_task().group.owner
        async with linked() as (stream, peer):
            with pytest.raises(mh.WatchExists):
                loop.add(stream.fileno(), mh.Events.READ, print)
            with pytest.raises(mh.BusyResourceError):
                await mh.wait_readable(stream.fileno())
            peer.sendall(b"x")
            assert await stream.receive() == b"x"

    run(main)


def test_streams_survive_a_new_set_of_registrations():
    """T28. A dead registration of a watch makes the loop renew its set; streams are in the new one."""

    async def main() -> None:
        loop = mh.current_task().group.owner
        async with linked() as (stream, peer), mh.create_task_group() as group:
            receiving = group.create_task(stream.receive())
            await until_waiting(receiving)
            for _ in range(4):
                ours, theirs = socket.socketpair()
                with theirs, socket.socket(fileno=os.dup(ours.fileno())) as duplicate:
                    watch = loop.add(ours.fileno(), mh.Events.READ, lambda *_: None)
                    ours.close()
                    watch.remove()
                    theirs.sendall(b"x")
                    for _ in range(20):
                        await mh.sleep(0)
                    del duplicate
            peer.sendall(b"heard")
            assert await receiving == b"heard"

    run(main)


@pytest.mark.race
def test_a_close_beside_a_receive_waits_for_it_with_the_number(spawn):
    """T90. A thread that is about to receive holds the number: it is nobody else's until the call has been made."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            number = stream.fileno()
            peer.sendall(b"won")
            with hold("socket.lease") as held:

                async def receive() -> bytes | str:
                    try:
                        return await stream.receive()
                    except mh.ClosedResourceError:
                        return "closed"

                receiving = group.create_task(receive())
                await mh.checkpoint()
                while not held.reached:
                    await mh.checkpoint()
                assert stream.close()
                os.fstat(number)  # not closed: the held thread is about to use it
                assert stream.fileno() == -1
                held.release()
                assert await receiving == b"won"
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)

    run(main, threads=2)


@pytest.mark.race
@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
def test_data_that_comes_between_the_last_look_and_the_wait_is_not_lost(poller):
    """T88a. The reader has found nothing and not yet said that it waits."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group, linked() as (beside, other):
            with hold("socket.wait") as held:
                receiving = group.create_task(stream.receive())
                while not held.reached:
                    await mh.checkpoint()
                peer.sendall(b"in between")
                # The other thread polls, and has seen both when this has come.
                other.sendall(b"x")
                assert await beside.receive() == b"x"
                held.release()
                assert await receiving == b"in between"

    run(main, threads=2, poller=poller)


@pytest.mark.race
@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
def test_a_close_between_the_last_look_and_the_wait_is_not_lost(poller):
    """T90."""

    async def main() -> None:
        async with linked() as (stream, _), mh.create_task_group() as group:
            with hold("socket.wait") as held:

                async def wait() -> None:
                    with pytest.raises(mh.ClosedResourceError):
                        await stream.receive()

                group.start_soon(wait)
                while not held.reached:
                    await mh.checkpoint()
                await stream.aclose()
                held.release()

    run(main, threads=2, poller=poller)


def test_endless_transfers_starve_nobody(spawn):
    """T85d, D11. Both ends are in the loop and the data never runs out; a third task has its turns."""

    async def main() -> int:
        turns = 0
        done = False

        async def count() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await mh.checkpoint()

        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            connecting = group.create_task(mh.connect_tcp("127.0.0.1", listener.port))
            async with await listener.accept() as one, await connecting as other:
                group.start_soon(count)
                group.start_soon(one.send, BIG * 4)
                received = await other.receive_exactly(len(BIG) * 4)
                done = True
        assert received == BIG * 4
        return turns

    assert run(main) >= 8


def test_options_and_addresses_are_the_sockets():
    """Both ends of a connection send at once what they are given."""

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            connecting = group.create_task(mh.connect_tcp("127.0.0.1", listener.port))
            async with await listener.accept() as one, await connecting as other:
                assert one.local_address == listener.address == other.remote_address
                assert one.remote_address == other.local_address
                for stream in (one, other):
                    assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 4) == b"\1\0\0\0"
                assert f"fd={one.fileno()}" in repr(one)
            assert "closed" in repr(one)

    run(main)


def test_notify_closing_ends_whoever_waits_and_leaves_the_descriptor():
    """T90. The number is the caller's to close."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:

            async def wait() -> None:
                with pytest.raises(mh.ClosedResourceError):
                    await stream.receive()

            await until_waiting(group.create_task(wait()))
            number = stream.fileno()
            assert mh.notify_closing(number)
            assert not mh.notify_closing(number)
            assert stream.closed
            os.write(number, b"still open")
            assert peer.recv(100) == b"still open"
            os.close(number)

    run(main)


def test_a_forked_child_is_refused_and_its_close_is_its_own():
    """T96. The parent's registration stays; the child's copy of the number is closed."""

    async def main() -> None:
        async with linked() as (stream, peer), mh.create_task_group() as group:
            receiving = group.create_task(stream.receive())
            await until_waiting(receiving)
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    await stream.send(b"x")
                except mh.ForkedError as error:
                    number = stream.fileno()
                    closed = stream.close()
                    try:
                        os.fstat(number)
                    except OSError:
                        status = 0 if closed and error.parent == os.getppid() else 2
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            peer.sendall(b"to the parent")
            assert await receiving == b"to the parent"

    run(main)


def test_many_threads_close_and_receive_at_once():
    """T90, T4. A close from outside of the loop's threads, at any moment."""

    async def main() -> None:
        for _ in range(20):
            async with linked() as (stream, peer), mh.create_task_group() as group:

                async def drain(stream=stream) -> None:
                    with pytest.raises(mh.ClosedResourceError):
                        while True:
                            await stream.receive()

                group.start_soon(drain)
                closing = threading.Thread(target=stream.close)
                closing.start()
                with contextlib.suppress(OSError):
                    for _ in range(3):
                        peer.sendall(b"x" * 1000)
            closing.join(LONG)

    run(main, threads=2)
