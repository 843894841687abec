"""Files as responses: `wsgi.file_wrapper`, by the kernel where it can."""

from __future__ import annotations

import errno
import gzip
import io
import os
import socket
import tempfile

import pytest

from manyhands.server import Limits
from manyhands.server._file import FileWrapper
from serving import GET, ask, connect, get, hello
from support import wait_until

BODY = os.urandom(5 << 20)


@pytest.fixture
def path(tmp_path):
    """A file with BODY in it."""
    found = tmp_path / "body"
    found.write_bytes(BODY)
    return found


@pytest.fixture
def sent(monkeypatch):
    """How many bytes the kernel sent by itself, call by call."""
    counts = []

    def counting(*args, real=os.sendfile):
        counts.append(count := real(*args))
        return count

    monkeypatch.setattr("os.sendfile", counting)
    return counts


def view_of(open_file, headers=()):
    """A view that gives a file; remembers what it opened."""
    opened = []

    def view(environ, start_response):
        if environ["PATH_INFO"] == "/health":
            return hello(environ, start_response)
        file = open_file()
        opened.append(file)
        start_response("200 OK", list(headers))
        return environ["wsgi.file_wrapper"](file, 8192)

    view.opened = opened
    return view


@pytest.mark.parametrize("pin", [False, True])
def test_a_file_is_sent_by_the_kernel_with_its_length_and_closed(start_server, path, sent, pin):
    """From where it stands; the connection is used again."""

    def opened():
        file = path.open("rb")
        file.seek(100)
        return file

    view = view_of(opened)
    server = start_server(view, limits=Limits(pin_responses=pin))
    with connect(server) as sock:
        for _ in range(2):
            status, headers, body = sock.ask()
            assert (status, headers["content-length"], body) == (200, str(len(BODY) - 100), BODY[100:])
        wait_until(lambda: all(file.closed for file in view.opened))
    wait_until(lambda: sum(sent) == 2 * (len(BODY) - 100))


@pytest.mark.parametrize("pin", [False, True])
def test_a_slow_reader_of_a_file_holds_no_thread(start_server, path, pin):
    """One thread, and others are served; hanging up closes the file."""
    view = view_of(lambda: path.open("rb"))
    with path.open("ab") as file:
        file.truncate(200 << 20)
    server = start_server(view, threads=1, limits=Limits(pin_responses=pin))
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        assert view.opened[0].closed is pin
        assert ask(server, "/health") == (200, b"/health")
        sock.reset()
        wait_until(lambda: view.opened[0].closed)
    wait_until(lambda: server.pool.stats().stopped == 1)


@pytest.mark.parametrize("pin", [False, True])
def test_a_client_that_closes_its_half_before_the_end_of_a_file_is_gone(start_server, path, pin):
    """Also where the application has given all of it: the job that sends the rest waits for nobody."""
    view = view_of(lambda: path.open("rb"))
    with path.open("ab") as file:
        file.truncate(200 << 20)
    server = start_server(view, limits=Limits(pin_responses=pin))
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: server.pool.stats().stopped == 1)
    assert view.opened[0].closed


def test_what_only_looks_like_a_file_is_read(start_server, path, sent):
    """A GzipFile has a descriptor, of what it unpacks; others have none."""
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(BODY[:100_000]))
    for file in (
        lambda: gzip.GzipFile(packed),
        lambda: io.BufferedReader(gzip.GzipFile(packed)),
        lambda: io.BytesIO(BODY[:100_000]),
    ):
        assert ask(start_server(view_of(file))) == (200, BODY[:100_000])
    reader, writer = os.pipe()
    os.write(writer, b"through a pipe")
    os.close(writer)
    assert ask(start_server(view_of(lambda: os.fdopen(reader, "rb")))) == (200, b"through a pipe")
    assert sent == []


def test_a_temporary_file_that_was_just_written_is_sent_whole(start_server, sent):
    """What is in its buffer is written first."""

    def written():
        file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the server closes it
        file.write(b"just written")
        file.seek(5)
        return file

    assert ask(start_server(view_of(written))) == (200, b"written")
    wait_until(lambda: sent == [7])


@pytest.mark.parametrize("length", [10, 0])
def test_the_length_that_the_application_announced_counts(start_server, path, sent, caplog, length):
    """A file that is longer is cut, and the log says so."""
    server = start_server(view_of(lambda: path.open("rb"), [("Content-Length", str(length))]))
    with connect(server) as sock:
        assert sock.ask()[2] == BODY[:length]
        assert sock.ask(b"/health")[0] == 200
    wait_until(lambda: sum(sent) == length)
    assert "more bytes" in caplog.text


def test_a_file_that_is_shorter_than_announced_ends_the_connection(start_server, path, caplog):
    """FAULT 34."""
    server = start_server(view_of(lambda: path.open("rb"), [("Content-Length", str(len(BODY) + 1))]))
    with connect(server) as sock:
        sock.sendall(GET)
        assert sock.rest().partition(b"\r\n\r\n")[2] == BODY
    wait_until(lambda: "fewer bytes" in caplog.text)


def test_a_file_that_becomes_shorter_ends_the_connection(start_server, path, caplog):
    """While the client has no room."""
    with path.open("ab") as file:
        file.truncate(200 << 20)
    server = start_server(view_of(lambda: path.open("rb")))
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        os.truncate(path, 10)
        assert len(sock.rest()) < 200 << 20
    wait_until(lambda: "became shorter" in caplog.text)
    caplog.clear()  # the traceback refers to the server


def test_head_and_empty_files_have_a_head_alone(start_server, path, sent):
    """With the length."""
    server = start_server(view_of(lambda: path.open("rb")))
    with connect(server) as sock:
        sock.sendall(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        status, headers, body = sock.response("HEAD")
        assert (status, headers["content-length"], body) == (200, str(len(BODY)), b"")
        path.write_bytes(b"")
        assert sock.ask()[2] == b""
    assert sent == []


def test_a_file_that_the_kernel_does_not_send_is_read(start_server, path, monkeypatch):
    """Some file systems cannot."""

    def refusing(*args):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("os.sendfile", refusing)
    assert ask(start_server(view_of(lambda: path.open("rb")))) == (200, BODY)


def test_the_wrapper_is_an_iterable_of_blocks(path):
    """As PEP 3333 shows it, for whoever iterates it."""
    with path.open("rb") as file:
        wrapper = FileWrapper(file, 1 << 20)
        assert [len(block) for block in wrapper] == [1 << 20] * 5
        wrapper.close()
        assert file.closed
    assert get(b"/") == GET
