"""Faults of connections, each in a process of its own: what they cost, and what they leave behind.

The programs are run as text, so each imports what it uses.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from fault_programs import check, each_thread_count, source_of

pytestmark = pytest.mark.fault


def few_descriptors(threads):
    """A listener in a process without descriptors to spare, and more clients than it can have."""
    import logging
    import os
    import resource
    import subprocess
    import sys
    import time

    import manyhands as mh

    records = []
    logger = logging.getLogger("manyhands.loop")
    logger.setLevel(logging.WARNING)
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger.addHandler(handler)
    logger.propagate = False

    clients = """
import socket, sys, time
socks, told = [], 0
for _ in range(120):
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    sock.settimeout(5)
    socks.append(sock)
began = time.monotonic()
held = []
for sock in socks:
    sock.settimeout(max(0.01, began + 3.0 - time.monotonic()))
    try:
        told += sock.recv(1) == b""
    except ConnectionResetError:
        told += 1
    except TimeoutError:
        held.append(sock)
print(told, len(held), flush=True)
sys.stdin.readline()
"""

    async def hold(stream):
        async for _ in stream:
            pass

    async def main():
        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            child = subprocess.Popen(
                [sys.executable, "-c", clients, str(listener.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
            group.start_soon(listener.serve, hold)
            cpu, began = time.process_time(), time.monotonic()
            await mh.wait_readable(child.stdout)
            told, held = map(int, child.stdout.readline().split())
            spent, lasted = time.process_time() - cpu, time.monotonic() - began
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            began = time.monotonic()
            stream = await mh.connect_tcp("127.0.0.1", listener.port)
            await stream.send_eof()
            try:
                await stream.receive()
            except mh.EndOfStream:
                served = time.monotonic() - began
            stream.close()
            child.stdin.write("\n")
            child.communicate()
            group.cancel_scope.cancel()
        return {"told": told, "held": held, "spent": spent, "lasted": lasted, "served": served, "records": records}

    return mh.run(main, threads=threads)


@each_thread_count
def test_a_listener_without_descriptors_tells_its_clients_and_goes_on(subprocess_python, threads):
    """FAULT 1. T101. Little CPU, a record a second, and a new client is served when there are descriptors again."""
    report = check(subprocess_python, few_descriptors, threads)
    assert report["told"] + report["held"] == 120
    assert 20 <= report["held"] <= 42
    assert report["spent"] < 0.1 * report["lasted"] + 0.3
    assert 1 <= len(report["records"]) <= report["lasted"] + 2
    assert all("Too many open files" in record for record in report["records"])
    assert report["served"] < 2


def reset_before_accept(threads):
    """Clients that are gone before they are accepted, and one that stays."""
    import socket
    import struct

    import manyhands as mh

    async def main():
        async with await mh.create_tcp_listener() as listener:
            for _ in range(200):
                with socket.create_connection(listener.address) as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            good = socket.create_connection(listener.address)
            good.sendall(b"good")
            errors = 0
            while True:
                stream = await listener.accept()
                async with stream:
                    try:
                        if await stream.receive() == b"good":
                            break
                    except (mh.BrokenResourceError, mh.EndOfStream):
                        errors += 1
            good.close()
            return {"errors": errors}

    return mh.run(main, threads=threads)


@each_thread_count
def test_clients_that_reset_before_they_are_accepted_cost_nothing(subprocess_python, threads):
    """FAULT 2. They are accepted and found to be over, or never seen."""
    assert check(subprocess_python, reset_before_accept, threads)["errors"] <= 200


def one_client_is_served():
    """An echo for one client; what a tracer makes fail is the accept."""
    import socket

    import manyhands as mh

    async def main():
        async with await mh.create_tcp_listener() as listener:
            with socket.create_connection(listener.address) as sock:
                sock.sendall(b"hello")
                async with await listener.accept() as stream:
                    return {"got": (await stream.receive()).decode()}

    return mh.run(main)


@pytest.mark.parametrize("error", ["ECONNABORTED", "EPERM", "EPROTO"])
def test_an_accept_that_fails_for_one_connection_is_tried_again(error):
    """FAULT 2. The kernel says so by an error of accept, and the next connection is fine."""
    tracer = shutil.which("strace")
    if tracer is None:
        pytest.skip("needs strace")
    command = [
        tracer,
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        "trace=accept4",
        "-e",
        f"inject=accept4:error={error}:when=1..3",
    ]
    done = subprocess.run(
        [*command, sys.executable, "-c", source_of(one_client_is_served)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    assert '"hello"' in done.stdout


def resets_of_pending_operations(threads):
    """Fifty connections with a send and a receive pending on each, all reset."""
    import socket
    import struct

    import manyhands as mh

    async def main():
        ended = []

        async def ends(operation):
            try:
                await operation
            except mh.BrokenResourceError as error:
                ended.append(type(error.__cause__).__name__)

        with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
            peers, streams = [], []
            async with mh.create_task_group() as group:
                for _ in range(50):
                    streams.append(await mh.connect_tcp(*listening.getsockname()))
                    peers.append(listening.accept()[0])
                    tasks = [group.create_task(ends(streams[-1].receive()))]
                    tasks.append(group.create_task(ends(streams[-1].send(bytes(8_000_000)))))
                for task in tasks:
                    while task.task.state != "SUSPENDED":
                        await mh.checkpoint()
                began = mh.current_time()
                for peer in peers:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    peer.close()
            lasted = mh.current_time() - began
            for stream in streams:
                stream.close()
        return {"ended": ended, "lasted": lasted}

    return mh.run(main, threads=threads)


@each_thread_count
def test_every_pending_operation_of_a_reset_connection_ends_once_with_an_error(subprocess_python, threads):
    """FAULT 4. The leak line sees descriptors."""
    report = check(subprocess_python, resets_of_pending_operations, threads)
    assert len(report["ended"]) == 100
    assert set(report["ended"]) <= {"ConnectionResetError", "BrokenPipeError"}
    assert report["lasted"] < 5


def broken_pipe():
    """Sends to a peer that is gone, with the signal at its default."""
    import signal
    import socket

    import manyhands as mh

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)

    async def main():
        failed = 0
        with socket.create_server(("127.0.0.1", 0)) as listening:
            for _ in range(10):
                async with await mh.connect_tcp(*listening.getsockname()) as stream:
                    listening.accept()[0].close()
                    try:
                        while True:
                            await stream.send(b"x")
                    except mh.BrokenResourceError:
                        failed += 1
        return {"failed": failed}

    return mh.run(main)


def test_a_send_to_a_peer_that_is_gone_does_not_kill_the_process(subprocess_python):
    """FAULT 5. Only the send fails."""
    assert check(subprocess_python, broken_pipe) == {"failed": 10}


def many_at_once(count, threads):
    """So many connects at once, each echoed once, beside a timer."""
    import time

    import manyhands as mh

    async def echo(stream):
        await stream.send(await stream.receive())

    async def main():
        late = [0.0]
        served = []  # not a count: two threads that add to one lose one

        async def tick():
            while True:
                due = time.monotonic() + 0.01
                await mh.sleep(0.01)
                late[0] = max(late[0], time.monotonic() - due)

        async def ask(port):
            async with await mh.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(b"x")
                served.append(await stream.receive())

        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            group.start_soon(tick)
            began = time.monotonic()
            async with mh.create_task_group() as clients:
                for _ in range(count):
                    clients.start_soon(ask, listener.port)
            lasted = time.monotonic() - began
            group.cancel_scope.cancel()
        return {"served": served.count(b"x"), "late": late[0], "lasted": lasted}

    return mh.run(main, threads=threads)


def test_two_thousand_connects_at_once_are_all_served(subprocess_python):
    """FAULT 14. In one process, both ends of each."""
    report = check(subprocess_python, many_at_once, 2000, 1)
    assert report["served"] == 2000


@pytest.mark.stress
@each_thread_count
def test_ten_thousand_connects_at_once_are_all_served(subprocess_python, threads):
    """FAULT 14. In one process, both ends of each."""
    report = check(subprocess_python, many_at_once, 9000, threads, timeout=300)
    assert report["served"] == 9000


def stalled_readers(count):
    """So many peers that read nothing, each with a send of 1 MiB pending, against the same connections idle."""
    import resource
    import socket

    import manyhands as mh

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    async def main():
        data = bytes(1 << 20)
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)  # what the kernel keeps is not meant
            pairs = []
            for _ in range(count):
                stream = await mh.connect_tcp(*listening.getsockname())
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
                pairs.append((stream, listening.accept()[0]))
                pairs[-1][1].sendall(bytes(30_000))
                await stream.receive_exactly(30_000)
            idle = resident()
            async with mh.create_task_group() as group:
                tasks = [group.create_task(stream.send(data)) for stream, _ in pairs]
                for task in tasks:
                    while task.task.state != "SUSPENDED" and not task.done():
                        await mh.checkpoint()
                stalled = resident()
                waiting = sum(not task.done() for task in tasks)
                group.cancel_scope.cancel()
            for stream, peer in pairs:
                stream.close()
                peer.close()
        return {"grown": stalled - idle, "waiting": waiting}

    return mh.run(main)


def test_readers_that_stall_cost_little_memory(subprocess_python):
    """FAULT 15. The data is the caller's, once; what the kernel does not take is not copied."""
    report = check(subprocess_python, stalled_readers, 100)
    assert report["waiting"] == 100
    assert report["grown"] < 100 * 20_000


@pytest.mark.stress
def test_a_thousand_readers_that_stall_cost_little_memory(subprocess_python):
    """FAULT 15. As with a hundred."""
    report = check(subprocess_python, stalled_readers, 1000, timeout=300)
    assert report["grown"] < 1000 * 20_000


def idle_streams(count):
    """What a stream that has been used and is idle costs, with the task that waits on it."""
    import gc
    import resource
    import socket

    import manyhands as mh

    def resident():
        gc.collect()
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    async def main():
        pairs = []
        grown = 0
        async with mh.create_task_group() as group:
            with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
                for n in range(2 * count):
                    if n == count:
                        before = resident()
                    stream = await mh.connect_tcp(*listening.getsockname())
                    peer = listening.accept()[0]
                    pairs.append((stream, peer.detach()))
                    with socket.socket(fileno=pairs[-1][1]) as peer:
                        peer.sendall(bytes(50_000) + b"\nrest")
                        peer.detach()
                    await stream.receive_until(b"\n", 100_000)
                    await stream.receive_exactly(4)
                    group.start_soon(stream.receive)
                    await mh.sleep(0)
            grown = resident() - before
            group.cancel_scope.cancel()
        for stream, peer in pairs:
            stream.close()
            socket.close(peer)
        return {"each": grown / count}

    return mh.run(main)


def test_an_idle_stream_keeps_no_buffer(subprocess_python):
    """FAULT 14. After 50 kB that were searched for a delimiter."""
    assert check(subprocess_python, idle_streams, 500)["each"] < 6_000


def slow_writers(threads):
    """Twelve clients, eight of which send one byte and stop."""
    import socket

    import manyhands as mh

    async def handler(stream):
        line = await stream.receive_until(b"\n")
        await stream.send(line.upper())

    async def main():
        served = 0
        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            group.start_soon(listener.serve, handler)
            slow = [socket.create_connection(listener.address) for _ in range(8)]
            for sock in slow:
                sock.sendall(b"s")
            for _ in range(4):
                async with await mh.connect_tcp(*listener.address) as stream:
                    await stream.send(b"quick\n")
                    answer = await stream.receive_until(b"\n")
                    served += answer == b"QUICK\n"
            for sock in slow:
                sock.sendall(b"low\n")
            for sock in slow:
                await mh.wait_readable(sock)
                served += sock.recv(100) == b"SLOW\n"
                sock.close()
            group.cancel_scope.cancel()
        return {"served": served}

    return mh.run(main, threads=threads)


@each_thread_count
def test_clients_that_write_slowly_hold_nobody_up(subprocess_python, threads):
    """FAULT 16. Twelve of twelve."""
    assert check(subprocess_python, slow_writers, threads) == {"served": 12}


def half_closed(threads):
    """A client that says that it is done, and still wants all of the answer."""
    import manyhands as mh

    async def handler(stream):
        request = b"".join([chunk async for chunk in stream])
        await stream.send(request * 1000)

    async def main():
        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            group.start_soon(listener.serve, handler)
            async with await mh.connect_tcp(*listener.address) as stream:
                await stream.send(b"request" * 100)
                await stream.send_eof()
                answer = b"".join([chunk async for chunk in stream])
            group.cancel_scope.cancel()
        return {"right": answer == b"request" * 100_000}

    return mh.run(main, threads=threads)


@each_thread_count
def test_a_client_that_has_closed_its_side_gets_the_whole_answer(subprocess_python, threads):
    """FAULT 3."""
    assert check(subprocess_python, half_closed, threads) == {"right": True}
