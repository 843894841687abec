"""HTTP servers as processes: manyhands and those beside it, what they cost, and wrk on them.

Each is started by its own command, as its users do, with the same application (`serve_app.py`), the same number of threads,
one process that serves, and no access log. Where a server stops at a number of connections below what is asked of it, or closes
them after seconds, that number is raised; nothing else is set that is not its default.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks._machine import ROOT
from benchmarks._process import LOAD_CORES, SERVER_CORES, START_LIMIT, ChildFailed, _on_cores, has_module, in_child

PEERS = ("granian", "waitress", "cheroot", "gunicorn")
NAMES = ("manyhands", *PEERS)
CONNECTIONS = 20_000
"""How many clients a server may have, if it has a bound."""
KEPT_SECONDS = 75
"""How long an idle connection is kept by one that would close it within seconds."""
LOAD = Path(__file__).resolve().parent / "load.lua"
QUIET_OUTPUT = 4000
"""Characters of a server's last words in an error."""


@dataclass(frozen=True)
class HTTPServer:
    """A server on 127.0.0.1 that answers."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> tuple[str, int]:
        """Where it is."""
        return "127.0.0.1", self.port

    def pids(self) -> list[int]:
        """Itself and its children, theirs included."""
        found = [self.process.pid]
        for pid in found:
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += [int(child) for child in path.read_text().split()]
        return found

    def cpu(self) -> float:
        """Seconds of CPU, user and system, of all its threads in all its processes so far."""
        return sum(_cpu_of(pid) for pid in self.pids())

    def resident_kib(self) -> float:
        """KiB of memory in use, of all its processes; what they share counts in part for each."""
        return sum(_pss_of(pid) for pid in self.pids())

    def threads(self) -> int:
        """How many threads there are in all its processes."""
        return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in self.pids())


@dataclass(frozen=True)
class Wrk:
    """What wrk saw, and what it cost the server."""

    requests: int
    seconds: float
    cpu: float
    errors: int
    p99_ms: float

    @property
    def cpu_us(self) -> float:
        """Microseconds of the server's CPU per request."""
        return self.cpu / self.requests * 1e6

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def _cpu_of(pid: int) -> float:
    # The clock of a process, in nanoseconds and with its ended threads: clock_getcpuclockid(3). /proc has hundredths.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _pss_of(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    return 0.0


def installed(python: str) -> list[str]:
    """Those of the servers that this interpreter has."""
    return [name for name in NAMES if has_module(name, python)]


def circumstances(names: Collection[str], python: str) -> dict[str, object]:
    """What belongs to every result: the servers' versions, and how busy the machine is as the measuring begins."""
    packages = [*names, *(["flask"] if has_module("flask", python) else [])]
    return {"versions": in_child(_versions, python=python, packages=packages), "load": os.getloadavg()[0]}


def _versions(packages: list[str]) -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in packages}


def missing(names: Collection[str]) -> list[str]:
    """What to note about those that it has not."""
    left_out = [name for name in NAMES if name not in names]
    return [f"not here: {', '.join(left_out)}"] if left_out else []


def has_wrk() -> bool:
    """Whether there is a wrk on the path."""
    return shutil.which("wrk") is not None


def command(
    name: str, python: str, port: int, *, threads: int | None, app: str = "app", grace: float | None = None
) -> list[str]:
    """The command line of a server.

    Args:
        name: One of NAMES.
        python: The interpreter.
        port: Where.
        threads: Views at once; None for what is the server's default.
        app: "app" or "flask_app" of `serve_app`.
        grace: Seconds that requests have at the end, where that can be said.
    """
    target = f"benchmarks.serve_app:{app}"
    bind = f"127.0.0.1:{port}"

    def option(flag: str, value: object | None) -> list[str]:
        return [] if value is None else [flag, str(value)]

    called = [
        python,
        "-m",
        "benchmarks.serve_by_call",
        name,
        "--port",
        str(port),
        "--app",
        app,
        *option("--threads", threads),
    ]
    if name == "manyhands":
        if grace is not None:
            return [*called, "--grace", str(grace)]
        return [python, "-m", "manyhands", "serve", target, "--port", str(port), *option("--threads", threads)]
    if name == "cheroot":
        return [*called, "--connections", str(CONNECTIONS)]
    if name == "granian":
        extra = ["--workers-kill-timeout", str(max(1, round(grace)))] if grace is not None else []
        extra += option("--blocking-threads", threads)
        return [python, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
                "--no-log", "--backpressure", str(CONNECTIONS), *extra, target]  # fmt: skip
    if name == "waitress":
        extra = [f"--threads={threads}"] if threads is not None else []
        return [python, "-m", "waitress", f"--listen={bind}", f"--connection-limit={CONNECTIONS}", "--asyncore-use-poll",
                "--no-expose-tracebacks", *extra, target]  # fmt: skip
    assert name == "gunicorn"
    extra = option("--threads", threads) + option("--graceful-timeout", None if grace is None else max(1, round(grace)))
    return [python, "-m", "gunicorn", "-k", "gthread", "-b", bind, "--worker-connections", str(CONNECTIONS),
            "--keep-alive", str(KEPT_SECONDS), "--log-level", "error", *extra, target]  # fmt: skip


@contextmanager
def serving_http(
    name: str,
    python: str,
    *,
    threads: int | None,
    app: str = "app",
    grace: float | None = None,
    cores: Collection[int] = SERVER_CORES,
    env: dict[str, str] | None = None,
    gil: bool = True,
) -> Iterator[HTTPServer]:
    """Run a server until the end of the block: see `command`.

    Raises:
        ChildFailed: it does not answer.
    """
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    line = command(name, python, port, threads=threads, app=app, grace=grace)
    if not gil:
        line[1:1] = ["-X", "gil=0"]
    with tempfile.TemporaryFile() as said:
        with _on_cores(cores):
            # A session of its own: a Ctrl-C is for all processes of a terminal's group.
            process = subprocess.Popen(
                line, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                env={**os.environ, **(env or {})},
            )  # fmt: skip
        server = HTTPServer(name, port, process)
        try:
            _wait_for_answer(server)
            yield server
        except ChildFailed as error:
            said.seek(0)
            raise ChildFailed(f"{' '.join(line)}: {error}\n{said.read().decode()[-QUIET_OUTPUT:]}") from None
        finally:
            for pid in reversed(server.pids()):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def _wait_for_answer(server: HTTPServer) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise ChildFailed("it ended before it answered")
        try:
            ask(server, "/health")
            return
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
    raise ChildFailed(f"no answer after {START_LIMIT} s")


def ask(server: HTTPServer, path: str, timeout: float = 5.0) -> bytes:
    """One request on a connection of its own."""
    client = http.client.HTTPConnection(*server.address, timeout=timeout)
    try:
        client.request("GET", path)
        return client.getresponse().read()
    finally:
        client.close()


def warm_up(server: HTTPServer, path: str, count: int = 300) -> None:
    """Let it do what it does once."""
    client = http.client.HTTPConnection(*server.address, timeout=5.0)
    for _ in range(count):
        client.request("GET", path)
        client.getresponse().read()
    client.close()


def wrk(
    server: HTTPServer,
    path: str,
    *,
    connections: int,
    seconds: int = 1,
    body: int = 0,
    cores: Collection[int] = LOAD_CORES,
    keep_cpu: Callable[[], float] | None = None,
) -> Wrk:
    """Load it for whole seconds, as wrk counts.

    Args:
        server: Where to, and whose CPU counts.
        path: What is asked for.
        connections: At once, one request in flight on each.
        seconds: How long.
        body: Bytes of a POST; 0 for GET.
        cores: Where wrk runs.
        keep_cpu: What is read for the CPU, instead of the server's.
    """
    cpu = keep_cpu or server.cpu
    url = f"http://127.0.0.1:{server.port}{path}"
    line = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(LOAD), url, "--", str(body)]
    with _on_cores(cores):
        before = cpu()
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        used = cpu() - before
    try:
        seen = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise ChildFailed(f"{' '.join(line)} said:\n{done.stdout}{done.stderr}") from None
    if not seen["requests"]:
        raise ChildFailed(f"{server.name} answered none of wrk's requests for {path}")
    return Wrk(
        seen["requests"], seen["microseconds"] / 1e6, used, seen["errors"] + seen["timeouts"], seen["p99"] / 1000
    )
