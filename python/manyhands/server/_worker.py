"""A worker: a process that the supervisor has started, which serves on a socket that it inherits.

What it is to do is on its command line, as JSON: whoever looks at the list of processes sees it, and there is nothing secret.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manyhands.server._application import load
from manyhands.server._bind import Bind
from manyhands.server._errors import NoApplication
from manyhands.server._leaving import leave
from manyhands.server._line import Line
from manyhands.server._serve import serve_here
from manyhands.server._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from manyhands._job import JobSnapshot
    from manyhands.server._server import Server

__all__ = ["Order", "main"]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker is told.

    Attributes:
        application: Its name, as in `module:app`.
        listening: The descriptor of the socket that it serves on.
        settings: How.
        path: Where Python looks for modules; None for where it looks anyway.
    """

    application: str
    listening: int
    settings: Settings
    path: list[str] | None = None

    def to_json(self) -> str:
        """Write it down.

        Raises:
            TypeError: see `Settings.to_json`.
        """
        return json.dumps(
            {
                "application": self.application,
                "listening": self.listening,
                "settings": self.settings.to_json(),
                "path": self.path,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` has written."""
        values = json.loads(text)
        return cls(**{**values, "settings": Settings.from_json(values["settings"])})

    def carry_out(self, line: Line | None, on_started: Callable[[Server], object] | None = None) -> list[JobSnapshot]:
        """Import the application and serve it until a signal, or the end of the supervisor.

        Raises:
            NoApplication: it cannot be served.
        """
        if self.path is not None:
            sys.path[:] = self.path
        os.set_inheritable(
            self.listening, False
        )  # what the application starts while it is imported would keep the port
        app = load(self.application)
        bind = Bind(fd=self.listening)
        return serve_here(app, bind, self.settings, line=line, on_started=on_started)


def main() -> int:
    """Run the worker that the command line orders."""
    line = Line.take()
    if line is None:
        raise SystemExit("this is a part of manyhands.server.serve(workers=N), and no program of its own")
    order = Order.from_json(sys.argv[1])
    try:
        left = order.carry_out(line)
    except NoApplication as error:
        if error.__cause__ is not None:
            raise
        raise SystemExit(f"manyhands.server: {error}") from None
    except KeyboardInterrupt:
        return 130
    if left:
        leave(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
