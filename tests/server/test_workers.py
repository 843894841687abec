"""`manyhands serve --workers` and `--reload`: the processes behind one listening socket."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess

import pytest

from commands import COMMAND, START
from manyhands.server._sources import Sources
from supervised import APP, alive, serving
from support import LONG, wait_until


def test_workers_serve_on_one_socket_and_end_at_ctrl_c(tmp_path):
    """Each request is answered by one of them; one line for all at the start and at the end."""
    with serving(tmp_path, "--workers", "2") as served:
        assert len(set(served.workers)) == 2
        assert all(served.ask()[0] in served.workers for _ in range(10))
        assert served.ask("/several")[1] == "True"  # PEP 3333 wants to know
        status, printed, complaints = served.end(signal.SIGINT)
    assert (status, printed, complaints) == (0, "manyhands serve: ended, with all of its processes\n", "")


def test_a_worker_that_dies_is_started_again(tmp_path):
    """The others go on, and it is said with its status."""
    with serving(tmp_path, "--workers", "2") as served:
        assert served.answers("/die") is None
        known = set(served.workers)
        wait_until(
            lambda: (found := served.answers()) and found[0] not in known and not served.workers.append(found[0])
        )
        status, _, complaints = served.end(signal.SIGTERM)
    assert status == 0
    assert len(re.findall(r"worker [12] \(process \d+\) ended by itself, with status 7", complaints)) == 1


def test_a_worker_that_is_about_to_end_and_does_not_holds_up_nobody(tmp_path):
    """Its line is closed, and it lives: the others are looked after before its time is over. Then it is killed."""
    with serving(tmp_path, "--workers", "2") as served:
        about_to_end, _ = served.ask("/leave")
        (other,) = set(served.workers) - {about_to_end}
        os.kill(other, signal.SIGKILL)
        wait_until(lambda: set(served.children()) - set(served.workers))
        assert alive(about_to_end)
        wait_until(lambda: not alive(about_to_end))
        status, _, complaints = served.end(signal.SIGTERM)
    assert status == 0
    assert f"(process {about_to_end}) did not come to an end of its own: killed" in complaints


def test_a_signal_to_all_of_the_processes_lets_a_request_in_hand_finish(tmp_path):
    """As a service manager sends it: a worker hears it twice, from there and from its supervisor."""
    with serving(tmp_path, "--workers", "2") as served:
        client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=LONG)
        with contextlib.closing(client):
            client.request("GET", "/wait")
            wait_until(lambda: list(tmp_path.glob("begun-*")))
            (busy,) = (int(found.name.partition("-")[2]) for found in tmp_path.glob("begun-*"))
            (idle,) = set(served.workers) - {busy}
            for worker in served.workers:
                os.kill(worker, signal.SIGTERM)
            wait_until(lambda: not alive(idle))
            served.process.send_signal(signal.SIGTERM)
            os.kill(busy, signal.SIGTERM)
            (tmp_path / "go").touch()
            assert client.getresponse().status == 200
        status, _, _ = served.end()
    assert status == 0


def test_a_request_in_hand_is_stopped_by_the_deadline_and_the_second_signal_ends_all_at_once(tmp_path):
    """It is said what is waited for. Status 130, as of any program that Ctrl-C ended."""
    with serving(tmp_path, "--workers", "2") as served:
        client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=LONG)
        with contextlib.closing(client):
            client.request("GET", "/work")
            wait_until((tmp_path / "begun").exists)
            served.process.send_signal(signal.SIGINT)
            wait_until(lambda: sum(map(alive, served.workers)) == 1)
            assert served.process.stdout is not None
            said = served.process.stdout.readline()
            assert re.fullmatch(
                r"manyhands serve: (one process has|2 processes have) 10 s to finish requests; Ctrl-C ends at once\n",
                said,
            )
            status, _, _ = served.end(signal.SIGINT)
    assert status == 130


def test_workers_end_with_a_supervisor_that_was_killed(tmp_path):
    """Nobody is left behind who holds the port."""
    with serving(tmp_path, "--workers", "2") as served:
        served.process.kill()
        wait_until(lambda: not any(map(alive, served.workers)))


@pytest.mark.parametrize("arguments", [["--workers", "2"], ["--workers", "2", "--bind", "unix:site.sock"]])
def test_an_application_that_cannot_be_served_ends_all_of_it(tmp_path, arguments):
    """Once, with the sentence of a worker: the next would fare no better."""
    (tmp_path / "site_here.py").write_text("app = 5\n")
    ended = subprocess.run(
        [*COMMAND, "serve", "site_here:app", *(["--port", "0"] if "--bind" not in arguments else []), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "site_here:app is no application" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("manyhands serve: a worker ended before it served")
    assert os.listdir(tmp_path).count("site.sock") == 0


def test_a_change_of_the_sources_starts_the_worker_again(tmp_path):
    """With one that cannot be imported too: the next change mends it."""
    with serving(tmp_path, "--reload") as served:
        assert served.ask()[1] == "first"
        source = tmp_path / "site_here.py"
        source.write_text(APP.replace("first", "second"))
        wait_until(lambda: (found := served.answers()) and found[1] == "second")
        assert served.process.stderr.readline().endswith("the application has changed: its workers start again\n")
        source.write_text("def app(:\n")
        wait_until(lambda: served.process.stderr.readline().endswith("waiting for a change\n"))
        source.write_text(APP.replace("first", "third"))
        wait_until(lambda: (found := served.answers()) and found[1] == "third")
        assert served.end(signal.SIGINT)[0] == 0


def test_sources_are_the_python_files_of_the_directory(tmp_path):
    """What is hidden, installed, or no Python is passed over."""
    for name in ("a.py", "b/c.py", ".hidden/d.py", "env/pyvenv.cfg", "env/e.py", "node_modules/f.py", "g.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    sources = Sources(str(tmp_path))
    assert not sources.changed()
    for name in (".hidden/d.py", "env/e.py", "node_modules/f.py", "g.txt"):
        os.utime(tmp_path / name, ns=(1, 1))
        assert not sources.changed()
    os.utime(tmp_path / "b/c.py", ns=(1, 1))
    assert sources.changed()
    assert not sources.changed()
    (tmp_path / "a.py").unlink()
    assert sources.changed()
