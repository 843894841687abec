"""A command of ours in a process of its own, for the demos: started, ended by the signal of a Ctrl-C, killed at worst."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

from manyhands._guards import on_main_thread
from manyhands.cli._failure import Failure

START_TIMEOUT = 20.0
"""Seconds that a server has to say that it listens; a loaded machine needs two."""

PR_SET_PDEATHSIG = 1
"""Source: linux/prctl.h."""

LAST_MOMENT = 0.5
"""Seconds after which it has not ended: its connections are closed a moment before it has."""

END_TIMEOUT = 15.0
"""Seconds that it has to end after SIGINT."""


class DemoProcess:
    """`manyhands …` in a process of its own, killed at the latest when the `with` block ends.

    It is in a process group of its own: a Ctrl-C at the terminal is for the demo, which passes it on when its time has come. So
    while it runs, SIGTERM and the end of the terminal interrupt the demo as a Ctrl-C does: it must not go before the server.

    Args:
        arguments: What follows `manyhands`.
        listens: What it prints when it listens, line by line.

    Attributes:
        said: What was found, in the order of `listens`.
    """

    def __init__(self, arguments: list[str], *listens: re.Pattern[str]) -> None:
        self._arguments = arguments
        self._listens = listens
        self.said: list[re.Match[str]] = []
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Start it and wait until it listens.

        Raises:
            Failure: it ended, or did not say that it listens within START_TIMEOUT; it is gone.
        """
        self._complaints = cast(BinaryIO, tempfile.TemporaryFile())
        command = [sys.executable, "-m", "manyhands", *self._arguments]
        try:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                text=True,
                process_group=0,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - the demo has one thread so far
            )
        except OSError as error:
            self._complaints.close()
            raise Failure(f"the server cannot be started ({error}).") from error
        try:
            self._take_signals()
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
        user, system = self._read("stat").rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def threads(self) -> int:
        """Return how many threads it has. Source: proc_pid_status(5)."""
        found = re.search(r"^Threads:\s*(\d+)$", self._read("status"), re.MULTILINE)
        assert found is not None
        return int(found[1])

    def end(self, number: signal.Signals = signal.SIGINT) -> str:
        """Send a signal, SIGINT as Ctrl-C would, and return what it printed at the end.

        Raises:
            Failure: it did not end within END_TIMEOUT, ended with another status than 0, or something in it failed.
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
        try:
            status: int | None = self.process.wait(LAST_MOMENT)
        except subprocess.TimeoutExpired:
            status = None
        state = "runs" if status is None else f"has ended with status {status}"
        words = self.complaints().strip()
        return f"The server {state} and said: {words}" if words else f"The server {state} and said nothing."

    def complaints(self) -> str:
        """Return what the server has printed on its standard error so far."""
        # Not seek() and read(): the place in the file is the server's too, who writes there.
        return os.pread(self._complaints.fileno(), 65_536, 0).decode(errors="replace")

    def _read(self, name: str) -> str:
        try:
            return Path(f"/proc/{self.process.pid}/{name}").read_text(encoding="ascii", errors="replace")
        except OSError:
            raise Failure(f"the server has gone. {self.last_words()}") from None

    def _wait_until_it_listens(self) -> None:
        """Read its first lines, with a limit: a process that says nothing is killed, which ends the reading."""
        deadline = time.monotonic() + START_TIMEOUT
        limit = threading.Timer(START_TIMEOUT, self.process.kill)
        limit.start()
        assert self.process.stdout is not None
        try:
            for listens in self._listens:
                if (found := listens.search(self.process.stdout.readline())) is None:
                    break
                self.said.append(found)
        finally:
            limit.cancel()
            limit.join()
        if len(self.said) < len(self._listens):
            in_time = time.monotonic() < deadline
            self.process.kill()
            self.process.wait()
            words = self.complaints().strip()
            what = "did not start" if in_time else f"did not say within {START_TIMEOUT:g} s where it listens"
            raise Failure(f"the server {what}. It said: {words}" if words else f"the server {what}, and said nothing.")

    def _take_signals(self) -> None:
        if on_main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
                    self._previous[number] = signal.signal(number, signal.default_int_handler)

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._complaints.close()


def _end_with_parent() -> None:
    """In the new process: ask for SIGTERM when the demo is killed without a word. Source: prctl(2)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM.value)
