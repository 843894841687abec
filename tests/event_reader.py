"""A page that reads server-sent events."""

from __future__ import annotations

import http.client
import zlib
from collections.abc import Iterator
from typing import Self

from support import LONG


class EventReader:
    """Asks for events, and reads them one by one."""

    def __init__(self, address: tuple[str, int], path: str = "/news", **headers: str) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=LONG)
        self._connection.request(
            "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        self.response = self._connection.getresponse()
        self._lines = self._read_lines()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the page."""
        self.response.close()
        self._connection.close()

    def _read_lines(self) -> Iterator[str]:
        packed = self.response.getheader("Content-Encoding") == "gzip"
        unpacker = zlib.decompressobj(31)
        text = ""
        while data := self.response.read1():
            text += (unpacker.decompress(data) if packed else data).decode()
            *lines, text = text.split("\n")
            yield from lines

    def event(self) -> dict[str, str]:
        """The next event's fields; empty at the end."""
        fields: dict[str, str] = {}
        for line in self._lines:
            name, colon, value = line.partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
            elif fields and not colon:
                break
        return fields
