"""A chat server: one watch per client, a room that is a strand, and a bound on what a slow client may cost.

Try it with three terminals:

    python examples/chat.py --port 7008
    nc 127.0.0.1 7008            # and once more; the first line that you type is your name

With no argument it plays a scene by itself: Ann and Bob talk, Carl connects and never reads.

What to look for:
* a client's handler and what the room sends to it run on the client's strand, one at a time: no lock anywhere;
* the room is a strand too: joining, leaving and talking are messages, so all clients see them in the same order;
* nobody waits for a slow client. What its socket does not take is kept up to `MAX_OUTBOX` bytes, and what its strand has
  not yet come to up to `MAX_PENDING` messages; beyond either it is disconnected, and the others are told. The same goes
  for a client that talks faster than the room can pass on.

    python examples/chat.py [--port PORT] [--host HOST] [--threads N]
"""

import argparse
import socket
from contextlib import suppress

import manyhands as mh

MAX_LINE = 1024
MAX_OUTBOX = 64 * 1024
MAX_PENDING = 1000


class Room:
    """Who is here. Everything below runs as messages of the room's strand."""

    def __init__(self, loop: mh.EventLoop) -> None:
        self.strand = loop.strand(name="room", max_pending=MAX_PENDING)
        self._members: dict[Client, str] = {}

    def enter(self, client: "Client", name: str) -> None:
        """Let a client in and tell everybody."""
        if client.has_left:  # while its name was waiting here
            return
        while name in self._members.values():
            name += "_"
        self._members[client] = name
        self._announce(f"{name} is here, with {len(self._members) - 1} others")

    def say(self, client: "Client", text: str) -> None:
        """Pass on what a client said; the one who said it sees it too."""
        if client in self._members:
            self._tell_all(f"{self._members[client]}: {text}")

    def leave(self, client: "Client", how: str) -> None:
        """Tell everybody that a client has gone."""
        name = self._members.pop(client, None)
        if name is not None:
            self._announce(f"{name} {how}")

    def _announce(self, news: str) -> None:
        print(news + "\n", end="", flush=True)  # in one write: the main thread prints too
        self._tell_all(f"* {news}")

    def _tell_all(self, line: str) -> None:
        message = line.encode() + b"\n"
        for client in list(self._members):
            client.send(message)


class Client:
    """One connection. `send` may be called from any thread; the rest runs on the client's strand."""

    def __init__(self, loop: mh.EventLoop, room: Room, sock: socket.socket) -> None:
        self.has_left = False
        self._loop = loop
        self._room = room
        self._socket = sock
        self._strand = loop.strand(max_pending=MAX_PENDING)
        self._inbox = b""
        self._outbox = b""
        self._named = False
        self._how = "left"
        self._strand.post(self._begin)  # on the strand, so that `_watch` is there before its first event is handled

    def send(self, message: bytes) -> None:
        """Queue a message; a client whose queue is full is disconnected."""
        try:
            try:
                self._strand.post(self._deliver, message)
            except mh.QueueFull:
                self._strand.post_urgent(self._disconnect, "was too slow")
        except mh.StrandClosed:
            pass  # it has just left; the room will hear of it

    def _begin(self) -> None:
        self._watch = self._loop.add(
            self._socket,
            mh.Events.READ,
            self._on_ready,
            strand=self._strand,
            close=True,
            on_removed=self._on_removed,
        )

    def _on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        try:
            if self._outbox:
                self._flush(watch)
            if not watch.removed:
                self._receive(watch)
        except BlockingIOError:
            pass
        except OSError:
            watch.remove()

    def _receive(self, watch: mh.Watch) -> None:
        data = self._socket.recv(4096)
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        try:
            for line in lines:
                self._on_line(line.decode(errors="replace").strip())
        except mh.QueueFull:
            self._disconnect("talked too fast")
        if not data or len(self._inbox) > MAX_LINE:
            watch.remove()

    def _on_line(self, text: str) -> None:
        if not self._named:
            self._named = True
            self._room.strand.post(self._room.enter, self, text[:20] or "nobody")
        elif text:
            self._room.strand.post(self._room.say, self, text)

    def _deliver(self, message: bytes) -> None:
        if self._watch.removed:
            return
        self._outbox += message
        try:
            self._flush(self._watch)
        except OSError:
            self._watch.remove()

    def _flush(self, watch: mh.Watch) -> None:
        """Send what fits and keep the rest, up to a limit; ask to be called when there is room for it."""
        with suppress(BlockingIOError):
            self._outbox = self._outbox[self._socket.send(self._outbox) :]
        if len(self._outbox) > MAX_OUTBOX:
            self._disconnect("was too slow")
            return
        wanted = mh.Events.READ | mh.Events.WRITE if self._outbox else mh.Events.READ
        if watch.events != wanted:
            watch.modify(wanted)

    def _disconnect(self, why: str) -> None:
        self._how = why
        self._watch.remove()

    def _on_removed(self, watch: mh.Watch, reason: mh.RemovalReason) -> None:
        self.has_left = True
        if reason is not mh.RemovalReason.LOOP_CLOSED:
            self._room.strand.post_urgent(self._room.leave, self, self._how)  # urgent: never refused for want of room
            self._strand.close()


class ChatServer:
    """The listener, and the room behind it."""

    def __init__(self, loop: mh.EventLoop, host: str, port: int) -> None:
        self._loop = loop
        self._room = Room(loop)
        self._listener = socket.create_server((host, port))
        self._listener.setblocking(False)
        self.address = self._listener.getsockname()
        loop.add(self._listener, mh.Events.READ, self._on_ready, name="listener", close=True)

    def _on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # gone again, or spurious; accept_with_backoff.py shows what a lack of descriptors needs
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_OUTBOX)  # the kernel's part of the bound
        Client(self._loop, self._room, sock)


def play(address: tuple[str, int]) -> None:
    """Ann and Bob talk until Carl, who reads nothing, has been disconnected."""
    with (
        socket.create_connection(address, timeout=10) as ann,
        socket.create_connection(address, timeout=10) as bob,
        socket.create_connection(address, timeout=10) as carl,
    ):
        ann_hears, bob_hears = ann.makefile("r"), bob.makefile("r")
        for sock, name in ((ann, b"ann\n"), (bob, b"bob\n"), (carl, b"carl\n")):
            sock.sendall(name)
            ann_hears.readline()  # so that they come in this order
        carl.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        spoken = [b"hello bob\n", b"hello ann; what does carl say?\n"]
        ann.sendall(spoken[0])
        bob.sendall(spoken[1])
        while "carl was too slow" not in (line := ann_hears.readline()):
            if "are you there" not in line:
                print(f"  ann hears {line.strip()!r}\n", end="")
            spoken.append(b"carl, are you there? " * 20 + b"\n")
            ann.sendall(spoken[-1])
            bob_hears.readline()
        print(f"after {len(spoken)} lines that he did not read, carl's connection was closed; ann and bob go on")


def main() -> None:
    """Serve until Ctrl-C; with no argument, play the scene and end."""
    parser = argparse.ArgumentParser(description="A chat server; each line goes to everybody.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, help="port to listen on; without it the server plays a scene by itself")
    parser.add_argument("--threads", type=int, default=2, help="that turn the loop (default: %(default)s)")
    options = parser.parse_args()

    loop = mh.ThreadedEventLoop(threads=options.threads, name="chat")
    server = ChatServer(loop, options.host, options.port or 0)
    print(f"chat on {server.address[0]} port {server.address[1]}", flush=True)
    if options.port is None:
        with loop:
            play(server.address)
            loop.stop(drain=True)  # what has been said is passed on before the end
    else:
        loop.run()
    loop.close()


if __name__ == "__main__":
    main()
