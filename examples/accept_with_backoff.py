"""Accept connections, and back off when the process has run out of descriptors.

When `accept()` fails with EMFILE the connection stays in the kernel's queue, so the listening socket stays ready: a
loop that simply calls the handler again burns a core and fills the log until somebody hangs up. This listener pauses
its watch instead and lets a timer resume it. Those who wait are served as soon as there are descriptors; nobody is
turned away.

With no argument it plays a scene by itself: fifty clients come, there are descriptors for ten, and each client leaves
when it has been answered, which makes room for the others.

What to look for:
* the pause and the timer are of the listener only: connections that are open are served as if nothing had happened;
* the timer is on the watch's own strand, so it never runs beside the handler, and it ends with the watch;
* it is said once that there are no descriptors, and once that it is over, however often it was tried in between;
* what the listener does about an error depends on whose fault it is: the peer's (gone before we came: the next one,
  please), the process's (back off), or the program's (not caught: the loop reports it and removes the watch).

    python examples/accept_with_backoff.py [--port PORT]
"""

import argparse
import contextlib
import errno
import os
import resource
import socket
import time
from collections.abc import Callable

import manyhands as mh

BACKOFF = 0.1
"""Seconds between two tries while there are no descriptors."""

ACCEPTS_PER_TURN = 64
"""Connections that one event may take, so that a crowd at the door does not keep the others waiting."""

OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

NEXT_PLEASE = {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH}
"""What Linux reports of a connection that failed before it was accepted. Source: accept(2), *Error handling*."""


class Listener:
    """Accepts from a listening socket and hands each connection to `serve`."""

    def __init__(
        self,
        loop: mh.EventLoop,
        sock: socket.socket,
        serve: Callable[[socket.socket], None],
        tell: Callable[[str], None] = print,
    ) -> None:
        self._socket = sock
        self._serve = serve
        self._tell = tell
        self._short = False
        sock.setblocking(False)
        self._watch = loop.add(sock, mh.Events.READ, self._on_ready, name="listener", close=True)

    def _on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, _address = self._socket.accept()
            except BlockingIOError:
                break  # everybody who waited is in
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._back_off(watch, error)
                    return
                if error.errno in NEXT_PLEASE:
                    continue
                raise
            self._serve(connection)
        self._say_that_it_is_over()

    def _back_off(self, watch: mh.Watch, error: OSError) -> None:
        watch.pause()
        watch.strand.call_later(BACKOFF, watch.resume)
        if not self._short:
            self._short = True
            self._tell(f"cannot accept: {str(error.strerror).lower()}; trying every {BACKOFF} s")

    def _say_that_it_is_over(self) -> None:
        if self._short:
            self._short = False
            self._tell("accepting again")


class EchoServer:
    """A listener, and a watch for each connection that sends back what comes."""

    def __init__(self, loop: mh.EventLoop, port: int, tell: Callable[[str], None] = print) -> None:
        self._loop = loop
        sock = socket.create_server(("127.0.0.1", port), backlog=128)
        self.address = sock.getsockname()
        Listener(loop, sock, self._serve, tell)

    def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._loop.add(connection, mh.Events.READ, self._echo, close=True)

    def _echo(self, watch: mh.Watch, events: mh.Events) -> None:
        try:
            data = watch.source.recv(4096)
            rest = data[watch.source.send(data) :]
        except BlockingIOError:
            return
        except ConnectionError:
            data = rest = b""
        if rest or not data:  # a client that does not read is dropped: it is not what this example is about
            watch.remove()


def play(loop: mh.ThreadedEventLoop, address: tuple[str, int]) -> None:
    """Fifty clients are in the kernel's queue when the loop starts; each leaves when it has its answer."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(50)]
        only_ten_more()
        stack.enter_context(loop)
        for number, client in enumerate(clients):
            client.sendall(b"hello")
            if client.recv(100) != b"hello":
                raise ConnectionError(f"client {number} was not answered")
            client.close()
    print(f"{len(clients)} of {len(clients)} clients were answered")


def only_ten_more() -> None:
    """Lower the limit of this process so that ten more descriptors can be opened."""
    highest = max(int(number) for number in os.listdir("/proc/self/fd"))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, hard))


def main() -> None:
    """Serve until Ctrl-C; with no argument, play the scene and end."""
    parser = argparse.ArgumentParser(description="An echo server that survives the lack of descriptors.")
    parser.add_argument("--port", type=int, help="port to listen on; without it the server plays a scene by itself")
    options = parser.parse_args()

    loop = mh.ThreadedEventLoop(threads=2, name="accept")
    server = EchoServer(loop, options.port or 0)
    print(f"listening on {server.address[0]} port {server.address[1]}", flush=True)
    if options.port is None:
        begin = time.process_time(), time.monotonic()
        play(loop, server.address)
        cpu, real = time.process_time() - begin[0], time.monotonic() - begin[1]
        print(f"in {real:.2f} s, {cpu:.2f} s of them on a processor")
    else:
        loop.run()
    loop.close()


if __name__ == "__main__":
    main()
