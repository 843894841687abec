"""Async iterables as responses: while they await, they hold no thread."""

from __future__ import annotations

import contextvars
import threading
from contextlib import ExitStack
from wsgiref.validate import validator

import pytest

import manyhands as mh
from manyhands.server import Limits, iter_async
from serving import GET, ask, connect, get, hello
from support import LONG, wait_until

TEXT = [("Content-Type", "text/plain")]


def giving(pieces):
    """A view whose response an async generator makes."""

    def view(environ, start_response):
        start_response("200 OK", list(TEXT))
        return pieces()

    return view


class Counting:
    """A view whose pieces come when the test lets them; `/health` is answered at once."""

    def __init__(self, size: int = 1) -> None:
        self.go_on = mh.Event()
        self.made = 0
        self.ended: list[str] = []
        self.size = size

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] != "/stream":
            return hello(environ, start_response)
        start_response("200 OK", list(TEXT))
        return iter_async(self.pieces())

    async def pieces(self):
        try:
            while True:
                await self.go_on.wait()
                self.made += 1
                yield b"%d" % (self.made % 10) * self.size
        except mh.Cancelled:
            self.ended.append("cancelled")
            raise
        finally:
            self.ended.append("ended")


def test_a_hundred_that_wait_hold_no_thread(start_server):
    """One thread: it answers another client, and each stream begins when what it waits for is there."""
    view = Counting()
    server = start_server(validator(view), threads=1)
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(server)) for _ in range(100)]
        for sock in socks:
            sock.sendall(get(b"/stream"))
        wait_until(lambda: server.pool.stats().syncing_parked == 100)
        assert server.pool.stats().busy == 0
        assert ask(server) == (200, b"/")
        assert {task.name for task in server.tasks.tasks()} == {"Counting.pieces"}
        view.go_on.set()
        for sock in socks:
            assert sock.recv(15) == b"HTTP/1.1 200 OK"
    wait_until(lambda: server.pool.stats().stopped == 100)
    wait_until(lambda: view.ended.count("ended") == 100)


def test_an_async_generator_may_be_returned_as_it_is(start_server):
    """By a plain application."""

    def view(environ, start_response):
        start_response("200 OK", list(TEXT))

        async def pieces():
            yield b"one, "
            yield b""
            await mh.sleep(0)
            yield b"two"

        return pieces()

    server = start_server(view)
    with connect(server) as sock:
        for _ in range(3):
            assert sock.ask()[2] == b"one, two"


@pytest.mark.parametrize("wrapped", [False, True], ids=["itself", "behind middleware"])
def test_one_whose_length_is_announced_holds_no_thread_around_its_only_piece(start_server, wrapped):
    """The server asks for the first piece at once, to send it with the head."""
    go_on, end = mh.Event(), mh.Event()

    async def pieces():
        await go_on.wait()
        yield b"whole"
        await end.wait()

    def view(environ, start_response):
        if environ["PATH_INFO"] == "/health":
            return hello(environ, start_response)
        start_response("200 OK", [*TEXT, ("Content-Length", "5")])
        result = iter_async(pieces())
        return (piece for piece in result) if wrapped else result

    server = start_server(view, threads=1)
    with connect(server) as sock:
        sock.sendall(get(b"/"))
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        assert server.pool.stats().busy == 0
        assert ask(server, "/health") == (200, b"/health")
        go_on.set()
        assert sock.response()[2] == b"whole"
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        assert server.pool.stats().busy == 0, "it waits for what comes behind its only piece, and with the thread"
        assert ask(server, "/health") == (200, b"/health")
        end.set()
        assert sock.ask(b"/health")[2] == b"/health"


def test_one_piece_is_made_ahead_of_a_client_that_reads_nothing(start_server):
    """FAULT 15. What the kernel takes, one in hand, and one ahead."""
    view = Counting(size=65_536)
    view.go_on.set()
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/stream"))
        wait_until(
            lambda: [connection for connection in server.listener.connections if connection._blocked is not None]
        )
        made = view.made
        assert ask(server) == (200, b"/")
        assert view.made <= made + 1
        assert view.made * 65_536 < 4 << 20
    wait_until(lambda: view.ended)


def test_a_client_that_goes_cancels_it(start_server):
    """What it awaits raises, and its `finally` runs."""
    view = Counting()
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/stream"))
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
    wait_until(lambda: view.ended == ["cancelled", "ended"])
    wait_until(lambda: not server.tasks.living)


def test_an_error_before_the_first_piece_is_a_500(start_server, caplog):
    """As of any view; the traceback is in the log."""

    async def pieces():
        await mh.sleep(0)
        raise ValueError("no pieces today")
        yield b""

    server = start_server(giving(pieces))
    with connect(server) as sock:
        assert sock.ask()[0] == 500
    assert "no pieces today" in caplog.text
    caplog.clear()


def test_an_error_between_two_pieces_cuts_the_response(start_server, caplog):
    """No last chunk: the client can tell a part from the whole."""

    async def pieces():
        yield b"part"
        raise ValueError("halfway through")

    server = start_server(giving(pieces))
    with connect(server) as sock:
        sock.sendall(GET)
        assert sock.rest().endswith(b"4\r\npart\r\n")
    wait_until(lambda: "halfway through" in caplog.text)
    caplog.clear()


def test_a_piece_that_is_no_bytes_is_named_in_the_log(start_server, caplog):
    """PEP 3333, as for any iterable."""

    async def pieces():
        yield "text"

    server = start_server(giving(pieces))
    with connect(server) as sock:
        assert sock.ask()[0] == 500
    assert "must be bytes, and got str" in caplog.text
    caplog.clear()


def test_cleanup_that_raises_when_the_client_has_gone_is_logged(start_server, caplog):
    """Nobody else could be told."""

    async def pieces():
        try:
            await mh.sleep(LONG)
            yield b""
        finally:
            raise ValueError("untidy")

    server = start_server(giving(pieces))
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
    wait_until(lambda: "untidy" in caplog.text)
    caplog.clear()


def test_a_server_that_stops_cuts_what_has_not_ended_by_then(start_server):
    """After the grace: the client does not take the part for the whole, and the task has ended."""
    view = Counting()
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/stream"))
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        assert server.stop(grace=0.05) == []
        assert sock.rest().startswith(b"HTTP/1.1 503")
    assert view.ended == ["cancelled", "ended"]


def test_a_task_that_somebody_else_cancels_cuts_its_response(start_server, caplog):
    """What came before is no whole response."""
    view = Counting()
    view.go_on.set()
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/stream"))
        assert sock.recv(15) == b"HTTP/1.1 200 OK"
        server.tasks.cancel()
        assert not sock.rest().endswith(b"0\r\n\r\n")
    wait_until(lambda: "was cancelled" in caplog.text)
    caplog.clear()


def test_cleanup_that_waits_is_waited_for_at_the_end_of_the_server(start_server):
    """A shielded one, whose client has gone before."""
    ended = []

    async def pieces():
        try:
            await mh.sleep(LONG)
            yield b""
        finally:
            with mh.CancelScope(shield=True):
                await mh.sleep(0.05)
                ended.append(1)

    server = start_server(giving(pieces))
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
    wait_until(lambda: server.connections == 0)
    server.stop()
    assert ended == [1]


def test_cleanup_that_never_ends_does_not_keep_the_server(start_server):
    """It is given up, as at the end of `run`."""

    async def pieces():
        try:
            await mh.sleep(1000)
            yield b""
        finally:
            with mh.CancelScope(shield=True):
                await mh.sleep(1000)

    server = start_server(giving(pieces))
    with connect(server) as sock:
        sock.sendall(GET)
        wait_until(lambda: server.pool.stats().syncing_parked == 1)
        assert server.stop(grace=0) == []
    assert server.loop.closed


def test_a_pinned_one_waits_with_its_thread(start_server):
    """As any pinned response."""
    view = Counting()
    server = start_server(view, threads=2, limits=Limits(pin_responses=True))
    with connect(server) as sock:
        sock.sendall(get(b"/stream"))
        wait_until(lambda: server.tasks.living == 1 and server.pool.stats().busy == 1)
        view.go_on.set()
        assert sock.recv(15) == b"HTTP/1.1 200 OK"
    wait_until(lambda: view.ended)


def test_a_head_request_runs_none_of_it(start_server):
    """More than its head is not asked for; the task is cancelled."""
    view = Counting()
    view.go_on.set()
    server = start_server(view)
    with connect(server) as sock:
        sock.sendall(get(b"/stream").replace(b"GET", b"HEAD"))
        assert sock.response("HEAD")[0] == 200
    wait_until(lambda: not server.tasks.living)
    assert view.made <= 2


def test_one_that_nobody_iterates_is_never_begun():
    """The framework gave another response after all."""
    view = Counting()
    iter_async(view.pieces()).close()
    assert not view.made


def test_without_the_server_a_loop_is_made_for_the_while():
    """In a framework's test client, or on another server: with a thread that waits."""
    threads = []

    async def pieces():
        for number in range(3):
            await mh.sleep(0.001)
            threads.append(threading.current_thread())
            yield b"%d" % number

    body = iter_async(pieces())
    assert b"".join(body) == b"012"
    body.close()
    assert not threads[0].is_alive()
    threads.clear()


def test_without_the_server_one_that_is_left_half_way_is_cancelled():
    """`close()` ends the task, and the thread."""
    view = Counting()
    view.go_on.set()
    body = iter_async(view.pieces())
    assert next(iter(body)) == b"1"
    body.close()
    assert view.ended[-1:] == ["ended"]


def test_what_is_no_async_iterable_is_refused():
    """With a word on what is one."""
    with pytest.raises(TypeError, match="async def"):
        iter_async([b"x"])
    with pytest.raises(TypeError, match="async def"):
        iter_async(Counting().pieces)


def test_the_view_s_context_is_the_generator_s(start_server):
    """What the view has set in it is there."""
    who = contextvars.ContextVar("who", default=b"nobody")

    def view(environ, start_response):
        who.set(b"the view")
        start_response("200 OK", list(TEXT))

        async def pieces():
            await mh.sleep(0)
            yield who.get()

        return pieces()

    server = start_server(view)
    assert ask(server) == (200, b"the view")


def test_middleware_that_wants_the_whole_response_waits_with_its_thread(start_server):
    """It joins the pieces before it returns; also where the client goes meanwhile."""
    entered = mh.Event()

    async def pieces(path):
        yield b"one, "
        await mh.sleep(0.001)
        if path == b"/stuck":
            entered.set()
            await mh.sleep(1000)
        yield b"two"

    def view(environ, start_response):
        start_response("200 OK", list(TEXT))
        body = iter_async(pieces(environ["PATH_INFO"].encode()))
        try:
            return [b"".join(body)]
        finally:
            body.close()

    server = start_server(view)
    assert ask(server) == (200, b"one, two")
    with connect(server) as sock:
        sock.sendall(get(b"/stuck"))
        wait_until(entered.is_set)
    wait_until(lambda: server.pool.stats().stopped == 1)
