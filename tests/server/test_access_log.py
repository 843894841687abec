"""The access log and its forms, and whose word is taken for who the client is."""

from __future__ import annotations

import json
import logging
import re

import pytest

from manyhands.server import Server
from manyhands.server._access import Form, log_access
from manyhands.server._proxies import Proxies
from serving import ask, connect


def hello(environ, start_response):
    start_response("200 OK", [])
    return [f"{environ.get('REMOTE_ADDR')} {environ['wsgi.url_scheme']}".encode()]


REQUEST = b'GET /a?b HTTP/1.1\r\nHost: h\r\nReferer: http://x/\r\nUser-Agent: curl \x1b[31m"\xe4\\\r\n%b\r\n'


def written(caplog, form):
    (record,) = [record for record in caplog.records if record.name == "manyhands.access"]
    return Form(form).format(record)


def test_the_common_form_is_apache_s(start_server, caplog):
    """%h %l %u %t "%r" %>s %b."""
    caplog.set_level(logging.INFO, "manyhands.access")
    server = start_server(hello)
    assert ask(server, "/a?b")[0] == 200
    server.stop()
    line = written(caplog, "common")
    assert re.fullmatch(
        r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /a\?b HTTP/1\.1" 200 \d+', line
    )


def test_the_combined_form_has_what_the_client_said_and_none_of_its_escapes(start_server, caplog):
    """Nothing that it sends ends a field or a line, or reaches a terminal."""
    caplog.set_level(logging.INFO, "manyhands.access")
    server = start_server(hello)
    with connect(server) as client:
        # llhttp refuses an escape character in a header: what is left are quotes, backslashes, and bytes above ASCII.
        client.sendall(REQUEST.replace(b"\x1b", b"") % b"")
        assert client.response()[0] == 200
    server.stop()
    assert written(caplog, "combined").endswith(r' "http://x/" "curl [31m\x22\xe4\x5c"')


def test_the_json_form_has_every_field(caplog):
    """One object on one line, whatever is in it."""
    caplog.set_level(logging.INFO, "manyhands.access")
    log_access("", 'GET /"\n HTTP/1.1', 499, 0, 0.25)
    line = written(caplog, "json")
    assert "\n" not in line
    read = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read.pop("time"))
    expected = {"remote": "", "request": 'GET /"\n HTTP/1.1', "status": 499, "sent": 0, "seconds": 0.25}
    assert read == {**expected, "referer": "", "agent": ""}
    assert " - - [" in written(caplog, "common") and r'"GET /\x22\x0a HTTP/1.1" 499 -' in written(caplog, "common")


def test_a_form_that_is_none_is_refused_and_other_records_are_written_as_ever():
    """With those that there are."""
    with pytest.raises(ValueError, match="common, combined, json"):
        Form("apache")
    other = logging.LogRecord("x", logging.INFO, "", 0, "just %s", ("this",), None)
    assert Form("json").format(other) == "just this"


@pytest.mark.parametrize(
    ("trusted", "forwarded", "seen"),
    [
        ((), "203.0.113.9", "127.0.0.1 http"),
        (("10.0.0.0/8",), "203.0.113.9", "127.0.0.1 http"),
        (("127.0.0.1",), "203.0.113.9", "203.0.113.9 https"),
        (("127.0.0.1",), "6.6.6.6, 203.0.113.9", "203.0.113.9 https"),
        (("127.0.0.1", "203.0.113.0/24"), "6.6.6.6, 2001:db8::1, 203.0.113.9", "2001:db8::1 https"),
        (("127.0.0.0/8",), "garbage, 127.0.0.7", "127.0.0.7 https"),
        (("127.0.0.1",), "<script>", "127.0.0.1 https"),
        (("127.0.0.1",), "", "127.0.0.1 https"),
    ],
)
def test_a_proxy_is_believed_if_it_is_trusted_and_as_far_as_trusted_ones_wrote_it(
    start_server, access, trusted, forwarded, seen
):
    """From the right: what an untrusted client wrote itself is to the left of its own address."""
    server = start_server(hello, trusted_proxies=trusted)
    with connect(server) as client:
        more = f"X-Forwarded-For: {forwarded}\r\nX-Forwarded-Proto: https\r\n".encode()
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n" + more + b"\r\n")
        assert client.response()[2].decode() == seen


def test_the_log_has_the_client_and_not_the_proxy(start_server, caplog):
    """As the application has."""
    caplog.set_level(logging.INFO, "manyhands.access")
    server = start_server(hello, trusted_proxies=["127.0.0.1"])
    with connect(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
        client.response()
    server.stop()
    assert written(caplog, "common").startswith("203.0.113.9 - - [")


def test_trusted_proxies_are_addresses_networks_and_unix():
    """IPv4 in IPv6 is IPv4, a zone is no part of an address."""
    proxies = Proxies(["10.0.0.0/8", "::1", "fe80::/10", "unix"])
    assert all(proxies.trusts(remote) for remote in ("10.1.2.3", "::ffff:10.1.2.3", "::1", "fe80::1%eth0", ""))
    assert not any(proxies.trusts(remote) for remote in ("11.0.0.1", "::2", "name"))
    assert not Proxies(["10.0.0.1"]).trusts("")
    for wrong in ("10.0.0.1/8", "name", ""):
        with pytest.raises(ValueError, match="a trusted proxy must be"):
            Proxies([wrong])
    with pytest.raises(ValueError, match="trusted proxy"):
        Server(hello, trusted_proxies=["x"])
