"""Runs `manyhands forward` in a process of its own, and plays its clients and its target with tasks."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TextIO

import manyhands as mh
from commands import COMMAND, START, assert_no_complaint, with_descriptors
from support import LONG

BLOCK = 65_536
Stream = mh.SocketStream | mh.TLSStream


def run(main: Callable[[], Coroutine[Any, Any, object]], *, timeout: float = LONG) -> None:
    """Run it within so many seconds."""

    async def limited() -> None:
        with mh.fail_after(timeout):
            await main()

    mh.run(limited)


class Forward:
    """A forwarder that listens; the first line that it printed says where."""

    def __init__(self, process: subprocess.Popen[str], complaints: TextIO) -> None:
        self.process = process
        self._complaints = complaints
        assert process.stdout is not None
        self.line = process.stdout.readline()
        found = re.match(r"manyhands forward: (?:127\.0\.0\.1:(\d+)|unix:(\S+)) .*Ctrl-C ends it$", self.line)
        assert found is not None, self.line + self.said()
        self.port = int(found[1] or 0)

    async def connect(self, **options: Any) -> Any:
        """Be a client."""
        return await mh.connect_tcp("127.0.0.1", self.port, **options)

    def said(self) -> str:
        """What it has said on standard error."""
        self._complaints.seek(0)
        return self._complaints.read()

    async def says(self, pattern: str, times: int = 1) -> None:
        """Wait until it has said that on standard error."""
        while len(re.findall(pattern, self.said())) < times:
            await mh.sleep(0.005)

    def memory(self) -> int:
        """The most bytes that it has had resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE) or re.search(
            r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE
        )
        assert found is not None, status
        return int(found[1]) * 1024

    def end(self, number: signal.Signals = signal.SIGINT) -> dict[str, int]:
        """Interrupt it; the figures of its summary."""
        self.process.send_signal(number)
        printed, _ = self.process.communicate(timeout=START)
        assert self.process.returncode == 0, printed + self.said()
        assert_no_complaint(self.said())
        assert f"ended by {number.name} after " in printed
        found = re.search(r"connections +([\d,]+), ([\d,]+) failed\n.*target +([\d,]+)\n.*clients +([\d,]+)", printed)
        assert found is not None, printed
        names = ("connections", "failed", "to_target", "to_clients")
        return {name: int(text.replace(",", "")) for name, text in zip(names, found.groups(), strict=True)}


@contextlib.contextmanager
def forward(*arguments: str, max_descriptors: int | None = None) -> Iterator[Forward]:
    """Start a forwarder with these arguments; it is gone when the block ends."""
    command = [*COMMAND, "forward", *arguments]
    if max_descriptors is not None:
        command = with_descriptors(max_descriptors, command)
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as process,
    ):
        try:
            yield Forward(process, complaints)
        finally:
            process.kill()


@contextlib.asynccontextmanager
async def target(handler: Callable[[mh.SocketStream], Coroutine[Any, Any, object]]) -> AsyncIterator[str]:
    """A target that handles connections while the block runs; its address."""
    async with await mh.create_tcp_listener() as listener, mh.create_task_group() as group:
        group.start_soon(listener.serve, handler)
        yield f"127.0.0.1:{listener.port}"
        group.cancel_scope.cancel()


async def echo(stream: Stream) -> None:
    """Send back what comes, and then the end; a client that is lost is none of its business."""
    with contextlib.suppress(mh.BrokenResourceError):
        async for chunk in stream:
            await stream.send(chunk)


async def send_blocks(stream: Stream, size: int, seed: int) -> str:
    """Send so many bytes, and then the end; their digest."""
    block = random.Random(seed).randbytes(BLOCK)
    digest = hashlib.sha256()
    for place in range(0, size, BLOCK):
        chunk = block[: size - place]
        digest.update(chunk)
        await stream.send(chunk)
    await stream.send_eof()
    return digest.hexdigest()


async def read_slowly(stream: Stream, begin: mh.Event) -> str:
    """Read to the end in small pieces, once it is time; the digest."""
    digest = hashlib.sha256()
    await begin.wait()
    with contextlib.suppress(mh.EndOfStream):
        while True:
            digest.update(await stream.receive(10_000))
            await mh.checkpoint()
    return digest.hexdigest()


async def carry(process: Forward, listener: mh.Listener, size: int, *, pairs: int = 2, **options: Any) -> None:
    """Send so many bytes both ways on each of some connections, to readers that begin when every writer is stuck."""
    begin = mh.Event()
    stuck = mh.Event()
    async with mh.create_task_group() as group, contextlib.AsyncExitStack() as stack:
        digests = []
        for number in range(pairs):
            client = await stack.enter_async_context(await process.connect(**options))
            peer = await stack.enter_async_context(await listener.accept())
            for sender, receiver in ((client, peer), (peer, client)):
                digests.append(
                    (
                        group.create_task(send_blocks(sender, size, number)),
                        group.create_task(read_slowly(receiver, begin)),
                    )
                )
        with mh.move_on_after(0.3):
            await stuck.wait()
        begin.set()
        for sent, received in digests:
            assert await sent == await received
