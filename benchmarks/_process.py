"""Servers, loads and measured children: each a process of its own, on cores of its own, and none outlives the run.

A server is killed, not asked to stop: how a loop stops is not what is measured here. Cores are given by starting the
process while this one is confined to them, so that every thread it ever makes has inherited them.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks._machine import ROOT
from benchmarks._native import program

START_LIMIT = 30.0
"""Seconds until a server must have said its port."""
CHILD_LIMIT = 120.0
"""Seconds that one measured child may take: no question as a whole may take longer."""

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES = frozenset({CORES[0]})
LOAD_CORES = frozenset({CORES[-1]})
ALL_CORES = frozenset(CORES)

Settings = dict[str, Any]


class ChildFailed(RuntimeError):
    """A child process ended with an error, which is in the text."""


@dataclass(frozen=True)
class Server:
    """An echo server on 127.0.0.1 that is up."""

    port: int
    pid: int


@dataclass(frozen=True)
class Load:
    """What one run of the load saw: whole echoes in `seconds`, and what they cost both sides."""

    requests: int
    seconds: float
    server_cpu: float
    load_cpu: float
    latency_us: dict[str, float]

    @property
    def throughput(self) -> float:
        """Messages per second."""
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of the server's CPU time, all its threads, per message."""
        return self.server_cpu / self.requests * 1e6

    @property
    def load_busy(self) -> float:
        """The share of the time the load was on its core: near 1, it was the limit and not the server."""
        return self.load_cpu / self.seconds

    @property
    def server_busy(self) -> float:
        """The share of the time the server was on a core."""
        return self.server_cpu / self.seconds


def raise_file_limit() -> int:
    """Allow as many descriptors as this process may; children inherit it. Returns how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def echo_command(name: str, python: str, **options: object) -> list[str]:
    """The command of an echo server: `c` is the C program, other names are those of `echo_servers`."""
    flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    if name == "c":
        return [str(program("echo_server")), *flags]
    return [python, "-m", "benchmarks.echo_servers", name, *flags]


@contextmanager
def serving(command: list[str], cores: Collection[int] = SERVER_CORES) -> Iterator[Server]:
    """Run an echo server on `cores` until the end of the block.

    Raises:
        ChildFailed: it ended, or did not print its port in time.
    """
    # A file, not a pipe: nobody reads what a server says while it is measured, and a full pipe would block it.
    with tempfile.TemporaryFile("w+") as complaints:
        with _on_cores(cores):
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, text=True
            )
        try:
            yield Server(_port_of(process), process.pid)
            if process.poll() is not None:
                raise ChildFailed("it ended while it was measured")
        except ChildFailed as error:
            complaints.seek(0)
            raise ChildFailed(f"{' '.join(command)}: {error}\n{complaints.read()}") from None
        finally:
            process.kill()
            process.communicate()


def _port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], START_LIMIT)[0]:
        raise ChildFailed(f"no port after {START_LIMIT} s")
    line = process.stdout.readline()
    if not line:
        raise ChildFailed("ended before it said its port")
    return int(json.loads(line)["port"])


def load(
    server: Server,
    *,
    connections: int,
    size: int,
    seconds: float,
    warmup: float = 0.1,
    idle: int = 0,
    cores: Collection[int] = LOAD_CORES,
) -> Load:
    """Drive `server` with messages of `size` bytes for `seconds`, one in flight on each of `connections`.

    Args:
        server: Where to, and whose CPU time counts.
        connections: Those that are busy.
        size: Bytes of a message.
        seconds: Measured; setting the connections up and `warmup` come before.
        warmup: Seconds of load that are not measured, in which every echo's bytes are compared.
        idle: Connections that are open beside and silent.
        cores: Where the load runs.
    """
    flags = {"port": server.port, "server-pid": server.pid, "connections": connections, "idle": idle, "size": size}
    flags |= {"warmup": warmup, "seconds": seconds}  # type: ignore[dict-item]
    command = [str(program("load")), *(part for key, value in flags.items() for part in (f"--{key}", str(value)))]
    seen = json.loads(_output_of(command, cores))
    return Load(
        seen["requests"], seen["seconds"], seen["server_cpu_seconds"], seen["load_cpu_seconds"], seen["latency_us"]
    )


def in_child(
    function: Callable[..., Any],
    *,
    cores: Collection[int] = SERVER_CORES,
    python: str = sys.executable,
    **settings: Any,
) -> Any:
    """Call a module's function with `settings` in a fresh interpreter on `cores`; JSON both ways.

    Raises:
        ChildFailed: it raised, or took longer than CHILD_LIMIT.
    """
    code = (
        "import importlib, json, sys\n"
        "module, name, settings = sys.argv[1:]\n"
        "print(json.dumps(getattr(importlib.import_module(module), name)(**json.loads(settings))))\n"
    )
    module = function.__module__
    command = [python, "-c", code, module, function.__name__, json.dumps(settings)]
    return json.loads(_output_of(command, cores).splitlines()[-1])


def has_module(name: str, python: str) -> bool:
    """Whether `python` can import the module `name`."""
    return bool(in_child(_can_import, python=python, cores=ALL_CORES, name=name))


def _can_import(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def _output_of(command: list[str], cores: Collection[int]) -> str:
    with _on_cores(cores):
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    try:
        output, errors = process.communicate(timeout=CHILD_LIMIT)
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"{' '.join(command)} took longer than {CHILD_LIMIT} s") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode:
        raise ChildFailed(f"{' '.join(command)} ended with status {process.returncode}:\n{errors}")
    return output


@contextmanager
def _on_cores(cores: Collection[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
