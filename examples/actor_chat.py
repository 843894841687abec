"""A chat server of actors: one per client, one per room, and a lobby that opens and closes the rooms.

Try it with three terminals:

    python examples/actor_chat.py --port 7008
    nc 127.0.0.1 7008            # and once more; the first line that you type is your name

A line that begins with a slash is a command: `/join ROOM`, `/who`, `/quit`. With no argument it plays a scene by itself.

What to look for:
* no lock and no state that two actors share: who is in a room only the room knows, which rooms there are only the lobby;
* a client's socket is watched on the client's strand: its handler never runs beside `process`, and the end of the actor is
  the end of the watch, which closes the socket;
* `/who` is an `ask()` whose answer comes as a message: nobody waits for anybody;
* a room that a client's mailbox is too slow for stops the client (`QueueFull`); what its socket does not take is bounded too;
* an error in a room is the room's: `on_failure` tells those who are in it, and the lobby goes on.

    python examples/actor_chat.py [--port PORT] [--host HOST] [--threads N]

`chat.py` is the same without actors, on bare strands.
"""

import argparse
import socket
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

import manyhands as mh

MAX_LINE = 1024
MAX_OUTBOX = 64 * 1024


def report(line: str) -> None:
    """Print a line, from any thread: in one write, so that the lines of two do not mix."""
    print(line + "\n", end="", flush=True)


@dataclass(frozen=True)
class Enter:
    """To the lobby: let a client into a room, and out of the one that it is in. To a room: let it in."""

    client: "Client"
    name: str
    room: str


@dataclass(frozen=True)
class Leave:
    """To the lobby, and from there to the client's room: it has gone."""

    client: "Client"


@dataclass(frozen=True)
class Say:
    """To a room: pass on what a client said."""

    client: "Client"
    text: str


@dataclass(frozen=True)
class Who:
    """To a room, by ask(): the names of those who are in it."""


@dataclass(frozen=True)
class Moved:
    """To a client: it is in this room now."""

    room: "Room"


@dataclass(frozen=True)
class Show:
    """To a client: a line to be seen."""

    line: str


class Room(mh.Actor):
    """Knows who is in it."""

    def __init__(self, loop: mh.EventLoop, name: str) -> None:
        super().__init__(loop, name=f"room {name}", max_pending=None)  # its senders are clients, which are bounded
        self._members: dict[Client, str] = {}

    def on_start(self) -> None:
        report(f"{self.name} is open")

    def on_stop(self) -> None:
        report(f"{self.name} is closed")

    def process(self, message: Enter | Leave | Say | Who) -> list[str] | None:
        match message:
            case Enter(client, name, room):
                while name in self._members.values():
                    name += "_"
                self._members[client] = name
                client.show(Moved(self))
                self._tell_all(f"* {name} is in {room}, with {len(self._members) - 1} others")
            case Leave(client):
                self._tell_all(f"* {self._members.pop(client)} left")
            case Say(client, text) if client in self._members:
                self._tell_all(f"{self._members[client]}: {text}")
            case Who():
                return sorted(self._members.values())
        return None

    def on_failure(self, error: BaseException, message: object) -> None:
        self._tell_all(f"* {type(error).__name__} in this room, which goes on")

    def _tell_all(self, line: str) -> None:
        for client in self._members:
            client.show(Show(line))


class Lobby(mh.Actor):
    """Knows which rooms there are, and who is in which: so a room is closed when the last one has left, and not before."""

    def __init__(self, loop: mh.EventLoop) -> None:
        super().__init__(loop, name="lobby", max_pending=None)
        self._rooms: dict[str, Room] = {}
        self._places: dict[Client, str] = {}

    def process(self, message: Enter | Leave) -> None:
        client = message.client
        if (place := self._places.pop(client, None)) is not None:
            self._rooms[place].send(Leave(client))
            if place not in self._places.values():
                self._rooms.pop(place).stop(drain=True)
        if isinstance(message, Enter) and not client.gone:
            if message.room not in self._rooms:
                self._rooms[message.room] = Room(self.loop, message.room)
            self._places[client] = message.room
            self._rooms[message.room].send(message)


class Client(mh.Actor):
    """One connection. The watch of its socket, its messages and its end are on one strand."""

    def __init__(self, loop: mh.EventLoop, lobby: Lobby, sock: socket.socket) -> None:
        super().__init__(loop)
        self.gone = False
        self._lobby = lobby
        self._socket = sock
        self._nick: str | None = None
        self._room: Room | None = None
        self._inbox = b""
        self._outbox = b""

    def show(self, message: Moved | Show) -> None:
        """Send it a message, from any thread; stop it if it is too slow for that."""
        with suppress(mh.StrandClosed):
            try:
                self.send(message)
            except mh.QueueFull:
                # On its own strand, not here: the end of the watch closes the socket, which `process` may be using now.
                self.strand.post_urgent(self._leave)

    def on_start(self) -> None:
        self._watch = self.loop.add(
            self._socket, mh.Events.READ, self._on_ready, strand=self.strand, close=True, on_removed=self._on_removed
        )

    def process(self, message: Moved | Show) -> None:
        match message:
            case Moved(room):
                self._room = room
            case Show(line):
                self._outbox += line.encode() + b"\n"
                self._flush()

    def on_stop(self) -> None:
        self.gone = True
        self._socket.close()  # by its watch already, unless it was never started
        with suppress(mh.ActorStopped):  # the loop is being closed
            self._lobby.send(Leave(self))

    def _on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        self._flush()
        try:
            data = self._socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            if not self.gone:
                self._on_line(line.decode(errors="replace").strip())
        if not data or len(self._inbox) > MAX_LINE:
            self._leave()

    def _on_removed(self, watch: mh.Watch, reason: mh.RemovalReason) -> None:
        self._leave()  # its handler failed, perhaps: without a socket there is no client

    def _leave(self) -> None:
        self.gone = True
        self.stop()

    def _on_line(self, text: str) -> None:
        command, _, argument = text.partition(" ")
        if self._nick is None:
            self._nick = text[:20] or "nobody"
            self._lobby.send(Enter(self, self._nick, "hall"))
        elif command == "/join" and argument:
            self._lobby.send(Enter(self, self._nick, argument))
        elif command == "/who" and self._room is not None:
            with suppress(mh.ActorStopped):  # it was closed, and the next one is on its way
                self._room.ask(Who()).add_done_callback(self._show_names)
        elif command == "/quit":
            self._leave()
        elif text and self._room is not None:
            with suppress(mh.ActorStopped):
                self._room.send(Say(self, text))

    def _show_names(self, reply: Future[list[str]]) -> None:
        """Where the room is: so what is to be done with the answer is sent."""
        names = "nobody" if reply.exception() else ", ".join(reply.result())
        self.show(Show(f"* {names}"))

    def _flush(self) -> None:
        """Send what fits and keep the rest, up to a limit; ask to be called when there is room for it."""
        try:
            self._outbox = self._outbox[self._socket.send(self._outbox) :] if self._outbox else b""
        except BlockingIOError:
            pass
        except OSError:
            self._leave()
        if len(self._outbox) > MAX_OUTBOX:
            self._leave()
        wanted = mh.Events.READ | mh.Events.WRITE if self._outbox else mh.Events.READ
        if self._watch.events != wanted and not self.gone:
            self._watch.modify(wanted)


class ChatServer:
    """The listener, and the lobby behind it."""

    def __init__(self, loop: mh.EventLoop, host: str, port: int) -> None:
        self._loop = loop
        self._lobby = Lobby(loop)
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
        Client(self._loop, self._lobby, sock).start()


def play(address: tuple[str, int]) -> None:
    """Ann and Bob meet in the hall; Bob goes to the kitchen, and Ann asks who is left."""
    with socket.create_connection(address, timeout=10) as ann, socket.create_connection(address, timeout=10) as bob:
        ann_hears, bob_hears = ann.makefile("r"), bob.makefile("r")
        for speaker, line, listener in (
            (ann, "ann", ann_hears),
            (bob, "bob", ann_hears),
            (bob, "hello ann", ann_hears),
            (bob, "/join kitchen", ann_hears),
            (ann, "/who", ann_hears),
        ):
            speaker.sendall(line.encode() + b"\n")
            report(f"  ann sees {listener.readline().strip()!r}")
        while "kitchen" not in (line := bob_hears.readline()):
            pass
        report(f"  bob sees {line.strip()!r}")


def main() -> None:
    """Serve until Ctrl-C; with no argument, play the scene and end."""
    parser = argparse.ArgumentParser(description="A chat server with rooms; each line goes to everybody in the room.")
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
