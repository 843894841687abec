"""The pool of the process, for whoever names none."""

from __future__ import annotations

import threading

from manyhands import _guards
from manyhands._pool import ThreadPool

__all__ = ["default_pool", "set_default_pool"]

_default: ThreadPool | None = None
_default_lock = threading.Lock()


def default_pool() -> ThreadPool:
    """The pool that is used where none is named; made at the first call."""
    global _default  # noqa: PLW0603 - one of the process
    with _default_lock:
        if _default is None or _default.finished:
            _default = ThreadPool(name="default")
        return _default


def set_default_pool(pool: ThreadPool | None) -> None:
    """Use this pool where none is named; None to have one made again."""
    global _default  # noqa: PLW0603
    if pool is not None and not isinstance(pool, ThreadPool):
        raise TypeError(f"pool must be a ThreadPool or None, and got {pool!r}")
    with _default_lock:
        _default = pool


def _in_child() -> None:
    global _default, _default_lock  # noqa: PLW0603 - the parent's threads do not exist here
    _default = None
    _default_lock = threading.Lock()


_guards.in_child(_in_child)
