"""What accept() fails with, and is tried again.

Source: accept(2), "Error handling".
"""

from __future__ import annotations

import errno
from typing import Final

__all__ = ["PASSING", "SHORTAGE"]

PASSING: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
    }
)
"""What went wrong with the connection that accept() took off the queue: the next one may be good."""

SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""There is no room for another connection until somebody gives something back. The listener stays readable, so trying
again at once would spin."""
