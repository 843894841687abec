"""Where a server listens: addresses, Unix sockets, sockets that were handed on; and TLS on each."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import stat

import pytest

import certified
from manyhands.server import Server
from manyhands.server._bind import Bind, Listening
from serving import GET, get
from support import LONG, wait_until


def environ_of(environ, start_response):
    start_response("200 OK", [])
    names = ("wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR")
    return [" ".join(str(environ.get(name)) for name in names).encode()]


def echo(environ, start_response):
    """The path so many times, or the body."""
    start_response("200 OK", [])
    body = environ["wsgi.input"].read()
    return [body or environ["PATH_INFO"].encode() * 100_000]


def body_of(sock: socket.socket, request: bytes = GET) -> bytes:
    """Ask for a response with a Content-Length and read it."""
    sock.settimeout(LONG)
    sock.sendall(request)
    with sock.makefile("rb") as stream:
        length = 0
        while (line := stream.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return stream.read(length)


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8000", Bind("127.0.0.1", 8000)),
        ("localhost:0", Bind("localhost", 0)),
        (":80", Bind("", 80)),
        ("[::1]:443", Bind("::1", 443)),
        ("unix:/run/site.sock", Bind(path="/run/site.sock")),
        ("unix:a:b", Bind(path="a:b")),
        ("fd:3", Bind(fd=3)),
    ],
)
def test_a_place_to_listen_at_is_read(text, bind):
    """Each form."""
    assert Bind.parse(text) == bind


@pytest.mark.parametrize(
    "text", ["", "localhost", "8000", "::1:80", "[::1]", "h:65536", "h:-1", "h:1x", "unix:", "fd:", "fd:x", "fd:-1"]
)
def test_what_is_no_place_to_listen_at_is_refused(text):
    """With what was expected, and what was given."""
    with pytest.raises(ValueError, match="expected .* and got") as refused:
        Bind.parse(text)
    assert repr(text) in str(refused.value)


def test_a_unix_socket_is_served_and_its_file_goes_with_the_server(tmp_path, start_server):
    """Its clients have no address, and its own name is not empty (PEP 3333)."""
    path = tmp_path / "site.sock"
    server = start_server(environ_of, bind=f"unix:{path}")
    assert (server.address, server.url) == ((str(path), 0), f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert body_of(client) == b"http localhost 80 None"
    server.stop()
    assert not path.exists()


def test_a_unix_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not(tmp_path, start_server):
    """Nor is a file that is no socket; and what belongs to somebody else now is not removed at the end."""
    path = tmp_path / "site.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    server = start_server(environ_of, bind=f"unix:{path}")
    with pytest.raises(OSError, match="in use"):
        Server(environ_of, bind=f"unix:{path}")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        server.stop()
        assert path.exists()
    plain = tmp_path / "plain"
    plain.write_text("keep")
    with pytest.raises(OSError, match="in use"):
        Server(environ_of, bind=f"unix:{plain}")
    assert plain.read_text() == "keep"


def test_a_socket_that_was_handed_on_is_served(start_server):
    """By its number, as systemd does it; whoever waited in its queue already is answered."""
    listening = socket.create_server(("127.0.0.1", 0))
    with socket.create_connection(listening.getsockname(), LONG) as client:
        server = start_server(environ_of, bind=f"fd:{listening.detach()}")
        port = server.address[1]
        assert body_of(client) == f"http 127.0.0.1 {port} 127.0.0.1".encode()


def test_a_descriptor_that_does_not_listen_is_refused_and_stays_open():
    """It is somebody's: a pipe, a connection, a number that is not open."""
    readable, writable = os.pipe()
    with socket.socket() as idle:
        for number, words in ((readable, "no socket"), (idle.fileno(), "does not listen"), (1 << 20, "no socket")):
            with pytest.raises(OSError, match=words):
                Listening(Bind(fd=number))
        assert stat.S_ISSOCK(os.fstat(idle.fileno()).st_mode)
    assert os.write(writable, b"x") == 1
    os.close(readable)
    os.close(writable)


def secured(server: Server, **options) -> ssl.SSLSocket:
    plain = socket.create_connection(server.address, LONG)
    return certified.client_context(**options).wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_and_responses_pass_through_tls(start_server, newest):
    """One after another on one connection: small ones, a body of many records, a response of many."""
    server = start_server(echo, tls=certified.server_context())
    assert server.url.startswith("https://127.0.0.1:")
    with secured(server, newest=newest) as client:
        assert body_of(client, get(b"/a")) == b"/a" * 100_000
        body = os.urandom(300_000)
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert body_of(client, head + body) == body
        assert body_of(client, get(b"/bc")) == b"/bc" * 100_000


def test_the_application_is_told_of_tls(start_server):
    """`wsgi.url_scheme`."""
    server = start_server(environ_of, tls=certified.server_context())
    with secured(server) as client:
        assert body_of(client).startswith(b"https 127.0.0.1 ")


def test_a_file_is_sent_through_tls(start_server, tmp_path):
    """Read and encrypted: the kernel's own way would send it as it is."""
    content = os.urandom(500_000)
    (tmp_path / "file").write_bytes(content)

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))

    with secured(start_server(app, tls=certified.server_context())) as client:
        assert body_of(client) == content


def test_requests_of_one_record_are_all_answered(start_server):
    """What was decrypted and not asked for is no longer in the kernel: no readiness would tell of it."""
    server = start_server(environ_of, tls=certified.server_context())
    with secured(server) as client:
        body = b"x" * 9000
        first = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        client.sendall(first + GET)
        client.settimeout(LONG)
        seen = b""
        while seen.count(b"200 OK") < 2:
            seen += client.recv(4096)


def test_the_end_is_said_to_a_client_of_tls(start_server):
    """close_notify: else a client could not tell the end from a cut (RFC 8446, 6.1)."""
    server = start_server(environ_of, tls=certified.server_context())
    with secured(server) as client:
        client.settimeout(LONG)
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        while client.recv(4096):  # SSLEOFError, if it were not said
            pass


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 70, b""])
def test_who_does_not_speak_tls_is_closed_and_others_are_served(start_server, garbage):
    """Plain text, a torn hello, nothing at all: the connection ends, and no record is written for each."""
    server = start_server(environ_of, tls=certified.server_context())
    with socket.create_connection(server.address, LONG) as stranger:
        stranger.sendall(garbage)
        with contextlib.suppress(OSError):  # what came behind the error is not read: it is reset, perhaps by now
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):
                pass
    with secured(server) as client:
        assert body_of(client).startswith(b"https")
    wait_until(lambda: server.connections == 0)
