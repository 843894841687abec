"""Whether the sources of an application have changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

__all__ = ["Sources"]

_PASSED_OVER: Final = frozenset({"node_modules", "__pycache__", "site-packages"})


class Sources:
    """The Python files under a directory. A virtual environment and what is hidden are passed over.

    Args:
        directory: Where.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether one has been written, added or removed since this was asked last."""
        before, self._seen = self._seen, self._look()
        return before != self._seen

    def _look(self) -> dict[str, int]:
        return dict(_times(self._directory))


def _times(directory: str) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _PASSED_OVER:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _times(entry.path)
            elif entry.name.endswith(".py"):
                yield entry.path, entry.stat().st_mtime_ns
        except OSError:  # removed meanwhile
            continue
