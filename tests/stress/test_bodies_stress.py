"""FAULT 18. A server that may have one gibibyte, and ten thousand clients with bodies of a hundred megabytes each.

A third of them says how much it is going to send, a third sends it in chunks, and a third says a little less than is allowed;
then they wait. The server is another process.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections import Counter

import pytest

from descriptors import need_descriptors
from serving import Client
from support import LONG, wait_until, xoptions

pytestmark = pytest.mark.stress

CLIENTS = 10_000
SENT = 120_000
"""Bytes that each sends of its body: 800 MB, which is more than the memory holds beside everything else."""

SERVER = """
import json, logging, resource, sys
from manyhands.server import Server

records = []

class Kept(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.WARNING and "has run for" not in record.getMessage():  # the disk is slow
            records.append(record.getMessage())

logging.getLogger("manyhands").addHandler(Kept())

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]

# Without the GIL the allocator reserves a gibibyte of addresses as it starts.
reserved = 0 if getattr(sys, "_is_gil_enabled", lambda: True)() else 2 << 30
resource.setrlimit(resource.RLIMIT_AS, ((1 << 30) + reserved,) * 2)
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
with Server(app, threads=4, access_log=False) as server:
    print(server.address[1], flush=True)
    for line in sys.stdin:
        print(json.dumps([server.connections, server.budget.taken, records[:5]]), flush=True)
"""

HEADS = [
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5f5e100\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000000\r\n\r\n",
]


def test_ten_thousand_long_bodies_do_not_exhaust_the_memory():
    """413 for what is too long, 503 or 507 for what finds no room; whoever else asks is answered, before, during and after."""
    need_descriptors(CLIENTS + 100)
    with subprocess.Popen([sys.executable, *xoptions(), "-c", SERVER], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def look():
            process.stdin.write("\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        port = int(process.stdout.readline())

        def health() -> int:
            with Client(("127.0.0.1", port)) as client:
                return client.ask(b"/health")[0]

        clients = []
        statuses: Counter[bytes] = Counter()
        with contextlib.ExitStack() as stack:
            for number in range(CLIENTS - 1):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LONG))
                sock.sendall(HEADS[number % 3])
                sock.setblocking(False)
                clients.append((sock, number % 3))
            assert health() == 200
            piece = bytes(20_000)
            for _ in range(SENT // len(piece)):
                for sock, kind in clients:
                    if kind:
                        with contextlib.suppress(BlockingIOError, ConnectionError):
                            sock.send(piece)
                assert health() == 200
            taken = look()[1]
            assert 0 < taken <= 128 << 20
            for sock, kind in clients:
                try:
                    answer = sock.recv(100)
                except BlockingIOError:
                    statuses[b"reading" if kind else b"?"] += 1
                except ConnectionError:
                    statuses[b"reset"] += 1
                else:
                    statuses[answer[9:12]] += 1
            assert health() == 200
        assert set(statuses) <= {b"413", b"503", b"507", b"reading", b"reset"}, statuses
        assert statuses[b"413"] >= CLIENTS // 3 - 1
        assert statuses[b"reset"] < CLIENTS // 100
        wait_until(lambda: look()[0] == 0, 6 * LONG)
        assert health() == 200
        assert look()[1] == 0
        assert look()[2] == []
        process.stdin.close()
        assert process.wait(6 * LONG) == 0
    print(dict(statuses), taken)
