"""A Unix socket's file: one that a dead process left behind is replaced, and one's own is removed at the end."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

__all__ = ["File", "bind", "remove"]

File = tuple[int, int]
"""Device and inode: which file it is, whatever has its name now."""


def bind(listening: socket.socket, name: str, mode: int | None = None) -> File | None:
    """Bind to a path, in place of a socket that nobody listens on any more.

    Args:
        listening: A Unix socket.
        name: The path; one that begins with a zero byte is the kernel's own and no file.
        mode: The file's permissions; None for what the umask leaves.

    Returns:
        The file that was made, None if there is none.

    Raises:
        OSError: somebody listens there, it is another kind of file, or it is not allowed.
    """
    if name.startswith("\0"):
        listening.bind(name)
        return None
    _remove_stale(name)
    listening.bind(name)
    file = _file_of(name)
    if mode is not None:
        try:
            os.chmod(name, mode)
        except BaseException:
            remove(name, file)
            raise
    return file


def remove(name: str, file: File | None) -> None:
    """Remove the file that `bind` made, and not that of somebody who listens there now."""
    with contextlib.suppress(OSError):
        if file is not None and _file_of(name) == file:
            os.unlink(name)


def _remove_stale(name: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(name).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        # Whatever else it answers, it is not left behind, and bind() says so.
        if asking.connect_ex(name) == errno.ECONNREFUSED:
            os.unlink(name)


def _file_of(name: str) -> File:
    status = os.stat(name)
    return status.st_dev, status.st_ino
