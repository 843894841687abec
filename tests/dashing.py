"""Asks a dashboard as a browser, a scraper or a stranger would."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import manyhands as mh
from manyhands.debug import Dashboard
from support import LONG, wait_until

Answer = tuple[int, dict[str, str], bytes]

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "</td></tr></table><script src=//evil.example></script>",
    "{{7*7}} ${7*7} javascript:alert(1)",
    "\x1b]0;owned\x07\x1b[2J\x1b[31mred",
    "\u202egnp.exe",
    "line\nbreak\r\nSet-Cookie: a=b",
    "half \ud800 a pair",
    'quote " back\\slash \n new # TYPE x counter',
    "[bold red]markup[/] [link=file:///etc/passwd]x[/link]",
    "",
    "é" * 5000,
]
"""Names that a page, a terminal, a log or a metrics file may take for something else."""


def ask(
    page: Dashboard, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """One request on a connection of its own: status, headers, body. Headers replace those that the client would send."""
    parts = urlsplit(page.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=LONG)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": parts.netloc, **(headers or {})}.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def seen(page: Dashboard, token: str | None = None) -> dict[str, Any]:
    """What the page shows now."""
    status, _, body = ask(page, "/data.json", headers={"Authorization": f"Bearer {token}"} if token else None)
    assert status == 200, body
    return json.loads(body)


def wait_seen(page: Dashboard, predicate: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Look until it shows what is waited for."""
    found: list[dict[str, Any]] = []

    def look() -> object:
        found[:] = [seen(page)]
        return predicate(found[0])

    wait_until(look)
    return found[0]


def stop(page: Dashboard, job: mh.Job | int, **headers: str) -> Answer:
    """Send what the stop button sends."""
    number = job if isinstance(job, int) else job.id
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return ask(page, "/stop", "POST", sent, json.dumps({"job": number}).encode())
