"""Ten thousand connections on one loop with four joined threads, while a fifth thread pauses, removes and adds them again.

The clients are another process (a process has 20,000 descriptors here and there). In each of ten rounds every client
sends a line and wants it back; one in twenty then closes its writing side, one in twenty resets, and both connect again,
so that descriptor numbers are used over and over.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

import manyhands as mh
from descriptors import need_descriptors
from support import wait_until

CONNECTIONS = 10_000
ROUNDS = 10
READ = mh.Events.READ

CLIENTS = """
import json, random, select, socket, struct, sys

port, count, rounds, seed = map(int, sys.argv[1:])
random.seed(seed)
poll = select.epoll()
socks = {}

def connect():
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.setblocking(False)
    poll.register(sock, select.EPOLLIN)
    socks[sock.fileno()] = sock

def forget(sock):
    poll.unregister(sock)
    del socks[sock.fileno()]
    sock.close()

for _ in range(count):
    connect()
for number in range(rounds):
    line = b"%07d\\n" % number
    waiting = {}
    for fd, sock in socks.items():
        sock.send(line)
        waiting[fd] = b""
    while waiting:
        ready = poll.poll(20)
        if not ready:
            print(json.dumps({"lost": len(waiting), "round": number}), flush=True)
            sys.exit(1)
        for fd, _ in ready:
            got = waiting[fd] + socks[fd].recv(64)
            if got == line:
                del waiting[fd]
            else:
                assert line.startswith(got) and got, (line, got)
                waiting[fd] = got
    chosen = random.sample(sorted(socks), count // 10)
    halved = []
    for at, fd in enumerate(chosen):
        sock = socks[fd]
        if at % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            forget(sock)
        else:
            sock.shutdown(socket.SHUT_WR)
            halved.append(sock)
    for sock in halved:
        sock.settimeout(20)
        assert sock.recv(1) == b"", "a half-closed connection is closed by the server"
        forget(sock)
    for _ in chosen:
        connect()
    print(json.dumps({"round": number}), flush=True)
    sys.stdin.readline()
"""


class Connection:
    """One accepted socket with the watch that it has now."""

    __slots__ = ("dead", "server", "sock", "watch")

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.dead: mh.Watch | None = None
        self.watch: mh.Watch = server.loop.add(sock, READ, self.echo)

    def echo(self, watch: mh.Watch, events: mh.Events) -> None:
        if watch is self.dead:
            self.server.violations.append(f"{watch!r} was served after its removal")
        try:
            data = self.sock.recv(4096)
            if data:
                self.sock.send(data)
                return
        except BlockingIOError:
            return
        except ConnectionError:
            pass
        self.server.connections.pop(self, None)
        watch.remove(close=True)


class Server:
    """The loop, its connections, and the thread that disturbs them."""

    def __init__(self) -> None:
        self.loop = mh.EventLoop(name="ten-thousand")
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.connections: dict[Connection, None] = {}
        self.violations: list[str] = []
        self.disturbed = 0
        self.ending = threading.Event()
        self.loop.add(self.listener, READ, self.accept, close=True)

    def accept(self, watch: mh.Watch, events: mh.Events) -> None:
        for _ in range(64):
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            connection = Connection(self, sock)
            self.connections[connection] = None

    def disturb(self) -> None:
        chance = random.Random(7)
        while not self.ending.is_set():
            connections = list(self.connections)
            if not connections:
                self.ending.wait(0.01)
                continue
            for connection in chance.sample(connections, min(200, len(connections))):
                self.disturb_one(connection, chance.random() < 0.5)
                self.disturbed += 1
            self.ending.wait(0.001)

    def disturb_one(self, connection: Connection, remove: bool) -> None:
        watch = connection.watch
        if not remove:
            with contextlib.suppress(mh.WatchRemoved):
                watch.pause()
                watch.resume()
            return
        watch.remove()
        connection.dead = watch
        # The handler that ran until now may have closed the socket: then there is nothing to add again.
        with contextlib.suppress(mh.BadDescriptor, ValueError):
            connection.watch = self.loop.add(connection.sock, READ, connection.echo)


def resident() -> int:
    """KiB of this process in memory."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() // 1024


@pytest.mark.stress
def test_ten_thousand_connections_disturbed_for_ten_rounds_lose_nothing_and_leave_nothing(spawn: Any) -> None:
    """T34. Nothing is lost or served after its removal; neither descriptors nor memory grow from round to round."""
    need_descriptors(CONNECTIONS + 500)
    server = Server()
    crew = [spawn(server.loop.join) for _ in range(4)]
    disturber = spawn(server.disturb)
    port = server.listener.getsockname()[1]
    command = [sys.executable, "-c", CLIENTS, str(port), str(CONNECTIONS), str(ROUNDS), "11"]
    descriptors, memory = [], []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clients:
        assert clients.stdin is not None
        assert clients.stdout is not None
        for number in range(ROUNDS):
            said = json.loads(clients.stdout.readline() or "{}")
            assert said == {"round": number}, f"{said}; {server.loop.dump().splitlines()[0]}"
            wait_until(lambda: len(server.connections) == CONNECTIONS, timeout=20)
            gc.collect()  # a connection, its watch and its handler refer to each other
            descriptors.append(len(os.listdir("/proc/self/fd")))
            memory.append(resident())
            clients.stdin.write("go on\n")
            clients.stdin.flush()
        assert clients.wait(20) == 0
    server.ending.set()
    disturber.result(30)
    server.loop.request_stop()
    for thread in crew:
        thread.result(30)
    assert server.violations == []
    assert server.disturbed > 1000
    assert max(descriptors) - min(descriptors) <= 1
    assert max(memory[3:]) - memory[2] < 4096, memory
    for connection in server.connections:
        connection.watch.remove(close=True)
    server.connections.clear()
    server.loop.close()
