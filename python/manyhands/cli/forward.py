"""`manyhands forward`: what comes to a port goes on to another one, with TLS on either side if it is asked for."""

from __future__ import annotations

import argparse
import errno
import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import manyhands as mh
from manyhands.cli._failure import OUT_OF_DESCRIPTORS, Failure, descriptor_limit, make_room, require_descriptors
from manyhands.cli._forwarder import Figures, Forwarder, Stream
from manyhands.cli._options import seconds, whole_number
from manyhands.cli._running import run_until_signal
from manyhands.cli.echo import DESCRIPTORS, StatusLine, thread_count

LIMIT = 10_000
"""Connections at once if nothing else is asked for, and the process may have as many files open."""

SAID = 20
"""Sentences a second about connections that failed; how many were left out is said with the next."""


class Address(NamedTuple):
    """Where to listen or to connect to: a TCP port, or a Unix socket if there is a path. No host: all of this machine."""

    host: str | None
    port: int
    path: str | None = None

    def __str__(self) -> str:
        """As it was written."""
        if self.path is not None:
            return f"unix:{self.path}"
        host = "*" if self.host is None else self.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "listen",
        type=listening,
        metavar="[HOST:]PORT",
        help="where to listen: a port of 127.0.0.1, HOST:PORT, *:PORT for every address, or unix:PATH; port 0 is a free one",
    )
    parser.add_argument("target", type=address, metavar="HOST:PORT", help="where it goes to; or unix:PATH")
    parser.add_argument("--tls-cert", metavar="FILE", help="speak TLS with clients, with this certificate (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="its key (default: in the same file)")
    parser.add_argument("--tls-to", action="store_true", help="speak TLS with the target, and check its certificate")
    parser.add_argument("--ca", metavar="FILE", help="authorities to check it with (default: the system's)")
    parser.add_argument("--insecure", action="store_true", help="do not check it: anybody could be the target")
    parser.add_argument(
        "--threads", type=thread_count, default=1, metavar="N", help="threads that forward (default: %(default)s)"
    )
    parser.add_argument(
        "--limit",
        type=count,
        metavar="N",
        help=f"connections at once; beyond it new ones wait (default: {LIMIT:,}, or what `ulimit -n` has room for)",
    )
    parser.add_argument(
        "--idle-timeout",
        type=seconds,
        metavar="S",
        help="end a connection when nothing came for so long (default: never)",
    )
    parser.set_defaults(refuse=parser.error)


def address(text: str) -> Address:
    """Read HOST:PORT or unix:PATH, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    if text.startswith("unix:") and len(text) > len("unix:"):
        return Address(None, 0, text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not host or not _is_port(port) or int(port) == 0:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT or unix:PATH, got {text!r}")
    return Address(host, int(port))


def listening(text: str) -> Address:
    """Read [HOST:]PORT or unix:PATH, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    if _is_port(text):
        return Address("127.0.0.1", int(text))
    host, _, port = text.rpartition(":")
    if host in {"", "*"} and _is_port(port):
        return Address(None, int(port))
    if _is_port(port) and int(port) == 0:
        return address(f"{host}:1")._replace(port=0)
    try:
        return address(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected PORT, HOST:PORT, *:PORT or unix:PATH, got {text!r}") from None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= 65_535


def count(text: str) -> int:
    """Read a number of connections, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    return whole_number(text, "a number of connections, at least 1", at_least=1, at_most=10_000_000)


def run(options: argparse.Namespace) -> int:
    """Forward until a signal, then print the summary.

    Raises:
        Failure: it cannot listen, a certificate cannot be read, or there are too few descriptors.
        SystemExit: options that do not go together.
    """
    _check(options, options.refuse)
    require_descriptors(DESCRIPTORS + 2, "the forwarder")
    limit = _make_room(options.limit)
    server_tls = _server_context(options.tls_cert, options.tls_key)
    client_tls = _client_context(options.ca, insecure=options.insecure) if options.tls_to else None
    line = StatusLine("forward")

    async def reach() -> Stream:
        return await _connect(options.target, client_tls)

    async def main() -> None:
        listener = await _listen(options.listen)
        at = options.listen._replace(port=listener.port) if options.listen.path is None else options.listen
        print(
            f"manyhands forward: {at}{' (TLS)' if server_tls else ''} to {options.target}{' (TLS)' if client_tls else ''} "
            f"(threads: {options.threads}, at once: {limit:,}); Ctrl-C ends it",
            flush=True,
        )
        async with mh.create_task_group() as group:
            if line.usable:
                group.start_soon(_show, forwarder, line)
            await forwarder.serve(listener)

    started = time.monotonic()
    log = Log(line.say)
    try:
        forwarder = Forwarder(
            reach, str(options.target), log.say, limit=limit, tls=server_tls, idle_timeout=options.idle_timeout
        )
        ended_by = run_until_signal(main, threads=options.threads)
    finally:
        line.clear()
    print(summary(forwarder.figures(), time.monotonic() - started, ended_by), flush=True)
    return 0


def _check(options: argparse.Namespace, refuse: Callable[[str], NoReturn]) -> None:
    if options.tls_key and not options.tls_cert:
        refuse("--tls-key is the key of a certificate: give --tls-cert too")
    if (options.ca or options.insecure) and not options.tls_to:
        refuse("--ca and --insecure are about the target's certificate: give --tls-to too")
    if options.ca and options.insecure:
        refuse("--ca checks the target's certificate and --insecure does not: give one of them")
    if options.tls_to and options.target.path is not None and not options.insecure:
        refuse("a Unix socket has no name to check a certificate for: give --insecure too, or a HOST:PORT")
    listen, target = options.listen, options.target
    if listen == target or (
        listen.port == target.port != 0 and {listen.host, target.host} <= {"127.0.0.1", "localhost", None}
    ):
        refuse(f"{target} is where it listens: every connection would come back to it")


def _make_room(asked: int | None) -> int:
    """How many connections there is room for, at two descriptors each; the soft limit is raised if it may be."""
    needed = 2 * (asked or LIMIT) + DESCRIPTORS
    make_room(needed)
    if asked is not None:
        require_descriptors(needed, f"a forwarder of {asked:,} connections")
        return asked
    return min(LIMIT, (descriptor_limit() - DESCRIPTORS) // 2)


def _server_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise Failure(
            f"cannot use {certificate}{f' with {key}' if key else ''} ({error.reason or error}): they have to be a "
            "certificate and its key, in PEM; --tls-key says where the key is if it is not in the same file."
        ) from error
    except OSError as error:
        raise Failure(
            f"cannot read {certificate}{f' or {key}' if key else ''} ({error.strerror}): give --tls-cert and --tls-key "
            "files that this user may read."
        ) from error
    return context


def _client_context(authorities: str | None, *, insecure: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authorities)
    except ssl.SSLError as error:
        raise Failure(
            f"{authorities} has no certificates ({error.reason or error}): give --ca a file in PEM."
        ) from error
    except OSError as error:
        raise Failure(
            f"cannot read {authorities} ({error.strerror}): give --ca a file that this user may read."
        ) from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _connect(target: Address, tls: ssl.SSLContext | None) -> Stream:
    if target.path is not None:
        stream = await mh.connect_unix(target.path)
        return stream if tls is None else await mh.TLSStream.wrap(stream, server_side=False, ssl_context=tls)
    assert target.host is not None
    if tls is None:
        return await mh.connect_tcp(target.host, target.port)
    return await mh.connect_tcp(target.host, target.port, tls=tls)


async def _listen(at: Address) -> mh.Listener:
    try:
        if at.path is not None:
            return await mh.create_unix_listener(at.path)
        return await mh.create_tcp_listener(host=at.host and _one_of_ours(at.host), port=at.port)
    except OSError as error:
        raise _cannot_listen(at, error) from error


def _one_of_ours(host: str) -> str:
    """The address of a name."""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4][0])
    except (OSError, UnicodeError) as error:
        raise Failure(
            f"cannot find the host {host!r} ({getattr(error, 'strerror', None) or error}): listen on a name or an address "
            "of this machine, such as 127.0.0.1:8080, or on *:8080 for all of them."
        ) from error


def _cannot_listen(at: Address, error: OSError) -> Failure:
    if error.errno == errno.EADDRINUSE:
        return Failure(f"{at} is in use: end the program that has it, or listen on another port.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Failure(
            f"no permission to listen on {at}: choose a port from 1024 on, or run it with the right to use lower ones."
        )
    if error.errno in OUT_OF_DESCRIPTORS:
        return Failure(f"there is no descriptor left ({error.strerror}): raise the limit with `ulimit -n 1024`.")
    return Failure(f"cannot listen on {at}: {error.strerror or error}; try another address of this machine.")


async def _show(forwarder: Forwarder, line: StatusLine) -> None:
    """Show the figures of the last second, every second."""
    before, at = forwarder.figures(), mh.now()
    while True:
        await mh.sleep(1.0)
        figures, now = forwarder.figures(), mh.now()
        passed = max(now - at, 1e-3)
        to_target = (figures.to_target - before.to_target) / passed / 2**20
        to_clients = (figures.to_clients - before.to_clients) / passed / 2**20
        line.show(
            f"{figures.open:,} open of {figures.connections:,} connections · to the target {to_target:,.1f} MiB/s, "
            f"{figures.to_target:,} bytes · back {to_clients:,.1f} MiB/s, {figures.to_clients:,} bytes"
        )
        before, at = figures, now


def summary(figures: Figures, passed: float, ended_by: str) -> str:
    """Write the text that the forwarder prints at its end."""
    return "\n".join(
        (
            f"ended by {ended_by} after {passed:.1f} s",
            f"  connections          {figures.connections:,}, {figures.failed:,} failed",
            f"  bytes to the target  {figures.to_target:,}",
            f"  bytes to clients     {figures.to_clients:,}",
        )
    )


class Log:
    """Sentences about connections, `SAID` a second at most. Any thread; two at a time may say one too many."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._second = -1
        self._said = 0
        self._left_out = 0

    def say(self, sentence: str) -> None:
        """Say it, or count it."""
        second = int(mh.now())
        if second != self._second:
            self._second, self._said = second, 0
        if self._said >= SAID:
            self._left_out += 1
            return
        self._said += 1
        left_out, self._left_out = self._left_out, 0
        self._say(f"{sentence}{f' (and {left_out:,} like it)' if left_out else ''}")
