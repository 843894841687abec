"""Bodies of requests: where they are kept, what they cost, and what the application gets."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
import tracemalloc
from contextlib import ExitStack

import pytest

from manyhands.server import Limits
from reading import read, read_one, refusal
from serving import ask, connect, hello
from support import wait_until
from wsgi_client import environ

HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"
LIMITS = Limits(body_memory=1000)


def chunked(*chunks: bytes) -> bytes:
    """A request with these chunks."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


def sized(body: bytes) -> bytes:
    """A request with this body."""
    return HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def summing(environ, start_response):
    """Answer with the length and the digest of the body, read in pieces."""
    digest, length = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(10_000):
        digest.update(piece)
        length += len(piece)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{length} {digest.hexdigest()} {environ.get('CONTENT_LENGTH')}".encode()]


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 5000, 100_000])
def test_a_long_body_is_in_a_file_and_a_short_one_in_memory(size):
    """Announced or chunked, whole or in pieces: the same bytes."""
    body = os.urandom(size)
    for data in (sized(body), chunked(*[body[at : at + 700] for at in range(0, size, 700)])):
        request = read_one(data, LIMITS)
        assert request.length == size
        assert (request.file is not None) is (size > 1000)
        request.close()
        (whole,) = read(data, limits=LIMITS)
        (pieces,) = read(*(data[at : at + 777] for at in range(0, len(data), 777)), limits=LIMITS)
        assert whole == pieces
        assert whole[4] == body


def test_what_is_kept_in_memory_does_not_depend_on_its_pieces():
    """A body of one-byte chunks costs what a body of one piece costs."""
    data = chunked(*[b"x"] * 50_000)
    limits = Limits(body_memory=100_000)
    tracemalloc.start()
    try:
        request = read_one(data, limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert request.length == 50_000
    assert peak < len(data) + 200_000


def test_a_body_that_does_not_come_to_its_end_leaves_no_file():
    """The leak line sees the descriptor: the reader is closed, or the request refused, in the middle of it."""
    begun = sized(bytes(5000))[:-10]
    assert read(begun, limits=LIMITS) == []
    endless = Limits(body_memory=1000, body_bytes=4000)
    assert refusal(chunked(bytes(3000), bytes(3000)), endless).status == 413


def test_a_disk_without_room_is_507(monkeypatch):
    """The client is told, and the file is closed."""

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("manyhands.server._body.tempfile.TemporaryFile", Full)
    assert refusal(sized(bytes(5000)), LIMITS).status == 507


def test_the_body_in_a_file_can_be_read_in_every_way_of_a_file():
    """PEP 3333, *Input and Error Streams*: reading ends where the body ends."""
    lines = b"a\nbc\n" * 400_000
    body = environ(sized(lines))["wsgi.input"]
    with body:
        assert body.fileno() >= 0
        assert [body.read(1), body.readline(), next(iter(body)), body.readlines(1)] == [b"a", b"\n", b"bc\n", [b"a\n"]]
        assert body.read() == lines[7:]
        assert body.read(10) == b""


# Over sockets.


def test_a_long_upload_arrives_and_its_file_is_closed(start_server):
    """8 MiB, announced and chunked, and the connection is used again."""
    body = os.urandom(8 << 20)
    server = start_server(summing)
    expected = f"{len(body)} {hashlib.sha256(body).hexdigest()} {len(body)}".encode()
    assert ask(server, "/", "POST", body) == (200, expected)
    with connect(server) as sock:
        for data in (sized(body), chunked(*[body[at : at + 99_999] for at in range(0, len(body), 99_999)])):
            sender = threading.Thread(target=sock.sendall, args=(data,))
            sender.start()
            assert sock.response()[2] == expected
            sender.join()


def test_a_file_of_a_request_that_never_runs_is_closed(start_server):
    """Refused by a full queue, and by its client's end: the leak line sees the descriptors."""
    release, begun = threading.Event(), threading.Event()

    def view(environ, start_response):
        begun.set()
        assert release.wait(10)
        return hello(environ, start_response)

    server = start_server(view, threads=1, max_queue_depth=1, limits=LIMITS)
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(connect(server)) for _ in range(3))
        first.sendall(sized(bytes(3000)))
        assert begun.wait(10)
        second.sendall(sized(bytes(3000)))
        wait_until(lambda: server.pool.stats().queued == 1)
        third.sendall(sized(bytes(3000)))
        status, headers, _ = third.response()
        assert (status, headers["retry-after"]) == (503, "1")
        second.reset()
        wait_until(lambda: server.pool.stats().queued == 0)
        release.set()
        assert first.response()[0] == 200


def test_the_application_may_leave_its_body_unread(start_server):
    """The next request begins where the body ends."""
    server = start_server(hello, limits=LIMITS)
    with connect(server) as sock:
        for _ in range(3):
            sock.sendall(sized(bytes(300_000)))
            assert sock.response()[2] == b"/"


def test_many_uploads_of_a_byte_at_a_time_hold_no_thread(start_server):
    """Fifty, and one thread: another client is served, and each upload when it is done."""
    server = start_server(summing, threads=1, limits=LIMITS)
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(50)]
        data = sized(bytes(2000))
        for sock in slow:
            sock.sendall(data[:-3])
        for _ in range(2):
            for sock in slow:
                sock.sendall(b"\0")
            assert ask(server, "/health")[0] == 200
        for sock in slow:
            sock.sendall(b"\0")
        assert {sock.response()[2].split()[0] for sock in slow} == {b"2000"}
