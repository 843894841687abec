"""What a caller may pass: refused at the call, with what was expected and what came."""

from __future__ import annotations

import errno
import math
import os
import socket
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike
    from typing_extensions import Buffer

__all__ = [
    "MAX_BYTES",
    "byte_count",
    "check_buffer",
    "check_choice",
    "check_int",
    "check_number",
    "check_seconds",
    "file_number",
    "file_place",
    "socket_number",
]

MAX_BYTES = 2**31 - 1
"""What the kernel can say that an operation has moved."""

MAX_OFFSET = 2**63 - 1


def check_int(name: str, value: object, *, at_least: int, at_most: float = math.inf) -> None:
    """An int, and in its bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, and got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, and got {value}")
    if value > at_most:
        raise ValueError(f"{name} must be at most {at_most}, and got {value}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """One of these."""
    if value not in choices:
        *others, last = map(repr, choices)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, and got {value!r}")


def check_number(name: str, value: object, expected: str, within: Callable[[float], bool]) -> None:
    """A number that is as expected."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, and got {value!r}")
    if not within(value):
        raise ValueError(f"{name} must be {expected}, and got {value!r}")


def check_seconds(name: str, value: object) -> None:
    """A time to wait: 0 or more, or None."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, and got {value!r}")
    if not value >= 0:
        raise ValueError(f"{name} must be 0 seconds or more, and got {value}")


def socket_number(sock: socket.socket) -> int:
    """The descriptor of a socket that is open and does not block."""
    if not isinstance(sock, socket.socket):
        raise TypeError(f"sock must be a socket, and got {sock!r}")
    fd = sock.fileno()
    if fd < 0:
        raise ValueError(f"the socket is closed: {sock!r}")
    if sock.getblocking():
        raise ValueError("the socket must not block: call sock.setblocking(False) first")
    return fd


def file_number(file: FileDescriptorLike) -> int:
    """The descriptor of a file that is open and has places."""
    if isinstance(file, bool) or not (isinstance(file, int) or hasattr(file, "fileno")):
        raise TypeError(f"file must be a descriptor number or an object with fileno(), and got {file!r}")
    fd = file if isinstance(file, int) else file.fileno()
    if isinstance(file, int) and not 0 <= fd < 2**31:
        raise ValueError(f"file must be a descriptor number, 0 or more and below 2**31, and got {fd}")
    try:
        mode = os.fstat(fd).st_mode
    except OSError as error:
        raise OSError(error.errno, f"{file!r} is not open: read and write it before it is closed") from None
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return fd
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, f"{file!r} is a directory: read and write are for files")
    raise OSError(
        errno.ESPIPE, f"{file!r} is no regular file and has no places: read and write are for files that have"
    )


def byte_count(name: str, value: int, at_most: int, at_least: int = 0) -> int:
    """A number of bytes, in its bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, and got {value!r}")
    if not at_least <= value <= at_most:
        raise ValueError(f"{name} must be a number of bytes, from {at_least} to {at_most}, and got {value}")
    return value


def file_place(offset: int) -> int:
    """A place in a file."""
    return byte_count("offset", offset, MAX_OFFSET)


def check_buffer(name: str, buffer: Buffer, *, writable: bool) -> int:
    """How many bytes it has."""
    with memoryview(buffer) as view:
        if writable and view.readonly:
            raise BufferError(f"{name} must be a buffer that can be written to, and got {buffer!r:.80}")
        if not view.c_contiguous:
            raise BufferError(f"{name} must be contiguous, and got {buffer!r:.80}")
        if view.nbytes > MAX_BYTES:
            raise ValueError(f"{name} must have at most {MAX_BYTES} bytes, and has {view.nbytes}")
        return view.nbytes
