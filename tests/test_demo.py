"""The demo: that it says what happens at a server with slow clients, and finds out what must not."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands import COMMAND, START, assert_no_complaint, run_command
from manyhands.cli._failure import Failure
from manyhands.cli._serve_summary import Look, Phase, Seen, check, figures
from manyhands.cli.demo_serve import was_stopped

pytestmark = pytest.mark.whole

SHORT = ("--clients", "60", "--seconds", "2")

FIGURES = (
    r"^ +before +with 60 slow clients$",
    r"^  /health, half within +\d+\.\d ms +\d+\.\d ms$",
    r"^  /health, 99% within +\d+\.\d ms +\d+\.\d ms$",
    r"^  /health, answered +[1-9][\d,]* +[1-9][\d,]*$",
    r"^  the server's threads +\d\d +\d\d$",
    r"^  connections +\d+ +[67]\d: .*\d+ busy, .*\d+ reading",
    r"^  clients that hung up +100: [1-9]\d* views were stopped, \d+ still queued never began$",
    r"^    stopped within +[\d.]+ ms of the hang-up \(half of them\), [\d.]+ ms \(the last\)$",
    r"^  messages by WebSocket +[1-9]\d*, every one came back$",
    r"^  server-sent events +[1-9]\d*$",
)
END = (
    r"^  slow clients that left +[1-9]\d* streams were stopped within",
    r"^  Ctrl-C for the server +it ended within \d+\.\d s, every request was answered or stopped$",
    r"^As promised: every request was answered, slow clients hold no thread, and nothing works for a client that has gone",
)


def assert_shows(printed: str, lines: tuple[str, ...]) -> None:
    """Each of the lines is there."""
    for line in lines:
        assert re.search(line, printed, re.MULTILINE), f"{line}\n{printed}"


def test_the_demo_says_what_happened_and_that_it_is_as_promised() -> None:
    """The whole command, as it is without any argument but for its length; it is what `make demo` runs."""
    done = run_command("demo", *SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_no_complaint(done.stderr)
    assert_shows(done.stdout, FIGURES + END)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo under way; killed at the end. It has the signals of a terminal, also where the tests run under `nohup`."""
    command = ["env", "--default-signal=INT,HUP", *COMMAND, "demo", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            yield program
        finally:
            program.kill()


def read_until(program: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read its output up to a line."""
    assert program.stdout is not None
    read = ""
    for line in program.stdout:
        read += line
        if (found := re.search(pattern, line)) is not None:
            return found
    assert program.stderr is not None
    raise AssertionError(f"{pattern} did not come: {read}{program.stderr.read()}")


def assert_gone(pid: int) -> None:
    """The process has gone, and was waited for."""
    assert not Path(f"/proc/{pid}").exists()


def child_of(pid: int) -> int:
    """The one child of a process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_ends_the_demo_and_its_server_in_order(number) -> None:
    """Ctrl-C, the signal of `kill`, the terminal that is closed: status 0, and a sentence on how the server ended."""
    with running("--seconds", "60", "--clients", "30") as program:
        read_until(program, "8 clients ask for /health")
        server = child_of(program.pid)
        program.send_signal(number)
        printed, complaints = program.communicate(timeout=START)
    assert program.returncode == 0, printed + complaints
    assert_no_complaint(complaints)
    assert "ended before everything was seen; the server: it ended within" in printed
    assert_gone(server)


def test_a_demo_that_is_killed_takes_its_server_along() -> None:
    """Without a word to it: the kernel tells the server."""
    with running("--seconds", "60", "--clients", "30") as program:
        read_until(program, "8 clients ask for /health")
        server = os.pidfd_open(child_of(program.pid))
        program.kill()
        readable, _, _ = select.select([server], [], [], START)
        os.close(server)
        assert readable, "the server goes on"


def test_with_keep_the_traffic_goes_on_until_ctrl_c() -> None:
    """The figures come first, then the addresses to look at; then it waits."""
    with running(*SHORT, "--keep") as program:
        read_until(program, r"messages by WebSocket")
        read_until(program, r"The traffic goes on")
        read_until(program, r"Ctrl-C ends it")
        program.send_signal(signal.SIGINT)
        printed, complaints = program.communicate(timeout=START)
    assert program.returncode == 0, printed + complaints
    assert_no_complaint(complaints)
    assert "Ctrl-C for the server" in printed


def test_a_server_that_dies_on_the_way_is_reported() -> None:
    """One sentence, with its status; status 1."""
    with running("--seconds", "8", "--clients", "30") as program:
        read_until(program, "all of them are there")
        os.kill(child_of(program.pid), signal.SIGKILL)
        _, complaints = program.communicate(timeout=START)
    assert program.returncode == 1, complaints
    assert re.search(r"^manyhands demo: .*The server has ended with status -9", complaints, re.MULTILINE), complaints
    assert_no_complaint(complaints)


def test_a_port_that_is_taken_is_reported_with_the_server_s_words() -> None:
    """The server's sentence is in the demo's."""
    with running(*SHORT, "--keep") as program:
        port = read_until(program, r"the application  http://127\.0\.0\.1:(\d+)/")[1]
        done = run_command("demo", *SHORT, "--port", port)
    assert done.returncode == 1
    assert f"the server did not start. It said: manyhands serve: port {port} of 127.0.0.1 is in use: " in done.stderr
    assert_no_complaint(done.stderr)


def test_without_flask_the_demo_says_what_to_install() -> None:
    """Before anything is started. The other demos do not need it."""
    program = textwrap.dedent("""
        import importlib.util, sys
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "flask" else find(name, *rest)
        from manyhands.cli import main
        sys.exit(main(["demo"]))
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=START, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "manyhands demo: this demo needs flask: install it with `pip install 'manyhands[demo]'`"
    )


def test_a_demo_with_more_clients_than_descriptors_says_what_to_do() -> None:
    """One sentence, status 1, before anything is started."""
    done = run_command("demo", "--clients", "500", max_descriptors=256)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a demo with 500 slow clients needs" in done.stderr and "ulimit -n" in done.stderr


def seen(**differing: object) -> Seen:
    """What is as it must be, but for these."""
    phase = Phase([0.001, 0.002], Look(threads=20, memory=1 << 25, connections={"idle": 10}))
    crowded = Phase([0.001, 0.003], Look(threads=20, memory=1 << 26, connections={"busy": 250, "reading": 250}))
    return Seen(slow=500, alone=phase, crowded=crowded, hung_up=10, stops=[0.001, 0.1], said=5, **differing)


def test_what_was_seen_is_put_into_figures() -> None:
    """Percentiles are latencies that were measured; what never began is what neither ran nor was stopped."""
    printed = figures(seen())
    assert re.search(r"half within +2\.0 ms +3\.0 ms$", printed, re.MULTILINE), printed
    assert re.search(r"connections +10 +500: 250 busy, 250 reading$", printed, re.MULTILINE), printed
    assert "10: 2 views were stopped, 8 still queued never began" in printed
    assert "100.0 ms (the last)" in printed
    assert Phase().percentile(0.5) == 0.0


def test_a_promise_that_was_broken_is_found_out() -> None:
    """A thread for every client, clients that were thrown out, nothing measured."""
    check(seen())
    found = seen()
    found.crowded.most.threads = 120
    with pytest.raises(Failure, match="started 100 threads for 500 slow clients"):
        check(found)
    found = seen()
    found.crowded.most.connections = {"idle": 400}
    with pytest.raises(Failure, match="held 400 connections, and 500 slow clients were there"):
        check(found)
    found = seen()
    found.crowded.latencies = []
    with pytest.raises(Failure, match="no request was answered"):
        check(found)


def test_a_view_that_goes_on_or_ends_by_itself_was_not_stopped() -> None:
    """Of a client that hung up: the reason counts, but for a stream, which may find out by writing."""
    for entry, stopped in (
        ({"what": "report", "ended": None, "because": None}, False),
        ({"what": "report", "ended": 7.0, "because": None}, False),
        ({"what": "report", "ended": 7.0, "because": "CALLER"}, False),
        ({"what": "report", "ended": 7.0, "because": "OWNER_GONE"}, True),
        ({"what": "rows", "ended": 7.0, "because": None}, True),
        ({"what": "rows", "ended": None, "because": None}, False),
    ):
        assert was_stopped(entry) is stopped, entry
