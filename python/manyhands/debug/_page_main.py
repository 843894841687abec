"""The process that serves the page of several workers. Started by the supervisor; it runs none of the application's code.

Its line brings a message for every change of a worker's life, and with some of them a socket: see `_page_process.py` of the
server. The end of the line is the end of the supervisor, and its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys

from manyhands.debug._dashboard import TOKEN_VARIABLE, serve_pages
from manyhands.debug._summed_sight import SummedSight
from manyhands.server._bind import Bind
from manyhands.server._line import Line

__all__ = ["main"]

MOST_MESSAGE = 4096
"""Bytes of a message, far more than one has."""


def main() -> int:
    """Serve the page until the line ends."""
    line = Line.take()
    if line is None:
        raise SystemExit("this is a part of `manyhands serve --workers N --dashboard PORT`, and no program of its own")
    for number in (signal.SIGINT, signal.SIGTERM):  # the supervisor says when it is over
        signal.signal(number, signal.SIG_IGN)
    order = json.loads(sys.argv[1])
    sight = SummedSight(order["name"], order["pid"])
    line.socket.setblocking(True)
    server = None
    try:
        while hear(line.socket, sight):
            # What has happened so far is taken in before anybody can ask.
            if server is None and not select.select([line.socket], [], [], 0)[0]:
                server = serve_pages(sight, os.environ.get(TOKEN_VARIABLE), Bind(fd=order["listening"]))
    finally:
        if server is not None:
            server.stop(grace=0)
    return 0


def hear(line: socket.socket, sight: SummedSight) -> bool:
    """Wait for a message and take it in; False if the line has ended."""
    try:
        text, descriptors, _, _ = socket.recv_fds(line, MOST_MESSAGE, 1)
    except ConnectionError:
        return False
    if text:
        sight.hear(json.loads(text), socket.socket(fileno=descriptors[0]) if descriptors else None)
    return bool(text)


if __name__ == "__main__":
    sys.exit(main())
