"""`manyhands serve --dashboard`: the page beside the application."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands import COMMAND, START
from support import LONG

APP = """
import os

def app(environ, start_response):
    start_response("200 OK", [("X-Token", os.environ.get("MANYHANDS_TOKEN", "none"))])
    return [b"hello"]
"""


@contextmanager
def serving(directory: Path, *arguments: str, token: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run it until the block ends."""
    (directory / "site_here.py").write_text(APP)
    environment = {name: value for name, value in os.environ.items() if name != "MANYHANDS_TOKEN"}
    with subprocess.Popen(
        [*COMMAND, "serve", "site_here:app", "--port", "0", *arguments],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment if token is None else {**environment, "MANYHANDS_TOKEN": token},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def status_of(url: str, path: str) -> int:
    port = int(url.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(("token", "status"), [(None, 200), ("open-sesame", 401)])
def test_it_says_where_its_dashboard_is_and_ends_it_with_the_server(tmp_path, token, status):
    """With the token of the environment, which the application does not get; the server's end is as without it."""
    with serving(tmp_path, "--dashboard", "0", token=token) as process:
        assert process.stdout is not None
        site = re.search(r":(\d+)/", process.stdout.readline())
        assert site is not None
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(site[1]), timeout=LONG)) as client:
            client.request("GET", "/")
            assert client.getresponse().headers["X-Token"] == "none"
        found = re.search(r"manyhands serve: dashboard on (http://127\.0\.0\.1:\d+/)", process.stdout.readline())
        assert found is not None
        assert status_of(found[1], "/health") == 200
        assert status_of(found[1], "/data.json") == status
        process.send_signal(signal.SIGINT)
        printed, complaints = process.communicate(timeout=START)
    assert (process.returncode, complaints) == (0, "")
    assert printed == "manyhands serve: ended, every request was answered or stopped\n"


@pytest.mark.parametrize("port", ["taken", "99999", "-1"])
def test_a_port_that_the_dashboard_cannot_have_is_explained_in_a_sentence(tmp_path, port):
    """Status 1; the server does not stay behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1]) if port == "taken" else port
        with serving(tmp_path, "--dashboard", port) as process:
            _, complaints = process.communicate(timeout=START)
    assert process.returncode == 1
    assert complaints.startswith("manyhands serve: cannot open the dashboard")
    assert complaints.count("\n") == 1
