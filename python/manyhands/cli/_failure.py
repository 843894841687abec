"""The one way a command says that it cannot do what it was asked."""

from __future__ import annotations

import errno
import importlib
import os
import resource
import traceback

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Failure(Exception):
    """A command cannot go on. Its text is one sentence for the person at the terminal: what is wrong and what to do.

    `manyhands.cli.main` prints it on standard error and ends with status 1. It is never raised for a mistake of this
    library: those keep their traceback.
    """


OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
"""Error numbers of "no descriptor left": in this process, in this system."""


def descriptor_limit() -> int:
    """Return how many descriptors this process may have open at once (the soft limit)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 2**31 - 1


def make_room(needed: int) -> None:
    """Raise the soft limit to as many descriptors, or as near as the hard one lets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def require_descriptors(needed: int, what: str) -> None:
    """Check that this process may open `needed` descriptors.

    Args:
        needed: how many, all told; the ones that are open already included.
        what: who needs them, as the subject of the sentence: "the echo server".

    Raises:
        Failure: the limit is lower; the text names it and the command that raises it.
    """
    limit = descriptor_limit()
    if limit < needed:
        raise Failure(
            f"{what} needs {needed} open files and this process may have {limit}: "
            f"raise the limit with `ulimit -n {max(needed, 1024)}` and start it again."
        )


def complain_of(error: BaseException) -> None:
    """Print the traceback of what the user's own code raised, from that code on."""
    cause = error.__cause__
    if cause is None:
        return
    frame = cause.__traceback__
    while frame is not None and _is_not_theirs(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    traceback.print_exception(cause.with_traceback(frame))


def _is_not_theirs(filename: str) -> bool:
    return filename.startswith((_OURS, "<frozen")) or filename == importlib.__file__
