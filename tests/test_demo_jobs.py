"""The demo of jobs: that it shows what it says, on a terminal and elsewhere, and that it finds out what is wrong."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

import manyhands as mh
from commands import COMMAND, EXAMPLES, START, assert_no_complaint, run_command
from manyhands.cli import demo_jobs
from manyhands.cli._digest_clients import Clients, Tree
from manyhands.cli._failure import Failure
from support import LONG, wait_until

pytestmark = pytest.mark.whole

SUMMARY = (
    r"^ended by itself after [\d.]+ s$",
    r"^  jobs +\d+ accepted: \d+ finished, \d+ stopped$",
    r"^  digests +[1-9][\d,]*, every one as it must be$",
    r"^  told to stop +.*OWNER_GONE [1-9]",
    r"^  after a hang-up +[\d.]+ ms \(median\), [\d.]+ ms \(worst\)$",
    r"^  waiting +[0-6] jobs at once for their clients, on no thread$",
)


def test_the_demo_s_server_is_the_example() -> None:
    """Examples are not installed with the package, and there is one text of it: what the example shows is what runs."""
    example = (EXAMPLES / "digest_server.py").read_text(encoding="utf-8")
    assert Path(demo_jobs.__file__).with_name("_digest_server.py").read_text(encoding="utf-8") == example


def test_the_demo_of_jobs_shows_jobs_as_lines_and_a_summary() -> None:
    """The whole command, not on a terminal: no escape sequence, a line for each job, every digest right."""
    done = run_command("demo", "jobs", "--seconds", "2.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_no_complaint(done.stderr)
    assert "\x1b" not in done.stdout
    assert re.search(r"^ +\d+ digest \w+ +(RUNNING|SYNCING|QUEUED) +[\d.]+ s", done.stdout, re.MULTILINE), done.stdout
    for line in SUMMARY:
        assert re.search(line, done.stdout, re.MULTILINE), done.stdout


def on_a_terminal(seconds: str, *, ctrl_c: bool) -> tuple[int, str]:
    """Run the demo on a pseudo-terminal; press Ctrl-C when the first table is there. Returns status and what it showed."""
    ours, theirs = pty.openpty()
    command = [*COMMAND, "demo", "jobs", "--seconds", seconds]
    # A session of its own, so that the terminal is its terminal and the character of Ctrl-C is a signal for it.
    program = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    try:
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end has gone
                break
            if ctrl_c and b"SYNCING" in shown:
                os.kill(program.pid, signal.SIGINT)
                ctrl_c = False
        return program.wait(START), shown.decode().replace("\r\n", "\n")
    finally:
        program.kill()
        program.wait()
        os.close(ours)


def test_on_a_terminal_the_table_is_redrawn_in_place() -> None:
    """The cursor goes up over the last table; the summary stands below it."""
    status, shown = on_a_terminal("2.5", ctrl_c=False)
    assert status == 0, shown
    assert shown.count("JOB NAME") > 3
    assert re.search(r"\x1b\[\d+A", shown)
    for line in SUMMARY:
        assert re.search(line, shown, re.MULTILINE), shown


def test_ctrl_c_ends_the_demo_in_order() -> None:
    """One is enough: status 0, the summary, and no job left."""
    status, shown = on_a_terminal("60", ctrl_c=True)
    assert status == 0, shown
    assert "Traceback" not in shown
    assert re.search(r"^ended by SIGINT after [\d.]+ s$", shown, re.MULTILINE), shown


@pytest.fixture
def liar():
    """A server that answers every client with the same bytes, and hangs up."""
    said: list[bytes] = [b""]
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                sock, _ = listener.accept()
                with sock:
                    if over.is_set():
                        return
                    sock.recv(100)
                    sock.sendall(said[0])

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname(), said
        over.set()
        mh.wake_accept(listener)
        thread.join(LONG)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"0" * 64 + b"  large/0.bin\n", r"the digest of 'large/0\.bin' was wrong: 0+"),
        (b"0" * 64 + b"  ../secret\n", r"the digest of '\.\./secret' was wrong"),
        (b"", r"closed in the middle of its answer"),
        (b"# 0 files, 0 bytes\n", r"a client got 0 digests where there are 8 files"),
    ],
)
def test_a_server_that_is_wrong_is_found_out(tmp_path, liar, answer, sentence) -> None:
    """A wrong digest, one of something else, too few, and an answer that breaks off."""
    address, said = liar
    said[0] = answer
    clients = Clients(address, Tree(tmp_path), fast=1, slow=0)
    clients.start()
    wait_until(lambda: clients.wrong)
    clients.wait()
    with pytest.raises(Failure, match=sentence):
        demo_jobs.check(clients, demo_jobs.Ends(), [])


def test_a_job_that_outlives_its_client_or_the_pool_is_found_out(tmp_path) -> None:
    """The demo fails if what it shows is not so."""
    clients = Clients(("127.0.0.1", 9), Tree(tmp_path), fast=0, slow=0)
    ends = demo_jobs.Ends()
    ends.latencies.append(3.0)
    with pytest.raises(Failure, match=r"went on for 3\.0 s after its client had hung up"):
        demo_jobs.check(clients, ends, [])
    left = mh.JobSnapshot(1, "digest small", mh.JobStatus.STOPPING, 9.0, "mh-demo-0", None, None, None)
    with pytest.raises(Failure, match=r"'digest small' did not end within 5 s: STOPPING"):
        demo_jobs.check(clients, demo_jobs.Ends(), [left])
