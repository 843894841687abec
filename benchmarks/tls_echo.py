"""What does echoing a message through TLS cost a task, beside asyncio's and uvloop's Protocol?

One server on one core; the load, blocking sockets of Python in one process, on the other. So throughput says nothing; what
counts is CPU time of the server process per message. TLS 1.3, an RSA certificate made for the run, no client certificate.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import _machine
from benchmarks._process import Server, echo_command, has_module, in_child, serving
from benchmarks._report import Plan, Report, Row, Target, alternate, figure_columns, find, ratio_targets

QUESTION = "CPU per message echoed through TLS: a task beside asyncio and uvloop"

NEEDS = {"task-tls": "manyhands", "uvloop-tls": "uvloop"}
SIZES = (1024, 65_536)
CONNECTIONS = 16


def measure(plan: Plan) -> Report:
    """Measure every server with every size, a fresh process per server and round."""
    names = [
        name for name in ("task-tls", "asyncio-tls", "uvloop-tls") if has_module(NEEDS.get(name, "ssl"), plan.python)
    ]
    sizes = SIZES[:1] if plan.quick else SIZES
    rows = [Row({"size": size, "connections": CONNECTIONS, "server": name}) for size in sizes for name in names]
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder))
        for name in alternate(names, plan.rounds):
            with serving(echo_command(name, plan.python, certificate=certificate)) as server:
                for size in sizes:
                    row = find(rows, size=size, connections=CONNECTIONS, server=name)
                    assert row is not None
                    row.add(cpu_us=cpu_per_message(server, size, plan.seconds))
    gil = bool(in_child(_machine.describe_interpreter, python=plan.python)["gil"])
    return Report(rows, figure_columns("CPU us", "cpu_us"), _targets(rows, sizes), settings={"gil": gil})


def _targets(rows: list[Row], sizes: tuple[int, ...]) -> list[Target]:
    targets: list[Target] = []
    for size in sizes:
        task = find(rows, size=size, connections=CONNECTIONS, server="task-tls")
        for peer in ("asyncio-tls", "uvloop-tls"):
            other = find(rows, size=size, connections=CONNECTIONS, server=peer)
            if task and other:
                targets += ratio_targets(f"{size} B, task / {peer}", task, other, "cpu_us", 1.0)
    return targets


def make_certificate(folder: Path) -> Path:
    """A certificate for localhost and its key, in one file."""
    path = folder / "localhost.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*made, "-keyout", str(path), "-out", str(folder / "only.pem")], check=True, capture_output=True)
    path.write_text(path.read_text() + (folder / "only.pem").read_text())
    return path


def cpu_per_message(server: Server, size: int, seconds: float) -> float:
    """Echo on all connections in turn for some seconds; microseconds of the server's CPU time per message."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    streams = []
    for _ in range(CONNECTIONS):
        plain = socket.create_connection(("127.0.0.1", server.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        streams.append(context.wrap_socket(plain))
    message = b"x" * size
    clock = (~server.pid << 3) | 2  # clock_getcpuclockid(3)
    try:
        _rounds(streams, message, time.monotonic() + 0.1)
        before = time.clock_gettime(clock)
        count = _rounds(streams, message, time.monotonic() + seconds)
        return (time.clock_gettime(clock) - before) / count * 1e6
    finally:
        for stream in streams:
            stream.close()


def _rounds(streams: list[ssl.SSLSocket], message: bytes, until: float) -> int:
    count = 0
    while time.monotonic() < until:
        for stream in streams:
            stream.sendall(message)
        for stream in streams:
            left = len(message)
            while left:
                left -= len(stream.recv(left))
        count += len(streams)
    return count
