"""`manyhands demo serve`: a server of blocking views, slow clients, and clients that hang up.

Starts `manyhands serve` with a small Flask application (`demo_site`) as a process of its own, and its dashboard; sends it
the traffic of `_site_clients.py`; ends it with the SIGINT that a Ctrl-C would send, and says what happened. What is
promised is counted: every request was answered, the threads are as many as before, nothing works for a client that has gone.
How fast it was is shown and not judged, since that is also the machine's. Ends with status 1 and a sentence if a promise
was broken; the server never outlives the demo.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import re
import signal
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import manyhands as mh
from manyhands.cli._demo_process import DemoProcess
from manyhands.cli._failure import Failure, require_descriptors
from manyhands.cli._serve_summary import Look, Phase, Seen, check, ended, figures, last_figures
from manyhands.cli._site_clients import FAST, HASTE, PACE, PATIENCE, SLOW, TALKERS, Clients, ask_json, post

THREADS = 8
"""Views at once: the server's own default, said so that it is seen."""

DESCRIPTORS = 256
"""What the demo needs beside its slow clients, and the server as well: the others, the loop's own, modules."""

LOOK = 0.25
"""Seconds between two looks at the server."""

ASK_AGAIN = 0.05
"""Seconds between two questions whether something has come true."""

WAVES, CROWD = 10, 10
"""Clients that hang up: so many times so many. More at once than there are threads, so that some are still in the queue."""

QUERIES = 2
"""Of a crowd, those that ask the database; the others ask for a report."""

SLOW_VIEWS = ("GET /report", "GET /query", "GET /rows", "GET /news")
"""What the server calls the requests of clients that hang up."""

STREAMS = ("rows", "news")
"""Views that have no end of their own."""

WIDTH = 100
"""Columns of what it says."""

SHARES = (0.3, 0.4, 0.3)
"""Of the time: /health alone, with the slow clients, with those that hang up."""

SERVES = re.compile(r" on http://(?P<host>[\d.]+):(?P<port>\d+)/ ")
DASHBOARD = re.compile(r"dashboard on (?P<url>http://(?P<host>[\d.]+):(?P<port>\d+)/)")


def run(options: argparse.Namespace, seconds: float) -> int:
    """Run the demo and print what happened.

    Raises:
        Failure: the server did not start, or a promise was broken.
    """
    _require_modules()
    require_descriptors(options.clients + DESCRIPTORS, f"a demo with {options.clients} slow clients")
    command = ["serve", "manyhands.cli.demo_site:app", "--threads", str(THREADS), "--log-level", "error"]
    command += ["--port", str(options.port), "--dashboard", str(options.dashboard)]
    print(f"starting: manyhands {' '.join(command)}", flush=True)
    with DemoProcess(command, SERVES, DASHBOARD) as server:
        show = Show(server, options.clients, seconds, keep=options.keep)
        with _quiet(), _signals_call(show.clients.scope.cancel):
            mh.run(show.run)
        seen, clients = show.seen, show.clients
        if clients.wrong:
            raise Failure(f"{clients.wrong[0]}. {server.last_words()}")
        show.say("Ctrl-C for the server")
        began = time.monotonic()
        last = server.end()
        took = time.monotonic() - began
        print(server.complaints(), end="", file=sys.stderr)
    if not seen.complete:
        print(f"the demo was ended before everything was seen; the server: {ended(took, last)}")
        return 0
    if not options.keep:
        print(f"\n{figures(seen)}\n{last_figures(seen, took, last)}", flush=True)
    check(seen)
    print(
        "\nAs promised: every request was answered, slow clients hold no thread, and nothing works for a client that has gone."
    )
    return 0


class Show:
    """The traffic, one thing after the other.

    Args:
        server: Has said where it and its dashboard are.
        slow: Slow clients, at once.
        seconds: How long it takes, without the beginning and the end.
        keep: Whether it then goes on until Ctrl-C.
    """

    def __init__(self, server: DemoProcess, slow: int, seconds: float, *, keep: bool) -> None:
        site, board = server.said
        self.seen = Seen(slow)
        self._site = site["host"], int(site["port"])
        self._board = board["host"], int(board["port"])
        self._urls = "http://{}:{}/".format(*self._site), board["url"]
        self._server = server
        self._seconds = seconds
        self._keep = keep
        self._began = time.monotonic()
        self._phase = Phase()  # what a look at the server belongs to
        self.clients = Clients(self._site)

    def say(self, what: str) -> None:
        """Tell the reader what comes now."""
        line = f"{time.monotonic() - self._began:5.1f} s  {what}"
        print(textwrap.fill(line, WIDTH, subsequent_indent=" " * 9), flush=True)

    async def run(self) -> None:
        """All of it. It ends early if something is wrong."""
        with self.clients.scope:
            await self.clients.run("the demo", self._run)

    async def _run(self) -> None:
        clients, seen = self.clients, self.seen
        await post(self._site, "/dashboard", self._urls[1].encode())
        print("  the application  {}\n  its dashboard    {}\n".format(*self._urls), flush=True)
        async with mh.create_task_group() as group:
            self.say(
                f"{FAST} clients ask for /health, {FAST / PACE:.0f} times a second in all; {TALKERS} talk by WebSocket"
            )
            for number in range(TALKERS):
                group.start_soon(clients.run, "a conversation", clients.talk, number)
            for number in range(FAST):
                group.start_soon(clients.run, "a client of /health", clients.ask_health, number)
            group.start_soon(clients.run, "a look at the dashboard", self._look_on)
            await self._warm_up()
            await self._watch(seen.alone, self._seconds * SHARES[0])
            async with mh.create_task_group() as slow:
                await self._bring_the_slow(slow)
                await self._watch(seen.crowded, self._seconds * SHARES[1])
                await self._bring_the_impatient(self._seconds * SHARES[2])
                seen.said, seen.heard = clients.said, clients.heard
                seen.complete = True
                if self._keep:
                    await self._stay()
                self.say("the slow clients hang up")
                slow.cancel_scope.cancel()
            seen.streams = await self._see_them_gone()
            group.cancel_scope.cancel()

    async def _warm_up(self) -> None:
        """Have every thread started that ever will be: a pool starts them when they are needed first, as the site its own."""
        for path in ("/rows", "/news", "/query") * 2:
            async with mh.create_task_group() as crowd:
                for _ in range(4 * THREADS):
                    crowd.start_soon(self.clients.run, "a client that hangs up", self.clients.hang_up, path)
        await self._see_them_gone()

    async def _bring_the_slow(self, group: mh.TaskGroup) -> None:
        most = self.seen.slow
        counts = [most // len(SLOW) + (index < most % len(SLOW)) for index in range(len(SLOW))]
        words = ", ".join(f"{count} {does}" for count, (_, does, _) in zip(counts, SLOW, strict=True))
        self.say(f"{most} slow clients come: {words}")
        for count, (kind, does, behave) in zip(counts, SLOW, strict=True):
            for number in range(count):
                group.start_soon(self.clients.run, f"a client {does}", behave, self.clients, number / count, name=kind)

        async def served() -> bool:
            return self.clients.there.total() >= most and (await self._look()).clients >= most

        await self._until(served, "every slow client is served")
        self.say("all of them are there, and /health is asked for as before")

    async def _bring_the_impatient(self, seconds: float) -> None:
        self.say(f"{WAVES * CROWD} clients ask for what takes half a minute or more, and hang up after {HASTE:g} s")
        for _ in range(WAVES):
            async with mh.create_task_group() as crowd:
                for number in range(CROWD):
                    path = "/query" if number < QUERIES else "/report"
                    crowd.start_soon(self.clients.run, "a client that hangs up", self.clients.hang_up, path)
            await mh.sleep(max(0.0, seconds / WAVES - HASTE))
        self.seen.hung_up = len(self.clients.hang_ups)
        self.seen.stops = await self._see_them_gone()

    async def _stay(self) -> None:
        """Let the reader look."""
        print(f"\n{figures(self.seen)}\n\nThe traffic goes on, for a look at it:\n", flush=True)
        print("  the application  {}\n  its dashboard    {}".format(*self._urls))
        print(f"  in a terminal    manyhands top {self._urls[1]}\n\nCtrl-C ends it.", flush=True)
        while True:
            async with mh.create_task_group() as crowd:
                for _ in range(2):
                    crowd.start_soon(self.clients.run, "a client that hangs up", self.clients.hang_up, "/report")
            self.clients.hang_ups.clear()
            await mh.sleep(1)

    # How it is watched.

    async def _see_them_gone(self) -> list[float]:
        """Wait until nothing works for a client that has hung up.

        Returns:
            Seconds that the view of each went on. What had not begun never will: nothing is queued.
        """
        hang_ups, stops, left = self.clients.hang_ups, list[float](), list[str]()

        async def gone() -> bool:
            entries = [entry for entry in await ask_json(self._site, "/book") if entry["tag"] in hang_ups]
            stops[:] = [entry["ended"] - hang_ups[entry["tag"]] for entry in entries if was_stopped(entry)]
            data = await ask_json(self._board, "/data.json")
            queued = [job["name"] for job in data["jobs"]["listed"] if job["status"] == "QUEUED"]
            left[:] = [f"{entry['what']} of {entry['client']}" for entry in entries if not was_stopped(entry)]
            left.extend(name for name in queued if name in SLOW_VIEWS)
            return not left

        await self._until(gone, "nothing works for a client that has hung up", left)
        hang_ups.clear()
        return stops

    async def _watch(self, phase: Phase, seconds: float) -> None:
        self._phase, self.clients.health = phase, phase.latencies
        await mh.sleep(seconds)
        phase.take(await self._look())
        self._phase, self.clients.health = Phase(), []

    async def _look_on(self) -> None:
        while True:
            self._phase.take(await self._look())
            await mh.sleep(LOOK)

    async def _look(self) -> Look:
        data = await ask_json(self._board, "/data.json")
        connections = {state: count for state, count in data["servers"][0]["connections"].items() if count}
        return Look(self._server.threads(), data["process"]["resident_bytes"], connections)

    async def _until(self, holds: Callable[[], Awaitable[bool]], what: str, left: Sequence[str] = ()) -> None:
        deadline = time.monotonic() + PATIENCE
        while not await holds():
            if time.monotonic() > deadline:
                but = f": there is {', '.join(left[:3])}" if left else ""
                self.clients.fail(f"after {PATIENCE:g} s it still does not hold that {what}{but}")
            await mh.sleep(ASK_AGAIN)


def was_stopped(entry: dict[str, Any]) -> bool:
    """Whether the view of a client that hung up has ended, and for that: a stream may find it out by writing, and then ends."""
    return entry["ended"] is not None and (entry["because"] == "OWNER_GONE" or entry["what"] in STREAMS)


def _require_modules() -> None:
    for name in ("flask", "httptools", "websockets"):
        if importlib.util.find_spec(name) is None:
            raise Failure(
                f"this demo needs {name}: install it with `pip install 'manyhands[demo]'`. `manyhands demo jobs` and "
                "`manyhands demo echo` need nothing."
            )


@contextlib.contextmanager
def _signals_call(end: Callable[[], object]) -> Iterator[None]:
    """Have a Ctrl-C, and what else asks a program to end, call this; the second time interrupt."""
    came = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            signal.default_int_handler(number, frame)
        came = True
        end()

    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a shell, or under nohup
            previous[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Do not tell when a step of a client took long: on a busy machine it does, and the clients are not what is shown."""
    logger = logging.getLogger("manyhands.loop")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
