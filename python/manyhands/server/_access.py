"""The access log: one record for each request, on the logger `manyhands.access`, and the forms that it can have.

A record has the fields of `Entry` as its attribute `access`; the formatters here write it as Apache does, or as JSON. Source:
"Log Files", Apache HTTP Server 2.4, for common and combined.
"""

from __future__ import annotations

import json
import logging
import re
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from manyhands._log import Log

if TYPE_CHECKING:
    from manyhands import _core
    from manyhands.server._request import Request

__all__ = ["FORMS", "Entry", "Form", "Plain", "log_access", "logs_access"]

logger = Log("manyhands.access")

FORMS: Final = ("common", "combined", "json")

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f-\xff"\\]')


class Entry(NamedTuple):
    """What became of a request.

    Attributes:
        remote: The client's address; empty if it has none, as on a Unix socket.
        request: Method, target and version; empty if there was none that could be read.
        status: Of the response; 499 if the client has gone before it.
        sent: Bytes of the response, its head included.
        seconds: From the end of the request to the end of the response.
        referer: The header, empty for none; so too `agent`.
        agent: User-Agent.
    """

    remote: str
    request: str
    status: int
    sent: int
    seconds: float
    referer: str
    agent: str


def logs_access() -> bool:
    """Whether anybody wants the records."""
    return logger.logger.isEnabledFor(logging.INFO)  # not by way of the adapter: every request asks


def log_access(
    remote: str, line: str, status: int, sent: int, seconds: float, request: Request | _core.PlainRequest | None = None
) -> None:
    """Write a record."""
    if not logs_access():
        return
    referer = agent = ""
    if request is not None:
        for name, value in request.headers:
            # The lengths first: they tell nearly all others apart, and cost nothing.
            if len(name) == 7 and name.lower() == b"referer":
                referer = value.decode("latin-1")
            elif len(name) == 10 and name.lower() == b"user-agent":
                agent = value.decode("latin-1")
    entry = Entry(remote, line, status, sent, seconds, referer, agent)
    logger.info('%s "%s" %d %d %.6f', remote or "-", line or "-", status, sent, seconds, extra={"access": entry})


class Plain(logging.Formatter):
    r"""Writes records as `logging.Formatter` does, for a terminal: control characters are written as `\x1b`.

    A path may have any of them behind its %, and an application's error may say it. Only the first line of a record begins at
    the margin: a line feed makes no record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write one record, with its traceback."""
        text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", super().format(record))
        return text.replace("\n", "\n    ")


class Form(logging.Formatter):
    """Writes the records of the access log; others as `logging.Formatter` does.

    Args:
        form: "common", "combined" or "json".
    """

    def __init__(self, form: str) -> None:
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, and got {form!r}")
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Write one line."""
        entry: Entry | None = getattr(record, "access", None)
        if entry is None:
            return super().format(record)
        if self._form == "json":
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            return json.dumps({"time": f"{moment}.{int(record.msecs):03d}Z", **entry._asdict()})
        moment = time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(record.created))
        line = f'{entry.remote or "-"} - - [{moment}] "{_safe(entry.request)}" {entry.status} {entry.sent or "-"}'
        if self._form == "combined":
            line += f' "{_safe(entry.referer)}" "{_safe(entry.agent)}"'
        return line


def _safe(text: str) -> str:
    """A quoted field: nothing in it can end it, or the line, or move a terminal's cursor."""
    return _UNSAFE.sub(lambda found: f"\\x{ord(found[0]):02x}", text) or "-"
