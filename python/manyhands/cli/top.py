"""`manyhands top`: what a dashboard shows, in a terminal.

It asks the dashboard of the other process once a second and knows no more than a browser does. What comes back may be
anybody's: it is bounded in size and time, and made harmless before it comes to the terminal (`_top_screen.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import select
import termios
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from manyhands.cli._failure import Failure
from manyhands.debug._dashboard import TOKEN_VARIABLE as TOKEN

if TYPE_CHECKING:
    from rich.console import Console

    from manyhands.cli._top_screen import Screen

PATIENCE = 5.0
"""Seconds that an answer may take."""

MOST_BYTES = 16 << 20
"""Of one answer; a dashboard's is bounded far below."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "url", nargs="?", metavar="URL", help="the dashboard's address, as it says it: http://127.0.0.1:PORT/"
    )
    parser.add_argument("--port", type=int, help="the same for a dashboard on this machine")
    parser.add_argument(
        "--interval", type=_interval, default=1.0, metavar="S", help="seconds between two looks (default: %(default)s)"
    )
    parser.add_argument(
        "--once", action="store_true", help="print it once and end, as it does where there is no terminal"
    )
    parser.epilog = f"q or Ctrl-C ends it. A dashboard that has a token: put it into the environment as {TOKEN}."


def _interval(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.1 <= found <= 3600:
        raise argparse.ArgumentTypeError(f"expected seconds from 0.1 to 3600, got {text!r}")
    return found


def run(options: argparse.Namespace) -> int:
    """Show it until the user has seen enough.

    Raises:
        Failure: rich is missing, or there is no dashboard.
    """
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra: the other commands work without it

        from manyhands.cli._top_screen import Screen  # noqa: PLC0415
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "rich":
            raise
        raise Failure("this needs rich: install it with `pip install 'manyhands[top]'`.") from error
    dashboard = Dashboard(_address(options), os.environ.get(TOKEN))
    console = Console(highlight=False)
    screen = Screen(dashboard.url)
    screen.take(dashboard.look())
    if options.once or not console.is_terminal:
        console.print(screen.picture(console.width, None))
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        _show(console, screen, dashboard, options.interval)
    return 0


def _address(options: argparse.Namespace) -> str:
    if (options.url is None) == (options.port is None):
        raise Failure("say which dashboard: its URL, as in `manyhands top http://127.0.0.1:8001/`, or --port 8001.")
    return str(options.url) if options.port is None else f"http://127.0.0.1:{options.port}/"


def _show(console: Console, screen: Screen, dashboard: Dashboard, interval: float) -> None:
    from rich.live import Live  # noqa: PLC0415

    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(screen.picture(console.width, console.height), refresh=True)
            if pressed(interval) in ("q", "Q"):
                return
            try:
                screen.take(dashboard.look())
            except Failure as failure:
                screen.trouble = str(failure)


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """While entered, `pressed(seconds)` waits so long for a key, and returns it or an empty string."""
    descriptor = 0  # standard input, whatever Python makes of it
    if not os.isatty(descriptor):

        def wait(seconds: float) -> str:
            select.select([], [], [], seconds)
            return ""

        yield wait
        return

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return os.read(descriptor, 1).decode("ascii", "replace") if ready else ""

    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Dashboard:
    """The dashboard of a program, asked by HTTP.

    Args:
        url: Its address.
        token: Its token, if it has one.

    Raises:
        Failure: that is no address.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Failure(f"{url!r} is no address: {error}.") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failure(f"{url!r} is no address of a dashboard: write it like http://127.0.0.1:8001/.")
        self._host, self._port, self._path = parts.hostname, port, parts.path.rstrip("/") + "/data.json"
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def look(self) -> dict[str, Any]:
        """Ask what there is to see.

        Raises:
            Failure: nobody answers, or not as a dashboard does.
        """
        connection = self._kind(self._host, self._port, timeout=PATIENCE)
        try:
            connection.request("GET", self._path, headers=self._headers)
            response = connection.getresponse()
            body = response.read(MOST_BYTES + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Failure(
                f"no dashboard answers at {self.url} ({words}): does the program run, and is that its port?"
            ) from error
        finally:
            connection.close()
        if response.status == http.client.UNAUTHORIZED:
            raise Failure(f"the dashboard at {self.url} wants its token: put it into the environment as {TOKEN}.")
        try:
            found = json.loads(body) if response.status == http.client.OK and len(body) <= MOST_BYTES else None
        except ValueError:
            found = None
        if not isinstance(found, dict) or not {"process", "loops", "pools", "threads", "jobs"} <= found.keys():
            raise Failure(f"what answers at {self.url} is no dashboard of manyhands (status {response.status}).")
        return found
