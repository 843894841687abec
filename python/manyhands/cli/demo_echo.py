"""`manyhands demo echo`: the loop at work.

Starts `manyhands echo` as a process of its own on a free port, sends it real traffic from many sockets (`_load.py`), ends it
with the SIGINT that a Ctrl-C would send, and checks that its books agree with ours. Ends with status 1 and a sentence if
anything was wrong; the server never outlives the demo.
"""

from __future__ import annotations

import argparse
import re
import sys

from manyhands.cli._demo_process import DemoProcess
from manyhands.cli._failure import Failure, require_descriptors
from manyhands.cli._load import Load, LoadRun, Wrong
from manyhands.cli.echo import DESCRIPTORS

LISTENS = re.compile(r"listening on (?P<host>\S+) port (?P<port>\d+)")
COUNTED = re.compile(r"^ *bytes +(?P<bytes>[\d,]+)$", re.MULTILINE)


def run(options: argparse.Namespace, seconds: float) -> int:
    """Run the demo and print what came out.

    Raises:
        Failure: the server did not start, answered wrongly, lost something or did not end.
    """
    require_descriptors(options.connections + DESCRIPTORS, f"a demo with {options.connections} connections")
    arguments = ["echo", "--port", "0", "--threads", str(options.threads), "--poller", options.poller]
    print(f"starting: manyhands {' '.join(arguments)}", flush=True)
    with DemoProcess(arguments, LISTENS) as server:
        address = server.said[0]["host"], int(server.said[0]["port"])
        print(
            f"asking {address[0]} port {address[1]} from {options.connections} sockets for {seconds:g} s, comparing every byte",
            flush=True,
        )
        before = server.cpu_seconds()
        try:
            load = LoadRun(address, options.connections, seconds).run()
        except Wrong as wrong:
            raise Failure(f"{wrong}. {server.last_words()}") from wrong
        cpu = server.cpu_seconds() - before
        summary = server.end()
        print(server.complaints(), end="", file=sys.stderr)
    check(load, summary)
    print(figures(load, cpu))
    print("the server's own summary, after SIGINT:")
    print("".join(f"  {line}\n" for line in summary.splitlines()), end="")
    return 0


def figures(load: Load, cpu_seconds: float) -> str:
    """Write down what was measured."""
    return "\n".join(
        (
            f"  requests             {load.requests:,}, every byte as it must be",
            f"  requests per second  {load.requests / load.seconds:,.0f}",
            f"  echoed               {load.bytes / 2**20:,.1f} MiB",
            f"  latency              p50 {load.percentile(0.5) * 1e3:.2f} ms, p99 {load.percentile(0.99) * 1e3:.2f} ms",
            f"  server's CPU         {cpu_seconds / load.requests * 1e6:.1f} us per request",
        )
    )


def check(load: Load, summary: str) -> None:
    """Compare the server's books with ours.

    Raises:
        Failure: they differ, or nothing was measured.
    """
    if not load.requests:
        raise Failure("no request was answered in the time: try a longer one with --seconds.")
    counted = COUNTED.search(summary)
    if counted is None or int(counted["bytes"].replace(",", "")) != load.bytes:
        raise Failure(f"{load.bytes:,} bytes came back right, but the server's summary says otherwise: {summary!r}")
