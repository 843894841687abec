"""The process of the workers' page, as the supervisor keeps it: telling it never waits."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from manyhands.server import _page_process
from manyhands.server._page_process import PageProcess
from support import LONG

DEAF = "import signal; signal.pause()"

ECHO = """
import os, socket
line = socket.socket(fileno=int(os.environ["MANYHANDS_WORKER_LINE"]))
while True:
    text, numbers, _, _ = socket.recv_fds(line, 4096, 1)
    if not text:
        break
    for number in numbers:
        os.write(number, text)
"""


@pytest.fixture
def make_page(pair) -> Iterator:
    """Pages whose process runs this; they are killed at the end."""
    made = []
    listening, _ = pair()

    def make(program: str) -> PageProcess:
        made.append(PageProcess([sys.executable, "-c", program], listening.fileno()))
        made[-1].start()
        return made[-1]

    yield make
    for page in made:
        page.kill()


def message(number: int) -> dict:
    return {"worker": number, "pid": 4711, "state": "starting", "born": 1.5, "restarts": 0}


def wait_ended(page: PageProcess) -> None:
    assert page.line is not None
    assert select.select([page.line], [], [], LONG)[0]
    with pytest.raises((BlockingIOError, ConnectionError)):
        assert page.line.recv(1) == b""
        raise ConnectionError


def test_a_message_brings_a_socket_along(make_page):
    """Each message by itself, in order, with the socket that belongs to it."""
    page = make_page(ECHO)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(LONG)
        page.tell(message(1), theirs)
        page.tell(message(2))
        page.tell(message(3), theirs)
        text = b""
        while text.count(b"}") < 2:
            text += ours.recv(4096)
    assert [b'"worker": %d' % number in text for number in (1, 2, 3)] == [True, False, True]


def test_one_that_takes_no_messages_is_killed_and_can_be_started_again(make_page, caplog):
    """The supervisor sees its end by the line, and what it is told is as if nothing had been."""
    page = make_page(DEAF)
    for number in range(100_000):
        page.tell(message(number))
        if select.select([page.line], [], [], 0)[0]:
            break
    else:
        pytest.fail("it was told more than any socket holds")
    wait_ended(page)
    page.bury()
    assert page.line is None
    page.tell(message(1))
    assert "ended by itself, with status -9" in caplog.text
    page.start()
    assert page.line is not None


def test_one_that_cannot_be_started_is_due_again_after_a_pause(make_page, monkeypatch, caplog):
    """Said in the log; whoever tells it something meanwhile is not held up."""

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no process left")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    page = make_page(ECHO)
    assert page.line is None
    assert page.due > _page_process.monotonic()
    page.tell(message(1))
    page.kill()
    assert "no process left" in caplog.text
