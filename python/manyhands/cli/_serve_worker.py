"""What a worker of `manyhands serve` runs: the application with the command's logs, and its figures for the dashboard."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING

import manyhands as mh
from manyhands.cli._failure import complain_of
from manyhands.cli._logs import settle, shown
from manyhands.cli._output import say
from manyhands.cli._serve_failures import still_running
from manyhands.server import NoApplication
from manyhands.server._leaving import leave
from manyhands.server._line import Line
from manyhands.server._worker import Order

if TYPE_CHECKING:
    from manyhands.server import Server

__all__ = ["main"]


def main() -> int:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(description="A part of `manyhands serve`, and no program of its own.")
    parser.add_argument("--log-level", required=True)
    parser.add_argument("--access-log")
    parser.add_argument("order")
    options = parser.parse_args()
    line = Line.take()
    if line is None:
        parser.error("it has no supervisor: use `manyhands serve`")
    order = Order.from_json(options.order)
    with shown(options.log_level, options.access_log), contextlib.ExitStack() as ended:

        def answer(server: Server) -> None:
            settle()
            if line.figures is not None:
                from manyhands.debug._figures import Figures  # noqa: PLC0415 - who shows no dashboard does not pay for it

                ended.enter_context(Figures(line.figures, server, mh.default_pool()))

        try:
            left = order.carry_out(line, on_started=answer)
        except NoApplication as error:
            complain_of(error)
            print(f"manyhands serve: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        if left:
            say(still_running(left))
    if left:
        leave(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
