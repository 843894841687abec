"""What the tests of operations share: a proactor of either backend, a file, and operations that do not begin."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

import manyhands as mh
from gate import Gate
from manyhands import _core

NORMAL = os.environ.get("MANYHANDS_TEST_FILES", "io_uring")
"""The backend that there is by itself: "threads" where a test has the kernel refuse its ring."""


def have_ring() -> bool:
    """Whether the kernel gives this process a ring."""
    try:
        _core.Ring()
    except OSError:
        return False
    return True


@pytest.fixture(params=["normal", "threads"])
def backend(request) -> str:
    """The normal backend, and the threads."""
    if request.param == "normal" and NORMAL == "io_uring" and not have_ring():
        pytest.skip("the kernel gives no io_uring here")
    return request.param


@pytest.fixture
def make_proactor(make_loop, make_pool):
    """Make proactors, each on a loop of its own with a pool of its own, that are closed at the end."""
    made = []

    def make(files: str | None = None, **options) -> mh.Proactor:
        proactor = mh.Proactor(make_loop(pool=make_pool(), **options), files=files)
        made.append(proactor)
        return proactor

    yield make
    for proactor in made:
        proactor.close()


@pytest.fixture
def proactor(backend, make_proactor) -> mh.Proactor:
    """A proactor of the backend."""
    made = make_proactor(None if backend == "normal" else backend)
    assert made.backend == (NORMAL if backend == "normal" else backend)
    return made


@pytest.fixture
def ring(make_proactor) -> mh.Proactor:
    """A proactor of the ring."""
    if not have_ring():
        pytest.skip("the kernel gives no io_uring here")
    return make_proactor("io_uring")


@pytest.fixture
def file(tmp_path):
    """A file of the ten digits, read and write."""
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")
    with open(path, "r+b", buffering=0) as opened:
        yield opened


@contextlib.contextmanager
def full(proactor: mh.Proactor) -> Iterator[None]:
    """Within the block no further operation of the proactor begins."""
    if proactor.backend == "io_uring":
        reader, writer = os.pipe()
        files = proactor._files
        taken = [mh.Operation("read", None, reader, proactor.loop, proactor.loop.strand(), None, files.abort)]
        taken *= 64
        for operation in taken:
            files._ring.read(operation, reader, 1, 0)
        try:
            yield
        finally:
            os.write(writer, bytes(len(taken)))
            while files._ring.pending and not proactor.loop.joined:
                files._ring.wait(1)
                files._reap()
            os.close(writer)
            os.close(reader)
        return
    lane = proactor.loop.pool._own_lane()
    with contextlib.ExitStack() as gates:
        for _ in range(lane.threads):
            gate = gates.enter_context(Gate())
            lane.enqueue(gate)
            gate.wait_entered()
        yield


def pipe_reads(proactor: mh.Proactor, monkeypatch) -> tuple[int, int]:
    """Have the proactor take a pipe for a file: a read of it is with the kernel until somebody writes."""
    monkeypatch.setattr("manyhands._proactor.file_number", lambda number: number)
    return os.pipe()
