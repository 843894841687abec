"""What the kernel knows of a descriptor, and how a test makes a number change hands."""

from __future__ import annotations

import os
import resource
import select
import socket

import pytest

_ALWAYS = select.EPOLLERR | select.EPOLLHUP
"""What the kernel adds to every mask by itself: a one-shot mask of nothing else asks for nothing and reports once."""

_MODES = select.EPOLLONESHOT | select.EPOLLET | select.EPOLLEXCLUSIVE | 1 << 29  # the last is EPOLLWAKEUP
"""The bits of an epoll mask that say how to report, not what."""


def epoll_masks(fd: int) -> list[int]:
    """Return the masks under which the epoll descriptors of this process list the number `fd`.

    Source: proc_pid_fdinfo(5), the lines that begin with `tfd:`.
    """
    masks = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{entry}") != "anon_inode:[eventpoll]":
                continue
            with open(f"/proc/self/fdinfo/{entry}", encoding="ascii") as lines:
                rows = [line.split() for line in lines if line.startswith("tfd:")]
        except FileNotFoundError:  # the listing's own descriptor
            continue
        masks += [int(row[3], 16) for row in rows if int(row[1]) == fd]
    return masks


def count_descriptors() -> int:
    """Count what this process has open."""
    return len(os.listdir("/proc/self/fd"))


def is_armed(fd: int) -> bool:
    """Say whether any epoll of this process is asked to report something of the number `fd`."""
    return any(mask & ~(_MODES | _ALWAYS) for mask in epoll_masks(fd))


def move_to(sock: socket.socket, number: int) -> socket.socket:
    """Give the open socket the number `number`, whatever has it now, and return it under that number.

    `sock` is detached: what it was open on has only the new number afterwards.
    """
    before = sock.detach()
    os.dup2(before, number, inheritable=False)
    os.close(before)
    return socket.socket(fileno=number)


def need_descriptors(count: int) -> None:
    """Raise the soft limit so that `count` more descriptors can be opened; skip the test where that is forbidden."""
    wanted = count + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} descriptors, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
