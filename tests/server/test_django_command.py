"""A Django project under `manyhands serve`, as its users start it: in its directory, by the name of its settings."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from commands import COMMAND, START
from serving import Client, get
from support import LONG

pytest.importorskip("django")

SITES = Path(__file__).resolve().parent.parent / "sites"


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict[str, str]:
    """The environment of a shop whose database is there: `manage.py migrate`."""
    environment = {
        **os.environ,
        "SHOP_DIRECTORY": str(tmp_path_factory.mktemp("shop")),
        "DJANGO_SETTINGS_MODULE": "shop.settings",
    }
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--run-syncdb", "--verbosity", "0"],
        cwd=SITES,
        env=environment,
        check=True,
        timeout=START,
    )
    return environment


@contextmanager
def serving(
    environment: dict[str, str], *arguments: str, directory: Path = SITES
) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """Run it until the block ends."""
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *arguments],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            assert found is not None, line + process.stderr.read()
            yield process, ("127.0.0.1", int(found[1]))
        finally:
            process.kill()


def end(process: subprocess.Popen[str]) -> str:
    """End it by Ctrl-C; what it complained about."""
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=START)
    assert process.returncode == 0, complaints
    return complaints


def ask(connection: http.client.HTTPConnection, path: str, cookie: str = "") -> tuple[int, str, bytes]:
    """Status, cookie, body."""
    connection.request("GET", path, headers={"Cookie": cookie})
    response = connection.getresponse()
    return response.status, (response.getheader("Set-Cookie") or "").partition(";")[0], response.read()


@pytest.mark.parametrize(
    ("target", "more"),
    [
        ("shop.wsgi:application", ()),
        ("django.core.wsgi:get_wsgi_application()", ()),
        ("shop.wsgi:application", ("--workers", "2")),
    ],
    ids=["wsgi.py", "factory", "workers"],
)
def test_a_project_is_served_by_the_name_of_its_settings(settings, target, more):
    """Sessions in the database, streams, files and errors, whose traceback is on standard error and nowhere else."""
    with serving(settings, target, "--threads", "2", *more) as (process, address):
        cookie = ""
        for count in (b"1", b"2", b"3"):
            with closing(http.client.HTTPConnection(*address, timeout=LONG)) as connection:
                status, given, body = ask(connection, "/count", cookie)
                assert (status, body) == (200, count)
                cookie = given or cookie
                assert ask(connection, "/stream")[2].count(b"\n") == 5
                assert ask(connection, "/file")[0] == 200
                status, _, body = ask(connection, "/fail")
                assert (status, b"not for the client" in body) == (500, False)
                assert ask(connection, "/")[2] == b"hello, you"
        complaints = end(process)
    assert complaints.count("ValueError: not for the client") == 3
    assert "Warning" not in complaints


def test_settings_that_wsgi_py_names_need_no_variable(settings):
    """As `django-admin startproject` writes it."""
    environment = {name: value for name, value in settings.items() if name != "DJANGO_SETTINGS_MODULE"}
    with serving(environment, "shop.wsgi:application") as (process, address):
        with closing(http.client.HTTPConnection(*address, timeout=LONG)) as connection:
            assert ask(connection, "/")[2] == b"hello, you"
        assert end(process) == ""


def test_a_view_whose_client_hangs_up_is_499_in_the_access_log(settings):
    """It checks in between two queries."""
    with serving(settings, "shop.wsgi:application", "--access-log") as (process, address):
        with Client(address) as sock:
            sock.sendall(get(b"/work"))
            with closing(http.client.HTTPConnection(*address, timeout=LONG)) as connection:
                assert ask(connection, "/")[2] == b"hello, you"
        line = ""
        while " 499 " not in line:
            line = process.stderr.readline()
            assert line, "it ended"
        assert '"GET /work HTTP/1.1" 499 ' in line
        end(process)


@pytest.mark.parametrize(
    ("target", "names", "says"),
    [
        ("django.core.wsgi:get_wsgi_application()", {}, "raised ImproperlyConfigured; its traceback is above"),
        ("shop.wsgi:application", {"DJANGO_SETTINGS_MODULE": "shop.no_such"}, "imports 'shop.no_such', which is not"),
        (
            "django.core.asgi:get_asgi_application()",
            {"DJANGO_SETTINGS_MODULE": "shop.settings"},
            "is an ASGI application",
        ),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(settings, target, names, says):
    """No settings, settings that are not there, and the other kind of application."""
    environment = {name: value for name, value in settings.items() if name != "DJANGO_SETTINGS_MODULE"}
    ended = subprocess.run(
        [*COMMAND, "serve", target],
        cwd=SITES,
        env={**environment, **names},
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )
    assert ended.returncode != 0
    assert says in ended.stderr.splitlines()[-1]


ONE_FILE = """
import django.conf
from django.core.wsgi import get_wsgi_application
from django.http import StreamingHttpResponse
from django.urls import path

def broken(request):
    def pieces():
        yield "good"
        raise ValueError("in between")
    return StreamingHttpResponse(pieces())

django.conf.settings.configure(
    ALLOWED_HOSTS=["h"], LOGGING={"version": 1}, ROOT_URLCONF=(path("", broken),), SECRET_KEY="for the tests"
)
application = get_wsgi_application()
"""


def test_a_project_that_sets_up_logging_does_not_switch_off_the_servers(settings, tmp_path):
    """LOGGING without `disable_existing_loggers` switches off what is there: not the access log, nor the errors."""
    (tmp_path / "one_file.py").write_text(ONE_FILE)
    environment = {name: value for name, value in settings.items() if name != "DJANGO_SETTINGS_MODULE"}
    with serving(environment, "one_file:application", "--access-log", directory=tmp_path) as (process, address):
        with Client(address) as sock:
            sock.sendall(get(b"/"))
            assert b"good" in sock.rest()
        complaints = end(process)
    assert '"GET / HTTP/1.1" 200 ' in complaints
    assert "ValueError: in between" in complaints
