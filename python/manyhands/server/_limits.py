"""Limits: how much a client may ask for, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Limits"]

MOST = (1 << 63) - 1

MAY_BE_0 = ("body_bytes", "body_memory", "response_memory")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a client may ask for, and how long it may take. None, where it is allowed, is no limit.

    Attributes:
        head_bytes: Bytes of a request's head, blank lines before it included. More: 431. nginx, Tomcat and node stop
            between 8 and 32 KiB.
        headers: Header lines of a request. More: 431.
        body_bytes: Bytes of a request's body. More: 413.
        body_memory: Bytes of it that are held in memory; a longer one is in a temporary file without a name.
        head_timeout: Seconds from the first byte of a head to its last, and from accepting a connection to the end of
            its first head. Longer: 408.
        body_gap_timeout: Seconds without a byte of a body that has not ended; also how long a client may take none of
            its response. Longer: 408, or the end of the connection.
        keep_alive: Seconds that an idle connection is kept open.
        request_timeout: Seconds from the end of a request to the end of its view, waiting in the queue included. Longer:
            the view is told to stop, and the client gets 503 if nothing was sent yet. Its body may take as long to come:
            else 408, however steadily it trickles.
        pipelined: Requests that are kept while an earlier one of the same client is in hand; beyond them, and what one read
            brought, the client is not read any more. They are answered in order.
        connections: Open at once; further clients wait in the kernel's queue.
        pin_responses: A response in pieces stays on the thread that began it, which is held until the application has
            given all of it, however slow the client is. False: each piece may come from another thread, and none is
            held while the client has no room. None: True for what Django answers, False for any other.
        response_memory: Bytes of a pinned response that are kept in memory for a client that reads slowly; beyond them it
            goes to a temporary file. Also of what the old `write()` callable is given.
    """

    head_bytes: int = 16_384
    headers: int = 100
    body_bytes: int = 64 << 20
    body_memory: int = 1 << 20
    head_timeout: float = 10.0
    body_gap_timeout: float = 30.0
    keep_alive: float = 75.0
    request_timeout: float | None = None
    pipelined: int = 16
    connections: int = 10_000
    pin_responses: bool | None = None
    response_memory: int = 262_144

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if field.name == "pin_responses":
                if not isinstance(value, bool):
                    raise TypeError(f"pin_responses must be True, False or None, and got {value!r}")
                continue
            whole = isinstance(field.default, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                kind = "a whole number" if whole else "a number of seconds"
                raise TypeError(f"{field.name} must be {kind}, and got {value!r}")
            if type(value) is int and value > MOST:
                raise ValueError(f"{field.name} must be at most {MOST}, and got a number of {value.bit_length()} bits")
            least = 0 if field.name in MAY_BE_0 else 1 if whole else None
            if least is None and not value > 0:
                raise ValueError(f"{field.name} must be above 0 seconds, and got {value!r}")
            if least is not None and value < least:
                raise ValueError(f"{field.name} must be at least {least}, and got {value!r}")
