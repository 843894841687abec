"""`manyhands echo`, run as users run it: in a process of its own, with real sockets, signals and a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

import manyhands as mh
from commands import COMMAND, START, run_command, with_descriptors
from manyhands._guards import Ending
from manyhands.cli import demo_echo, echo
from manyhands.cli._demo_process import DemoProcess
from manyhands.cli._failure import Failure
from support import LONG, wait_until

pytestmark = pytest.mark.whole


class EchoProcess(DemoProcess):
    """`manyhands echo` on a free port."""

    def __init__(self, *arguments: str) -> None:
        super().__init__(["echo", "--port", "0", *arguments], demo_echo.LISTENS)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.said[0]["host"], int(self.said[0]["port"])


StartServer = Callable[..., EchoProcess]


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Start `manyhands echo` on a free port with further arguments; it is gone when the test ends."""
    with ExitStack() as servers:
        yield lambda *arguments: servers.enter_context(EchoProcess(*arguments))


def receive_all(sock: socket.socket, size: int) -> bytes:
    """Receive `size` bytes, or fewer if the stream ends before."""
    received = bytearray()
    while len(received) < size and (data := sock.recv(65_536)):
        received += data
    return bytes(received)


def number(summary: str, name: str) -> int:
    """Find a figure of the server's summary."""
    found = re.search(rf"^ *{name} +([\d,]+)", summary, re.MULTILINE)
    assert found is not None, summary
    return int(found[1].replace(",", ""))


# What it serves.


@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
def test_every_connection_gets_its_own_bytes_back(start_server: StartServer, poller: str) -> None:
    """Forty connections at once, each with its own bytes, on every poller."""
    server = start_server("--threads", "3", "--poller", poller)
    with ExitStack() as clients:
        sockets = [clients.enter_context(socket.create_connection(server.address, LONG)) for _ in range(40)]
        sent = [os.urandom(1 + 100 * place) for place in range(40)]
        for sock, data in zip(sockets, sent, strict=True):
            sock.sendall(data)
        assert [receive_all(sock, len(data)) for sock, data in zip(sockets, sent, strict=True)] == sent
    summary = server.end()
    assert number(summary, "connections") == 40
    assert number(summary, "bytes") == sum(map(len, sent))


@pytest.mark.parametrize("style", ["operation", "task"])
def test_operations_and_tasks_serve_as_watches_do(start_server: StartServer, style: str) -> None:
    """The same bytes, the same figures, the same end; a peer that resets costs itself only."""
    server = start_server("--style", style, "--threads", "3")
    data = os.urandom(300_000)
    with ExitStack() as clients:
        sockets = [clients.enter_context(socket.create_connection(server.address, LONG)) for _ in range(40)]
        for sock in sockets:
            sock.sendall(b"hello")
        assert [receive_all(sock, 5) for sock in sockets] == [b"hello"] * 40
        sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sockets[0].close()
        sockets[1].sendall(data)
        sockets[1].shutdown(socket.SHUT_WR)
        assert receive_all(sockets[1], len(data) + 1) == data
        summary = server.end(signal.SIGTERM)
        assert sockets[2].recv(1) == b""
    assert number(summary, "connections") == 40
    assert number(summary, "bytes") == 40 * 5 + len(data)
    assert summary.startswith("ended by SIGTERM")


def test_a_peer_that_closes_its_half_still_gets_everything_back(start_server: StartServer) -> None:
    """The server closes when it has sent back the last byte, not when it has read it."""
    server = start_server()
    data = os.urandom(2_000_000)

    def send(sock: socket.socket) -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    with socket.create_connection(server.address, LONG) as sock:
        sender = threading.Thread(target=send, args=(sock,))
        sender.start()
        assert receive_all(sock, len(data) + 1) == data
        sender.join(LONG)
    server.end()


def test_a_client_that_reads_nothing_is_read_no_further_and_delays_nobody(start_server: StartServer) -> None:
    """The server holds one message of a slow client, not everything; what it was sent is answered in full in the end."""
    server = start_server("--threads", "2")
    with (
        socket.create_connection(server.address, LONG) as slow,
        socket.create_connection(server.address, LONG) as brisk,
    ):
        slow.setblocking(False)
        block = os.urandom(1 << 20)
        sent = 0
        room = select.poll()
        room.register(slow, select.POLLOUT)
        while sent < 256 << 20 and room.poll(500):  # without a bound in the server there is always room
            start = sent % len(block)
            sent += slow.send(block[start:])
        assert sent < 64 << 20, "more than all buffers of the kernel was taken from a client that reads nothing"

        stat = Path(f"/proc/{server.process.pid}/stat")
        before = cpu_ticks(stat)
        threading.Event().wait(0.5)
        assert cpu_ticks(stat) - before <= 3, "a client that reads nothing is to cost nothing"

        brisk.sendall(b"still there?")
        assert receive_all(brisk, 12) == b"still there?"

        slow.setblocking(True)
        slow.settimeout(LONG)
        slow.shutdown(socket.SHUT_WR)
        assert receive_all(slow, sent + 1) == (block * (sent // len(block) + 1))[:sent]
    server.end()


def test_a_reset_costs_only_its_own_connection(start_server: StartServer) -> None:
    """Ten clients reset idle connections, ten in the middle of an exchange; another one is served as ever."""
    server = start_server("--threads", "2")
    with socket.create_connection(server.address, LONG) as good:
        for turn in range(20):
            with socket.create_connection(server.address, LONG) as bad:
                bad.sendall(b"x")
                assert receive_all(bad, 1) == b"x"
                if turn % 2:
                    bad.sendall(bytes(100_000))
                bad.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        good.sendall(b"after the resets")
        assert receive_all(good, 16) == b"after the resets"
    assert number(server.end(), "connections") == 21


@pytest.mark.parametrize("style", ["watch", "operation"])
def test_without_descriptors_the_server_waits_says_so_once_and_recovers(style: str) -> None:
    """T101. EMFILE: the waiting clients cost no CPU, and are served when others have gone."""
    limit = 40
    process = subprocess.Popen(
        with_descriptors(limit, [*COMMAND, "echo", "--port", "0", "--style", style]),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process, ExitStack() as clients:
        clients.callback(process.kill)
        assert process.stdout is not None
        listens = demo_echo.LISTENS.search(process.stdout.readline())
        assert listens is not None
        address = (listens["host"], int(listens["port"]))
        first = [clients.enter_context(socket.create_connection(address, LONG)) for _ in range(limit)]
        last = clients.enter_context(socket.create_connection(address, LONG))
        last.sendall(b"served at last")
        first[0].sendall(b"served")
        assert receive_all(first[0], 6) == b"served"
        stat = Path(f"/proc/{process.pid}/stat")
        before = cpu_ticks(stat)
        assert not select.select([last], [], [], 1.0)[0], "it was to wait for a descriptor"
        assert cpu_ticks(stat) - before <= 5, "waiting for a descriptor is to cost nothing"
        for sock in first:
            sock.close()
        assert receive_all(last, 14) == b"served at last"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=START)
    assert said.count("no new connections until one ends") == 1, said
    assert "ulimit -n" in said


def test_select_waits_for_a_number_that_it_can_name() -> None:
    """Beyond FD_SETSIZE the server refuses what comes, names the poller that does not, and goes on serving the others."""
    holes = [os.dup(0) for _ in range(1000)]  # so that few connections are enough
    process = subprocess.Popen(
        [*COMMAND, "echo", "--port", "0", "--poller", "select"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=holes,
    )  # fmt: skip
    for fd in holes:
        os.close(fd)
    with process, ExitStack() as clients:
        clients.callback(process.kill)
        assert process.stdout is not None
        listens = demo_echo.LISTENS.search(process.stdout.readline())
        assert listens is not None
        address = (listens["host"], int(listens["port"]))
        first = clients.enter_context(socket.create_connection(address, LONG))
        others = [clients.enter_context(socket.create_connection(address, LONG)) for _ in range(40)]
        refused, _, _ = select.select(others, [], [], LONG)
        assert refused and refused[0].recv(1) == b""
        first.sendall(b"served")
        assert receive_all(first, 6) == b"served"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=START)
    assert process.returncode == 0
    assert said.count("no new connections until one ends: select takes no descriptor 1024") >= 1
    assert "--poller epoll" in said


def cpu_ticks(stat: Path) -> int:
    """CPU time that a process has used, in clock ticks."""
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


# How it ends.


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_server_with_a_summary(start_server: StartServer, ending: signal.Signals) -> None:
    """Status 0, and the summary names the signal; a connection that is open at that moment is counted and closed."""
    server = start_server("--threads", "4")
    with socket.create_connection(server.address, LONG) as sock:
        sock.sendall(b"x")
        assert receive_all(sock, 1) == b"x"
        summary = server.end(ending)
        assert sock.recv(1) == b""
    assert f"ended by {ending.name}" in summary
    assert "1, 1 still open" in summary
    assert re.search(r"handlers per thread +main [\d,]+, echo-1 [\d,]+, echo-2 [\d,]+, echo-3 [\d,]+$", summary)


STUCK = """
import os, threading
import manyhands as mh
from manyhands._guards import Ending
from manyhands.cli.echo import lend_threads

def stick():
    os.write(1, b"stuck\\n")
    while True:  # in short waits: free-threaded 3.13 misses a signal that comes just before it waits for a lock
        threading.Event().wait(0.05)

loop = mh.EventLoop()
loop.post(stick)
loop.post(stick)
with Ending(loop):
    lend_threads(loop, 2)
"""


def test_the_second_ctrl_c_ends_the_process_at_once_with_130() -> None:
    """The first one waits for the handlers that are running; with handlers that never end, only the second helps."""
    command = [sys.executable, "-c", STUCK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["stuck\n"] * 2
        try:
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=START) == 130
        finally:
            process.kill()


def test_the_signal_handlers_of_before_are_put_back() -> None:
    """`echo` borrows SIGINT and SIGTERM for as long as it serves."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    loop = mh.EventLoop()
    try:
        with Ending(loop):
            assert signal.getsignal(signal.SIGINT) is not before[0]
            signal.raise_signal(signal.SIGTERM)
        assert loop.stopped
    finally:
        loop.close()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_on_a_terminal_the_figures_are_rewritten_in_place_and_ctrl_c_ends_it() -> None:
    """A real terminal: the status line comes once a second, is cut to the width, and is gone at the end."""
    ours, theirs = pty.openpty()
    become_foreground = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "fcntl.ioctl(0, termios.TIOCSWINSZ, b'\\x18\\0\\x32\\0\\0\\0\\0\\0'); os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", become_foreground, *COMMAND, "echo", "--port", "0"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
    )  # fmt: skip
    os.close(theirs)
    screen = ""

    def shown() -> str:
        nonlocal screen
        if select.select([ours], [], [], 0)[0]:
            with suppress(OSError):  # EIO: nobody has the terminal open any more
                screen += os.read(ours, 4096).decode()
        return screen

    try:
        wait_until(lambda: demo_echo.LISTENS.search(shown()), START)
        listens = demo_echo.LISTENS.search(screen)
        assert listens is not None
        with socket.create_connection((listens["host"], int(listens["port"])), LONG):
            wait_until(lambda: len(re.findall(r"\r\x1b\[K1 open of 1 connections", shown())) >= 2, START)
            os.write(ours, b"\x03")  # the key, not the signal
            wait_until(lambda: "handlers per thread" in shown() and process.poll() is not None, START)
        assert process.returncode == 0
        lines = re.findall(r"\r\x1b\[K([^\r\n^]+)", screen)
        assert all(len(line) < 50 for line in lines if "open of" in line), lines
        assert "\r\x1b[Kended by SIGINT" in screen
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_off_a_terminal_nothing_but_sentences_is_printed(start_server: StartServer) -> None:
    """A log file gets no control characters."""
    server = start_server()
    with socket.create_connection(server.address, LONG) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
    assert "\x1b" not in server.end()


# What it refuses.


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "70000"], "there is no port 70000: choose one from 1 to 65535"),
        (["--port", "-1"], "there is no port -1: choose one from 1 to 65535"),
        (["--host", "192.0.2.1"], "192.0.2.1 is no address of this machine"),
        (["--host", "no-such-host.invalid"], "cannot find the host 'no-such-host.invalid'"),
        (["--host", ""], "cannot find the host ''"),
        (["--host", "x" * 64 + ".invalid"], "cannot find the host"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_sentence_and_status_1(arguments: list[str], sentence: str) -> None:
    """The sentence says what to do; there is no traceback and nothing on standard output."""
    done = run_command("echo", *arguments)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "--port" in done.stderr or "--host" in done.stderr or "choose" in done.stderr
    assert done.stderr.startswith("manyhands echo: ") and done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_port_in_use_is_one_sentence_and_status_1() -> None:
    """It names the port and the option that takes another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_command("echo", "--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"manyhands echo: port {port} of 127.0.0.1 is in use: "
        "end the program that has it, or choose another with --port.\n"
    )


class ForbiddenSocket(socket.socket):
    """A socket that may not be bound, also for root."""

    def bind(self, address: object) -> None:
        """Refuse."""
        raise PermissionError(13, "Permission denied")


def test_a_port_that_is_not_allowed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the ports that are; the socket is closed."""
    monkeypatch.setattr(socket, "socket", ForbiddenSocket)
    with pytest.raises(Failure, match=r"no permission to listen on port 80 of 127\.0\.0\.1: choose a port from 1024"):
        echo.open_listener("127.0.0.1", 80)


def test_too_few_descriptors_are_one_sentence_and_status_1() -> None:
    """It names the limit and the command that raises it."""
    done = run_command("echo", "--port", "0", max_descriptors=16)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"needs \d+ open files and this process may have 16: raise the limit with `ulimit -n", done.stderr)


def test_a_system_that_starts_no_more_threads_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads that had been started have left the loop and ended."""
    start = threading.Thread.start

    def start_two(thread: threading.Thread) -> None:
        if thread.name == "echo-3":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    loop = mh.EventLoop()
    try:
        with pytest.raises(Failure, match=r"no more than 2 threads .*--threads"):
            echo.lend_threads(loop, 5)
        assert (loop.stopped, loop.joined) == (True, 0)
    finally:
        loop.close()
