"""Clients that mean harm: what they can make the server hold, say or do, beyond what is in a single request."""

from __future__ import annotations

import logging
import re
import select
import signal
import socket
import subprocess
import threading

import pytest

import certified
from commands import COMMAND, START
from manyhands.server import Limits
from manyhands.server._access import Plain
from manyhands.server._environ import _LONGEST, _names
from manyhands.server._proxies import Proxies
from reading import read_one, refusal
from serving import GET, Client, ask, connect, get, hello
from support import LONG, wait_until

CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")
"""Whatever could move a terminal's cursor or change its colours, in UTF-8."""

REFUSED = {
    "an escape in the target": (400, b"GET /\x1b[31m HTTP/1.1\r\nHost: h\r\n\r\n"),
    "an escape in a name": (400, b"GET / HTTP/1.1\r\nHost: h\r\n\x1b[31m: x\r\n\r\n"),
    "an escape in a value": (400, b"GET / HTTP/1.1\r\nHost: h\r\nX: \x1b[31m\r\n\r\n"),
    "an escape in the method": (400, b"\x1b[31m / HTTP/1.1\r\nHost: h\r\n\r\n"),
    "a bell in the host": (400, b"GET / HTTP/1.1\r\nHost: \x07\r\n\r\n"),
    "a C1 control in the target": (400, b"GET /\x9b31m HTTP/1.1\r\nHost: h\r\n\r\n"),
    "a C1 control in the host": (400, b"GET / HTTP/1.1\r\nHost: \x9b31m\r\n\r\n"),
    "another version": (505, b"GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
    "another expectation": (417, b"GET / HTTP/1.1\r\nHost: h\r\nExpect: \x9b31m\r\n\r\n"),
    "a tunnel": (501, b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n"),
    "a head without an end": (431, b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 17_000),
    "blank lines without an end": (431, b"\r\n" * 8_193),
    "too many headers": (431, b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 101 + b"\r\n"),
    "too long a body": (413, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_counted_logged_and_closed_and_nothing_of_it_is_repeated(start_server, caplog, name):
    """Its status, once; a line in each log, printable and the same whatever the client has sent."""
    caplog.set_level(logging.INFO, "manyhands")
    status, data = REFUSED[name]
    server = start_server(hello, threads=1)
    with connect(server) as client:
        client.sendall(data + GET)
        assert client.response()[0] == status
        assert client.rest() == b""
    assert server.refused() == {status: 1}
    why, line = [record.getMessage() for record in caplog.records if record.name != "manyhands.loop"]
    assert re.fullmatch(rf"127\.0\.0\.1 port \d+: refused: {status} [A-Z][ -~]+", why)
    assert re.fullmatch(rf'127\.0\.0\.1 "-" {status} \d+ 0\.000000', line)


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (417, b"HEAD / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n"),
        (413, b"HEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n"),
        (408, b"HEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx"),
    ],
)
def test_a_head_request_that_is_refused_gets_no_body_either(start_server, status, data):
    """RFC 9110, 9.3.2: whatever the status."""
    server = start_server(hello, threads=1, limits=Limits(body_gap_timeout=0.05))
    with connect(server) as client:
        client.sendall(data)
        head, blank, body = client.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert (blank, body) == (b"\r\n\r\n", b"")


NOISY = """
def app(environ, start_response):
    if environ["PATH_INFO"].startswith("/raise"):
        raise ValueError("no such page: " + environ["PATH_INFO"])
    start_response("200 OK", [("X-Path", environ["PATH_INFO"])] if "head" in environ["PATH_INFO"] else [])
    return [b"x"]
"""


@pytest.mark.parametrize("form", ["common", "combined", "json"])
def test_nothing_that_a_client_sends_moves_the_cursor_of_a_terminal(tmp_path, form):
    """`manyhands serve` with all of its logs, and an application whose errors repeat a path: no control character but LF."""
    (tmp_path / "noisy.py").write_text(NOISY)
    command = [
        *COMMAND,
        "serve",
        "noisy:app",
        "--port",
        "0",
        "--log-level",
        "debug",
        "--access-log",
        "--access-log-format",
        form,
    ]
    with subprocess.Popen(command, cwd=tmp_path, stdout=-1, stderr=-1) as process:
        try:
            assert process.stdout is not None
            found = re.search(rb"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
            assert found is not None
            address = ("127.0.0.1", int(found[1]))
            for _, data in REFUSED.values():
                with Client(address) as client:
                    client.sendall(data)
                    client.rest()
            more = b'Referer: \xc2\x9b31m\\"\r\nUser-Agent: \x9b2J\xff\r\nHost: h\r\n'
            for path in (b"/raise%1b[31m%07%9b%c2%9b%0d", b"/%1b[2J", b"/head%0d%0aX:y", b"/\"<script>'"):
                with Client(address) as client:
                    client.sendall(get(path).replace(b"Host: h\r\n", more))
                    assert client.response()[0] in (200, 500)
        finally:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=START)
    assert CONTROL.findall(out + err) == []
    assert b"no such page: /raise\\x1b[31m\\x07" in err
    assert err.count(b"refused: 4") >= 10


def test_a_terminal_gets_lines_tabs_and_letters():
    """Also of a traceback and of a record without one."""
    record = logging.LogRecord("x", logging.INFO, "", 0, "a\x1b[31m\tb\nc\x9b\x7f\r%s", ("ä€\x00",), None)
    assert Plain("%(message)s").format(record) == "a\\x1b[31m\tb\n    c\\x9b\\x7f\\x0dä€\\x00"


# What is held.


@pytest.mark.parametrize("greeting", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_a_handshake_of_tls_has_the_time_of_a_head(start_server, greeting):
    """Nothing at all, or a byte now and then: no byte prolongs it, and no thread is held."""
    server = start_server(
        hello, threads=1, tls=certified.server_context(), limits=Limits(head_timeout=0.2, keep_alive=1000)
    )
    with connect(server) as client:
        for byte in greeting + bytes(500):
            if select.select([client], [], [], 0.01)[0]:
                break
            if greeting:
                client.send(bytes([byte]))
        else:
            pytest.fail("each byte prolonged the time")
        assert client.rest() == b""
    wait_until(lambda: server.connections == 0)
    assert server.pool.stats().submitted == 0


def test_a_client_that_speaks_no_tls_is_in_the_log(start_server, caplog):
    """Somebody who has written http for https finds out why nothing comes."""
    caplog.set_level(logging.INFO, "manyhands.server")
    server = start_server(hello, threads=1, tls=certified.server_context())
    with connect(server) as client:
        client.sendall(GET)
        wait_until(lambda: caplog.records)
    assert re.search(r"127\.0\.0\.1 port \d+: no TLS with this client: [A-Z_]+$", caplog.text, re.MULTILINE)


@pytest.mark.parametrize("part", [b"", GET[:10], b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx"])
@pytest.mark.parametrize("half_close", ["gone", "finish"])
def test_a_half_open_client_of_a_unix_socket_is_closed_at_once(start_server, tmp_path, part, half_close):
    """It has shut its side before its request was whole: nothing can follow."""
    path = str(tmp_path / "s")
    server = start_server(hello, bind=f"unix:{path}", half_close=half_close, limits=Limits(head_timeout=1000))
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(LONG)
        client.connect(path)
        client.sendall(part)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    wait_until(lambda: server.connections == 0)


def test_a_flood_of_requests_on_one_connection_leaves_others_their_turn(start_server):
    """One thread, and twenty thousand sent ahead: who asks meanwhile waits for a few of them."""
    served: list[str] = []

    def view(environ, start_response):
        served.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    server = start_server(view, threads=1, access_log=False)
    count = 20_000
    with connect(server) as flood, connect(server) as other:
        sender = threading.Thread(target=flood.sendall, args=(GET * count,))
        reader = threading.Thread(target=lambda: [flood.response() for _ in range(count)])
        sender.start()
        reader.start()
        wait_until(lambda: len(served) > 100)
        between = []
        while len(between) < 20 and reader.is_alive():
            before = len(served)
            assert other.ask(b"/other")[2] == b"/other"
            between.append(served.index("/other", before) - before)
        sender.join(6 * LONG)
        reader.join(6 * LONG)
        assert not reader.is_alive()
    assert len(between) >= 5
    assert sorted(between)[len(between) // 2] < 500
    assert max(between) < count // 4


def test_who_asks_first_and_never_sends_gets_one_word(start_server):
    """Expect: 100-continue a thousand times, each on its own, pipelined: one interim response for a body that is awaited."""
    server = start_server(hello, limits=Limits(body_gap_timeout=0.1))
    expecting = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    with connect(server) as client:
        client.sendall((expecting + b"x") * 1000)
        for _ in range(1000):
            assert client.response()[0] == 200
        client.sendall(expecting)
        assert client.rest().count(b"100 Continue") == 1
    wait_until(lambda: server.connections == 0)


def test_names_that_clients_make_up_are_not_kept_if_they_are_long(start_server):
    """A thousand names are remembered for good, of all clients together."""
    server = start_server(hello)
    with connect(server) as client:
        for number in range(20):
            client.sendall(GET.replace(b"\r\n\r\n", b"\r\nX-%d-%b: y\r\n\r\n" % (number, b"x" * 10_000)))
            assert client.response()[0] == 200
    assert max(map(len, _names)) <= _LONGEST


def test_a_length_may_have_any_number_of_zeros():
    """RFC 9110, 8.6. Python makes no number of 4,300 digits; what is too long is 413 or 400, and no error of ours."""
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %b\r\n\r\n"
    assert read_one(head % (b"0" * 5000 + b"3") + b"abc").body == b"abc"
    assert read_one(head % (b"0" * 5000)).body == b""
    assert refusal(head % (b"9" * 5000)).status == 400
    assert refusal(head % (b"0" * 5000 + b"9" * 18)).status == 413


def test_a_forwarded_address_has_no_zone(start_server):
    """It may be any text: blanks, quotes, what a terminal obeys."""
    proxies = Proxies(["10.0.0.0/8", "fe80::/10"])
    for zone in ('" 200 -', "\x9b31m", "a b", "lo"):
        environ = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": f"192.0.2.1, fe80::1%{zone}, 10.0.0.2"}
        proxies.apply(environ)
        assert environ["REMOTE_ADDR"] == "10.0.0.2"
    assert ask(start_server(hello, trusted_proxies=["127.0.0.1"]))[0] == 200
