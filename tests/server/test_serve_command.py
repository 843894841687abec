"""`manyhands serve`, run as users run it: in a process of its own, in the directory of the application."""

from __future__ import annotations

import errno
import http.client
import re
import resource
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands import COMMAND, START, with_descriptors
from manyhands.cli._serve_failures import cannot_serve
from manyhands.server._application import is_asgi
from manyhands.server._bind import Bind
from support import LONG

APP = """
import manyhands as mh

def app(environ, start_response):
    if environ["PATH_INFO"] == "/work":
        print("begun", flush=True)
        mh.sleep_blocking(60)
    start_response("200 OK", [])
    return [environ["PATH_INFO"].encode()]

def create():
    return app

def broken():
    return 1 / 0

def leaves():
    raise SystemExit(0)

async def later():
    return app

async def asgi(scope, receive, send): ...

class Api:
    async def __call__(self, scope, receive, send): ...

api = Api()
nothing = 5

class Holder:
    inner = staticmethod(app)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with an application, and modules that cannot be imported."""
    (tmp_path / "site_here.py").write_text(APP)
    (tmp_path / "needs_more.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "bad_syntax.py").write_text("def app(:\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    return tmp_path


def serve_and_fail(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `manyhands serve` to its end."""
    return subprocess.run(
        [*COMMAND, "serve", *arguments], cwd=directory, capture_output=True, text=True, timeout=START, check=False
    )


@contextmanager
def serving(
    directory: Path, *arguments: str, command: list[str] = COMMAND
) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """Run it until the block ends."""
    with subprocess.Popen(
        [*command, "serve", "--port", "0", *arguments],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            assert found is not None, line + (process.stderr.read() if process.stderr else "")
            yield process, ("127.0.0.1", int(found[1]))
        finally:
            process.kill()


def ask(address: tuple[str, int], path: str) -> bytes:
    connection = http.client.HTTPConnection(*address, timeout=LONG)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.parametrize("target", ["site_here:app", "site_here:create()", "site_here:Holder.inner"])
def test_an_application_of_the_current_directory_is_served_until_ctrl_c(directory, target):
    """By its name, by a factory, by an attribute of something; it says where, and that it ended."""
    with serving(directory, target, "--threads", "2") as (process, address):
        assert ask(address, "/hello") == b"/hello"
        process.send_signal(signal.SIGINT)
        printed, complaints = process.communicate(timeout=START)
    assert (process.returncode, complaints) == (0, "")
    assert printed == "manyhands serve: ended, every request was answered or stopped\n"


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]])
def test_nobody_has_to_read_what_it_says(directory, arguments):
    """Its reader may go before it: `manyhands serve ... | head -1`."""
    with serving(directory, "site_here:app", *arguments) as (process, address):
        assert process.stdout is not None
        process.stdout.close()
        assert ask(address, "/hello") == b"/hello"
        process.send_signal(signal.SIGINT)
        assert process.wait(START) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_there_is_room_for_as_many_clients_as_it_takes(directory):
    """Descriptors: the soft limit is raised as far as the hard one lets."""
    few = (
        "import resource as r, sys; r.setrlimit(n := r.RLIMIT_NOFILE, (256, r.getrlimit(n)[1]));"
        "from manyhands.cli import main; sys.exit(main())"
    )
    with serving(directory, "site_here:app", command=[sys.executable, "-c", few]) as (process, _):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        soft, _ = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == min(hard, 11_024)


def test_an_option_of_another_server_s_is_answered_by_the_usage_of_this_one(directory):
    """And not by that of all commands."""
    done = serve_and_fail(directory, "site_here:app", "-w", "4")
    assert done.returncode == 2
    assert "usage: manyhands serve" in done.stderr
    assert "unrecognized arguments: -w 4; see manyhands serve --help" in done.stderr


def test_a_request_that_never_ends_keeps_the_command_neither_running_nor_from_its_status(directory):
    """It comes back to the interpreter all the time, on a thread of the loop: that would abort the process at its end. What was
    registered with `atexit` runs.
    """
    (directory / "deaf.py").write_text(
        "import atexit, time\n"
        "atexit.register(lambda: print('atexit ran', flush=True))\n"
        "def app(environ, start_response):\n"
        "    print('begun', flush=True)\n"
        "    while True: time.sleep(0.0005)\n"
    )
    impatient = "import sys; from manyhands.cli import main, serve; serve.GRACE = 0.05; sys.exit(main())"
    command = [sys.executable, "-W", "error", "-c", impatient]
    with serving(directory, "deaf:app", command=command) as (process, address):
        assert process.stdout is not None
        with socket.create_connection(address, LONG) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGINT)
            printed, complaints = process.communicate(timeout=START)
    assert process.returncode == 0, complaints
    assert printed.startswith("manyhands serve: the request of a client has 0 s to finish; Ctrl-C ends at once\n")
    assert "still running: GET /" in printed
    assert printed.endswith("atexit ran\n")


def test_the_access_log_has_a_line_per_request_and_499_for_a_client_that_went(directory):
    """On standard error, if it was asked for."""
    with serving(directory, "site_here:app", "--access-log") as (process, address):
        assert ask(address, "/hello?x=y") == b"/hello"
        with socket.create_connection(address, LONG) as sock:
            sock.sendall(b"GET /work HTTP/1.1\r\nHost: h\r\n\r\n")
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
        with socket.create_connection(address, LONG) as sock:
            sock.sendall(b"\x1b[31m HTTP/1.1\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 400"
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=START)
    assert process.returncode == 0
    assert '] "GET /hello?x=y HTTP/1.1" 200 ' in complaints
    assert '] "GET /work HTTP/1.1" 499 -' in complaints
    assert '] "-" 400 ' in complaints
    assert "\x1b" not in complaints
    assert len(complaints.splitlines()) == 3


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nowhere:app", "there is no module 'nowhere'"),
        ("site_here.more:app", "there is no module 'site_here.more'"),
        ("needs_more:app", "needs_more imports 'no_such_module_anywhere', which is not installed"),
        ("bad_syntax:app", "importing bad_syntax raised SyntaxError"),
        ("leaves:app", "importing leaves raised SystemExit"),
        ("site_here:apq", "site_here has no 'apq': did you mean 'app'?"),
        ("site_here:nothing", "is no application: it is of type int"),
        ("site_here:nothing()", "is no factory"),
        ("site_here:broken()", "the factory 'broken' of site_here raised ZeroDivisionError"),
        ("site_here:create", "If it is a factory, write site_here:create()"),
        ("site_here:later()", "the factory 'later' of site_here is an async function"),
        ("site_here:leaves()", "the factory 'leaves' of site_here raised SystemExit"),
        ("site_here:asgi", "is an ASGI application"),
        ("site_here:api", "is an ASGI application"),
    ],
)
def test_what_cannot_be_served_is_explained_in_a_sentence(directory, target, words):
    """Status 1, and what to do; a traceback only where the user's own code raised."""
    done = serve_and_fail(directory, target)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("manyhands serve: ")
    assert words in last
    assert ("  File " in done.stderr) is any(word in last for word in ("raised", "imports"))
    assert "importlib" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["site_here"],
        ["site_here:"],
        [":app"],
        ["site_here.py"],
        ["a b:app"],
        ["site_here:app", "--threads", "0"],
        ["site_here:app", "--port", "x"],
        ["site_here:app", "--dashboard", "x"],
        ["site_here:app('x')"],
    ],
)
def test_wrong_usage_is_status_2(directory, arguments):
    """Argparse says what was expected."""
    done = serve_and_fail(directory, *arguments)
    assert done.returncode == 2
    assert "error: " in done.stderr and "usage: " in done.stderr


def test_where_it_cannot_listen_is_explained_in_a_sentence(directory):
    """A port in use, a port that is none, a host that is not ours, no descriptor left."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = serve_and_fail(directory, "site_here:app", "--port", port)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"port {port} of 127.0.0.1 is in use" in done.stderr
    for arguments, words in (
        (["--port", "70000"], "there is no port 70000"),
        (["--access-log-format", "json"], "of no use without --access-log"),
        (["--host", "192.0.2.1"], "192.0.2.1 is no address of this machine"),
        (["--host", "no.such.host.invalid"], "cannot find the host"),
        (["--host", ".."], "cannot find the host '..'"),
        (["--bind", "192.0.2.1:0"], "give --bind one that it has"),
        (["--bind", ":70000"], "expected a port from 1 to 65535"),
        (["--bind", "unix:site_here.py"], "site_here.py is there already and no socket"),
        (["--bind", "unix:/no/such/directory/socket"], "cannot listen on /no/such/directory/socket"),
        (["--tls-cert", "site_here.py"], "cannot use the certificate site_here.py"),
        (["--port", "65000", "--dashboard", "65000"], "on port 65000, where the server is"),
    ):
        done = serve_and_fail(directory, "site_here:app", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_without_descriptors_it_says_so(directory):
    """In a sentence, wherever they run out at the start."""
    done = subprocess.run(
        with_descriptors(6, [*COMMAND, "serve", "site_here:app", "--port", "0"]),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )
    assert done.returncode == 1
    assert "ulimit -n" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_extra_it_says_what_to_install(subprocess_python):
    """The other commands work without it; this one names the extra."""
    done = subprocess_python(
        "import sys\n"
        "sys.modules['httptools'] = None\n"
        "from manyhands.cli import main\n"
        "assert main(['doctor']) == 0\n"
        "sys.exit(main(['serve', 'module:app']))\n"
    )
    assert done.returncode == 1
    assert done.stderr == (
        "manyhands serve: manyhands.server needs httptools: install it with `pip install 'manyhands[server]'`.\n"
    )


def test_an_asgi_application_is_known_by_its_signature():
    """Coroutine functions, and callables of scope, receive and send; a WSGI application has two arguments."""

    async def modern(scope, receive, send): ...

    def wrapped(scope, receive, send): ...

    def old(scope): ...

    class Instance:
        async def __call__(self, scope, receive, send): ...

    class Wsgi:
        def __call__(self, environ, start_response): ...

    assert all(is_asgi(app) for app in (modern, wrapped, old, Instance()))
    assert not any(is_asgi(app) for app in (Wsgi(), lambda environ, start_response: [], print, dict))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((["--port", "80"], {}), "choose a port from 1024 on with --port"),
        ((["--bind", "h:80"], {}), "choose a port from 1024 on with --bind"),
        (([], {"PORT": "80"}), "choose a port from 1024 on with $PORT"),
    ],
)
def test_a_port_that_needs_a_right_names_what_to_change(given, words, monkeypatch):
    """By whichever way the port was given; nobody's rights are tried here."""
    arguments, environment = given
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = Namespace(
        host=None, port=80 if "--port" in arguments else None, bind="h:80" if "--bind" in arguments else None
    )
    failure = cannot_serve(options, Bind("", 80), PermissionError(errno.EACCES, "Permission denied"))
    assert words in str(failure)
    assert "of  " not in str(failure)


LOGS = """
import logging
{setup}
quiet, own = logging.getLogger("quiet"), logging.getLogger("own")
own.addHandler(logging.StreamHandler())

def app(environ, start_response):
    quiet.info("a line of information")
    quiet.warning("a warning")
    own.warning("a warning of its own")
    start_response("200 OK", [])
    return []
"""


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("setup", "lines"),
    [
        ("", [r"[-0-9]+ [:,0-9]+ WARNING quiet: a warning", "a warning of its own"]),
        (
            'logging.basicConfig(level="INFO", format="MINE %(message)s")',
            ["MINE a line of information", "MINE a warning", "a warning of its own", "MINE a warning of its own"],
        ),
    ],
    ids=["none", "basicConfig"],
)
def test_what_the_application_logs_is_shown_as_it_has_set_up_or_once(directory, workers, setup, lines):
    """Its own `basicConfig()` counts; without one, what nobody shows is shown."""
    (directory / "logs.py").write_text(LOGS.format(setup=setup))
    with serving(directory, "logs:app", "--workers", workers) as (process, address):
        assert ask(address, "/") == b""
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=START)
    said = [line for line in complaints.splitlines() if "manyhands" not in line]
    assert len(said) == len(lines), complaints
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(lines, said, strict=True)), complaints
