"""`manyhands serve --workers N` as a process, its workers, and its dashboard."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from commands import COMMAND, START
from support import LONG, wait_until

APP = """
import gc, os, pathlib, signal, manyhands as mh
from manyhands.server._line import Line
WORD = "first"
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/die":
        os._exit(7)
    if path == "/leave":
        for thing in gc.get_objects():
            if type(thing) is Line:
                thing.socket.close()
    if path == "/fork":
        if not (child := os.fork()):
            signal.pause()
        pathlib.Path("child").write_text(str(child))
    if path == "/wait":
        pathlib.Path(f"begun-{os.getpid()}").touch()
        while not pathlib.Path("go").exists():
            mh.sleep_blocking(0.01)
    if path == "/work":
        pathlib.Path(f"begun-{os.getpid()}").touch()
        pathlib.Path("begun").touch()
        mh.sleep_blocking(60)
    start_response("200 OK", [])
    if path == "/several":
        return [f"{os.getpid()} {environ['wsgi.multiprocess']}".encode()]
    return [f"{os.getpid()} {WORD}".encode()]
"""


class Serving:
    """A supervisor that runs, and its workers.

    Attributes:
        process: The supervisor.
        workers: Those that it began with, and what a test adds.
        url: The dashboard's address, if there is one.
    """

    def __init__(
        self, process: subprocess.Popen[str], directory: Path, port: int, workers: list[int], url: str
    ) -> None:
        self.process = process
        self.port = port
        self.workers = workers
        self.url = url
        self._directory = directory

    def ask(self, path: str = "/") -> tuple[int, str]:
        """Ask on a connection of its own: the worker that answered, and its word. OSError if none did."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG)
        with contextlib.closing(client):
            client.request("GET", path)
            number, word = client.getresponse().read().decode().split()
            return int(number), word

    def answers(self, path: str = "/") -> tuple[int, str] | None:
        """As `ask`, None if none did."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask(path)
        return None

    @contextlib.contextmanager
    def busy(self, worker: int) -> Iterator[socket.socket]:
        """Give a worker a request that ends with its client, or when it is stopped."""
        with contextlib.ExitStack() as serving_, contextlib.ExitStack() as asleep:
            for other in self.workers:
                if other != worker:
                    asleep.enter_context(stopped(other))
            client = serving_.enter_context(socket.create_connection(("127.0.0.1", self.port), LONG))
            client.sendall(b"GET /work HTTP/1.1\r\nHost: h\r\n\r\n")
            wait_until((self._directory / f"begun-{worker}").exists)
            asleep.close()
            yield client

    def children(self) -> list[int]:
        """The process ids of the supervisor's children: its workers, and the page's process."""
        return children(self.process.pid)

    def page(self) -> int:
        """The process id of the page's process."""
        (found,) = (child for child in self.children() if b"_page_main" in Path(f"/proc/{child}/cmdline").read_bytes())
        return found

    def end(self, *signals: int) -> tuple[int, str, str]:
        """Send these, and wait; the status and what was printed."""
        for number in signals:
            self.process.send_signal(number)
        printed, complaints = self.process.communicate(timeout=START)
        return self.process.returncode, printed, complaints


@contextlib.contextmanager
def serving(directory: Path, *arguments: str, token: str | None = None) -> Iterator[Serving]:
    """Run it until the block ends; then none of its processes is left."""
    (directory / "site_here.py").write_text(APP)
    left: list[int] = []
    environment = {name: value for name, value in os.environ.items() if name != "MANYHANDS_TOKEN"}
    with subprocess.Popen(
        [*COMMAND, "serve", "site_here:app", "--port", "0", "--threads", "2", *arguments],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment if token is None else {**environment, "MANYHANDS_TOKEN": token},
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)/ \(process(?:es)?: ([\d, ]+)\)", line)
            assert found is not None, line + (process.stderr.read() if process.stderr else "")
            url = re.search(r"http://[\d.:]+/", process.stdout.readline()) if "--dashboard" in arguments else None
            workers = list(map(int, found[2].split(", ")))
            yield Serving(process, directory, int(found[1]), workers, url[0] if url else "")
        finally:
            left += children(process.pid)
            process.kill()
    wait_until(lambda: not any(map(alive, left)))


@contextlib.contextmanager
def stopped(process: int) -> Iterator[None]:
    """While entered, the process does nothing at all."""
    os.kill(process, signal.SIGSTOP)
    try:
        wait_until(lambda: all(state(thread) == "T" for thread in Path(f"/proc/{process}/task").iterdir()))
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def children(process: int) -> list[int]:
    """The process ids of a process's children."""
    try:
        return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))
    except FileNotFoundError:
        return []


def alive(process: int) -> bool:
    """Whether it has not ended."""
    return state(Path(f"/proc/{process}")) not in ("Z", "")


def state(process: Path) -> str:
    """The kernel's letter for what a process or a thread is at; empty if there is none."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
