"""`manyhands.server.serve()`: called from Python, in one process and in several."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import START
from manyhands.server import Limits, NoApplication, Server, Supervisor, WorkerFailed, serve
from manyhands.server._settings import Settings
from serving import ask, hello
from supervised import alive, serving
from support import wait_until

SITE = """
import os
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"%d " % os.getpid() + environ["wsgi.input"].read()]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch) -> Path:
    """A module `site_of_test` where this process looks, which is not the current directory."""
    (tmp_path / "site_of_test.py").write_text(SITE)
    (tmp_path / "serves_itself.py").write_text("from manyhands.server import serve\nserve(print, workers=0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def started(spawn: Callable, *args: object, **options: object):
    """Call `serve` on another thread until it serves: the call, and what `on_started` was given."""
    given: list[Server | Supervisor] = []
    call = spawn(lambda: serve(*args, port=0, signals=False, on_started=given.append, **options))
    wait_until(lambda: given or call.done)
    return call, (given[0] if given else call.result())


def test_without_signals_it_serves_on_any_thread_until_it_is_stopped(spawn):
    """`stop()` of what `on_started` was given ends the call."""
    call, server = started(spawn, hello, threads=1)
    assert ask(server, "/here") == (200, b"/here")
    assert not call.done
    server.stop()
    assert call.result() == []


def test_without_signals_the_handlers_that_were_there_are_left_alone(spawn):
    """On the main thread too; with signals they are put back."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    seen = []

    def on_started(server: Server) -> None:
        seen.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])
        spawn(server.stop)

    for signals in (False, True):
        assert serve(hello, port=0, threads=1, signals=signals, on_started=on_started) == []
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert (seen[0] == before, seen[1] == before) == (True, False)


def test_without_signals_an_exception_of_its_own_thread_ends_it(spawn):
    """As the KeyboardInterrupt of Python's own handler: the server is stopped, and the caller gets it."""
    servers = []

    def on_started(server: Server) -> None:
        servers.append(server)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve(hello, port=0, threads=1, signals=False, on_started=on_started)
    assert servers[0].loop.closed


def test_several_workers_import_the_application_by_its_name(site, spawn):
    """Where this process looks for modules; the `Supervisor` says who they are, and ends them."""
    call, supervisor = started(spawn, "site_of_test:app", workers=2, threads=1, limits=Limits(body_bytes=10))
    assert len(set(supervisor.processes)) == 2
    assert supervisor.url == "http://{}:{}/".format(*supervisor.address)
    status, body = ask(supervisor, "/", "POST", b"ten bytes.")
    process, echoed = body.split(b" ", 1)
    assert (status, echoed) == (200, b"ten bytes.")
    assert int(process) in supervisor.processes
    assert ask(supervisor, "/", "POST", b"eleven byte")[0] == 413
    workers = supervisor.processes
    os.kill(workers[0], signal.SIGKILL)
    wait_until(lambda: supervisor.restarts == 1 and len(supervisor.processes) == 2)
    workers += supervisor.processes
    supervisor.stop()
    supervisor.stop()
    assert call.result() == []
    assert not any(map(alive, workers))
    supervisor.stop()


def test_a_script_with_several_workers_ends_at_ctrl_c(tmp_path):
    """It needs no guard against being imported by them: they have another program."""
    (tmp_path / "site_of_test.py").write_text(SITE)
    (tmp_path / "program.py").write_text(
        "from manyhands.server import serve\n"
        "print(serve('site_of_test:app', port=0, workers=2, on_started=lambda s: print(*s.processes, flush=True)))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(tmp_path / "program.py")],
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None
            workers = list(map(int, program.stdout.readline().split()))
            assert len(workers) == 2
            program.send_signal(signal.SIGINT)
            assert program.communicate(timeout=START) == ("[]\n", "")
        finally:
            program.kill()
    assert not any(map(alive, workers))


def test_an_application_is_found_by_its_name_in_one_process_too(site, spawn):
    """A name that leads nowhere is said in a sentence, with what the user's own code raised as its cause."""
    call, server = started(spawn, "site_of_test:app", threads=1)
    assert ask(server)[0] == 200
    server.stop()
    call.result()
    for name, words in (
        ("site_of_test:apq", "site_of_test has no 'apq'"),
        ("nowhere_at_all:app", "there is no module 'nowhere_at_all'"),
        ("site_of_test", "names no application"),
    ):
        with pytest.raises(NoApplication, match=words) as refused:
            serve(name)
        assert refused.value.__cause__ is None
    with pytest.raises(NoApplication, match="importing serves_itself raised RuntimeError") as refused:
        serve("serves_itself:app")
    assert "if __name__ == '__main__'" in str(refused.value.__cause__)


def test_workers_that_cannot_serve_are_an_error_here(site, capfd):
    """WorkerFailed, with the sentence of one of them on standard error."""
    with pytest.raises(WorkerFailed, match="with status 1"):
        serve("site_of_test:apq", port=0, workers=2)
    assert "manyhands.server: site_of_test has no 'apq'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("app", "options", "error", "words"),
    [
        (hello, {"workers": 2}, TypeError, r"give its name, as in serve\('module:app', workers=2\)"),
        ("__main__:app", {"workers": 2}, ValueError, "name the file"),
        ("m:app", {"workers": 0}, ValueError, "workers must be"),
        ("m:app", {"workers": 2.0}, TypeError, "workers must be"),
        ("m:app", {"workers": 257}, ValueError, "at most 256"),
        ("m:app", {"workers": 2, "tls": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, TypeError, "give the files"),
        ("m:app", {"workers": 2, "tls": ("no.pem", None)}, ValueError, "cannot use the certificate no.pem"),
        ("m:app", {"workers": 2, "trusted_proxies": ["nobody"]}, ValueError, "nobody"),
        ("m:app", {"workers": 2, "bind": "fd:9999"}, OSError, "descriptor 9999"),
        (hello, {"bind": "somewhere"}, ValueError, "expected HOST:PORT"),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_call(app, options, error, words):
    """Before anything is started; the leak line sees that nothing is left."""
    with pytest.raises(error, match=words):
        serve(app, **options)


def test_an_asgi_application_is_refused(spawn):
    """Here too."""

    async def asgi(scope, receive, send): ...

    with pytest.raises(TypeError, match="is an ASGI application"):
        serve(asgi)


def test_with_signals_another_thread_is_told_what_to_do(spawn):
    """Only the main thread gets signals."""
    with pytest.raises(RuntimeError, match="signals=False"):
        spawn(lambda: serve(hello, port=0)).result()


def test_settings_are_the_same_behind_json():
    """All of them, also those that are no plain values."""
    settings = Settings(
        tls=("a", None),
        trusted_proxies=("10.0.0.0/8",),
        threads=3,
        limits=Limits(request_timeout=2.5, pin_responses=True),
        half_close="finish",
        access_log=False,
    )
    assert Settings.from_json(settings.to_json()) == settings
    assert Settings.from_json(Settings().to_json()) == Settings()


def test_a_worker_that_dies_is_started_again_although_a_forked_child_of_it_lives(tmp_path):
    """The child holds the worker's line no longer than it takes to be born."""
    with serving(tmp_path, "--workers", "2") as served, contextlib.ExitStack() as children:
        assert served.answers("/fork")
        child = int((tmp_path / "child").read_text())
        children.callback(os.kill, child, signal.SIGKILL)
        parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
        assert parent in served.workers
        os.kill(parent, signal.SIGKILL)
        wait_until(lambda: parent not in served.children() and len(served.children()) == 2)
        assert alive(child)


def test_a_worker_that_cannot_be_started_again_is_tried_again(site, spawn, monkeypatch, caplog):
    """No process, no descriptor, no memory: the others serve on meanwhile."""
    call, supervisor = started(spawn, "site_of_test:app", workers=2, threads=1)
    refusals = iter([OSError(errno.EAGAIN, "Resource temporarily unavailable")] * 2)
    honest = subprocess.Popen

    def short(*args: object, **options: object) -> subprocess.Popen:
        for refusal in refusals:
            raise refusal
        return honest(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", short)
    first, second = supervisor.processes
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(supervisor.processes) == 2 and first not in supervisor.processes)
    assert second in supervisor.processes
    assert supervisor.restarts == 1
    supervisor.stop()
    call.result()
    assert caplog.text.count("could not be started: ") == 2
