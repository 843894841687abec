"""The way to a peer: its name, its addresses, one attempt after the other."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from typing import Any, Literal, overload

from manyhands import _core
from manyhands._default_pool import default_pool
from manyhands._streams._stream import SocketStream
from manyhands._streams._tls import HANDSHAKE_TIMEOUT, TLSStream
from manyhands._tasks._scope import current_loop, fail_after
from manyhands._tasks._sleep import cancel_shielded_checkpoint, sleep

__all__ = ["connect_tcp", "connect_unix", "resolve"]

RETRY = 0.01
"""Seconds between two attempts at a Unix listener whose backlog is full."""

AddressInfo = tuple[socket.AddressFamily, Any]


async def resolve(host: str, port: int) -> list[AddressInfo]:
    """The addresses of a host, in the order in which to try them. A literal is its own, at once.

    Raises:
        OSError: the name has none (`socket.gaierror`).

    Blocks: the resolver runs on the library's own lane of the pool; a cancellation does not wait for it.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return [(family, (host, port))]
    found = await _look_up(host, port)
    # In the resolver's order; a name may be there once for every protocol.
    return list(dict.fromkeys((socket.AddressFamily(family), address) for family, _, _, _, address in found))


async def _look_up(host: str, port: int) -> list[Any]:
    wait = _core.Wait()
    lane = default_pool()._own_lane()  # noqa: SLF001 - the library's own, which no user's job can fill
    job = lane.enqueue(_getaddrinfo, host, port, name=f"resolve {host}")
    job.add_done_callback(lambda _: wait.complete())
    try:
        await wait
    except BaseException:
        job.stop()
        raise
    return list(job.result())


def _getaddrinfo(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


@overload
async def connect_tcp(
    host: str,
    port: int,
    *,
    local_host: str | None = ...,
    timeout: float | None = ...,
    tls: Literal[False] = ...,
    server_hostname: None = ...,
) -> SocketStream: ...


@overload
async def connect_tcp(
    host: str,
    port: int,
    *,
    local_host: str | None = ...,
    timeout: float | None = ...,
    tls: Literal[True] | ssl.SSLContext,
    server_hostname: str | None = ...,
) -> TLSStream: ...


async def connect_tcp(
    host: str,
    port: int,
    *,
    local_host: str | None = None,
    timeout: float | None = None,
    tls: bool | ssl.SSLContext = False,
    server_hostname: str | None = None,
) -> SocketStream | TLSStream:
    """Connect to a TCP port. The host's addresses are tried one after the other.

    Args:
        host: A name or an address.
        port: 1 to 65535.
        local_host: The address of this machine to connect from.
        timeout: Seconds for all of it, the name and the TLS handshake included; None for as long as the kernel tries, and
            ten seconds for a handshake.
        tls: True for TLS with the system's authorities, or a context; the peer's name is checked.
        server_hostname: The name that its certificate must be for; None for `host`.

    Raises:
        TimeoutError: it took longer than `timeout`.
        OSError: the name has no address, or no address could be connected to: the error of the last attempt, with those
            before in an ExceptionGroup as its cause.
        BrokenResourceError: the TLS handshake failed: as `TLSStream.wrap`.
    """
    _check_port(port)
    if server_hostname is not None and tls is False:
        raise ValueError(f"server_hostname is for TLS: give tls=True or a context, and got {server_hostname!r}")
    with fail_after(timeout):
        stream = await _connect_any(host, port, local_host)
        if tls is False:
            return stream
        return await TLSStream.wrap(
            stream,
            server_side=False,
            hostname=server_hostname or host,
            ssl_context=None if tls is True else tls,
            handshake_timeout=HANDSHAKE_TIMEOUT if timeout is None else None,
        )
    raise AssertionError  # fail_after has raised


async def _connect_any(host: str, port: int, local_host: str | None) -> SocketStream:
    errors: list[OSError] = []
    for family, address in await resolve(host, port):
        try:
            return await _connect(family, address, local_host)
        except OSError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise OSError(f"no address of {host!r} could be connected to on port {port}") from ExceptionGroup(
        "the attempts", errors
    )


async def connect_unix(path: str | os.PathLike[str]) -> SocketStream:
    """Connect to a Unix socket.

    Raises:
        OSError: nobody listens there.
    """
    return await _connect(socket.AF_UNIX, os.fspath(path), None)


async def _connect(family: socket.AddressFamily, address: Any, local_host: str | None) -> SocketStream:
    tcp = family != socket.AF_UNIX
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if local_host is not None:
            made.bind((local_host, 0))
        if tcp:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = made.connect_ex(address)
        while code == errno.EAGAIN and not tcp:
            # A Unix listener's backlog is full: nothing tells when it is not.
            await sleep(RETRY)
            code = made.connect_ex(address)
        if code != errno.EINPROGRESS:
            _check(code, address)
        stream = SocketStream(current_loop(), made.fileno(), tcp=tcp, tried=code == 0)
    except BaseException:
        made.close()
        raise
    made.detach()
    if code == 0:
        await cancel_shielded_checkpoint()
        return stream
    try:
        await stream.wait_ready(write=True)
        _check(stream.take_error(), address)
    except BaseException:
        stream.close()
        raise
    return stream


def _check_port(port: Any) -> None:
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ValueError(f"port must be 1 to 65535, and got {port!r}")


def _check(code: int, address: Any) -> None:
    if code:
        raise OSError(code, os.strerror(code), str(address))
