"""slowhttptest's attacks with a thousand connections: whoever else comes is served, and nothing is left afterwards.

`slowhttptest` is Debian's package. A connection is open for as long as the attack goes on: none of the server's times are up by
then, so what is measured is what slow clients cost, not how they are thrown out. That is in `test_slow_clients.py`.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
from time import monotonic

import pytest

from descriptors import need_descriptors
from manyhands.server import Limits
from serving import StartServer, ask
from support import LONG, wait_until

pytestmark = pytest.mark.whole

CONNECTIONS = 1000
SECONDS = 5
"""Of each attack: its connections are there after one or two."""

ATTACKS = {
    "slow-header": ["-H", "-i", "1", "-x", "24"],
    "slow-body": ["-B", "-i", "1", "-x", "10", "-s", "100000"],
    "slow-read": ["-X", "-n", "1", "-z", "5", "-w", "512", "-y", "1024"],
}


def app(environ, start_response):
    """A page without an end, and the health of the server; a form is read to its end."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/health":
        return [b"ok"]
    environ["wsgi.input"].read()
    return endless()


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as pages:
        return int(pages.read().split()[1]) * resource.getpagesize()


def endless():
    while True:
        yield b"x" * 16_384


def at_work(server):
    """How many connections are what the attack wants: half-way through a request, or through its response."""
    reading = server.connection_states().get("reading", 0)
    return {"slow-header": reading, "slow-body": reading, "slow-read": server.pool.stats().syncing_parked}


@pytest.mark.parametrize("attack", ATTACKS)
def test_health_is_answered_during_an_attack(start_server: StartServer, attack):
    """FAULT 16, FAULT 15. Four threads, a thousand slow clients: whoever asks is answered in a moment; none holds a thread,
    or more than a little memory.
    """
    program = shutil.which("slowhttptest")
    if program is None:
        pytest.skip("needs slowhttptest")
    need_descriptors(3 * CONNECTIONS)
    server = start_server(app, threads=4, access_log=False, limits=Limits(head_timeout=60))
    memory = resident()
    options = ["-c", str(CONNECTIONS), "-r", str(CONNECTIONS), "-l", str(SECONDS), "-p", "3"]
    command = [program, *ATTACKS[attack], *options, "-u", f"{server.url}page"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as attacker:
        try:
            wait_until(lambda: server.connections >= CONNECTIONS)
            wait_until(lambda: at_work(server)[attack] >= 0.9 * CONNECTIONS)
            times = []
            while server.connections >= 0.9 * CONNECTIONS and len(times) < 500:
                begin = monotonic()
                assert ask(server, "/health") == (200, b"ok")
                times.append(monotonic() - begin)
                if attack != "slow-read":
                    wait_until(lambda: server.pool.stats().busy == 0)  # no thread is held for a slow client
            memory = resident() - memory
            said, _ = attacker.communicate(timeout=SECONDS + LONG)
        finally:
            attacker.kill()
    assert len(times) > 20
    assert memory < 100 << 20
    assert statistics.median(times) < 0.25
    assert max(times) < 2.5
    assert "service available:" in said
    assert "NO" not in said
    # The books: nobody is connected, no thread is held, no job is left, no memory of a body.
    wait_until(lambda: server.connections == 0)
    wait_until(lambda: not server.pool.jobs())
    stats = server.pool.stats()
    assert (stats.busy, stats.queued, stats.syncing_parked, server.budget.taken) == (0, 0, 0, 0)
