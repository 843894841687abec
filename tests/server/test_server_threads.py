"""The threads that run views: those that serve the connections, one more than requests run at once, and no others."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import manyhands as mh
from gate import Gate
from manyhands.server import Events
from serving import GET, ask, connect, get, hello
from support import LONG, wait_until


def test_views_run_on_the_threads_that_serve_connections_and_on_no_others(start_server):
    """T75f. Requests that had to wait, streams that go on when their clients read, events that another thread sends."""
    feeds = []

    def view(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/stream":
            start_response("200 OK", [])
            return (bytes(65_536) for _ in range(100))
        if path == "/events":
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            feeds.append(Events())
            return feeds[-1]
        mh.sleep_blocking(0.001)
        return hello(environ, start_response)

    server = start_server(view, threads=2)
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(5)]
        for sock in slow:
            sock.sendall(get(b"/stream"))
        listening = [stack.enter_context(connect(server)) for _ in range(5)]
        for sock in listening:
            sock.sendall(get(b"/events"))
        wait_until(lambda: server.pool.stats().syncing_parked == 10)
        many = [stack.enter_context(connect(server)) for _ in range(50)]
        for sock in many:
            sock.sendall(2 * GET)
        assert [sock.response()[0] for _ in range(2) for sock in many] == [200] * 100
        for feed in feeds:
            feed.send("tick")
            feed.close()
        assert all(b"tick" in sock.response()[2] for sock in listening)
        assert all(len(sock.response()[2]) == 100 * 65_536 for sock in slow)
        wait_until(lambda: server.pool.stats().finished == 110)
        stats = server.pool.stats()
    assert (stats.threads, stats.finished) == (0, 110)
    ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("mh-http")]
    assert len(ours) == 3, ours


def test_every_thread_but_one_may_be_in_a_view_and_the_server_accepts(start_server):
    """T75f. The last one serves the connections: a request that waits is known, and begins when a view has ended."""
    gates = [Gate(), Gate()]

    def view(environ, start_response):
        if environ["PATH_INFO"] != "/":
            gates[int(environ["PATH_INFO"][1:])]()
        return hello(environ, start_response)

    server = start_server(view, threads=2)
    with ExitStack() as stack:
        held = [stack.enter_context(connect(server)) for _ in gates]
        for gate in gates:
            stack.enter_context(gate)
        for number, (sock, gate) in enumerate(zip(held, gates, strict=True)):
            sock.sendall(get(b"/%d" % number))
            gate.wait_entered()
        waits = stack.enter_context(connect(server))
        waits.sendall(GET)
        wait_until(lambda: server.pool.stats().queued == 1)
        assert server.pool.stats().threads == 0
        gates[0].open()
        assert waits.response()[0] == 200
        gates[1].open()
        assert [sock.response()[0] for sock in held] == [200, 200]


def test_a_job_that_others_give_to_the_pool_has_a_thread_of_its_own(start_server):
    server = start_server(hello, threads=2)
    assert server.pool.submit(threading.current_thread).result(LONG).name.startswith("mh-http-view-")
    assert ask(server) == (200, b"/")
    assert server.pool.stats().threads == 1
