"""Servers of one test, and what they log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from manyhands.server import Server
from serving import StartServer


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Start servers that are stopped when the test ends."""
    with ExitStack() as servers:
        yield lambda app, **options: servers.enter_context(Server(app, **{"threads": 2, **options}))


@pytest.fixture
def access(caplog) -> Callable[[], list[tuple[str, int]]]:
    """The access log: (request, status) of each line."""
    caplog.set_level(logging.INFO, "manyhands.access")

    def lines() -> list[tuple[str, int]]:
        return [(record.args[1], record.args[2]) for record in caplog.records if record.name == "manyhands.access"]

    return lines


# What a client gets.
