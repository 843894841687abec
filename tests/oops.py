"""The error that tests raise, so that no other can be mistaken for it."""

from __future__ import annotations


class Oops(Exception):
    """The error of these tests: nothing else raises it."""


def oops(*_: object) -> None:
    raise Oops("as the test wants it")
