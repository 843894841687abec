"""Every example runs, as its docstring says, and shows what it says to look for."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Self, TextIO

import pytest

from commands import EXAMPLES, START, assert_no_complaint, run_example
from support import LONG

RUN_ELSEWHERE = {"accept_with_backoff", "flask_app", "pooled_coroutines"}
"""Examples whose test is with the behaviour that they show."""


def load_example(name: str) -> ModuleType:
    """Import an example without running it."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_a_test_here() -> None:
    """By name: an example that nothing runs rots."""
    tests = {name.removeprefix("test_example_") for name in globals() if name.startswith("test_example_")}
    examples = {path.stem for path in EXAMPLES.glob("*.py")} - RUN_ELSEWHERE
    assert {example for example in examples if not any(test.startswith(example) for test in tests)} == set()


def test_example_join_from_your_own_threads() -> None:
    """Eight rallies of 99 hits, whoever plays them; the guest's early leave loses none."""
    printed = run_example("join_from_your_own_threads", "--helpers", "3", "--hits", "50")
    assert "792 hits;" in printed
    ran = {name: int(count) for name, count in re.findall(r"^(\S+) +ran +(\d+) handlers$", printed, re.MULTILINE)}
    assert ran.keys() == {"main", "helper-0", "helper-1", "helper-2", "guest"}
    assert sum(ran.values()) >= 792


def test_example_pause_a_noisy_descriptor() -> None:
    """Nothing is lost, the backlog is bounded, and the quiet pipe goes on meanwhile."""
    printed = run_example("pause_a_noisy_descriptor", "--seconds", "1")
    written, read, worked_on = re.findall(r"\d[\d,]*\d", printed.splitlines()[0])
    assert written == read == worked_on
    pauses, most = map(int, re.findall(r"\d+", printed.splitlines()[1]))
    assert pauses >= 1
    assert most <= 20 + 16
    ticks, meanwhile = map(int, re.findall(r"\d+", printed.splitlines()[2]))
    assert ticks >= meanwhile >= 1


def test_example_strand_as_monitor() -> None:
    """Every total that was seen is the right one."""
    printed = run_example("strand_as_monitor", "--tellers", "4", "--transfers", "2000").splitlines()
    assert printed[0].startswith("after close(): ")
    assert re.match(r"[\d,]+ transfers made for 4 threads; looked 80 times, and saw a total of:", printed[1])
    assert printed[2:] == ["1000"]


def test_example_timers() -> None:
    """In the order of their deadlines, and the cancelled one never."""
    printed = run_example("timers")
    events = re.findall(r"^ +\d+ ms  (.*)$", printed, re.MULTILINE)
    assert [event for event in events if event.startswith("set")] == [
        "set second, due first",
        "set third, due second",
        "set first, due third",
    ]
    assert [event[-1] for event in events if event.startswith("same deadline")] == ["a", "b", "c"]
    assert [event for event in events if event.startswith("tick")] == [f"tick {n}" for n in range(1, 6)]
    assert [event[:9] for event in events if event.startswith("attempt")] == [f"attempt {n}" for n in range(1, 5)]
    assert "cancelled in time: True" in events and "this line is never printed" not in printed
    assert events[-1].endswith("0 timers left")


def test_example_serial_port_with_a_device_that_is_made_up() -> None:
    """Lines whatever the pieces, silence noticed once, one line too long, and the hang-up last."""
    printed = run_example("serial_port", "--silence", "0.5")
    assert re.findall(r"^ *[\d.]+ s  (.*)$", printed, re.MULTILINE) == [
        "line 'temp 21.5'",
        "line 'temp 21.6'",
        "line 'humidity 40'",
        "line 'temp 21.7'",
        "nothing for 0.5 s: is the device still there?",
        "line 'temp 21.9'",
        "hung up; 1 lines were too long",
    ]


def test_example_serial_port_with_a_real_path() -> None:
    """A pseudo-terminal of ours by its path in /dev/pts; hanging it up ends the program."""
    ours, theirs = os.openpty()
    path = os.ttyname(theirs)
    command = [sys.executable, "-W", "error", str(EXAMPLES / "serial_port.py"), path, "--silence", "30"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == f"reading {path}\n"
            os.write(ours, b"hello\r\n")
            assert program.stdout.readline().endswith("line 'hello'\n")
            os.close(theirs)
            os.close(ours)
            assert program.stdout.readline().endswith("hung up; 0 lines were too long\n")
            assert program.wait(START) == 0
        finally:
            program.kill()


def test_the_serial_port_s_framer_gives_the_same_lines_wherever_the_stream_is_cut() -> None:
    """Two cuts at every pair of places of a stream with a line that is too long."""
    framer_type = load_example("serial_port").LineFramer
    stream = b"one\r\ntwo\n" + b"#" * 90 + b"\n\nthree\nfo"
    for first in range(len(stream)):
        for second in range(first, len(stream)):
            framer = framer_type()
            pieces = stream[:first], stream[first:second], stream[second:]
            lines = [line for piece in pieces for line in framer.feed(piece)]
            assert lines in ([b"one", b"two", b"", b"three"], [b"one", b"two", b"#" * 90, b"", b"three"])
            assert framer.dropped <= 1


def test_example_chat_plays_a_scene_by_itself() -> None:
    """Ann and Bob hear each other; Carl, who reads nothing, is disconnected."""
    printed = run_example("chat")
    assert "ann hears 'bob: hello ann; what does carl say?'" in printed
    assert "carl was too slow" in printed
    assert "ann and bob go on" in printed


def test_example_replace_thread_pool_executor() -> None:
    """A needle in every third file, found by `map` and by `submit`; what would never end is stopped."""
    assert run_example("replace_thread_pool_executor", "--files", "90").splitlines() == [
        "by map: 30",
        "by submit: 30",
        "'watch 0.txt' is RUNNING on mh-watch-0: 1 found",
        "stopped: True",
        "its result: JobCancelled",
        "left behind: []",
    ]


def test_example_pool_under_asyncio() -> None:
    """Names and context of `to_thread`, a stopped job, a deadline that a TaskGroup sees, and a refusal."""
    printed = run_example("pool_under_asyncio")
    assert "to_thread ran on mh-async-0, request 17\n" in printed
    assert "the await timed out\nthe job is STOPPED, by its CALLER\n" in printed
    assert "the TaskGroup raised JobAborted, DEADLINE; a TimeoutError: True\n" in printed
    assert re.search("^refused: pool 'small' ", printed, re.MULTILINE)
    assert re.search(r"^4 jobs in [\d.]+ s: 2 finished, 2 stopped$", printed, re.MULTILINE)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with what a tree may hold: files, a link out of it, an empty directory, odd names, a pipe, a large hole."""
    root = tmp_path / "root"
    (root / "deep" / "empty").mkdir(parents=True)
    (root / "plain.txt").write_bytes(b"hello\n")
    (root / "deep" / "empty.bin").write_bytes(b"")
    (root / "deep" / "two\nlines\\.txt").write_bytes(b"odd name\n")
    (tmp_path / "secret").write_bytes(b"secret\n")
    (root / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(root / "pipe")
    with (root / "large").open("wb") as large:
        large.truncate(200 << 20)
    return root


@contextmanager
def digest_server(root: Path) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """The digest server as its users start it, on a free port."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / "digest_server.py"), str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            address = re.match(r"digests of .* on (\S+) port (\d+)$", program.stdout.readline())
            assert address is not None
            yield program, (address[1], int(address[2]))
        finally:
            program.kill()


def asked(address: tuple[str, int], line: bytes) -> list[bytes]:
    """Ask one question; return the lines of the answer but for those of progress, the last one without its mark."""
    with socket.create_connection(address, START) as sock, sock.makefile("rb") as lines:
        sock.sendall(line + b"\n")
        answer = []
        for heard in lines:
            if not heard.startswith(b"# "):
                answer.append(heard.rstrip(b"\n"))
            elif b" of " not in heard:
                return [*answer, heard[2:].rstrip(b"\n")]
        raise ConnectionError(f"the server hung up after {answer!r}")


def test_example_digest_server_plays_a_scene_by_itself(tree: Path) -> None:
    """Everything for the first client; the second one's job ends with its client."""
    printed = run_example("digest_server", str(tree))
    assert f"the first client got 4 digests: 4 files, {(200 << 20) + 15} bytes\n" in printed
    assert re.search(r"^job \d+ 'digest \.' of 127\.0\.0\.1:\d+: FINISHED$", printed, re.MULTILINE)
    assert re.search(r"^job \d+ 'digest \.' of 127\.0\.0\.1:\d+: STOPPED, OWNER_GONE$", printed, re.MULTILINE)
    assert re.search(r"^\d+ ms after the second one hung up its job had ended$", printed, re.MULTILINE)
    assert printed.endswith("ended; 0 jobs left\n")


def test_example_digest_server_says_what_sha256sum_says(tree: Path) -> None:
    """Word for word, also for odd names; nothing outside of the root, no link, no pipe."""
    with digest_server(tree) as (program, address):
        *lines, last = asked(address, b".")
        files = ["deep/empty.bin", "deep/two\nlines\\.txt", "large", "plain.txt"]
        wanted = subprocess.run(["sha256sum", *files], cwd=tree, capture_output=True, check=True)
        assert lines == wanted.stdout.splitlines()
        assert last == b"4 files, %d bytes" % ((200 << 20) + 15)
        assert asked(address, b"plain.txt")[0].endswith(b"  plain.txt")
        assert asked(address, b"deep/empty") == [b"0 files, 0 bytes"]
        for outside in (b"..", b"/etc/passwd", b"link", b"deep/../../secret", b"nothing", b"a\0b", b"\xff\xfe"):
            assert asked(address, outside) == [b"no such file or directory below the root"], outside
        program.send_signal(signal.SIGINT)
        printed, complaints = program.communicate(timeout=START)
        assert program.returncode == 0, printed + complaints
        assert_no_complaint(complaints)
        assert printed.endswith("ended; 0 jobs left\n")


def test_example_digest_server_bounds_what_a_client_may_send(tree: Path) -> None:
    """A line that never ends, and too many lines ahead, cost the client its connection; others go on."""
    with digest_server(tree) as (_, address):
        for flood in (b"x" * 5000, b"large\n" * 1000):
            with socket.create_connection(address, START) as sock, suppress(ConnectionError):
                sock.sendall(flood)
                while sock.recv(4096):
                    pass
        assert asked(address, b"plain.txt")[1] == b"1 files, 6 bytes"


def test_example_digest_server_ends_at_ctrl_c_while_a_client_waits(tree: Path) -> None:
    """One Ctrl-C: the client is hung up on, its job is stopped, the process ends."""
    with digest_server(tree) as (program, address), socket.create_connection(address, START) as client:
        client.sendall(b"large\nlarge\nlarge\n")
        assert client.recv(1)
        program.send_signal(signal.SIGINT)
        printed, complaints = program.communicate(timeout=START)
        assert program.returncode == 0, printed + complaints
        assert_no_complaint(complaints)
        assert printed.endswith("ended; 0 jobs left\n")


class ChatClient:
    """Somebody at a terminal with nc."""

    def __init__(self, address: tuple[str, int], name: str) -> None:
        self.socket = socket.create_connection(address, LONG)
        self._heard: TextIO = self.socket.makefile("r")
        self.say(name)

    def say(self, line: str) -> None:
        """Type a line."""
        self.socket.sendall(line.encode() + b"\n")

    def hears(self, line: str) -> bool:
        """Read the next line and compare it."""
        assert self._heard.readline() == line + "\n"
        return True

    def next_line(self) -> str:
        """Read the next line."""
        return self._heard.readline().rstrip("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        """Leave."""
        self._heard.close()
        self.socket.close()


@contextmanager
def chat_server(name: str = "chat") -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """A chat server as its users start it, on a free port."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            address = re.match(r"chat on (\S+) port (\d+)$", program.stdout.readline())
            assert address is not None
            yield program, (address[1], int(address[2]))
        finally:
            program.kill()


def test_example_chat_with_real_clients_ends_at_ctrl_c() -> None:
    """All hear the same in the same order; a name that is taken gets a tail; one Ctrl-C ends the server."""
    with chat_server() as (program, address), ChatClient(address, "ann") as ann:
        assert ann.hears("* ann is here, with 0 others")
        with ChatClient(address, "ann") as bob:
            for client in (ann, bob):
                assert client.hears("* ann_ is here, with 1 others")
            bob.say("two\nlines at once")
            ann.say("")
            for client in (ann, bob):
                assert client.hears("ann_: two") and client.hears("ann_: lines at once")
        assert ann.hears("* ann_ left")
        program.send_signal(signal.SIGINT)
        printed, complaints = program.communicate(timeout=START)
        assert program.returncode == 0, printed + complaints
        assert_no_complaint(complaints)
        assert ann.socket.recv(1) == b""


def test_example_chat_disconnects_a_client_that_never_ends_its_line() -> None:
    """A line is at most a kilobyte; the others go on."""
    with chat_server() as (_, address), ChatClient(address, "ann") as ann:
        assert ann.hears("* ann is here, with 0 others")
        with ChatClient(address, "endless") as endless:
            assert ann.hears("* endless is here, with 1 others")
            endless.socket.sendall(b"x" * 2000)
            assert ann.hears("* endless left")


def test_example_traffic_light() -> None:
    """Red, green, yellow; who comes at green has it cut short and crosses at red; a stopped light answers nobody."""
    lines = run_example("traffic_light", "--pace", "0.03").splitlines()
    colours = [line for line in lines if line in ("red", "green", "yellow")]
    cycle = ["red", "green", "yellow"] * len(colours)
    assert colours[:4] == cycle[:4]
    assert colours == cycle[: len(colours)]
    bob = [line for line in lines if "bob presses" in line]
    assert bob[0] == "  bob presses the button: 'wait, bob'"
    assert bob[-1] == "  bob presses the button: 'go, bob'"
    assert "  ann presses the button: 'go, ann'" in lines
    assert lines[-2] == "out of order: mind the traffic"
    assert "'light' was stopped" in lines[-1]


def test_example_actor_chat_plays_a_scene_by_itself() -> None:
    """Bob leaves the hall for the kitchen, and is seen there, not here."""
    printed = run_example("actor_chat")
    assert re.findall(r"(?:ann|bob) sees '(.*)'$", printed, re.MULTILINE) == [
        "* ann is in hall, with 0 others",
        "* bob is in hall, with 1 others",
        "bob: hello ann",
        "* bob left",
        "* ann",
        "* bob is in kitchen, with 0 others",
    ]


def test_example_actor_chat_with_real_clients_ends_at_ctrl_c() -> None:
    """Rooms hear themselves and no other; one that is empty is closed; one Ctrl-C ends the server."""
    with chat_server("actor_chat") as (program, address), ChatClient(address, "ann") as ann:
        assert program.stdout is not None
        assert program.stdout.readline() == "room hall is open\n"
        assert ann.hears("* ann is in hall, with 0 others")
        with ChatClient(address, "ann") as bob:
            for client in (ann, bob):
                assert client.hears("* ann_ is in hall, with 1 others")
            bob.say("two\nlines at once")
            for client in (ann, bob):
                assert client.hears("ann_: two") and client.hears("ann_: lines at once")
            bob.say("/join kitchen")
            assert bob.hears("* ann is in kitchen, with 0 others")
            assert ann.hears("* ann_ left")
            ann.say("nobody hears this")
            ann.say("/who")
            assert ann.hears("ann: nobody hears this") and ann.hears("* ann")
            assert program.stdout.readline() == "room kitchen is open\n"
            bob.say("/quit")
            assert bob.socket.recv(1) == b""
        assert program.stdout.readline() == "room kitchen is closed\n"
        program.send_signal(signal.SIGINT)
        printed, complaints = program.communicate(timeout=START)
        assert program.returncode == 0, printed + complaints
        assert_no_complaint(complaints)
        assert ann.socket.recv(1) == b""


def test_example_actor_chat_disconnects_a_client_that_never_ends_its_line_and_one_that_reads_nothing() -> None:
    """What a client may cost is bounded; the others go on."""
    with chat_server("actor_chat") as (_, address), ChatClient(address, "ann") as ann:
        assert ann.hears("* ann is in hall, with 0 others")
        with ChatClient(address, "endless") as endless:
            assert ann.hears("* endless is in hall, with 1 others")
            endless.socket.sendall(b"x" * 2000)
            assert ann.hears("* endless left")
        with ChatClient(address, "deaf") as deaf:
            deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            assert ann.hears("* deaf is in hall, with 1 others")
            line = "are you there? " * 60
            ann.say(line)
            while (heard := ann.next_line()) == f"ann: {line.strip()}":
                ann.say(line)
            assert heard == "* deaf left"


def test_example_crawler_finds_every_page_and_gives_up_on_the_one_that_hangs() -> None:
    """On two threads; the slow page costs only itself."""
    lines = run_example("crawler", "--threads", "2").splitlines()
    found = {int(path.strip("/") or 1): what for path, what in (line.split(maxsplit=1) for line in lines[:-1])}
    assert found.keys() == set(range(1, 41)) - {26, 27}, "13 never said what it links to"
    assert found.pop(13).startswith("TimeoutError")
    assert all(what.startswith("200, ") for what in found.values())
    assert lines[-1].startswith("38 pages in ")


def test_example_tls_echo_plays_a_scene_by_itself() -> None:
    """Who speaks no TLS, looks for another name or says nothing costs itself only."""
    lines = run_example("tls_echo").splitlines()
    assert "a handshake failed: the TLS handshake failed: the peer does not speak TLS (http request)" in lines[0]
    assert lines[1].startswith("carl: the TLS handshake failed: the peer's certificate was refused: Hostname mismatch")
    assert sorted(lines[2:4]) == [
        f"{name} heard 1000 lines of its own by TLSv1.3, the last b'{name} 999'" for name in ("ann", "bob")
    ]
    assert lines[4:] == ["handshakes that go on: 1"]
