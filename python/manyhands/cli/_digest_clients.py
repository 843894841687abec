"""The clients of `manyhands demo jobs`: real sockets, each on a thread of its own, and a tree whose digests are known.

The clients know what the server must send, and compare every digest. They know nothing of jobs: what becomes of the job of a
client that hangs up is the server's to show.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

PATIENCE = 10.0
"""Seconds that a client waits for the server's next bytes."""

LARGE_FILES, LARGE_BYTES = 8, 24 << 20
"""Holes, which take no room on the disk: all of them together are hashed in a fifth of a second."""

SMALL_FILES, SMALL_BYTES = 2000, 500
"""Their digests are 180 KB of lines: more than the buffers between two sockets hold."""

READ_BYTES = 512
SLOWNESS = 0.05
"""A slow client reads so many bytes every so many seconds: 10 KB a second."""

HASTE = 0.15
"""Seconds after which an impatient client hangs up."""


class Tree:
    """A directory whose digests are known: `large`, few big files, and `small`, many little ones."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.digests: dict[bytes, bytes] = {}
        for name in ("large", "small"):
            (root / name).mkdir()
        nothing = hashlib.sha256()
        for _ in range(LARGE_BYTES >> 20):
            nothing.update(bytes(1 << 20))
        for number in range(LARGE_FILES):
            with (root / "large" / f"{number}.bin").open("wb") as file:
                file.truncate(LARGE_BYTES)
            self.digests[b"large/%d.bin" % number] = nothing.hexdigest().encode()
        for number in range(SMALL_FILES):
            content = b"%d" % number * (SMALL_BYTES // 4)
            (root / "small" / f"{number:04}.txt").write_bytes(content)
            self.digests[b"small/%04d.txt" % number] = hashlib.sha256(content).hexdigest().encode()


class Clients:
    """All of them, from their start to their end."""

    def __init__(self, address: tuple[str, int], tree: Tree, fast: int, slow: int) -> None:
        """Prepare them.

        Args:
            address: where the server listens.
            tree: what it serves.
            fast: clients that ask for `large` again and again and read at once.
            slow: clients that ask for `small` and read slowly.
        """
        self.over = threading.Event()
        self.digests = 0
        self.wrong: list[str] = []
        self.hang_ups: dict[str, float] = {}  # who ("host:port") -> when
        self._address = address
        self._tree = tree
        self._counting = threading.Lock()
        kinds: list[Callable[[], None]] = [self._be_fast] * fast + [self._be_slow] * slow + [self._be_impatient]
        self._threads = [threading.Thread(target=self._run, args=(kind,), daemon=True) for kind in kinds]

    def start(self) -> None:
        """Start them."""
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Tell them that it is over and wait until they have gone; the server has closed their connections."""
        self.over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self, kind: Callable[[], None]) -> None:
        try:
            while not self.over.is_set():
                kind()
        except OSError as error:
            if not self.over.is_set():
                self._complain(f"a client's connection broke ({error})")

    def _be_fast(self) -> None:
        with self._ask(b"large") as sock, sock.makefile("rb") as lines:
            self._compare(lines, b"large/", LARGE_FILES)

    def _be_slow(self) -> None:
        with self._ask(b"small", receive_bytes=4096) as sock:
            self._compare(self._slowly(sock), b"small/", SMALL_FILES)

    def _be_impatient(self) -> None:
        with self._ask(b"large") as sock:
            self.over.wait(HASTE)
            host, port = sock.getsockname()
            self.hang_ups[f"{host}:{port}"] = time.monotonic()
        self.over.wait(HASTE)

    def _ask(self, path: bytes, receive_bytes: int | None = None) -> socket.socket:
        sock = socket.socket()
        try:
            if receive_bytes is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            sock.settimeout(PATIENCE)
            sock.connect(self._address)
            sock.sendall(path + b"\n")
        except BaseException:
            sock.close()
            raise
        return sock

    def _slowly(self, sock: socket.socket) -> Iterator[bytes]:
        """The lines that a client reads bit by bit."""
        rest = b""
        while data := sock.recv(READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
            self.over.wait(SLOWNESS)

    def _compare(self, lines: Iterable[bytes], below: bytes, expected: int) -> None:
        """Compare an answer, line for line, with what it must be."""
        seen = 0
        for line in lines:
            if line.startswith(b"#"):
                if b" files, " in line:
                    break
                continue
            digest, _, name = line.rstrip(b"\n").partition(b"  ")
            if self._tree.digests.get(name) != digest or not name.startswith(below):
                self._complain(f"the digest of {os.fsdecode(name)!r} was wrong: {os.fsdecode(digest)}")
            seen += 1
            with self._counting:
                self.digests += 1
        else:
            if not self.over.is_set():
                self._complain("a client's connection was closed in the middle of its answer")
            return
        if seen != expected:
            self._complain(f"a client got {seen} digests where there are {expected} files")

    def _complain(self, sentence: str) -> None:
        self.wrong.append(sentence)
        self.over.set()
