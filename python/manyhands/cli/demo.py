"""`manyhands demo`: the library at work, in one command and a few seconds.

`manyhands demo jobs` is in `demo_jobs.py`. `manyhands demo echo`, also without its name, shows the loop: it starts `manyhands
echo` as a process of its own on a free port, sends it real traffic from many sockets (`_load.py`), ends it with the SIGINT
that a Ctrl-C would send, and checks that its books agree with ours. Ends with status 1 and a sentence if anything was wrong;
the server never outlives the demo.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from manyhands.cli import demo_jobs
from manyhands.cli._failure import Failure, require_descriptors
from manyhands.cli._load import Load, LoadRun, Wrong
from manyhands.cli.echo import DESCRIPTORS, thread_count

START_TIMEOUT = 20.0
"""Seconds that the server has to say that it listens; a loaded machine needs two."""

END_TIMEOUT = 10.0
"""Seconds that it has to end after SIGINT."""

SECONDS = {"echo": 3.0, "jobs": 6.0}

LISTENS = re.compile(r"listening on (?P<host>\S+) port (?P<port>\d+)")
COUNTED = re.compile(r"^ *bytes +(?P<bytes>[\d,]+)$", re.MULTILINE)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "what",
        nargs="?",
        choices=tuple(SECONDS),
        default="echo",
        help="echo: the loop, serving many connections; jobs: the pool, hashing for clients that are slow or hang up "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help="of traffic (default: {echo:g} for echo, {jobs:g} for jobs)".format(**SECONDS),
    )
    echo = parser.add_argument_group("echo only")
    echo.add_argument("--connections", type=_count, default=200, metavar="N", help="at once (default: %(default)s)")
    echo.add_argument(
        "--threads", type=thread_count, default=4, metavar="N", help="of the server (default: %(default)s)"
    )
    echo.add_argument("--poller", choices=("epoll", "poll", "select"), default="epoll", help="(default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run the demo and print what came out.

    Raises:
        Failure: the server did not start, answered wrongly, lost something or did not end.
    """
    seconds = options.seconds or SECONDS[options.what]
    if options.what == "jobs":
        return demo_jobs.run(seconds)
    require_descriptors(options.connections + DESCRIPTORS, f"a demo with {options.connections} connections")
    print(f"starting: manyhands echo --port 0 --threads {options.threads} --poller {options.poller}", flush=True)
    with Server(["--port", "0", "--threads", str(options.threads), "--poller", options.poller]) as server:
        print(
            f"asking {server.address[0]} port {server.address[1]} from {options.connections} sockets "
            f"for {seconds:g} s, comparing every byte",
            flush=True,
        )
        before = server.cpu_seconds()
        try:
            load = LoadRun(server.address, options.connections, seconds).run()
        except Wrong as wrong:
            raise Failure(f"{wrong}. {server.last_words()}") from wrong
        cpu = server.cpu_seconds() - before
        summary = server.end()
        print(server.complaints(), end="", file=sys.stderr)
    check(load, summary)
    print(figures(load, cpu))
    print("the server's own summary, after SIGINT:")
    print("".join(f"  {line}\n" for line in summary.splitlines()), end="")
    return 0


def figures(load: Load, cpu_seconds: float) -> str:
    """Write down what was measured."""
    return "\n".join(
        (
            f"  requests             {load.requests:,}, every byte as it must be",
            f"  requests per second  {load.requests / load.seconds:,.0f}",
            f"  echoed               {load.bytes / 2**20:,.1f} MiB",
            f"  latency              p50 {load.percentile(0.5) * 1e3:.2f} ms, p99 {load.percentile(0.99) * 1e3:.2f} ms",
            f"  server's CPU         {cpu_seconds / load.requests * 1e6:.1f} us per request",
        )
    )


def check(load: Load, summary: str) -> None:
    """Compare the server's books with ours.

    Raises:
        Failure: they differ, or nothing was measured.
    """
    if not load.requests:
        raise Failure("no request was answered in the time: try a longer one with --seconds.")
    counted = COUNTED.search(summary)
    if counted is None or int(counted["bytes"].replace(",", "")) != load.bytes:
        raise Failure(f"{load.bytes:,} bytes came back right, but the server's summary says otherwise: {summary!r}")


class Server:
    """`manyhands echo` in a process of its own, killed at the latest when the `with` block ends."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self.address = ("", 0)

    def __enter__(self) -> Self:
        """Start it and wait until it listens.

        Raises:
            Failure: it ended, or did not say that it listens within START_TIMEOUT; it is gone.
        """
        self._complaints = cast(BinaryIO, tempfile.TemporaryFile())
        command = [sys.executable, "-m", "manyhands", "echo", *self._arguments]
        try:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._complaints, text=True)
        except OSError as error:
            self._complaints.close()
            raise Failure(f"the server cannot be started ({error}).") from error
        try:
            self._wait_until_it_listens()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._kill()

    def cpu_seconds(self) -> float:
        """Return the CPU time, user and system, that all its threads have used. Source: proc_pid_stat(5)."""
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            raise Failure(f"the server has gone. {self.last_words()}") from None
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def end(self, number: signal.Signals = signal.SIGINT) -> str:
        """Send a signal, SIGINT as Ctrl-C would, and return the summary that it printed.

        Raises:
            Failure: it did not end within END_TIMEOUT, ended with another status than 0, or one of its handlers failed.
                A warning, such as that of a slow handler on a busy machine, is none: see `complaints`.
        """
        self.process.send_signal(number)
        try:
            summary, _ = self.process.communicate(timeout=END_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise Failure(
                f"the server did not end within {END_TIMEOUT:g} s of {number.name}. {self.last_words()}"
            ) from None
        if self.process.returncode != 0 or "Traceback (most recent call last)" in self.complaints():
            raise Failure(f"the server did not end as it should. {self.last_words()}")
        return summary.strip()

    def last_words(self) -> str:
        """Say whether the server has ended, and what it printed on its standard error."""
        status = self.process.poll()
        state = "runs" if status is None else f"has ended with status {status}"
        words = self.complaints().strip()
        return f"The server {state} and said: {words}" if words else f"The server {state} and said nothing."

    def _wait_until_it_listens(self) -> None:
        """Read its first line, with a limit: a process that says nothing is killed, which ends the reading."""
        limit = threading.Timer(START_TIMEOUT, self.process.kill)
        limit.start()
        assert self.process.stdout is not None
        try:
            line = self.process.stdout.readline()
        finally:
            limit.cancel()
            limit.join()
        listens = LISTENS.search(line)
        if listens is None:
            self.process.kill()
            self.process.wait()
            raise Failure(f"the server did not say within {START_TIMEOUT:g} s where it listens. {self.last_words()}")
        self.address = (listens["host"], int(listens["port"]))

    def complaints(self) -> str:
        """Return what the server has printed on its standard error so far."""
        # Not seek() and read(): the place in the file is the server's too, who writes there.
        return os.pread(self._complaints.fileno(), 65_536, 0).decode(errors="replace")

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._complaints.close()


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 60_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 60000, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"expected seconds from just above 0 to 86400, got {text!r}")
    return seconds
