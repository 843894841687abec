"""Take the picture of the dashboard that the README and the docs show, while `manyhands demo` runs.

    .venv/bin/python scripts/dashboard_picture.py            # docs/_static/dashboard.png

Needs Chromium, as the browser's tests do, and two minutes on a machine that does nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browsing import browser  # noqa: E402 - the tests' own

PICTURE = ROOT / "docs" / "_static" / "dashboard.png"

WIDTH = 1100

REMEMBERED = 45.0
"""Seconds that the page looks on before the picture: its lines show the last minute."""

LAST = "#times-title"
"""The title of the last section that is in it."""


def ask(address: tuple[str, int], path: str) -> socket.socket:
    """Be a client that waits for what takes long."""
    client = socket.create_connection(address)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return client


def take(site: tuple[str, int], board: str) -> bytes:
    """Look on for a while, then take the picture."""
    with browser() as tab, contextlib.ExitStack() as clients:
        tab.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=900, deviceScaleFactor=1, mobile=False)
        tab.open(board)
        tab.wait("document.querySelector('#jobs tbody tr') !== null")
        time.sleep(REMEMBERED)
        for path in ("/report", "/query", "/report"):
            clients.enter_context(ask(site, path))
            time.sleep(2.5)
        bottom = tab.ask(
            f"document.querySelector({LAST!r}).closest('section').getBoundingClientRect().bottom + scrollY + 16"
        )
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": bottom, "scale": 1}
        shot = tab.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])


def main() -> None:
    """Run the demo and take the picture."""
    command = [sys.executable, "-m", "manyhands", "demo", "--keep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            said = ""
            while "Ctrl-C ends it" not in said:
                line = demo.stdout.readline()
                assert line, said
                said += line
            urls = re.findall(r"(?:application|dashboard) +(http://([\d.]+):(\d+)/)", said)
            (_, host, port), (board, *_) = urls[-2:]
            PICTURE.write_bytes(take((host, int(port)), board))
        finally:
            demo.terminate()
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
