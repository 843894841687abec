"""Servers of one test, and what they log."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from faulty import shorten
from manyhands.server import Server
from serving import StartServer
from validating import validated


@pytest.fixture(autouse=True)
def faults(monkeypatch) -> None:
    """Where the environment asks for it, kernels that do less than they are asked: see `faulty.py`."""
    if os.environ.get("MANYHANDS_TEST_FAULTS") == "short":
        shorten(monkeypatch)


HERE = Path(__file__).parent

THREADS_MEET = {
    "test_broken_ends",
    "test_connection_machine",
    "test_events",
    "test_gone_clients",
    "test_iter_async",
    "test_promises",
    "test_serve",
    "test_server_end",
    "test_server_threads",
    "test_slow_clients",
    "test_streams",
    "test_websocket",
}
"""Whose subject is who is where at the same time. The others have bytes or processes for theirs, and are as good a proof with
the GIL alone.
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark those others."""
    for item in items:
        if item.path.parent == HERE and item.path.stem not in THREADS_MEET:
            item.add_marker("whole")


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Start servers that are stopped when the test ends."""
    wrap = validated if "MANYHANDS_TEST_VALIDATE" in os.environ else lambda app: app
    with ExitStack() as servers:
        yield lambda app, **options: servers.enter_context(Server(wrap(app), **{"threads": 2, **options}))


@pytest.fixture
def access(caplog) -> Callable[[], list[tuple[str, int]]]:
    """The access log: (request, status) of each line."""
    caplog.set_level(logging.INFO, "manyhands.access")

    def lines() -> list[tuple[str, int]]:
        return [(record.args[1], record.args[2]) for record in caplog.records if record.name == "manyhands.access"]

    return lines


# What a client gets.
