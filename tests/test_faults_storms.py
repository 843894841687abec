"""Faults of much at once, counted and not timed: how a busy machine is, is none of their business.

The programs are run as text, so each imports what it uses.
"""

from __future__ import annotations

import collections
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fault_programs import check, source_of

pytestmark = pytest.mark.fault


def storm(count):
    """So many connections that wait to be taken; how many are taken between a timer and its next, which is due at once."""
    import socket

    import manyhands as mh

    async def main():
        served = 0
        between = []

        async def greet(stream):
            nonlocal served
            await stream.send(b"x")
            served += 1

        async def tick(connections):
            seen = 0
            while seen < count:
                await mh.sleep(1e-9)
                taken = served + connections.living
                between.append(taken - seen)
                seen = taken

        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            clients = []
            for _ in range(count):
                clients.append(socket.create_connection(listener.address))
                await mh.checkpoint()
            async with mh.create_task_group() as connections:
                ticking = group.create_task(tick(connections))
                group.start_soon(listener.serve, greet, connections)
                await ticking
            group.cancel_scope.cancel()
        greeted = 0
        for client in clients:
            greeted += client.recv(2) == b"x"
            client.close()
        return {"greeted": greeted, "most": max(between), "ticks": len(between)}

    return mh.run(main)


def test_a_timer_is_punctual_while_a_storm_of_connects_is_taken(subprocess_python):
    """FAULT 14. Whatever waits to be taken, a timer that is due waits for a few turns of the accepting, not for its end."""
    report = check(subprocess_python, storm, 2000)
    assert report["greeted"] == 2000
    assert report["most"] <= 400
    assert report["ticks"] >= 10


def requests(count):
    """So many requests of a line, each answered before the next is sent, on one connection."""
    import manyhands as mh

    async def answer(stream):
        async with stream:
            try:
                while True:
                    await stream.send(await stream.receive_until(b"\n"))
            except mh.EndOfStream:
                pass

    async def main():
        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            group.start_soon(listener.serve, answer)
            async with await mh.connect_tcp(*listener.address) as stream:
                right = 0
                for number in range(count):
                    await stream.send(b"%d\n" % number)
                    right += await stream.receive_until(b"\n") == b"%d\n" % number
            group.cancel_scope.cancel()
        return {"right": right}

    return mh.run(main)


def one_byte_reads(count, delimiter):
    """So many bytes, which one task sends at once and another reads one by one; behind a delimiter, if there is one."""
    import manyhands as mh

    async def main():
        data = bytes(number % 251 for number in range(count))
        read = bytearray()

        async def send(stream):
            await stream.send(delimiter + data)

        async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
            group.start_soon(listener.serve, send)
            async with await mh.connect_tcp(*listener.address) as stream:
                if delimiter:
                    await stream.receive_until(delimiter)
                for _ in range(count):
                    read += await stream.receive_exactly(1)
            group.cancel_scope.cancel()
        return {"right": int(read == data) * count}

    return mh.run(main)


def system_calls(program, count: int, *arguments) -> collections.Counter:
    """Count the calls that the program makes for sockets and for its poller, by name."""
    tracer = shutil.which("strace")
    if tracer is None:
        pytest.skip("needs strace")
    names = "recvfrom,recvmsg,read,sendto,sendmsg,write,epoll_wait,epoll_pwait,epoll_pwait2,epoll_ctl"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "trace"
        command = [tracer, "-f", "-qq", "-o", str(log), "-e", f"trace={names}", sys.executable, "-c"]
        code = source_of(program, count, *arguments)
        done = subprocess.run([*command, code], capture_output=True, text=True, timeout=120, check=False)
        if "ptrace" in done.stderr.lower():
            pytest.skip("strace may not trace here")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"right": count}
        return collections.Counter(re.findall(r"^\d+ +(\w+)\(", log.read_text(errors="replace"), re.MULTILINE))


@pytest.mark.parametrize(
    ("program", "arguments", "each"),
    [
        pytest.param(requests, (), {"recvfrom": 2, "sendto": 2, "epoll": 2}, id="requests"),
        pytest.param(one_byte_reads, (b"",), {"recvfrom": 1}, id="bytes-of-the-kernel"),
        pytest.param(one_byte_reads, (b"\n",), {}, id="bytes-that-are-there"),
    ],
)
def test_a_request_costs_its_share_of_system_calls_and_no_other(program, arguments, each):
    """FAULT 17. A request and its answer: two sends, two receives that find something, a poll for each, and no `epoll_ctl`.
    One byte read: one receive, or none if it came with what was read before. Beyond that a twentieth of a call: a reader that
    never waits gives its thread away now and then.
    """
    few, many = (system_calls(program, count, *arguments) for count in (200, 2200))
    calls = {name: (many[name] - few[name]) / 2000 for name in few | many}
    calls["epoll"] = sum(calls.pop(name, 0.0) for name in ("epoll_wait", "epoll_pwait", "epoll_pwait2"))
    assert {name: spent for name, spent in calls.items() if spent > each.get(name, 0) + 0.05} == {}
