"""Random bytes on real connections: what a client gets, what the log says, and what is left afterwards.

A client sends, closes its half, and reads to the end: the server is to answer what it has taken (`half_close="finish"`), and
then to close. `make fuzz` goes on longer.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl

from hypothesis import given
from hypothesis import strategies as st

import certified
from fuzzing import complaints, cut, examples, good_request, hostile_stream
from http_parsers import REFUSED, ours
from manyhands.server import Limits, Server
from manyhands.server._request import Refused, RequestReader
from serving import connect
from support import wait_until

STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) [^\r\n]*\r\n((?:[!-~]+: [^\r\n]*\r\n)*)\r\n")


def echo(environ, start_response):
    """Answer with the body."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("X-Target", environ["REQUEST_URI"])])
    return [body]


def talk(server: Server, pieces: list[bytes]) -> bytes:
    """Send all of it, then nothing more, and read everything.

    Who sends on behind a request that was to be the last may come too late for a connection that is closed, and be reset:
    RFC 9112, 9.6. In one piece it is not too late.
    """
    try:
        return _talk(server, pieces)
    except TimeoutError:
        raise
    except OSError:
        return _talk(server, [b"".join(pieces)])


def _talk(server: Server, pieces: list[bytes]) -> bytes:
    with connect(server) as client:
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        return client.rest()


def refuses_head(stream: bytes) -> bool:
    """Whether what is refused of it is a HEAD request, whose response has no body."""
    reader = RequestReader(Limits())
    reader.receive(stream)
    with contextlib.suppress(Refused):
        while reader.next_request() is not None:
            pass
    return reader.at_head_request


def responses(received: bytes, methods: list[str], last: str = "GET") -> list[tuple[int, bytes]]:
    """Status and body of each; every byte belongs to one of them. `last`: of what was refused."""
    found = []
    for method in [*methods, last]:
        if not received:
            break
        head = STATUS.match(received)
        assert head is not None, received
        length = re.search(rb"Content-Length: (\d+)", head[2])
        size = int(length[1]) if length is not None and method != "HEAD" else 0
        found.append((int(head[1]), received[head.end() : head.end() + size]))
        assert len(found[-1][1]) == size
        received = received[head.end() + size :]
    assert not received, "a response too many"
    return found


def check_quiet(server: Server, caplog) -> None:
    """Nothing is left of the clients, and nothing was worth an error."""
    wait_until(lambda: server.connections == 0)
    wait_until(lambda: server.pool.stats().busy == 0)
    assert complaints(caplog) == []
    assert server.budget.taken == 0


def test_a_sequence_is_answered_as_it_was_written(start_server, caplog):
    """Each request once, with its body, in order; the end comes behind the last that the connection may carry."""
    server = start_server(echo, half_close="finish", limits=Limits(body_memory=30))

    @examples(60)
    @given(st.lists(good_request(), min_size=1, max_size=5), st.data())
    def check(sent, data):
        taken = []
        for request in sent:
            taken.append(request)
            if not request.keep_alive:
                break
        received = talk(server, cut(data, b"".join(request.data for request in sent), 4))
        found = responses(received, [request.method.decode() for request in taken])
        assert found == [(200, b"" if request.method == b"HEAD" else request.body) for request in taken]

    check()
    check_quiet(server, caplog)


def test_damaged_streams_are_answered_up_to_the_damage_and_closed(start_server, caplog):
    """A response for each request before it, then one error with the end of the connection. No trace of the bytes in a log."""
    server = start_server(echo, half_close="finish", limits=Limits(body_memory=30))
    caplog.set_level(logging.DEBUG, "manyhands")

    @examples(150)
    @given(hostile_stream(), st.data())
    def check(stream, data):
        expected = ours(stream)
        received = talk(server, cut(data, stream, 3))
        taken = [request for request in expected if request != REFUSED]
        methods = [request[0].decode() for request in taken]
        found = responses(received, methods, "HEAD" if refuses_head(stream) else "GET")
        refused = expected[-1:] == [REFUSED]
        assert [status for status, _ in found[: len(taken)]] == [200] * len(taken)
        assert len(found) == len(taken) + refused
        assert not refused or 400 <= found[-1][0] < 600
        assert not any(body for status, body in found if status == 200 and body not in [part[2] for part in taken])

    check()
    check_quiet(server, caplog)
    for record in caplog.records:
        if record.name == "manyhands.loop":
            continue
        text = record.getMessage()
        assert text.isascii()
        assert text.isprintable()
    caplog.clear()


def test_whatever_comes_for_a_handshake_of_tls_it_ends(start_server, caplog):
    """Random bytes, and a true ClientHello that was damaged: the connection is closed, nobody else minds."""
    server = start_server(echo, tls=certified.server_context(), half_close="finish")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = certified.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    greeting = outgoing.read()

    @examples(60)
    @given(st.one_of(st.binary(max_size=80), st.tuples(st.integers(0, len(greeting) - 1), st.binary(max_size=3))))
    def check(what):
        data = what if isinstance(what, bytes) else greeting[: what[0]] + what[1] + greeting[what[0] + len(what[1]) :]
        try:
            talk(server, [data])
        except TimeoutError:
            raise
        except OSError:
            pass  # closed, and its bytes were not all read

    check()
    check_quiet(server, caplog)
