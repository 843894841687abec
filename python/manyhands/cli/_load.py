"""The client's side of the demo: many sockets on one loop, each asking again as soon as its answer is complete.

What it sends is known beforehand, so every byte that comes back is compared with the one that must come: request `n` of
connection `c` is a piece of one block of random bytes, cut at a place that only `c` and `n` give. An answer that is
lost, doubled, cut short, or meant for another connection differs.

One thread turns the loop (`LoadRun.run`), so that the choice of threads is the server's alone. Nothing here needs a
lock: watches and timers all run inside that one `join()`.
"""

from __future__ import annotations

import contextlib
import random
import socket
import time
from dataclasses import dataclass, field

import manyhands as mh

SIZES = (64, 1024, 1024, 4096, 1024, 1024, 16_384, 1024) * 5 + (300_000,)
"""Bytes of a connection's requests, in turn. The last one seldom fits between two sockets, so that the server has to keep
a rest and wait for room."""

BLOCK_BYTES = 1 << 20
READ_BYTES = 65_536

PLACE_PER_CONNECTION, PLACE_PER_REQUEST = 104_729, 7_919
"""Two primes: places in the block where requests are cut repeat only after a long time."""


class Wrong(Exception):
    """The server did what an echo server must not do. The text is a clause: "connection 7 was closed …"."""


@dataclass
class Load:
    """What was measured.

    Attributes:
        requests: answered in full and compared.
        bytes: sent, and as many came back.
        seconds: from the first request to the end of the time; what was under way then is answered and counted too.
        latencies: seconds from a request's first byte out to its last byte in.
    """

    requests: int = 0
    bytes: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Return the latency that `share` (0..1) of the requests do not exceed. Seconds; 0 if there were none."""
        ranked = sorted(self.latencies)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0


class LoadRun:
    """One measurement: connects, asks for some seconds, waits for the last answers and for the server's goodbye."""

    def __init__(self, address: tuple[str, int], connections: int, seconds: float, patience: float = 10.0) -> None:
        """Prepare it.

        Args:
            address: where the server listens.
            connections: how many at once; > 0.
            seconds: how long new requests are made.
            patience: seconds that the server has for connecting, and again for what is under way at the end.
        """
        self.load = Load()
        self.over = False
        self.block = memoryview(random.Random(1).randbytes(BLOCK_BYTES))
        self._address = address
        self._connections = connections
        self._seconds = seconds
        self._patience = patience
        self._asking: set[Asker] = set()
        self._wrong: Exception | None = None
        self._loop: mh.EventLoop | None = None

    def run(self) -> Load:
        """Measure.

        Raises:
            Wrong: a byte differs, an answer is missing, a connection breaks or stays open; every socket is closed.

        Blocks: until the time and at most `patience` more have passed.
        """
        with contextlib.closing(mh.EventLoop(name="demo", on_error=self._on_error)) as self._loop:
            self._connect(self._loop)
            started = time.perf_counter()
            self._loop.call_later(self._seconds, self._end_of_time)
            self._loop.call_later(self._seconds + self._patience, self._end_of_patience)
            self._loop.join()
            self.load.seconds = min(time.perf_counter() - started, self._seconds)
        if self._wrong is not None:
            raise self._wrong
        return self.load

    def fail(self, clause: str) -> None:
        """Give up: the first thing that was wrong is what `run` raises."""
        self._stop(Wrong(clause))

    def left(self, asker: Asker) -> None:
        """Take a connection off the list that has done its last request and was let go."""
        self._asking.discard(asker)
        if not self._asking:
            self._stop(None)

    def _connect(self, loop: mh.EventLoop) -> None:
        """Open all connections; the first requests go out when the loop is joined."""
        sockets = contextlib.ExitStack()
        with sockets:
            for number in range(self._connections):
                try:
                    sock = socket.create_connection(self._address, timeout=self._patience)
                except OSError as error:
                    raise Wrong(f"connection {number} of {self._connections} was not accepted ({error})") from error
                sockets.enter_context(sock)
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                asker = Asker(self, number, sock)
                loop.add(sock, mh.Events.READ | mh.Events.WRITE, asker.on_ready, close=True)
                self._asking.add(asker)
            sockets.pop_all()  # from here on the watches close them

    def _end_of_time(self) -> None:
        self.over = True

    def _end_of_patience(self) -> None:
        asker = min(self._asking, key=lambda asker: asker.number)
        self.fail(
            f"{len(self._asking)} of {self._connections} connections waited {self._patience:g} s in vain, "
            f"the first of them {asker.what_is_missing()}"
        )

    def _on_error(self, report: mh.ErrorReport) -> None:
        if isinstance(report.error, Exception):
            self._stop(report.error)

    def _stop(self, wrong: Exception | None) -> None:
        self._wrong = self._wrong or wrong
        if self._loop is not None:
            self._loop.request_stop()


class Asker:
    """One connection: sends a request, compares the answer, sends the next; at the end of the time says goodbye."""

    __slots__ = ("_leaving", "_received", "_request", "_run", "_sent", "_socket", "_started", "_turn", "number")

    def __init__(self, run: LoadRun, number: int, sock: socket.socket) -> None:
        self._run = run
        self._socket = sock
        self._turn = 0
        self._request = memoryview(b"")  # the one under way; empty between two
        self._sent = self._received = 0
        self._started = 0.0
        self._leaving = False
        self.number = number

    def on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        """Compare what came, begin the next request if the answer is complete, send what fits."""
        try:
            with contextlib.suppress(BlockingIOError):
                self._receive(watch)
            if watch.removed:
                return
            if not self._request and not self._leaving:
                self._begin_or_leave()
            with contextlib.suppress(BlockingIOError):
                self._sent += self._socket.send(self._request[self._sent :]) if self._sent < len(self._request) else 0
        except OSError as error:
            self._run.fail(f"connection {self.number} broke in request {self._turn} ({error})")
            return
        wanted = mh.Events.READ | mh.Events.WRITE if self._sent < len(self._request) else mh.Events.READ
        if watch.events != wanted:
            watch.modify(wanted)

    def what_is_missing(self) -> str:
        """Say what this connection waits for, as a clause."""
        if self._leaving:
            return "for the server to close it"
        return f"for {len(self._request) - self._received:,} of {len(self._request):,} bytes of answer {self._turn}"

    def _begin_or_leave(self) -> None:
        """Take the next request, or tell the server that there will be none."""
        if self._run.over:
            self._leaving = True
            self._socket.shutdown(socket.SHUT_WR)
            return
        size = SIZES[(self.number + self._turn) % len(SIZES)]
        place = (self.number * PLACE_PER_CONNECTION + self._turn * PLACE_PER_REQUEST) % (BLOCK_BYTES - size)
        self._request = self._run.block[place : place + size]
        self._sent = self._received = 0
        self._started = time.perf_counter()

    def _receive(self, watch: mh.Watch) -> None:
        """Compare what came with what must come."""
        came = self._socket.recv(READ_BYTES)
        if not came:
            if self._leaving:
                watch.remove()
                self._run.left(self)
            else:
                self._run.fail(f"connection {self.number} was closed by the server in request {self._turn}")
                watch.remove()
            return
        end = self._received + len(came)
        if self._request[self._received : end].tobytes() != came:
            self._run.fail(f"connection {self.number} got other bytes back than it sent in request {self._turn}")
            watch.remove()
            return
        self._received = end
        if end == len(self._request):
            self._answered()

    def _answered(self) -> None:
        """Write the request down."""
        load = self._run.load
        load.requests += 1
        load.bytes += len(self._request)
        load.latencies.append(time.perf_counter() - self._started)
        self._turn += 1
        self._request = memoryview(b"")
        self._sent = self._received = 0
