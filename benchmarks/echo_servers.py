"""The echo servers written in Python, a program of its own: `python -m benchmarks.echo_servers NAME [options]`.

It prints `{"port": N}` and serves 127.0.0.1 until it is killed, or until its alarm goes off. All do the same: read
once what is there, send it back in one call. The load has one message in flight per connection, so that a short send
cannot be; where it would show, it is an error and not a backlog. Nagle's delay is off everywhere (asyncio and uvloop
do so themselves).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import select
import signal
import socket
import threading
from collections.abc import Callable

LIMIT_SECONDS = 300
RECEIVE_BYTES = 64 * 1024
BACKLOG = 1024


class ShortSend(Exception):
    """A connection took less than the whole echo: this load is not what these servers are for."""


def settle_allocator() -> None:
    """Free one big block, so that glibc stops mapping and unmapping memory for each buffer of up to its size.

    asyncio reads into 256 KiB. Until a process has freed a mapped block at least that big, which is chance, glibc maps
    each of those buffers afresh: 27 us per message instead of 9. All servers get the luck, asyncio needs it.
    """
    bytes(4 << 20)


def listen() -> socket.socket:
    """Listen on a free port of 127.0.0.1 and say which."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    listener.setblocking(False)
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    return listener


def accept_all(listener: socket.socket) -> list[socket.socket]:
    """Accept whoever waits; their sockets do not block."""
    accepted: list[socket.socket] = []
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return accepted
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.append(connection)


def serve_watch(options: argparse.Namespace) -> None:
    """A watch per connection, its handler calls the socket; `--threads` of them have joined the loop."""
    import manyhands as mh

    loop = mh.EventLoop(name="echo", poller=options.poller, handover=options.handover * 1e-6)

    def echo(watch: mh.Watch, events: mh.Events) -> None:
        connection: socket.socket = watch.source
        try:
            message = connection.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            message = b""
        if not message:
            watch.remove(close=True)
        elif connection.send(message) < len(message):
            raise ShortSend

    def accept(watch: mh.Watch, events: mh.Events) -> None:
        for connection in accept_all(watch.source):
            loop.add(connection, mh.Events.READ, echo)

    loop.add(listen(), mh.Events.READ, accept)
    for _ in range(options.threads - 1):
        threading.Thread(target=loop.join, daemon=True).start()
    loop.join()


def serve_epoll(options: argparse.Namespace) -> None:
    """No loop at all: `select.epoll` and the same two calls. What any loop in Python could reach."""
    flags = {"level": 0, "edge": select.EPOLLET, "oneshot": select.EPOLLONESHOT}[options.plan]
    mask = select.EPOLLIN | flags
    rearm = options.plan == "oneshot"
    listener = listen()
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                for connection in accept_all(listener):
                    connections[connection.fileno()] = connection
                    poller.register(connection, mask)
                continue
            connection = connections[fd]
            try:
                message = connection.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                message = b""
            if not message:
                connections.pop(fd).close()
                continue
            if connection.send(message) < len(message):
                raise ShortSend
            if rearm:
                poller.modify(fd, mask)


class EchoProtocol(asyncio.Protocol):
    """Echo by callbacks: the cheapest form that asyncio and uvloop have."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Send it back; the transport sends at once if it can."""
        self.transport.write(data)  # type: ignore[attr-defined]


async def serve_protocol() -> None:
    """Serve `EchoProtocol` on the running loop."""
    await asyncio.get_running_loop().create_server(EchoProtocol, sock=listen(), backlog=BACKLOG)
    await asyncio.Event().wait()


def serve_asyncio(options: argparse.Namespace) -> None:
    """Asyncio's own loop."""
    asyncio.run(serve_protocol())


def serve_uvloop(options: argparse.Namespace) -> None:
    """The same protocol on uvloop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_protocol())


SERVERS: dict[str, Callable[[argparse.Namespace], None]] = {
    "watch": serve_watch,
    "epoll": serve_epoll,
    "asyncio": serve_asyncio,
    "uvloop": serve_uvloop,
}


def main() -> None:
    """Serve what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.echo_servers", description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=SERVERS)
    parser.add_argument("--threads", type=int, default=1, help="watch: threads that join (1)")
    parser.add_argument("--handover", type=float, default=200.0, help="watch: microseconds; 0 is the eager plan (200)")
    parser.add_argument("--poller", default="epoll", help="watch: epoll, poll or select (epoll)")
    parser.add_argument("--plan", default="level", choices=["level", "edge", "oneshot"], help="epoll: registration")
    options = parser.parse_args()
    signal.alarm(LIMIT_SECONDS)
    settle_allocator()
    SERVERS[options.name](options)


if __name__ == "__main__":
    main()
