"""The forwarder's full check: a gibibyte each way through slow readers, and a thousand connections at once."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest

import certified
import manyhands as mh
from descriptors import need_descriptors
from forwarding import carry, echo, forward, run, target

GIB = 2**30
TLS = ("--tls-cert", certified.certificate(), "--tls-key", certified.key())


@pytest.mark.stress
@pytest.mark.parametrize(("tls", "size"), [(False, GIB // 4), (True, GIB // 16)], ids=["plain", "tls"])
def test_a_gibibyte_each_way_in_bounded_memory(tls: bool, size: int) -> None:
    """FAULT 15. On four connections, with the right digests; a quarter of it with TLS, which the test pays for as well."""

    async def main() -> None:
        async with await mh.create_tcp_listener() as listener:
            with forward("0", f"127.0.0.1:{listener.port}", *(TLS if tls else ())) as process:
                before = process.memory()
                options: dict[str, Any] = {}
                if tls:
                    options = {"tls": certified.client_context(), "server_hostname": "localhost"}
                await carry(process, listener, size, pairs=4, **options)
                grown = process.memory() - before
                assert grown < 16 * 2**20, f"{grown:,} bytes"
                print(f"grown by {grown:,} bytes")
                assert process.end()["to_target"] == 4 * size

    run(main, timeout=600)


@pytest.mark.stress
def test_a_thousand_connections_at_once_and_resets_in_the_middle() -> None:
    """FAULT 14. Three rounds on all of them; a tenth is reset in each."""
    need_descriptors(5000)

    async def main() -> None:
        async with target(echo) as address:
            with forward("0", address) as process:
                async with contextlib.AsyncExitStack() as stack:
                    streams = [await stack.enter_async_context(await process.connect()) for _ in range(1000)]
                    for _ in range(3):
                        for number, stream in enumerate(streams):
                            await stream.send(b"%d" % number * 500)
                        for number, stream in enumerate(streams):
                            expected = b"%d" % number * 500
                            if number % 10:
                                assert await stream.receive_exactly(len(expected)) == expected
                        for place in range(0, len(streams), 10):
                            stream = streams[place]
                            stream.setsockopt(1, 13, struct.pack("ii", 1, 0))
                            stream.close()
                            streams[place] = await stack.enter_async_context(await process.connect())
                figures = process.end()
        assert figures["connections"] == 1300 and figures["failed"] == 0

    run(main, timeout=120)
