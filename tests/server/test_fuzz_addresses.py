"""Random addresses: where a server is to listen, whom it trusts, and what those say of a client."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import examples
from manyhands.cli._failure import Failure
from manyhands.cli.serve import _where
from manyhands.server._bind import Bind, Listening
from manyhands.server._proxies import Proxies

WORDS = st.sampled_from(
    [
        *("fd:", "unix:", ":", "[", "]", "::1", "127.0.0.1", "localhost", "80", "0", "65535", "65536", "9" * 5000),
        *("-1", "+1", " ", "/", "..", "a" * 64, "%lo", "\0", "\n", "\x1b[2J", "é", "²", "\u0661", "\udcff", "fd:3"),
    ]
)
TEXT = st.one_of(st.lists(WORDS, max_size=5).map("".join), st.text(max_size=12))


@examples(300)
@given(TEXT)
def test_a_place_to_listen_at_is_one_or_a_value_error(text):
    """And what one is keeps to its bounds, in one of three forms."""
    try:
        bind = Bind.parse(text)
    except ValueError as error:
        assert "expected" in str(error)
        return
    assert [bind.port is not None, bind.path is not None, bind.fd is not None].count(True) == 1
    assert bind.port is None or 0 <= bind.port <= 65_535
    assert bind.path is None or (bind.path and "\0" not in bind.path)


NUMERIC = socket.AI_PASSIVE | socket.AI_NUMERICHOST
HOST = st.one_of(
    st.sampled_from(["..", ".a", "a" * 64, "é" * 80, "a\0b", "\udcff", "-", "256.1.1.1", "[::1"]), st.text(max_size=8)
)


@examples(100)
@given(HOST)
def test_a_host_that_is_none_is_an_error_of_the_system(host):
    """Whatever the resolver thinks of its letters; the command line makes a sentence of it."""
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(OSError):
        real = socket.getaddrinfo
        # Letters are encoded by Python, before a name server is asked; which is not asked here.
        patch.setattr(
            socket, "getaddrinfo", lambda name, *rest, **flags: real(name, *rest, **{**flags, "flags": NUMERIC})
        )
        Listening(Bind(host, 0)).close()


@examples(200)
@given(st.one_of(TEXT, st.integers().map(str)).filter(lambda text: "\0" not in text))
def test_the_port_of_the_environment_is_one_or_a_sentence(text):
    """`$PORT`: what a platform sets, and what somebody else did."""
    options = argparse.Namespace(bind=None, host=None, port=None)
    with pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv("PORT", text)
        except UnicodeEncodeError:
            return
        try:
            bind = _where(options)
        except Failure as failure:
            assert str(failure).isprintable()
            return
    assert bind.port == int(text)
    assert 0 <= bind.port <= 65_535


NETWORK = st.sampled_from(
    ["10.0.0.0/8", "127.0.0.1", "::1", "fe80::/10", "0.0.0.0/0", "unix", "192.0.2.7", "fe80::1%lo"]
)
HOP = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(
        ["10.1.2.3", "192.0.2.7", "::ffff:10.1.2.3", "fe80::1", "unknown", "_hidden", "", "1.2.3.4:80", "[fe80::1]:80"]
    ),
    st.sampled_from(
        ["fe80::1%\x9b2J", 'fe80::1%" 200 -', "fe80::1%a b", "[::1]", "1.2.3.4/8", "\u0661.1.1.1", "010.1.1.1"]
    ),
    st.text('0123456789abcdef.:% "\x9b\xff', max_size=20),
)


REMOTE = st.sampled_from(["10.0.0.1", "8.8.8.8", "::1", ""])


def bare(hop):
    """Without the port that some proxies write behind it."""
    if hop.startswith("["):
        address, closed, port = hop[1:].partition("]")
        return address if closed and (not port or is_port(port)) else hop
    address, colon, port = hop.partition(":")
    return address if address.count(".") == 3 and colon and is_port(colon + port) else hop


def is_port(text):
    return text[:1] == ":" and text[1:].isascii() and text[1:].isdigit() and len(text) <= 6


@examples(300)
@given(st.lists(NETWORK, min_size=1, max_size=3), st.lists(HOP, max_size=6), REMOTE, HOP)
def test_who_the_client_is_is_an_address_that_a_trusted_one_wrote(networks, hops, remote, scheme):
    """An address and nothing else; and the nearest that is not trusted, if it can be read."""
    proxies = Proxies(networks)
    environ = {"HTTP_X_FORWARDED_FOR": ",".join(hops), "wsgi.url_scheme": "http", "HTTP_X_FORWARDED_PROTO": scheme}
    if remote:
        environ |= {"REMOTE_ADDR": remote, "REMOTE_PORT": "5"}
    proxies.apply(environ)
    found = environ.get("REMOTE_ADDR", "")
    assert environ["wsgi.url_scheme"] in ("http", "https")
    if not proxies.trusts(remote):
        assert found == remote
        return
    if found != remote:
        assert str(ipaddress.ip_address(found)) and "%" not in found
        assert found in [bare(hop.strip()) for hop in ",".join(hops).split(",")]
        assert "REMOTE_PORT" not in environ
        # Whoever is nearer than the one that was taken is trusted.
        nearer = [bare(hop.strip()) for hop in ",".join(hops).split(",")]
        nearer.reverse()
        assert all(proxies.trusts(hop) for hop in nearer[: nearer.index(found)])
