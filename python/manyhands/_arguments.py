"""What a caller may pass: refused at the call, with what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["check_choice", "check_int", "check_number", "check_seconds"]


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
