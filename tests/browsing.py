"""A headless Chromium, driven by its own protocol over a pair of pipes: no driver, no port."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import LONG, wait_until

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # as root there is none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Refused(Exception):
    """The browser did not do what it was told: the page that it was about has gone, for example."""


class Tab:
    """A tab of the browser.

    Attributes:
        errors: What the page's console said in anger, refusals of its policy included.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._number = 0
        self._session: str | None = None
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and keep what the page says meanwhile."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise Refused(answer["error"]["message"])
                return answer["result"]
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(answer["params"]["exceptionDetails"]))
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.errors.append(answer["params"]["entry"]["text"])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        message = bytearray()
        while (letter := self._process.stdout.read(1)) != b"\0":
            assert letter, f"the browser has ended: {bytes(message)!r}"
            message += letter
        return json.loads(message)

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def ask(self, expression: str) -> Any:
        """Evaluate JavaScript in the page, and wait for what it promises."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression holds; it is looked at whenever the page changes."""
        expression = f"""new Promise((resolve) => {{
                const holds = () => {{ try {{ return {condition}; }} catch {{ return false; }} }};
                const look = () => {{ if (holds()) {{ observer.disconnect(); clearTimeout(timer); resolve(true); }} }};
                const observer = new MutationObserver(look);
                const timer = setTimeout(() => {{ observer.disconnect(); resolve(false); }}, {LONG * 1000});
                observer.observe(document, {{ childList: true, subtree: true, attributes: true, characterData: true }});
                look();
            }})"""
        held: list[bool] = []

        def holds() -> bool:
            with contextlib.suppress(Refused):  # another page came meanwhile
                held.append(self.ask(expression))
            return bool(held)

        wait_until(holds)
        assert held == [True], f"{condition} does not hold; the page: {self.ask('document.body.innerText')}"

    def click(self, element: str) -> None:
        """Click with the mouse on the element that a JavaScript expression finds."""
        x, y = self.ask(
            f"(() => {{ const e = {element}; e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        """Save what is seen."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


@contextlib.contextmanager
def browser() -> Iterator[Tab]:
    """Start one; it has ended with the block."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Its protocol is on descriptors 3 and 4.
        command = [
            "sh",
            "-c",
            'exec "$@" 3<&0 4>&1 0</dev/null 1>&2',
            "sh",
            program,
            *OPTIONS,
            f"--user-data-dir={profile}",
        ]
        process = subprocess.Popen(
            [*command, "about:blank"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        with process:
            try:
                yield Tab(process)
            finally:
                process.kill()
