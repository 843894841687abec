"""Join a loop from your own threads: eight rallies of hashing, turned by the main thread, two helpers and a guest.

An `EventLoop` has no threads of its own. Whoever calls `loop.join()` turns it, together with everybody else who does,
until the loop is stopped or its time is up. Here the players of each rally sit at the two ends of a socket pair: who
gets the ball hashes a megabyte and plays it back.

What to look for:
* nobody says which thread serves which socket: each takes what is ready;
* two handlers of one watch never run at once, so a player needs no lock, although its next hit may be on another thread;
* the guest joins for a moment and leaves; the others carry on and nothing is lost;
* `join()` returns how many handlers that thread ran.

    python examples/join_from_your_own_threads.py [--helpers N] [--hits N]
"""

import argparse
import hashlib
import socket
import threading

import manyhands as mh

RALLIES = 8
BLOCK = bytes(1 << 20)


class Referee:
    """Counts the rallies that have ended and then stops the loop. Only messages of its strand touch the count."""

    def __init__(self, loop: mh.EventLoop) -> None:
        self._loop = loop
        self._strand = loop.strand(name="referee")
        self._playing = RALLIES

    def rally_ended(self) -> None:
        """Tell it, from any thread."""
        self._strand.post(self._count_down)

    def _count_down(self) -> None:
        self._playing -= 1
        if self._playing == 0:
            self._loop.request_stop()


class Player:
    """One end of a rally."""

    def __init__(self, sock: socket.socket, hits: int, referee: Referee) -> None:
        self.socket = sock
        self.hits = 0
        self.threads: set[str] = set()
        self._most = hits
        self._referee = referee

    def on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        """Take the ball, hash, play it back; after the last hit keep it."""
        try:
            ball = self.socket.recv(1)
        except BlockingIOError:
            return  # readiness may be spurious; a handler never blocks
        if not ball:  # the other end kept it
            watch.remove()
            return
        hashlib.sha256(BLOCK).digest()  # releases the GIL, as the blocking parts of real handlers do
        self.hits += 1
        self.threads.add(threading.current_thread().name)
        if self.hits < self._most:
            self.socket.send(ball)
        else:
            watch.remove()
            self._referee.rally_ended()


def main() -> None:
    """Play all rallies and say who did the work."""
    parser = argparse.ArgumentParser(description="Turn one loop from several threads of your own.")
    parser.add_argument("--helpers", type=int, default=2, help="threads beside the main one (default: %(default)s)")
    parser.add_argument("--hits", type=int, default=50, help="of each player (default: %(default)s)")
    options = parser.parse_args()

    loop = mh.EventLoop(name="rallies")
    referee = Referee(loop)
    players = []
    for _ in range(RALLIES):
        ends = socket.socketpair()
        for end in ends:
            end.setblocking(False)
            player = Player(end, options.hits, referee)
            players.append(player)
            loop.add(end, mh.Events.READ, player.on_ready, close=True)
        ends[0].send(b"o")

    handled: dict[str, int] = {}

    def lend(name: str, timeout: float | None = None) -> None:
        handled[name] = loop.join(timeout)

    threads = [threading.Thread(target=lend, args=(f"helper-{n}",), name=f"helper-{n}") for n in range(options.helpers)]
    threads.append(threading.Thread(target=lend, args=("guest", 0.05), name="guest"))
    for thread in threads:
        thread.start()
    threading.current_thread().name = "main"
    lend("main")  # returns when the referee stops the loop
    for thread in threads:
        thread.join()
    loop.close()

    for name, count in handled.items():
        print(f"{name:<10} ran {count:4} handlers")
    moved = sum(len(player.threads) > 1 for player in players)
    print(f"{sum(player.hits for player in players)} hits; {moved} of {len(players)} players hit from several threads")


if __name__ == "__main__":
    main()
