"""What a type checker makes of the blocking calls. Checked by mypy (`make lint`), never run."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import queue
import socket
import threading
from pathlib import Path
from typing import Any, assert_type

import manyhands as mh
from manyhands import blocking


def queues(
    numbers: queue.Queue[int], words: queue.SimpleQueue[str], jobs: queue.PriorityQueue[tuple[int, str]]
) -> None:
    assert_type(blocking.get(numbers), int)
    assert_type(blocking.get(words, 1.5), str)
    assert_type(blocking.get(jobs, timeout=None), tuple[int, str])
    blocking.get([1])  # type: ignore[arg-type]


def waits(future: concurrent.futures.Future[int], job: mh.Job[str]) -> None:
    for what in (threading.Event(), threading.Condition(), future, job):
        assert_type(blocking.wait(what), bool)
    blocking.wait(multiprocessing.Event(), 1)
    blocking.wait(threading.Lock())  # type: ignore[arg-type]


def locks(lock: threading.Lock, semaphore: threading.Semaphore) -> None:
    assert_type(blocking.acquire(lock), bool)
    blocking.acquire(threading.RLock(), timeout=0)
    blocking.acquire(semaphore, 1)
    blocking.acquire(threading.Event())  # type: ignore[arg-type]


def sockets(sock: socket.socket) -> None:
    assert_type(blocking.accept(sock), tuple[socket.socket, Any])
    assert_type(blocking.recv(sock, 10), bytes)
    assert_type(blocking.send(sock, memoryview(b"x")), int)
    assert_type(blocking.wait_readable(sock), bool)
    assert_type(blocking.wait_readable(0, 1.0), bool)
    blocking.connect(sock, ("::1", 80, 0, 0))
    mh.wake_accept(sock)
    blocking.recv(0, 10)  # type: ignore[arg-type]
    blocking.send(sock, "text")  # type: ignore[arg-type]


def programs() -> None:
    blocking.run(["ls", Path.cwd()], capture_output=True, text=True, check=True, timeout=5)
    blocking.run("ls", input=b"x", env={})
    blocking.run(7)  # type: ignore[arg-type]
