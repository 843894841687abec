"""Connections against a plain model of them: clients that do anything at any moment, in any order.

Every rule is one thing that a client or a view may do: send a request, or half of one, or several ahead; hang up in one way or
another; return, raise, or give the next piece. After each the model says what each connection is at, which views have begun
and which were told to stop, and what each client finds in its socket; the server has to come to just that.
MANYHANDS_MACHINE_STEPS asks for more steps than an ordinary run has time for (`make machine`: 10,000).
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
from collections import Counter

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import manyhands as mh
from manyhands.server import Events, Limits, Server
from serving import Client, connect, wait_ready
from support import LONG

STEPS = int(os.environ.get("MANYHANDS_MACHINE_STEPS", "3000"))
EACH = 40
"""Steps of one history."""

THREADS = 2
DEPTH = 1
"""Requests that may wait for a thread."""

CLIENTS = 6
AHEAD = 3
"""Requests that a client of these sends ahead at most."""

HUGE = bytes(24 << 20)
"""More than the kernel takes for a client that does not read."""

one_in_three = st.integers(0, 2)
"""What ends something is done if this is 0: most of a history should be of clients that stay."""

KINDS = ["quick", "last", "raise", "wait", "wait", "wait", "wait", "stream", "huge", "upload", "bad"]


class Asked:
    """A request, and what its view is told."""

    def __init__(self, number: int, kind: str) -> None:
        self.number = number
        self.kind = kind
        self.gate = threading.Event()
        self.events: Events | None = None
        self.fed = b":\n\n"  # what a stream has given: a comment, by which a client sees that it has begun

    def __repr__(self) -> str:
        return f"{self.kind}/{self.number}"

    @property
    def data(self) -> bytes:
        if self.kind == "bad":
            return b"GET /bad HTTP/1.1\r\n\r\n"  # no Host
        if self.kind == "upload":
            return b"POST /upload/%d HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789" % self.number
        ends = b"Connection: close\r\n" if self.kind == "last" else b""
        return b"GET /%s/%d HTTP/1.1\r\nHost: h\r\n%b\r\n" % (self.kind.encode(), self.number, ends)


class Views:
    """What the views have noted."""

    def __init__(self) -> None:
        self.asked: dict[int, Asked] = {}
        self.began: list[int] = []
        self.stopped: list[int] = []

    def __call__(self, environ, start_response):
        number = int(environ["PATH_INFO"].rpartition("/")[2])
        asked = self.asked[number]
        self.began.append(number)
        if asked.kind == "raise":
            raise ValueError(number)
        if asked.kind == "wait":
            try:
                mh.blocking.wait(asked.gate)
            except mh.JobStopped:
                self.stopped.append(number)
                raise
        if asked.kind == "stream":
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            asked.events = Events(keep_alive=None)
            return asked.events
        start_response("200 OK", [("Content-Type", "text/plain")])
        if asked.kind == "huge":
            return [HUGE]
        return [b"%d %b" % (number, environ["wsgi.input"].read())]


class Peer:
    """A client, and what its connection is at by the model."""

    def __init__(self, number: int, sock: Client) -> None:
        self.number = number
        self.sock = sock
        self.state = "idle"
        self.hand: Asked | None = None
        self.ahead: list[Asked] = []
        self.part: Asked | None = None  # was sent in part
        self.rest = b""  # of it
        self.half_closed = False
        self.expected: list[tuple[int, bytes]] = []  # statuses and bodies that it has not read
        self.cut_short = False  # a response had begun when the connection ended

    @property
    def bytes_ahead(self) -> int:
        """What the server keeps, unparsed; behind the last request nothing."""
        if self.hand is not None and self.hand.kind == "last":
            return 0
        part = 0 if self.part is None else len(self.part.data) - len(self.rest)
        return sum(len(asked.data) for asked in self.ahead) + part

    def __repr__(self) -> str:
        return f"<{self.state} client {self.number}: {self.hand}, then {self.ahead}>"


class ConnectionMachine(RuleBasedStateMachine):
    """A server of two threads, whose queue is short, and up to six clients."""

    @initialize(half_close=st.sampled_from(["gone", "finish"]))
    def begin(self, half_close: str) -> None:
        self.half_close = half_close
        self.views = Views()
        self.server = Server(
            self.views, threads=THREADS, max_queue_depth=DEPTH, half_close=half_close, limits=Limits(keep_alive=900.0)
        )
        self.server.start()
        wait_ready(self.server)
        self.numbers = itertools.count()
        self.peers: list[Peer] = []
        self.running: list[Asked] = []
        self.queue: list[tuple[Peer, Asked]] = []
        self.began: Counter[int] = Counter()
        self.stopped: Counter[int] = Counter()
        self.refused = 0

    # The model.

    def take(self, peer: Peer, asked: Asked) -> None:
        """A request has come whole."""
        if peer.state in ("closed", "closing"):
            return
        peer.ahead.append(asked)
        self.go_on(peer)

    def go_on(self, peer: Peer) -> None:
        """Begin what was sent ahead, as far as it goes."""
        while peer.state in ("idle", "reading") and peer.ahead:
            asked = peer.ahead.pop(0)
            if asked.kind == "bad":
                self.end_with(peer, 400, linger=True)
            elif len(self.running) == THREADS and len(self.queue) == DEPTH:
                self.refused += 1
                peer.expected.append((503, b""))
                if asked.kind == "last":
                    self.end_with(peer, None, linger=False)
            else:
                peer.hand, peer.state = asked, "busy"
                self.queue.append((peer, asked))
                self.run_queue()
        if peer.state in ("idle", "reading"):
            peer.state = "reading" if peer.part is not None else "idle"
            if peer.half_closed:
                peer.state = "closed"

    def run_queue(self) -> None:
        while self.queue and len(self.running) < THREADS:
            peer, asked = self.queue.pop(0)
            self.began[asked.number] += 1
            if asked.kind == "wait":
                self.running.append(asked)
            elif asked.kind == "huge":
                peer.state = "writing"
                peer.expected.append((200, HUGE))
            elif asked.kind == "raise":
                peer.hand = None
                self.end_with(peer, 500, linger=True)
            elif asked.kind != "stream":
                self.answered(peer, asked)

    def answered(self, peer: Peer, asked: Asked) -> None:
        """Its whole response was taken."""
        body = b"0123456789" if asked.kind == "upload" else b""
        if asked.kind == "stream":
            peer.expected.append((200, asked.fed))
        elif asked.kind != "huge":
            peer.expected.append((200, b"%d %b" % (asked.number, body)))
        peer.hand = None
        if asked.kind == "last":
            self.end_with(peer, None, linger=False)
        else:
            peer.state = "idle"
            self.go_on(peer)

    def end_with(self, peer: Peer, status: int | None, *, linger: bool) -> None:
        """This was its last response."""
        if status is not None:
            peer.expected.append((status, b""))
        peer.state = "closing" if linger and not peer.half_closed else "closed"
        peer.ahead, peer.part = [], None

    def gone(self, peer: Peer) -> None:
        """Nobody waits for what is in hand."""
        asked, peer.hand, peer.state, peer.ahead, peer.part = peer.hand, None, "closed", [], None
        self.queue = [(other, one) for other, one in self.queue if other is not peer]
        if asked in self.running:
            self.stopped[asked.number] += 1
            self.running.remove(asked)
            self.run_queue()
        elif asked is not None and asked.kind == "stream" and self.began[asked.number]:
            peer.cut_short = True

    # What clients do.

    def drawn(self, data: st.DataObject, peers: list[Peer]) -> Peer:
        return data.draw(st.sampled_from(peers))

    def senders(self) -> list[Peer]:
        """Whoever has said which request is the last sends nothing more: it might come too late to be read."""
        return [
            peer
            for peer in self.peers
            if not peer.half_closed
            and peer.state != "closed"
            and peer.part is None
            and len(peer.ahead) < AHEAD
            and not any(asked.kind == "last" for asked in [peer.hand, *peer.ahead] if asked is not None)
        ]

    def ask(self, kind: str) -> Asked:
        asked = Asked(next(self.numbers), kind)
        self.views.asked[asked.number] = asked
        return asked

    @precondition(lambda self: len(self.peers) < CLIENTS and sum(peer.state == "idle" for peer in self.peers) < 2)
    @rule()
    def connect(self) -> None:
        self.peers.append(Peer(next(self.numbers), connect(self.server)))

    @precondition(lambda self: self.senders())
    @rule(data=st.data(), kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=AHEAD))
    def send(self, data: st.DataObject, kinds: list[str]) -> None:
        """Requests, in one write."""
        peer = self.drawn(data, self.senders())
        asked = [self.ask(kind) for kind in kinds]
        peer.sock.sendall(b"".join(one.data for one in asked))
        if peer.state in ("closed", "closing"):
            return
        peer.ahead += asked
        self.go_on(peer)

    @precondition(lambda self: self.senders())
    @rule(data=st.data(), kind=st.sampled_from(KINDS), share=st.floats(0.05, 0.95))
    def send_part(self, data: st.DataObject, kind: str, share: float) -> None:
        """The beginning of a request."""
        peer = self.drawn(data, self.senders())
        asked = self.ask(kind)
        at = int(len(asked.data) * share)
        peer.sock.sendall(asked.data[:at])
        if peer.state in ("closed", "closing"):
            return
        peer.rest, peer.part = asked.data[at:], asked
        if peer.hand is None:
            peer.state = "reading"

    @precondition(lambda self: [peer for peer in self.peers if peer.part is not None and not peer.half_closed])
    @rule(data=st.data())
    def send_rest(self, data: st.DataObject) -> None:
        """The end of it."""
        peer = self.drawn(data, [peer for peer in self.peers if peer.part is not None and not peer.half_closed])
        asked, peer.part = peer.part, None
        assert asked is not None
        peer.sock.sendall(peer.rest)
        self.take(peer, asked)

    @precondition(lambda self: self.may_half_close())
    @rule(data=st.data(), really=one_in_three)
    def end_half(self, data: st.DataObject, really: int) -> None:
        """Send nothing more."""
        if really:
            return
        peer = self.drawn(data, self.may_half_close())
        peer.sock.shutdown(socket.SHUT_WR)
        peer.half_closed = True
        if peer.state in ("idle", "reading", "closing") or (peer.state == "busy" and self.half_close == "gone"):
            self.gone(peer)

    def may_half_close(self) -> list[Peer]:
        """Behind a long response more requests may begin, or its end be read, whichever is first: not these."""
        found = [peer for peer in self.peers if not peer.half_closed and peer.state != "closed"]
        found = [peer for peer in found if peer.state != "writing" or not peer.ahead]
        return [peer for peer in found if peer.state != "idle"] or (found if len(self.peers) > 2 else [])

    def may_reset(self) -> list[Peer]:
        found = [peer for peer in self.peers if peer.state not in ("idle", "closed")]
        return found or (self.peers if len(self.peers) > 2 else [])

    @precondition(lambda self: self.may_reset())
    @rule(data=st.data(), really=one_in_three)
    def reset(self, data: st.DataObject, really: int) -> None:
        """Go without a word."""
        if really:
            return
        peer = self.drawn(data, self.may_reset())
        self.peers.remove(peer)
        peer.sock.reset()
        if peer.state != "closed":
            self.gone(peer)

    def readers(self) -> list[Peer]:
        return [peer for peer in self.peers if peer.expected or peer.state in ("closed", "closing")]

    @precondition(lambda self: self.readers())
    @rule(data=st.data())
    def receive(self, data: st.DataObject) -> None:
        """Read what there is to read."""
        self.read(self.drawn(data, self.readers()))

    def read(self, peer: Peer) -> None:
        while peer.expected:
            status, body = peer.expected.pop(0)
            got, _, received = peer.sock.response()
            assert got == status, received
            if status == 200:
                assert received == body
            if peer.state == "writing" and not peer.expected:
                assert peer.hand is not None
                self.answered(peer, peer.hand)
                self.settle()
        if peer.state in ("closed", "closing"):
            rest = peer.sock.rest()
            peer.sock.close()
            self.peers.remove(peer)
            if peer.cut_short:
                assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
                assert not rest.endswith(b"0\r\n\r\n")
            else:
                assert rest == b""

    # What views do.

    def returners(self) -> list[Peer]:
        """Where the queue is full and more was sent ahead, chance says whether that finds a place in it: not these."""
        full = len(self.queue) == DEPTH
        return [peer for peer in self.peers if peer.hand in self.running and not (full and peer.ahead)]

    @precondition(lambda self: self.returners())
    @rule(data=st.data())
    def return_one(self, data: st.DataObject) -> None:
        """Let a view that waits return."""
        peer = self.drawn(data, self.returners())
        asked = peer.hand
        assert asked is not None
        asked.gate.set()
        self.running.remove(asked)
        self.answered(peer, asked)
        self.run_queue()

    def streams(self) -> list[Peer]:
        """Those that go on at once: there is a thread for them."""
        if len(self.running) == THREADS:
            return []
        return [peer for peer in self.peers if peer.hand is not None and peer.hand.events is not None]

    @precondition(lambda self: self.streams())
    @rule(data=st.data())
    def feed(self, data: st.DataObject) -> None:
        """The next piece of a stream."""
        asked = self.drawn(data, self.streams()).hand
        assert asked is not None
        assert asked.events is not None
        asked.events.send("more")
        asked.fed += b"data: more\n\n"

    @precondition(lambda self: self.streams())
    @rule(data=st.data())
    def end_stream(self, data: st.DataObject) -> None:
        """Its end."""
        peer = self.drawn(data, self.streams())
        asked = peer.hand
        assert asked is not None
        assert asked.events is not None
        asked.events.close()
        self.answered(peer, asked)

    # The comparison.

    def model(self) -> tuple[Counter[str], Counter[int], Counter[int], int, int]:
        states = Counter(peer.state for peer in self.peers if peer.state != "closed")
        ahead = sum(peer.bytes_ahead for peer in self.peers if peer.state == "busy")
        return states, self.began, self.stopped, self.refused, ahead

    def found(self) -> tuple[Counter[str], Counter[int], Counter[int], int, int]:
        server = self.server
        ahead = sum(each._reader.waiting for each in server.listener.connections if each.state == "busy")
        states = Counter(server.connection_states())
        views = self.views
        return states, Counter(list(views.began)), Counter(list(views.stopped)), server.pool.stats().refused, ahead

    @invariant()
    def settle(self) -> None:
        """The server comes to what the model says, and stays there."""
        pause = threading.Event()
        for _ in range(int(LONG * 1000)):
            if self.found() == self.model():
                return
            pause.wait(0.001)
        assert self.found() == self.model()

    def teardown(self) -> None:
        """The end of the server, whatever it is at: clients of views that wait are told 503, and nothing is left."""
        if not hasattr(self, "server"):
            return
        left: list[object] = []
        stopping = threading.Thread(target=lambda: left.extend(self.server.stop(0.0)))
        try:
            for peer in [peer for peer in self.peers if peer.state in ("writing", "closing")]:
                peer.sock.reset()  # the server would wait for it
                self.peers.remove(peer)
            stopping.start()
            for peer in self.peers:
                self.look_at_the_end(peer)
        finally:
            for peer in self.peers:
                peer.sock.close()
            stopping.join(LONG)
        assert left == []
        assert self.server.connections == 0
        stats = self.server.pool.stats()
        assert stats.submitted == stats.finished + stats.stopped
        assert (self.server.budget.taken, self.server.files.taken, self.server.outgoing.taken) == (0, 0, 0)

    def look_at_the_end(self, peer: Peer) -> None:
        began = peer.hand is not None and self.began[peer.hand.number] > 0
        if peer.hand is not None and peer.hand.kind == "stream" and began:
            peer.cut_short = (
                True  # or it is whole: a stream is told that the server stops, and then that its time is over
            )
        elif peer.state == "busy":
            peer.expected.append((503, b""))
        for status, _ in peer.expected:
            assert peer.sock.response()[0] == status
        if not peer.cut_short:
            assert peer.sock.rest() == b""


def test_connections_come_to_what_the_model_says_whatever_comes(caplog, monkeypatch):
    """Random histories of requests, halves of them, hang-ups, returns and pieces; as many steps as are asked for."""
    caplog.set_level(logging.CRITICAL, "manyhands.server")
    monkeypatch.setattr("manyhands.server._connection.LINGER", 900.0)
    run_state_machine_as_test(
        ConnectionMachine,
        settings=settings(
            max_examples=max(1, STEPS // EACH),
            stateful_step_count=EACH,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # a failing history is short enough, and each of its steps waits long
            report_multiple_bugs=False,
            derandomize="MANYHANDS_MACHINE_STEPS" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
