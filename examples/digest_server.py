"""A server that hashes directories: blocking work that streams to slow clients, and stops when its client hangs up.

A client sends a path on a line, relative to the root that the server was given, and gets what `sha256sum` would print for
every file below it, with lines of progress in between that begin with `#`. Try it with two terminals:

    python examples/digest_server.py /usr/share --port 7010
    nc 127.0.0.1 7010            # then a line such as `doc`; Ctrl-C hangs up

Without `--port` it plays a scene by itself: one client reads everything, another hangs up after its first line.

What to look for:
* reading and hashing block, so they are a job on a pool thread; connections are watches on the loop, and an idle one holds
  no thread. The job's owner is the watch of its client;
* the job is a generator, run step by step. `yield mh.SYNC(line, when_writable=True)` gives a piece to the client, and while the
  client has no room for it the job has no thread: a hundred slow clients hold up nobody. At `yield mh.CHECKING_IN` others
  may have the thread first, so a large file does not hold up small ones;
* a client that hangs up ends its watch, the pool asks the job to stop, and its next step is told. Nothing here keeps a list
  of who works for whom;
* everything is bounded: a line, what a client sends ahead, its socket's buffer, the jobs that wait. The client is not
  trusted; who may change the files below the root is.

    python examples/digest_server.py ROOT [--port PORT] [--host HOST] [--threads N] [--jobs N]
"""

import argparse
import contextlib
import hashlib
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import manyhands as mh

MAX_LINE = 4096
"""Bytes that a client may send ahead: a path, or several short ones."""

SEND_BYTES = 16 * 1024
"""The kernel's buffer for what a client has not read yet."""

PIECE = 256 * 1024
"""Bytes that are hashed between two check-ins: less than a millisecond."""

TELL = 0.5
"""Seconds between two lines of progress."""

Steps = Generator[Any, Any, Any]
"""What a stepwise job is: it yields steps, and is sent mh.RUNNING or mh.STOPPING."""


def digest_tree(root: bytes, path: bytes) -> Steps:
    """Hash every regular file below `path`. The job: runs on a pool thread, and holds none while the client is slow."""
    job = mh.current_job()
    assert job is not None
    total = sum(size for _, size in files_below(path))
    hashed = count = 0
    told = time.monotonic()
    for file, _ in files_below(path):
        name = os.path.relpath(file, root)
        try:
            digest = hashlib.sha256()
            for piece in pieces_of(file):
                digest.update(piece)
                hashed += len(piece)
                job.progress(hashed, max(total, hashed), os.fsdecode(name))
                if (yield mh.CHECKING_IN) is mh.STOPPING:  # here the thread may do something for others first
                    return mh.STOPPED
                if time.monotonic() - told > TELL:
                    told = time.monotonic()
                    yield from give(job, b"# %d of %d bytes\n" % (hashed, total))
        except OSError as error:
            yield from give(job, b"# cannot read %s: %s\n" % (quoted(name)[1], str(error.strerror).encode()))
            continue
        count += 1
        mark, name = quoted(name)
        yield from give(job, mark + digest.hexdigest().encode() + b"  " + name + b"\n")
    return b"# %d files, %d bytes\n" % (count, hashed)


def give(job: "mh.Job[Any]", data: bytes) -> Steps:
    """Give `data` to the client at the client's pace. Between two steps the job has no thread."""
    while data:
        if (yield mh.SYNC(data, when_writable=True)) is mh.STOPPING:
            assert job.reason is not None
            raise mh.JobStopped(job.reason)
        data = data[job.answered :]


def files_below(path: bytes) -> Iterator[tuple[bytes, int]]:
    """Walk: (file, bytes) of every regular file, in order of their names; links are not followed."""
    mh.check_in()
    if not os.path.isdir(path):
        yield path, os.stat(path).st_size
        return
    try:
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return  # gone, or not ours to read
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(entry.path)
        elif entry.is_file(follow_symlinks=False):
            yield entry.path, entry.stat(follow_symlinks=False).st_size


def pieces_of(file: bytes) -> Iterator[bytes]:
    """Read a regular file; whatever else has taken its name meanwhile is read as empty."""
    with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0) as opened:
        if stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            while piece := opened.read(PIECE):
                yield piece


def quoted(name: bytes) -> tuple[bytes, bytes]:
    """Write a name on one line as sha256sum does: (mark at the line's beginning, name)."""
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"" if escaped == name else b"\\"), escaped


class Client:
    """One connection: at most one job at a time. Everything here runs on the strand of its watch."""

    def __init__(self, server: "DigestServer", sock: socket.socket, peer: str) -> None:
        self.peer = peer
        self._server = server
        self._socket = sock
        self._inbox = b""
        self._busy = False

    def on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        """Read, also while a job runs: the end of the stream is how a client hangs up."""
        try:
            data = self._socket.recv(MAX_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._inbox += data
        if not data or len(self._inbox) > MAX_LINE:
            watch.remove()  # its job, the watch's own, is asked to stop
            return
        self._begin_next(watch)

    def _begin_next(self, watch: mh.Watch) -> None:
        while not self._busy and b"\n" in self._inbox and not watch.removed:
            line, _, self._inbox = self._inbox.partition(b"\n")
            try:
                self._server.begin(self, watch, line.rstrip(b"\r"))
                self._busy = True
            except FileNotFoundError:
                self._say(watch, b"# no such file or directory below the root\n")
            except mh.QueueFull:
                self._say(watch, b"# busy: try again later\n")

    def on_sync(self, job: "mh.Job[Any]", data: bytes) -> None:
        """Send what fits, and tell the job how much that was. The job waits meanwhile."""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            assert isinstance(job.owner, mh.Watch)
            job.owner.remove()
            return
        job.answer(sent)

    def on_done(self, job: "mh.Job[Any]") -> None:
        """Say the last line of the answer and take the next question; let a client go that read nothing for too long."""
        watch = job.owner
        assert isinstance(watch, mh.Watch)
        self._busy = False
        if job.status is mh.JobStatus.STOPPED:
            watch.remove()
            return
        error = job.exception()
        self._say(watch, job.result() if error is None else f"# failed: {error}\n".encode())
        self._begin_next(watch)

    def _say(self, watch: mh.Watch, line: bytes) -> None:
        """Send a short line between two jobs; a client that has no room even for that is let go."""
        try:
            sent = self._socket.send(line)
        except OSError:
            sent = 0
        if sent < len(line):
            watch.remove()


class DigestServer:
    """The listener; what clients ask for becomes jobs of `pool`."""

    def __init__(
        self, loop: mh.EventLoop, pool: mh.ThreadPool, root: str, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._root = os.path.realpath(os.fsencode(root))
        self._listener = socket.create_server((host, port))
        self._listener.setblocking(False)
        self.address = self._listener.getsockname()
        loop.add(self._listener, mh.Events.READ, self._on_ready, name="listener", close=True)

    def begin(self, client: Client, watch: mh.Watch, line: bytes) -> None:
        """Start the job for what a client asked.

        Raises:
            FileNotFoundError: there is nothing of that name below the root.
            QueueFull: too many wait already.
        """
        path = self._find(line)
        self._pool.enqueue_steps(
            digest_tree,
            self._root,
            path,
            owner=watch,
            name=f"digest {os.fsdecode(os.path.relpath(path, self._root))}",
            user=client,
            on_sync=client.on_sync,
            on_done=client.on_done,
            keep=False,
        )

    def _find(self, line: bytes) -> bytes:
        """Where the name leads, links and dots resolved; it must be the root or below."""
        try:
            path = os.path.realpath(os.path.join(self._root, line.lstrip(b"/")), strict=True)
        except (OSError, ValueError):
            raise FileNotFoundError(line) from None
        if os.path.commonpath([self._root, path]) != self._root:
            raise FileNotFoundError(line)
        return path

    def _on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        try:
            sock, (host, port, *_) = self._listener.accept()
        except OSError:
            return  # gone again, or spurious; accept_with_backoff.py shows what a lack of descriptors needs
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        client = Client(self, sock, f"{host}:{port}")
        self._loop.add(sock, mh.Events.READ, client.on_ready, name=f"client {client.peer}", close=True)


def say(line: str) -> None:
    """Print a line in one piece, whatever other threads print."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def play(address: tuple[str, int], ended: Callable[[], bool]) -> None:
    """One client reads everything; another hangs up after its first line, and its job ends."""
    with socket.create_connection(address, timeout=60) as patient, patient.makefile("rb") as lines:
        patient.sendall(b".\n")
        digests = 0
        for line in lines:
            if line.startswith(b"# ") and b" files, " in line:
                say(f"the first client got {digests} digests: {line.decode()[2:-1]}")
                break
            digests += not line.startswith(b"#")
    with socket.create_connection(address, timeout=60) as hasty:
        hasty.sendall(b".\n")
        hasty.recv(1)
        hung_up = time.monotonic()
    if ended():
        print(f"{(time.monotonic() - hung_up) * 1000:.0f} ms after the second one hung up its job had ended")


def main() -> None:
    """Serve until Ctrl-C; without a port, play the scene and end."""
    parser = argparse.ArgumentParser(description="Hash directories for clients that may be slow, or hang up.")
    parser.add_argument("root", help="the directory that clients may ask about")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, help="port to listen on; without it the server plays a scene by itself")
    parser.add_argument("--threads", type=int, default=2, help="that turn the loop (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=4, help="that run at once (default: %(default)s)")
    options = parser.parse_args()

    ends: list[str] = []
    changed = threading.Condition()

    def on_end(job: "mh.Job[Any]") -> None:
        how = job.status.name if job.reason is None else f"{job.status.name}, {job.reason.name}"
        say(f"job {job.id} {job.name!r} of {job.user.peer}: {how}")
        with changed:
            ends.append(how)
            changed.notify_all()

    def both_ended() -> bool:
        with changed:
            return changed.wait_for(lambda: len(ends) == 2, timeout=60)

    loop = mh.ThreadedEventLoop(threads=options.threads, name="digest")
    pool = mh.ThreadPool(options.jobs, name="digest", max_queue_depth=100, on_end=on_end)
    with contextlib.closing(loop):
        server = DigestServer(loop, pool, options.root, options.host, options.port or 0)
        print(f"digests of {options.root} on {server.address[0]} port {server.address[1]}", flush=True)
        if options.port is None:
            loop.start()
            play(server.address, both_ended)
        else:
            loop.run()
    # The loop is closed: its clients are gone, and their jobs have been asked to stop.
    left = pool.destroy(timeout=5)
    print(f"ended; {len(left)} jobs left")


if __name__ == "__main__":
    main()
