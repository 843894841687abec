"""Whose word is taken for who the client is: the proxies in front of the server.

X-Forwarded-For and X-Forwarded-Proto are what anybody may send. They count only on a connection from an address that is
trusted, and only as far as trusted addresses have written them: each proxy adds the address that it got the request from at
the end, so what was there before is as good as the one who wrote it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["Proxies"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_WITH_PORT: Final = re.compile(
    r"\[(?P<six>[^\]]+)\](?::[0-9]{1,5})?|(?P<four>[0-9]{1,3}(?:\.[0-9]{1,3}){3}):[0-9]{1,5}"
)


class Proxies:
    """The addresses that are trusted.

    Args:
        addresses: Addresses and networks, as in `10.0.0.0/8`; `unix` for whoever connects to a Unix socket.

    Raises:
        ValueError: one of them is neither.
    """

    def __init__(self, addresses: Iterable[str]) -> None:
        if isinstance(addresses, str):
            raise TypeError(
                f"trusted_proxies must be a list of addresses, and got {addresses!r}: write [{addresses!r}]"
            )
        self._unix = False
        self._networks: list[_Network] = []
        for address in addresses:
            if address == "unix":
                self._unix = True
                continue
            if not isinstance(address, str):
                raise TypeError(f"a trusted proxy must be a str, and got {address!r}")
            try:
                self._networks.append(ipaddress.ip_network(address))
            except ValueError as error:
                why = (
                    "for everybody write 0.0.0.0/0 and ::/0, where only the proxy can connect"
                    if address == "*"
                    else error
                )
                raise ValueError(
                    f"a trusted proxy must be an address, a network or unix, and got {address!r}: {why}"
                ) from None

    def trusts(self, remote: str) -> bool:
        """Whether this address is one of theirs; empty stands for a Unix socket's."""
        if not remote:
            return self._unix
        try:
            address = ipaddress.ip_address(remote.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def apply(self, environ: dict[str, Any]) -> None:
        """Put the client that they tell of into a request's environ, if they are who speaks."""
        remote = environ.get("REMOTE_ADDR", "")
        if not self.trusts(remote):
            return
        for hop in reversed(environ.get("HTTP_X_FORWARDED_FOR", "").split(",")):
            address = _without_port(hop.strip())
            try:
                if "%" in address:
                    break  # a zone of somebody else's machine, and it may be any text
                ipaddress.ip_address(address)
            except ValueError:
                break  # nobody's word
            environ["REMOTE_ADDR"] = address
            environ.pop("REMOTE_PORT", None)
            if not self.trusts(address):
                break
        scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            environ["wsgi.url_scheme"] = scheme


def _without_port(hop: str) -> str:
    """The address of a hop: some proxies write a port behind it, and an IPv6 address in brackets then (RFC 7239, 6)."""
    found = _WITH_PORT.fullmatch(hop)
    return hop if found is None else found["six"] or found["four"]
