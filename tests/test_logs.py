"""What `manyhands serve` shows of the log."""

from __future__ import annotations

import io
import logging
import sys

from gate import Gate
from manyhands.cli import _logs
from support import wait_until


class Stuck(io.StringIO):
    """A terminal that takes nothing until it is told to."""

    def __init__(self, gate) -> None:
        super().__init__()
        self.gate = gate

    def write(self, text: str) -> int:
        self.gate()
        return super().write(text)


def test_records_that_nobody_takes_are_dropped_beyond_a_bound(monkeypatch, caplog):
    """The terminal stands still: so many wait, and one line says that the others are lost. Later ones are written again."""
    monkeypatch.setattr(_logs, "MOST_WAITING", 5)
    gate = Gate()
    terminal = Stuck(gate)
    monkeypatch.setattr(sys, "stderr", terminal)
    access = logging.getLogger("manyhands.access")
    try:
        with _logs.shown("warning", "common"), gate:
            for number in range(20):
                access.info("%s %s %s %s %s", "127.0.0.1", f"GET /{number} HTTP/1.1", 200, 0, 0.0)
                if not number:
                    gate.wait_entered()
            gate.open()
            wait_until(lambda: "/5 " in terminal.getvalue())
            access.info("%s %s %s %s %s", "127.0.0.1", "GET /later HTTP/1.1", 200, 0, 0.0)
    finally:
        for handler in access.handlers[:]:
            access.removeHandler(handler)
        access.propagate = True
        access.setLevel(logging.NOTSET)
    assert "/later" in terminal.getvalue()
    assert terminal.getvalue().count("GET") == 7
    assert "14 records of the access log were dropped" in caplog.text
