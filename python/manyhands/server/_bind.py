"""Where a server listens: an address, a Unix socket, or a socket that somebody else has opened."""

from __future__ import annotations

import errno
import os
import re
import socket
from dataclasses import dataclass
from typing import Final

from manyhands import _unix_socket

__all__ = ["BACKLOG", "Bind", "Listening"]

BACKLOG: Final = 4096
"""Connections that may wait to be accepted; Go's and libuv's default too. The kernel caps it at net.core.somaxconn."""

_ADDRESS: Final = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Bind:
    """A place to listen at; exactly one of `port`, `path` and `fd` is given.

    Attributes:
        host: Name or address; empty for all IPv4 addresses of the machine, as `::` is for the others.
        port: 0 takes a free one.
        path: A Unix socket's.
        fd: The number of a descriptor that listens already, as from systemd or a supervisor.
    """

    host: str = ""
    port: int | None = None
    path: str | None = None
    fd: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.host, str):
            raise TypeError(f"host must be a str, empty for all addresses of the machine, and got {self.host!r}")
        if self.port is None:
            return
        if type(self.port) is not int:
            raise TypeError(f"port must be a whole number, and got {self.port!r}")
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port must be from 1 to 65535, or 0 for any that is free, and got {self.port}")

    @classmethod
    def of(cls, bind: object, host: str, port: int, unless: tuple[str, int]) -> Bind:
        """Take it as it is given: whole, as text, or as a host and a port.

        Args:
            bind: None for the host and the port.
            host: A host.
            port: A port.
            unless: The host and the port of who gives none.

        Raises:
            TypeError, ValueError: it is no place, or there are two.
        """
        if bind is None:
            return cls(host, port)
        if (host, port) != unless:
            raise ValueError(f"give bind={bind!r}, or host={host!r} and port={port!r}, and not both")
        if isinstance(bind, Bind):
            return bind
        if not isinstance(bind, str):
            raise TypeError(f"bind must be a str as HOST:PORT, unix:PATH or fd:NUMBER, and got {bind!r}")
        return cls.parse(bind)

    @classmethod
    def parse(cls, text: str) -> Bind:
        """Read `HOST:PORT`, `[IPV6]:PORT`, `:PORT`, `unix:PATH` or `fd:NUMBER`.

        Raises:
            ValueError: it is none of them; the text says what was expected.
        """
        kind, _, rest = text.partition(":")
        if kind == "unix":
            if not rest or "\0" in rest:
                raise ValueError(f"expected the path of a Unix socket, as in unix:/run/site.sock, and got {text!r}")
            return cls(path=rest)
        if kind == "fd":
            if re.fullmatch("[0-9]{1,9}", rest) is None:
                raise ValueError(f"expected the number of a descriptor, as in fd:3, and got {text!r}")
            return cls(fd=int(rest))
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise ValueError(f"expected HOST:PORT, [IPV6]:PORT, unix:PATH or fd:NUMBER, and got {text!r}")
        if int(found["port"]) > 65_535:
            raise ValueError(f"expected a port from 1 to 65535, or 0 for any that is free, and got {text!r}")
        return cls(host=found["six"] or found["host"] or "", port=int(found["port"]))


class Listening:
    """A listening socket, and what is left to do when it is closed. Not blocking.

    Args:
        bind: Where.

    Attributes:
        socket: The socket. Whoever takes it closes it by `close()` of this.
        address: Host and port; of a Unix socket its path and 0.
        url: For a person to read, or to click on.

    Raises:
        OSError: it cannot listen there, or the descriptor is none that listens.
    """

    __slots__ = ("_file", "address", "inherited", "socket", "url")

    def __init__(self, bind: Bind) -> None:
        self._file: _unix_socket.File | None = None
        self.inherited = bind.fd is not None
        if bind.fd is not None:
            self.socket = _adopt(bind.fd)
        elif bind.path is not None:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._file = _unix_socket.bind(self.socket, bind.path)
                self.socket.listen(BACKLOG)
            except BaseException:
                self.close()
                raise
        else:
            assert bind.port is not None
            self.socket = _open(bind.host, bind.port)
        self.socket.setblocking(False)
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            self.address: tuple[str, int] = (os.fsdecode(name), 0)
            self.url = f"unix:{self.address[0]}"
        else:
            self.address = name[:2]
            host, port = self.address
            self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    @property
    def tcp(self) -> bool:
        """Whether it is a TCP socket."""
        return self.socket.family != socket.AF_UNIX

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close the socket; the file of a Unix socket goes with it, if it was made here."""
        if self._file is not None:
            _unix_socket.remove(self.socket.getsockname(), self._file)
            self._file = None
        self.socket.close()


def _adopt(number: int) -> socket.socket:
    try:
        adopted = socket.socket(fileno=number)
    except OSError as error:
        raise OSError(error.errno, f"descriptor {number} is no socket that was handed on ({error.strerror})") from error
    if not adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        adopted.detach()  # it is not ours
        raise OSError(errno.EINVAL, f"descriptor {number} is a socket that does not listen")
    adopted.set_inheritable(False)  # a program that a view starts would keep the port
    return adopted


def _open(host: str, port: int) -> socket.socket:
    """Open a listening socket on the first address of the host that can be used."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "it is no name of a host") from error
    reason: OSError | None = None
    for family, kind, protocol, _, address in found:
        listening = None
        try:
            listening = socket.socket(family, kind, protocol)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError as error:
            reason = OSError(error.errno, error.strerror, f"{host}:{port}")
            if listening is not None:
                listening.close()
        else:
            return listening
    raise reason or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
