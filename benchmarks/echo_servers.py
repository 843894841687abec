"""The echo servers written in Python, a program of its own: `python -m benchmarks.echo_servers NAME [options]`.

It prints `{"port": N}` and serves 127.0.0.1 until it is killed, or until its alarm goes off. All do the same: read
once what is there, send it back in one call. The load has one message in flight per connection, so that a short send
cannot be; where it would show, it is an error and not a backlog. Nagle's delay is off everywhere (asyncio and uvloop
do so themselves).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import select
import signal
import socket
import ssl
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


def serve_task(options: argparse.Namespace) -> None:
    """A task per connection, which awaits `receive` and `send`."""
    import manyhands as mh

    async def echo(stream: mh.SocketStream) -> None:
        with contextlib.suppress(mh.EndOfStream, mh.BrokenResourceError):
            while True:
                await stream.send(await stream.receive(RECEIVE_BYTES))

    async def main() -> None:
        listener = mh.Listener(mh.current_task().group.owner, listen().detach())
        await listener.serve(echo)

    mh.run(main, threads=options.threads, poller=options.poller)


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


async def echo_streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo by asyncio's streams."""
    while data := await reader.read(RECEIVE_BYTES):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve_reader_writer() -> None:
    """Serve `echo_streams` on the running loop."""
    await asyncio.start_server(echo_streams, sock=listen(), backlog=BACKLOG)
    await asyncio.Event().wait()


def serve_asyncio_streams(options: argparse.Namespace) -> None:
    """Asyncio's streams on its own loop."""
    asyncio.run(serve_reader_writer())


def serve_uvloop_streams(options: argparse.Namespace) -> None:
    """Asyncio's streams on uvloop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_reader_writer())


def serve_rloop(options: argparse.Namespace) -> None:
    """The protocol on rloop."""
    import rloop

    with asyncio.Runner(loop_factory=rloop.new_event_loop) as runner:
        runner.run(serve_protocol())


def serve_trio(options: argparse.Namespace) -> None:
    """A task of trio per connection."""
    import trio

    async def echo(stream: trio.SocketStream) -> None:
        async with stream:
            # The load ends by a reset.
            with contextlib.suppress(trio.BrokenResourceError):
                while data := await stream.receive_some(RECEIVE_BYTES):
                    await stream.send_all(data)

    async def serve() -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listen()))
        await trio.serve_listeners(echo, [listener])

    trio.run(serve)


def serve_gevent(options: argparse.Namespace) -> None:
    """A greenlet per connection."""
    from gevent.server import StreamServer
    from gevent.socket import socket as green_socket

    def echo(connection: green_socket, address: object) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(RECEIVE_BYTES):
            connection.sendall(data)

    listener = listen()
    StreamServer(green_socket(fileno=listener.detach()), echo).serve_forever()


def tls_context(certificate: str) -> ssl.SSLContext:
    """A server's context."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def serve_task_tls(options: argparse.Namespace) -> None:
    """A task per connection, through TLS."""
    import manyhands as mh

    async def echo(stream: mh.TLSStream) -> None:
        with contextlib.suppress(mh.EndOfStream, mh.BrokenResourceError):
            while True:
                await stream.send(await stream.receive(RECEIVE_BYTES))

    async def main() -> None:
        plain = mh.Listener(mh.current_task().group.owner, listen().detach())
        await mh.TLSListener(plain, tls_context(options.certificate)).serve(echo)

    mh.run(main)


async def serve_protocol_tls(certificate: str) -> None:
    """Serve `EchoProtocol` through TLS on the running loop."""
    loop = asyncio.get_running_loop()
    await loop.create_server(EchoProtocol, sock=listen(), backlog=BACKLOG, ssl=tls_context(certificate))
    await asyncio.Event().wait()


def serve_asyncio_tls(options: argparse.Namespace) -> None:
    """Asyncio's own loop, through TLS."""
    asyncio.run(serve_protocol_tls(options.certificate))


def serve_uvloop_tls(options: argparse.Namespace) -> None:
    """The same on uvloop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_protocol_tls(options.certificate))


SERVERS: dict[str, Callable[[argparse.Namespace], None]] = {
    "watch": serve_watch,
    "task": serve_task,
    "task-tls": serve_task_tls,
    "asyncio-tls": serve_asyncio_tls,
    "uvloop-tls": serve_uvloop_tls,
    "epoll": serve_epoll,
    "asyncio": serve_asyncio,
    "uvloop": serve_uvloop,
    "asyncio-streams": serve_asyncio_streams,
    "uvloop-streams": serve_uvloop_streams,
    "rloop": serve_rloop,
    "trio": serve_trio,
    "gevent": serve_gevent,
}


def main() -> None:
    """Serve what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.echo_servers", description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=SERVERS)
    parser.add_argument("--threads", type=int, default=1, help="watch: threads that join (1)")
    parser.add_argument("--handover", type=float, default=200.0, help="watch: microseconds; 0 is the eager plan (200)")
    parser.add_argument("--poller", default="epoll", help="watch: epoll, poll or select (epoll)")
    parser.add_argument("--plan", default="level", choices=["level", "edge", "oneshot"], help="epoll: registration")
    parser.add_argument("--certificate", help="TLS: a file with a certificate and its key")
    options = parser.parse_args()
    signal.alarm(LIMIT_SECONDS)
    settle_allocator()
    SERVERS[options.name](options)


if __name__ == "__main__":
    main()
