"""A listener without descriptors, as in examples/accept_with_backoff.py: it waits, says so once, and recovers."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from types import ModuleType

import pytest

from commands import EXAMPLES, START, run_example
from manyhands.testing import MockClock
from support import LONG


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example, imported and not run."""
    spec = importlib.util.spec_from_file_location("accept_with_backoff", EXAMPLES / "accept_with_backoff.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ShortSocket(socket.socket):
    """A listening socket whose `accept` fails as long as `failing` says so, and counts how often it was asked."""

    failing: int | None = None
    asked = 0

    def accept(self):
        self.asked += 1
        if self.failing is not None:
            raise OSError(self.failing, os.strerror(self.failing))
        return super().accept()


@pytest.fixture
def door():
    """A listening socket with one client in its queue."""
    with ShortSocket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(16)
        with socket.create_connection(sock.getsockname(), timeout=LONG):
            yield sock


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_listener_without_descriptors_tries_again_by_the_clock_only(make_loop, example, door, error):
    """T101. EMFILE on accept: the listener backs off, so that the loop is idle between two tries."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    served: list[socket.socket] = []
    said: list[str] = []
    example.Listener(loop, door, served.append, said.append)
    door.failing = error
    for tries in range(1, 11):
        loop.join(until_idle=True)
        assert door.asked == tries
        loop.join(until_idle=True)
        assert door.asked == tries, "it asked again though no time had passed"
        clock.advance(example.BACKOFF)
    assert len(said) == 1, "it is said once, however often it was tried"
    assert os.strerror(error).lower() in said[0]
    door.failing = None
    loop.join(until_idle=True)
    assert len(served) == 1
    assert len(said) == 2
    assert "again" in said[1]
    served[0].close()


def test_a_listener_that_recovered_says_so_the_next_time_too(make_loop, example, door):
    """T101. Once per shortage, not once per life."""
    clock = MockClock()
    loop = make_loop(clock=clock)
    said: list[str] = []
    example.Listener(loop, door, socket.socket.close, said.append)
    for _ in range(2):
        door.failing = errno.EMFILE
        with socket.create_connection(door.getsockname(), timeout=LONG):
            loop.join(until_idle=True)
            door.failing = None
            clock.advance(example.BACKOFF)
            loop.join(until_idle=True)
    assert len(said) == 4


def test_a_connection_that_failed_before_it_was_accepted_does_not_stop_the_listener(make_loop, example, door):
    """T101. That is the peer's fault: the next accept follows in the same turn, nothing is said, nobody waits."""
    loop = make_loop(clock=MockClock())
    served: list[socket.socket] = []
    said: list[str] = []

    class Impatient(ShortSocket):
        def accept(self):
            if self.asked < 3:
                self.asked += 1
                raise ConnectionAbortedError(errno.ECONNABORTED, "gone")
            return super().accept()

    sock = Impatient(fileno=door.detach())
    example.Listener(loop, sock, served.append, said.append)
    assert loop.run_ready() == 1
    assert len(served) == 1
    assert said == []
    served[0].close()


def test_an_error_that_is_the_programs_own_ends_the_listener_and_is_reported(make_loop, example, door):
    """T101. EINVAL is nothing to wait for: the loop is told, as for any handler that raises."""
    reports: list[object] = []
    loop = make_loop(clock=MockClock(), on_error=reports.append)
    example.Listener(loop, door, socket.socket.close, print)
    door.failing = errno.EINVAL
    loop.join(until_idle=True)
    assert [report.error.errno for report in reports] == [errno.EINVAL]
    assert loop.stats().watches == 0


def test_the_example_serves_everybody_with_descriptors_for_ten():
    """T101. Fifty clients, descriptors for ten: all are answered, and the shortage is one line."""
    printed = run_example("accept_with_backoff")
    assert len(re.findall(r"^cannot accept: .*too many open files", printed, re.MULTILINE)) == 1
    assert len(re.findall(r"^accepting again", printed, re.MULTILINE)) == 1
    assert "50 of 50 clients were answered" in printed


def processor_seconds(pid: int) -> float:
    """How long the process has been on a processor. Source: proc_pid_stat(5), fields 14 and 15."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.fault
def test_a_server_without_descriptors_sleeps_and_serves_again_when_there_are_some():
    """T101. 120 clients against a limit of 64 descriptors: no busy loop, one line; those inside are still served, and
    a client that comes when there is room again is answered soon.
    """
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-u", EXAMPLES / "accept_with_backoff.py", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        clients: list[socket.socket] = []
        deadline = threading.Timer(START, server.kill)  # a server that says nothing fails the test, it does not hang it
        deadline.start()
        try:
            address = ("127.0.0.1", int(server.stdout.readline().split()[-1]))
            _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (64, hard))
            clients = [socket.create_connection(address, timeout=LONG) for _ in range(120)]
            assert "too many open files" in server.stdout.readline()
            before = processor_seconds(server.pid)
            threading.Event().wait(1.0)  # a second of shortage, measured on the server's own processor clock
            assert processor_seconds(server.pid) - before <= 0.05
            clients[0].sendall(b"still here")
            assert clients[0].recv(100) == b"still here"
            for client in clients:
                client.close()
            assert "accepting again" in server.stdout.readline()
            with socket.create_connection(address, timeout=LONG) as late:
                late.sendall(b"late")
                assert late.recv(100) == b"late"
        finally:
            for client in clients:
                client.close()
            server.send_signal(signal.SIGINT)
            rest, _ = server.communicate(timeout=START)
            deadline.cancel()
            deadline.join()
    assert rest == ""
    assert server.returncode in (0, 130)
