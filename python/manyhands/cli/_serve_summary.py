"""What was seen in `manyhands demo serve`, in figures, and whether it is what was promised."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from manyhands.cli._failure import Failure

MOST_GROWTH = 16
"""Threads that may come while the slow clients do, however many these are: a pool starts its threads when it needs them first,
and on a busy machine that may be late."""


@dataclass
class Look:
    """The server at one moment, or the most of several.

    Attributes:
        threads: Its threads, all of them.
        memory: Bytes.
        connections: State -> how many.
    """

    threads: int = 0
    memory: int = 0
    connections: dict[str, int] = field(default_factory=dict)

    @property
    def clients(self) -> int:
        """How many are connected."""
        return sum(self.connections.values())


@dataclass
class Phase:
    """What was seen while something went on.

    Attributes:
        latencies: Seconds that each answer to /health took.
        most: The most that any look has shown.
    """

    latencies: list[float] = field(default_factory=list)
    most: Look = field(default_factory=Look)

    def take(self, look: Look) -> None:
        """Take a look into account."""
        if look.clients >= self.most.clients:
            self.most.connections = look.connections
        self.most.threads = max(self.most.threads, look.threads)
        self.most.memory = max(self.most.memory, look.memory)

    def percentile(self, share: float) -> float:
        """The latency that `share` (0..1) of the requests do not exceed. Seconds; 0 if there were none."""
        ranked = sorted(self.latencies)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0


@dataclass
class Seen:
    """What happened.

    Attributes:
        slow: How many slow clients came.
        alone, crowded: /health before they came, and with them.
        hung_up: How many clients asked for what takes long and hung up.
        stops: Seconds after which the view of each ended; of some none ever began.
        streams: The same of the streams that slow clients left.
        said: Messages by WebSocket that came back.
        heard: Server-sent events that came.
        complete: It came to its end.
    """

    slow: int
    alone: Phase = field(default_factory=Phase)
    crowded: Phase = field(default_factory=Phase)
    hung_up: int = 0
    stops: list[float] = field(default_factory=list)
    streams: list[float] = field(default_factory=list)
    said: int = 0
    heard: int = 0
    complete: bool = False


def figures(seen: Seen) -> str:
    """Write down what was seen."""
    before, crowded = seen.alone, seen.crowded
    table = [
        ("", "before", f"with {seen.slow} slow clients"),
        ("/health, half within", _ms(before.percentile(0.5)), _ms(crowded.percentile(0.5))),
        ("/health, 99% within", _ms(before.percentile(0.99)), _ms(crowded.percentile(0.99))),
        ("/health, answered", f"{len(before.latencies):,}", f"{len(crowded.latencies):,}"),
        ("the server's threads", str(before.most.threads), str(crowded.most.threads)),
        ("the server's memory", _mib(before.most.memory), _mib(crowded.most.memory)),
        ("connections", str(before.most.clients), _connections(crowded.most)),
    ]
    never = seen.hung_up - len(seen.stops)
    rest = [
        (
            "clients that hung up",
            f"{seen.hung_up}: {len(seen.stops)} views were stopped, {never} still queued never began",
        ),
        ("  stopped within", _stopped(seen.stops)),
        ("messages by WebSocket", f"{seen.said:,}, every one came back"),
        ("server-sent events", f"{seen.heard:,}"),
    ]
    lines = [f"  {name:<22} {alone:>9}   {with_them}".rstrip() for name, alone, with_them in table]
    return "\n".join([*lines, "", *(f"  {name:<22}  {what}" for name, what in rest)])


def last_figures(seen: Seen, seconds: float, last: str) -> str:
    """Write down how it ended.

    Args:
        seen: What happened.
        seconds: How long the server took to end.
        last: What it said.
    """
    streams = f"{len(seen.streams)} streams were stopped within {_stopped(seen.streams)}"
    return "\n".join(
        f"  {name:<22}  {what}"
        for name, what in (("slow clients that left", streams), ("Ctrl-C for the server", ended(seconds, last)))
    )


def ended(seconds: float, last: str) -> str:
    """Say how the server ended."""
    return f"it ended within {seconds:.1f} s, {last.rpartition('ended, ')[2]}"


def check(seen: Seen) -> None:
    """Compare what happened with what is promised.

    Raises:
        Failure: it differs, or nothing was measured.
    """
    grown = seen.crowded.most.threads - seen.alone.most.threads
    if grown > MOST_GROWTH:
        raise Failure(f"the server started {grown} threads for {seen.slow} slow clients.")
    if seen.crowded.most.clients < seen.slow:
        raise Failure(
            f"the server held {seen.crowded.most.clients} connections, and {seen.slow} slow clients were there."
        )
    if not seen.alone.latencies or not seen.crowded.latencies:
        raise Failure("no request was answered in the time: try a longer one with --seconds.")


def _stopped(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    return f"{_ms(statistics.median(seconds))} of the hang-up (half of them), {_ms(max(seconds))} (the last)"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"


def _connections(look: Look) -> str:
    return f"{look.clients}: " + ", ".join(f"{count} {state}" for state, count in sorted(look.connections.items()))
