"""What a command says while it works, to somebody who may have stopped listening."""

from __future__ import annotations

import os
import sys

__all__ = ["say", "to_nowhere"]


def say(text: str) -> None:
    """Print a line. Without a reader (`manyhands serve ... | head -1`) the command goes on all the same."""
    try:
        print(text, flush=True)
    except OSError:
        to_nowhere()


def to_nowhere() -> None:
    """Whoever read our output has gone: what is buffered, and what follows, goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
