"""The screen of `manyhands top`: tables of what a dashboard said, as large as the terminal has room for.

Names are other people's: what would move the cursor, change the colours or turn the direction of writing around is
replaced before it is shown, and nothing is taken for markup.
"""

from __future__ import annotations

import math
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from manyhands.cli._failure import Failure

Row = dict[str, Any]

LEVELS = " ▁▂▃▄▅▆▇█"

ROWS = 40
"""Of a table where the terminal sets no limit."""

LONGEST_KEY = 16
"""Letters of a loop's or pool's name: their figures must fit beside it."""

MOST_WAITING = 3
"""Threads that wait, one by one; beyond these they are only counted, and leave their lines to the jobs."""

STYLES = {"RUNNING": "cyan", "SYNCING": "cyan", "STOPPING": "yellow", "FINISHED": "green"}
"""Of a job's state."""


class Screen:
    """What was seen last, and what has changed since the time before.

    Args:
        url: Whose it is.

    Attributes:
        trouble: Why there is nothing new, or empty.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._seen: Row = {}
        self._before: Row | None = None
        self.trouble = ""

    def take(self, seen: Row) -> None:
        """Show this from now on."""
        if self._seen and self._seen["process"] != seen["process"]:
            same = self._seen["process"]["pid"] == seen["process"]["pid"]
            self._before = self._seen if same else None
        self._seen = seen
        self.trouble = ""

    def picture(self, width: int, height: int | None) -> RenderableType:
        """Draw it.

        Args:
            width: Columns of the terminal.
            height: Its lines; None for as many as it takes.

        Raises:
            Failure: what was said is not what a dashboard says.
        """
        try:
            return self._picture(width, height)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise Failure(
                f"what {self._url} said cannot be shown: is the other side of another version than this one?"
            ) from error

    def _picture(self, width: int, height: int | None) -> RenderableType:
        seen = self._seen
        fixed: list[RenderableType] = [self._head(height)]
        if seen.get("workers"):
            fixed.append(self._workers(None if height is None else max(2, height // 4)))
        fixed += [self._loops(), self._pools()]
        if seen.get("servers"):
            fixed.append(self._servers())
        taken = 5 + sum(table.row_count + 1 for table in fixed if isinstance(table, Table))
        left = ROWS * 2 if height is None else max(4, height - taken)
        threads = _together(seen["threads"]["listed"])
        jobs = seen["jobs"]["listed"]
        for_threads = min(len(threads), max(left // 2, left - len(jobs)))
        parts: list[RenderableType] = [
            *fixed,
            self._threads(threads[:for_threads], width),
            self._jobs(jobs[: left - for_threads], width),
        ]
        return Group(*(part for part in parts if not isinstance(part, Table) or part.row_count))

    def _head(self, height: int | None) -> Text:
        process = self._seen["process"]
        cpu = self._rate(lambda seen: seen["process"]["cpu_seconds"])
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append(plain(process["name"]), "bold")
        head.append(
            f"  pid {process['pid']}  Python {plain(process['python'])}{'' if process['gil'] else ' without GIL'}"
        )
        head.append(f"  {process['resident_bytes'] / (1 << 20):.0f} MiB")
        if cpu is not None:
            head.append(f"  CPU {cpu:.0%}")
        head.append("\n" if height is None else "  q ends\n", "dim")
        head.append(plain(self.trouble), "red")
        return head

    def _loops(self) -> Table:
        table = _table("LOOP", "#joined", "#ready", "#watches", "#timers", "#strands", "#per s", "#99%", "1 µs … 1 s")
        for loop in self._seen["loops"]:
            buckets = loop["handler_seconds"]
            handled = self._rate_of("loops", loop, lambda row: row["handled"])
            counts = [str(loop[field]) for field in ("joined", "ready", "watches", "timers", "strands")]
            table.add_row(*_texts(_key(loop), *counts, _figure(handled), quantile(buckets, 0.99), bars(buckets)))
        return table

    def _pools(self) -> Table:
        table = _table("POOL", "#threads", "#busy", "#queued", "#oldest", "#per s", "#99%", "1 µs … 1 s")
        for pool in self._seen["pools"]:
            buckets = pool["run_seconds"]
            ended = self._rate_of("pools", pool, lambda row: row["finished"] + row["stopped"])
            counts = [str(pool["threads"]), f"{pool['busy']}/{pool['limit']}", str(pool["queued"])]
            waits = seconds(pool["oldest_wait"])
            table.add_row(*_texts(_key(pool), *counts, waits, _figure(ended), quantile(buckets, 0.99), bars(buckets)))
        return table

    def _servers(self) -> Table:
        kinds = ("idle", "reading", "busy", "writing", "closing")
        table = _table("SERVER", "address", *(f"#{kind}" for kind in kinds))
        for server in self._seen["servers"]:
            counts = [str(server["connections"].get(kind, 0)) for kind in kinds]
            table.add_row(*_texts(server["key"], server["address"], *counts))
        return table

    def _workers(self, most: int | None) -> Table:
        table = _table("#WORKER", "#pid", "state", "#restarts", "#MiB", "#connected", "#busy", "#queued", "#lives")
        # Where there is no room for all of them, those that need a look come first.
        workers = sorted(self._seen["workers"], key=lambda worker: bool(worker["answered"]))[:most]
        for worker in sorted(workers, key=lambda worker: int(worker["worker"])):
            texts = [str(worker[field]) for field in ("worker", "pid", "restarts")]
            number, pid, restarts = _texts(*texts)
            counts = [
                "" if worker[field] is None else str(worker[field]) for field in ("connections", "busy", "queued")
            ]
            memory = "" if worker["resident_bytes"] is None else f"{worker['resident_bytes'] / (1 << 20):.0f}"
            state = Text(plain(_worker_state(worker)), "" if worker["answered"] else "yellow")
            table.add_row(number, pid, state, restarts, *_texts(memory, *counts, seconds(worker["age"])))
        return table

    def _threads(self, threads: list[Row], width: int) -> Table:
        table = _table("THREAD", "runs", "#for", "at", width=width)
        for thread in threads:
            texts = _texts(
                _of_worker(thread, thread["name"]), thread["what"] or "", seconds(thread["since"]), thread["at"] or ""
            )
            table.add_row(*texts, style=None if thread["busy"] else "dim")
        return table

    def _jobs(self, jobs: list[Row], width: int) -> Table:
        table = _table("#JOB", "name", "state", "#since", "progress", "owner", width=width)
        for job in jobs:
            state = Text(plain(job["status"].lower()), STYLES.get(job["status"], ""))
            number, name, age, progress, owner = _texts(
                _of_worker(job, str(job["id"])),
                job["name"],
                seconds(job["age"]),
                _progress(job["progress"]),
                job["owner"] or "",
            )
            table.add_row(number, name, state, age, progress, owner)
        return table

    def _rate(self, figure: Any) -> float | None:
        if self._before is None:
            return None
        time = self._seen["process"]["time"] - self._before["process"]["time"]
        return max(0.0, (figure(self._seen) - figure(self._before)) / time) if time > 0 else None

    def _rate_of(self, kind: str, row: Row, figure: Any) -> float | None:
        before = self._before
        found = next((old for old in before[kind] if old["key"] == row["key"]), None) if before is not None else None
        return None if found is None else self._rate(lambda seen: figure(row if seen is self._seen else found))


def plain(text: object) -> str:
    """Make a text of one line that does nothing to a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(text))


def seconds(value: float | None) -> str:
    """As people read it."""
    if value is None:
        return ""
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value // 60:.0f} min" if value < 7200 else f"{value // 3600:.0f} h {value % 3600 // 60:.0f} min"


def bars(buckets: list[tuple[float | None, int]]) -> str:
    """A histogram in half as many letters; the heights are logarithmic."""
    counts = [sum(count for _, count in buckets[index : index + 2]) for index in range(0, len(buckets), 2)]
    top = max((math.log1p(count) for count in counts), default=0.0)
    heights = (0 if not count else max(1, round(math.log1p(count) / top * 8)) for count in counts)
    return "".join(LEVELS[height] for height in heights)


def quantile(buckets: list[tuple[float | None, int]], share: float) -> str:
    """The upper end of the bucket that this share of all is in or below."""
    total = sum(count for _, count in buckets)
    seen = 0
    for bound, count in buckets:
        seen += count
        if total and seen >= share * total:
            return f"≤ {seconds(bound)}" if bound is not None else "> 8 s"
    return ""


def _together(threads: list[Row]) -> list[Row]:
    """Those that are busy, those that wait, as one row if they are many, and the program's own."""
    own = [thread for thread in threads if thread["kind"] == "other" and not thread["name"].startswith("mh-")]
    busy = [thread for thread in threads if thread["busy"]]
    waiting = [thread for thread in threads if not thread["busy"] and thread["kind"] != "other"]
    if len(waiting) > MOST_WAITING:
        waiting = [{"name": f"{len(waiting)} more", "what": "wait", "since": None, "at": None, "busy": False}]
    return busy + waiting + own


def _key(row: Row) -> str:
    name = plain(row["key"])
    if len(name) > LONGEST_KEY:
        name = name[: LONGEST_KEY - 1] + "…"
    return name if row["state"] == "open" else f"{name} {row['state']}"


def _of_worker(row: Row, text: str) -> str:
    """Put the worker's number before it, if there are several."""
    return f"{row['worker']}:{text}" if "worker" in row else text


def _worker_state(worker: Row) -> str:
    if worker["trouble"] is not None:
        return f"{worker['state']}, {worker['trouble']}"
    if worker["silent"] is not None:
        return f"{worker['state']}, did not answer for {seconds(worker['silent'])}"
    return str(worker["state"])


def _figure(rate: float | None) -> str:
    return "" if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def _progress(progress: Row | None) -> str:
    if progress is None or progress["done"] is None:
        return "" if progress is None else str(progress["note"])
    share = f"{progress['done'] / progress['total']:.0%}" if progress["total"] else f"{progress['done']:g}"
    return f"{share} {progress['note']}".rstrip()


def _texts(*words: str) -> list[Text]:
    return [Text(plain(word)) for word in words]


def _table(*columns: str, width: int | None = None) -> Table:
    """A table of one line a row. A name that begins with # is a column of figures."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0), width=width)
    for name in columns:
        figures = name.startswith("#")
        table.add_column(
            name.removeprefix("#"),
            justify="right" if figures else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=None if figures or width is None or name == "state" else 1,
        )
    return table
