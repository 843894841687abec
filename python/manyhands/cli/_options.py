"""How options of several commands are read."""

from __future__ import annotations

import argparse
import math

__all__ = ["seconds", "whole_number"]


def whole_number(text: str, expected: str, *, at_least: int, at_most: float = math.inf) -> int:
    """Read a whole number within bounds, for what reads an option.

    Args:
        text: As it was given.
        expected: What the error says that it was to be.
        at_least: The smallest that may be.
        at_most: The largest.

    Raises:
        argparse.ArgumentTypeError: it is none, or not within them.
    """
    if not text.isascii() or not text.isdigit() or not at_least <= int(text) <= at_most:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Read a number of seconds above 0, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return number
