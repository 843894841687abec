"""`manyhands top`: what a dashboard shows, in a terminal."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from rich.console import Console

import manyhands as mh
from commands import COMMAND, START
from dashing import HOSTILE, ask, seen, wait_seen
from manyhands.cli import _top_screen, main, top
from manyhands.server import Server
from pooling import occupied
from serving import hello
from support import wait_until

pytestmark = pytest.mark.whole

dashboard = mh.debug.dashboard

COLOURS = re.compile(r"\x1b\[[\d;]*m")
"""What a table's own styles are made of."""


@pytest.fixture
def shown(capsys):
    """Run `manyhands top --once` with these arguments: exit status, what it printed, what it complained of."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["top", "--once", *arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture
def wide(monkeypatch):
    """A terminal with room for everything."""
    monkeypatch.setenv("COLUMNS", "160")


def picture(data: dict, width: int = 80, height: int | None = None) -> str:
    """What the screen draws of this."""
    screen = _top_screen.Screen("http://127.0.0.1:1/")
    screen.take(data)
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor")
    console.print(screen.picture(width, height))
    return console.file.getvalue()


@pytest.mark.usefixtures("wide")
def test_it_shows_threads_jobs_loops_and_pools(shown, make_loop, make_pool):
    """Once, where there is no terminal: by URL and by port."""
    loop, pool = make_loop(name="kitchen"), make_pool(1, name="reports")
    with dashboard(loop, pool) as page, occupied(pool) as (job,):
        job.progress(1, 4, "page one")
        pool.enqueue(int, name="later", owner=loop.strand(name="desk"))
        status, printed, complaint = shown(page.url)
        assert (status, complaint) == (0, "")
        assert shown("--port", page.url.rstrip("/").rpartition(":")[2])[0] == 0
        pool.finish()
    assert re.search(r"^kitchen +0 +0", printed, re.MULTILINE)
    assert re.search(r"^reports +1 +1/1 +1", printed, re.MULTILINE)
    assert re.search(rf"^mh-reports-0 +job {job.name}", printed, re.MULTILINE)
    assert re.search(r"^MainThread +[\w.]+ \([\w./]+:\d+\)", printed, re.MULTILINE), "the program's own threads too"
    assert "mh-monitor" not in printed
    assert re.search(rf"^ *{job.id} +{job.name} +running .* 25% page one", printed, re.MULTILINE)
    assert re.search(r"later +queued .* strand desk", printed)


def test_a_server_and_the_times_are_shown_too(shown, loop):
    """Connections by state, and the histogram of the handlers in a line."""
    for _ in range(3):
        loop.post(int)
    loop.join(until_idle=True)
    with Server(hello, threads=1, name="shop") as server, dashboard(server, loop) as page:
        _, printed, _ = shown(page.url)
    assert re.search(r"^shop +http://127\.0\.0\.1:\d+/? +0 +0 +0 +0 +0", printed, re.MULTILINE)
    assert re.search(r"≤ [\d.]+ [mµ]?s.*[▁▂▃▄▅▆▇█]", printed)


def test_threads_that_wait_are_counted_where_they_are_many(shown):
    """A server has dozens, and the jobs are what one looks for."""
    with Server(hello, threads=2, name="few") as few, dashboard(few) as page:
        wait_seen(page, lambda data: sum(row["kind"] == "loop" for row in data["threads"]["listed"]) == 3)
        assert len(re.findall(r"^mh-few-\d+ +waits", shown(page.url)[1], re.MULTILINE)) == 3
    with Server(hello, threads=8, name="many") as many, dashboard(many) as page:
        wait_seen(page, lambda data: sum(row["kind"] == "loop" for row in data["threads"]["listed"]) == 9)
        printed = shown(page.url)[1]
    assert re.search(r"^9 more +wait", printed, re.MULTILINE), printed
    assert "mh-many" not in printed


def test_it_fits_the_terminal(make_loop, make_pool):
    """No line is longer and there are no more lines than it has, from 24 on; what is at work comes first."""
    loop, pool = make_loop(), make_pool(1, max_queue_depth=None)
    with dashboard(loop, pool) as page, occupied(pool) as (job,):
        for _ in range(100):
            pool.enqueue(int, name="x" * 150)
        data = seen(page)
        pool.finish()
    for width in (40, 80, 200):
        for height in (10, 24, 60):
            lines = COLOURS.sub("", picture(data, width, height)).splitlines()
            assert max(map(len, lines)) <= width
            if height >= 24:
                assert height - 4 <= len(lines) < height
            assert any(str(job.id) in line for line in lines)


def test_a_hostile_name_does_nothing_to_the_terminal(make_pool):
    """No escape but the table's own colours, no line break, no change of direction, no markup."""
    pool = make_pool(1)
    with dashboard(pool) as page, occupied(pool) as (job,):
        job.progress(1, None, "x")
        data = seen(page)
    lines = len(picture(called(data, "x"), 200).splitlines())
    for name in HOSTILE:
        printed = picture(called(data, name), 200)
        assert "\x1b[31m" not in printed
        printed = COLOURS.sub("", printed)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", printed)
        assert len(printed.splitlines()) == lines
        assert "[link" not in name or "[bold red]markup[/]" in printed


def called(data: dict, name: str) -> dict:
    """The same with this name for whatever has one."""
    data = copy.deepcopy(data)
    data["process"]["name"] = data["threads"]["listed"][0]["name"] = data["pools"][0]["key"] = name
    data["pools"][0]["state"] = name
    data["jobs"]["listed"][0] |= {"owner": name, "status": name, "name": name}
    data["jobs"]["listed"][0]["progress"]["note"] = name
    return data


def test_nobody_at_that_address_is_a_sentence(shown):
    """Status 1; what to look at is said."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    status, printed, complaint = shown("--port", str(port))
    assert (status, printed) == (1, "")
    assert f"no dashboard answers at http://127.0.0.1:{port}/ (Connection refused)" in complaint
    assert complaint.count("\n") == 1


def test_something_else_at_that_address_is_a_sentence(shown, monkeypatch):
    """Another server, one that says nothing of HTTP, one of another version, one that says too much."""
    with Server(hello, threads=1) as server:
        address = "http://{}:{}/".format(*server.address)
        assert "is no dashboard of manyhands (status 200)" in shown(address)[2]

    def json_app(environ, start_response):
        start_response("200 OK", [])
        return [b'{"process": {}, "loops": [], "pools": [], "threads": [], "jobs": []}']

    with Server(json_app, threads=1) as server:
        address = "http://{}:{}/".format(*server.address)
        assert "of another version" in shown(address)[2]
        monkeypatch.setattr(top, "MOST_BYTES", 10)
        assert "is no dashboard" in shown(address)[2]


@pytest.mark.parametrize(
    "arguments",
    [[], ["http://127.0.0.1:1/", "--port", "1"], ["ftp://x/"], ["127.0.0.1:8"], ["http://x:y/"], ["http://"]],
)
def test_an_address_that_is_none_is_a_sentence(shown, arguments):
    """Status 1, one line."""
    status, _, complaint = shown(*arguments)
    assert status == 1
    assert complaint.count("\n") == 1


def test_a_token_comes_from_the_environment(shown, loop, monkeypatch):
    """Not from the command line, where others could read it; without it a sentence says where it goes."""
    monkeypatch.delenv("MANYHANDS_TOKEN", raising=False)
    with dashboard(loop, token="open-sesame") as page:
        status, _, complaint = shown(page.url)
        assert status == 1
        assert "MANYHANDS_TOKEN" in complaint
        monkeypatch.setenv("MANYHANDS_TOKEN", "open-sesame")
        assert shown(page.url)[0] == 0
        assert ask(page, "/data.json")[0] == 401


def test_without_rich_it_says_which_extra_to_install(shown, loop, monkeypatch):
    """Status 1 and a sentence; the other commands work without."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.delitem(sys.modules, "manyhands.cli._top_screen", raising=False)
    with dashboard(loop) as page:
        status, _, complaint = shown(page.url)
    assert status == 1
    assert complaint == "manyhands top: this needs rich: install it with `pip install 'manyhands[top]'`.\n"


@pytest.mark.parametrize("interval", ["0", "nan", "soon", "1e9"])
def test_an_interval_that_is_none_is_wrong_usage(capsys, interval):
    """Status 2, and what was expected."""
    with pytest.raises(SystemExit) as ended:
        main(["top", "--port", "1", "--interval", interval])
    assert ended.value.code == 2
    assert "seconds from 0.1 to 3600" in capsys.readouterr().err


class Terminal:
    """`manyhands top` in a terminal of its own."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self._descriptor = descriptor
        self.process = process
        self.printed = ""

    def wait_for(self, text: str) -> None:
        """Read until it was printed."""
        start = len(self.printed)

        def printed() -> bool:
            with contextlib.suppress(OSError):  # the program has ended
                self.printed += os.read(self._descriptor, 65_536).decode("utf-8", "replace")
            return text in self.printed[start:]

        wait_until(printed)

    def press(self, key: bytes) -> None:
        os.write(self._descriptor, key)


@contextlib.contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    """Start it; it has ended with the block."""
    ours, theirs = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
        process = subprocess.Popen(
            [*COMMAND, "top", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        with process:
            try:
                yield Terminal(ours, process)
            finally:
                process.kill()
    finally:
        os.close(ours)


@pytest.mark.parametrize("end", ["q", "Ctrl-C"])
def test_in_a_terminal_it_goes_on_until_q_or_ctrl_c(make_pool, end):
    """It is drawn again and again, survives a dashboard that goes, and ends with status 0."""
    pool = make_pool(1, name="reports")
    with dashboard(pool) as page, terminal("--interval", "0.1", page.url) as top_:
        top_.wait_for("reports")
        with occupied(pool) as (job,):
            top_.wait_for(job.name)
        page.close()
        top_.wait_for("no dashboard answers")
        if end == "q":
            top_.press(b"q")
        else:
            top_.process.send_signal(signal.SIGINT)
        assert top_.process.wait(START) == 0
    assert "Traceback" not in top_.printed
