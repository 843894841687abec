"""`manyhands echo`: an echo server on one loop that several threads turn.

Its connections are served by watches, by operations or by tasks. With the first two the main thread is one of the loop's; the
others are plain `threading.Thread`s that call `loop.join()`. What each `join()` returns is how much of the work that thread
did, and is what the summary shows. With tasks `manyhands.run` looks after loop and threads. The first Ctrl-C or SIGTERM
ends it in order, the second ends the process.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import socket
import sys
import threading
import time
from select import POLLOUT, poll

import manyhands as mh
from manyhands._guards import Ending
from manyhands.cli._echo_books import Books, Figures
from manyhands.cli._echo_operations import EchoOperations
from manyhands.cli._echo_server import EchoServer
from manyhands.cli._echo_tasks import EchoTasks
from manyhands.cli._failure import OUT_OF_DESCRIPTORS, Failure, require_descriptors
from manyhands.cli._options import whole_number
from manyhands.cli._running import run_until_signal

BACKLOG = 4096
"""Connections that may wait to be accepted; Go's and libuv's default too. The kernel caps it at net.core.somaxconn."""

DESCRIPTORS = 24
"""What the server needs before its first client: standard streams, the loop's own, the listener, and modules that are
still to be imported."""

MAX_THREADS = 1024
"""A number beyond this one is a slip of the finger."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--host", default="127.0.0.1", help="name or address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7007, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--threads", type=thread_count, default=2, metavar="N", help="threads that turn the loop (default: %(default)s)"
    )
    parser.add_argument("--poller", choices=("epoll", "poll", "select"), default="epoll", help="(default: %(default)s)")
    parser.add_argument(
        "--style",
        choices=("watch", "operation", "task"),
        default="watch",
        help="what serves a connection (default: %(default)s)",
    )


def thread_count(text: str) -> int:
    """Read a number of threads, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is no number from 1 to MAX_THREADS.
    """
    expected = f"a number of threads from 1 to {MAX_THREADS}"
    return whole_number(text, expected, at_least=1, at_most=MAX_THREADS)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal, then print the summary.

    Raises:
        Failure: it cannot listen, or there are too few descriptors or threads; nothing is left open.
    """
    require_descriptors(DESCRIPTORS, "the echo server")
    listener = open_listener(options.host, options.port)
    if options.style == "task":
        return _run_tasks(options, listener)
    try:
        host, port = listener.getsockname()[:2]
        loop = mh.EventLoop(name="echo", poller=options.poller)
    except OSError as error:
        listener.close()
        raise _cannot_start(error) from error
    status_line = StatusLine("echo")
    with Ending(loop) as ending:
        try:
            serve = EchoOperations if options.style == "operation" else EchoServer
            server = serve(loop, listener, status_line.say)
            _say_where(options, host, port)
            started = time.monotonic()
            if status_line.usable:
                loop.call_every(1.0, LiveFigures(server.books, status_line).show)
            shares = lend_threads(loop, options.threads)
            seconds = time.monotonic() - started
            figures = server.books.figures()
        finally:
            status_line.clear()
            loop.close()
            listener.close()
        print(summary(figures, shares, seconds, ending.signal_name), flush=True)
    return 0


def _say_where(options: argparse.Namespace, host: str, port: int) -> None:
    print(
        f"manyhands echo: listening on {host} port {port} ({options.poller}, threads: {options.threads}); Ctrl-C ends it",
        flush=True,
    )


def _run_tasks(options: argparse.Namespace, listener: socket.socket) -> int:
    """The same with tasks."""
    server = EchoTasks()
    status_line = StatusLine("echo")
    host, port = listener.getsockname()[:2]

    async def main() -> None:
        _say_where(options, host, port)
        async with mh.create_task_group() as group:
            if status_line.usable:
                group.start_soon(_show_every_second, LiveFigures(server.books, status_line))
            await server.serve(listener)

    started = time.monotonic()
    try:
        ended_by = run_until_signal(main, threads=options.threads, poller=options.poller)
    except OSError as error:
        raise _cannot_start(error) from error
    finally:
        status_line.clear()
        listener.close()
    print(summary(server.books.figures(), {}, time.monotonic() - started, ended_by), flush=True)
    return 0


async def _show_every_second(figures: LiveFigures) -> None:
    while True:
        await mh.sleep(1.0)
        figures.show()


def open_listener(host: str, port: int) -> socket.socket:
    """Open a non-blocking listening socket.

    Args:
        host: a name or an address of this machine; of a name's addresses the first that can be used is taken.
        port: 0 <= port <= 65535; 0 lets the kernel choose.

    Raises:
        Failure: the name is unknown, the address not ours, the port out of range, taken or not allowed.
    """
    if not 0 <= port <= 65_535:
        raise Failure(f"there is no port {port}: choose one from 1 to 65535, or 0 for any that is free.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise Failure(
            f"cannot find the host {host!r} ({getattr(error, 'strerror', None) or error}): give --host a name or an "
            "address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them."
        ) from error
    reason = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, kind, protocol, _, address in found:
        try:
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            reason = error
            continue
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
            return listener
        except OSError as error:
            listener.close()
            reason = error
    raise cannot_listen(host, port, reason) from reason


def lend_threads(loop: mh.EventLoop, threads: int) -> dict[str, int]:
    """Turn the loop with the calling thread and `threads - 1` others until it is stopped.

    Returns:
        Thread's name -> how many handlers it ran.

    Raises:
        Failure: the system gives no more threads; those that had been started have ended.
    """
    shares = dict.fromkeys(["main", *(f"echo-{number}" for number in range(1, threads))], 0)

    def lend(name: str) -> None:
        shares[name] = loop.join()

    workers: list[threading.Thread] = []
    try:
        for name in list(shares)[1:]:
            worker = threading.Thread(target=lend, args=(name,), name=name)
            try:
                worker.start()
            except (RuntimeError, MemoryError) as error:
                raise Failure(
                    f"the system starts no more than {len(workers)} threads beside the main one ({error}): "
                    "ask for fewer with --threads, or raise `ulimit -u`."
                ) from error
            workers.append(worker)
        lend("main")
    finally:
        loop.request_stop()
        for worker in workers:
            worker.join()
    return shares


def summary(figures: Figures, shares: dict[str, int], seconds: float, ended_by: str | None) -> str:
    """Write the text that the server prints at its end."""
    rate = figures.messages / seconds if seconds > 0 else 0.0
    still_open = f", {figures.open:,} still open" if figures.open else ""
    lines = [
        f"ended by {ended_by or 'the loop'} after {seconds:.1f} s",
        f"  connections          {figures.connections:,}{still_open}",
        f"  messages             {figures.messages:,} ({rate:,.0f} a second)",
        f"  bytes                {figures.bytes:,}",
    ]
    if shares:
        handlers = ", ".join(f"{name} {count:,}" for name, count in shares.items())
        lines.append(f"  handlers per thread  {handlers}")
    return "\n".join(lines)


class StatusLine:
    """One line at the bottom of the terminal (standard error), rewritten in place. Any thread.

    A terminal that takes nothing (Ctrl-S) misses lines and delays nobody: the line is written only when there is room.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._stream = sys.stderr  # None if the process was started without one
        self.usable = self._stream is not None and self._stream.isatty()
        self._terminal = threading.Lock()
        self._shown = False  # GUARDED BY: _terminal

    def show(self, text: str) -> None:
        """Put `text` in place of the line that was shown last, cut to the terminal's width."""
        with self._terminal:
            room = poll()
            room.register(self._stream.fileno(), POLLOUT)
            if not room.poll(0):
                return
            columns = shutil.get_terminal_size().columns
            self._write(f"\r\x1b[K{text[: columns - 1]}")
            self._shown = True

    def say(self, sentence: str) -> None:
        """Print a sentence that stays, above the line if there is one."""
        with self._terminal:
            self._erase()
            self._write(f"manyhands {self._command}: {sentence}\n")

    def clear(self) -> None:
        """Take the line away."""
        with self._terminal:
            self._erase()

    def _erase(self) -> None:
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _write(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()


class LiveFigures:
    """The figures of the last second, for the status line. Called by a timer, so never twice at a time."""

    def __init__(self, books: Books, line: StatusLine) -> None:
        self._books = books
        self._line = line
        self._at = time.monotonic()
        self._before = books.figures()

    def show(self) -> None:
        """Show what was done since the last call."""
        now, figures = time.monotonic(), self._books.figures()
        seconds = max(now - self._at, 1e-3)
        messages = (figures.messages - self._before.messages) / seconds
        mebibytes = (figures.bytes - self._before.bytes) / seconds / 2**20
        self._line.show(
            f"{figures.open:,} open of {figures.connections:,} connections · {messages:,.0f} messages/s · "
            f"{mebibytes:,.1f} MiB/s · {figures.messages:,} messages in all"
        )
        self._at, self._before = now, figures


def _cannot_start(error: OSError) -> Failure:
    if error.errno in OUT_OF_DESCRIPTORS:
        return Failure(
            f"there is no descriptor left for the loop ({error.strerror}): raise the limit with `ulimit -n 1024`, or "
            "close programs that hold many files open."
        )
    return Failure(f"the loop cannot be made ({error}): `manyhands doctor` shows what this system offers.")


def cannot_listen(host: str, port: int, error: OSError) -> Failure:
    """Say why a server cannot listen there, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return Failure(f"port {port} of {host} is in use: end the program that has it, or choose another with --port.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Failure(
            f"no permission to listen on port {port} of {host}: choose a port from 1024 on, or run it with the right "
            "to use lower ones."
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return Failure(
            f"{host} is no address of this machine ({error.strerror}): give --host one that it has, such as 127.0.0.1, "
            "or 0.0.0.0 for all of them."
        )
    if error.errno in OUT_OF_DESCRIPTORS:
        return _cannot_start(error)
    return Failure(f"cannot listen on port {port} of {host}: {error.strerror or error}; try another --host or --port.")
