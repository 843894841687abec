"""Several processes that serve on one listening socket, and the one that looks after them.

Theory of operation. The supervisor opens the socket and starts fresh processes with it: no fork of a process that has
threads, and each imports the application anew. It runs none of the application's code, and has one thread, which waits in a
selector for signals and for its workers. Each worker holds one end of a socket pair, its *line*: a byte from the worker says
that it serves; the end of the line says to the supervisor that the worker has ended, and to the worker that its supervisor
has: it then ends as at SIGTERM, so that nobody is left behind.

Workers are in process groups of their own: a Ctrl-C at the terminal reaches the supervisor alone, which passes it on, once.

| state of a worker | what it is waited for | when it ends |
|---|---|---|
| STARTING | its byte, `START` at most | the first ones: everything ends, as the next would fare no better; later: as below |
| SERVING | | it is started again: at once, or, if it lived for less than `STEADY`, after a pause that doubles |
| ENDING | its exit, `grace` and a little at most, then it is killed | it is gone |

Where changes of the sources are looked for, a worker that has ended by itself is started again at the next one.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import os
import selectors
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Line", "Supervisor", "WorkerFailed"]

logger = logging.getLogger("manyhands.server")

LINE: Final = "MANYHANDS_WORKER_LINE"
"""The environment variable that tells a worker the descriptor of its line."""

READY: Final = b"r"
"""What a worker says when it serves."""

STEADY: Final = 10.0
"""Seconds; a worker that ended sooner is started again after a pause."""

PAUSE: Final = (0.1, 10.0)
"""Seconds: the first pause, and the longest. Each is twice the one before."""

START: Final = 60.0
"""Seconds that a worker may take to import its application; then it is killed, and counts as one that has ended."""

AFTER_GRACE: Final = 5.0
"""Seconds that a worker has to come to its end after its requests' grace is over."""

ENDS: Final = (signal.SIGINT, signal.SIGTERM)


class WorkerFailed(Exception):
    """A worker of the first ones ended before it served; it has said why on standard error.

    Attributes:
        status: Its exit status; negative for a signal.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"a worker ended before it served, {_how(status)}")
        self.status = status


class _State(enum.Enum):
    STARTING = 1
    SERVING = 2
    ENDING = 3


class _Worker:
    """One process."""

    def __init__(self, number: int, process: subprocess.Popen[bytes], line: socket.socket, pause: float) -> None:
        self.number = number
        self.process = process
        self.line = line
        self.pause = pause  # before the next one is started, should this one end soon
        self.state = _State.STARTING
        self.born = monotonic()
        self.deadline = self.born + START  # not while it serves


class Supervisor:
    """Keeps so many processes serving until a signal ends them.

    Args:
        command: What a worker is started with.
        count: How many.
        listening: The descriptors that they inherit.
        grace: Seconds that their requests have to finish.
        changed: Looked at every half second: when it is true, the workers are ended and started again.

    Attributes:
        restarts: How many workers were started in place of one that ended by itself.

    Threads: the main thread, which alone gets signals; there should be no other.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        listening: Sequence[int],
        *,
        grace: float,
        changed: Callable[[], bool] | None = None,
    ) -> None:
        self._command = list(command)
        self._count = count
        self._listening = tuple(listening)
        self._grace = grace
        self._changed = changed
        self.restarts = 0
        self._selector = selectors.DefaultSelector()
        self._workers: dict[int, _Worker] = {}
        self._due: dict[int, tuple[float, float]] = {}  # worker's number -> when to start it, the pause after that
        self._signals: list[int] = []
        self._stopping = False
        self._served = False  # as many as were asked for have served once

    def run(self, on_ready: Callable[[Sequence[int]], object] | None = None) -> signal.Signals:
        """Start the workers and keep them until SIGINT or SIGTERM; end them in order. The second signal ends all at once.

        Args:
            on_ready: Called with the workers' process ids when all of the first ones serve.

        Returns:
            The signal that ended it.

        Raises:
            WorkerFailed: one of the first ones could not serve; the others were ended.
        """
        with self._woken_by_signals():
            try:
                for number in range(self._count):
                    self._start(number, PAUSE[0])
                while not (self._stopping and not self._workers):
                    self._wait()
                    self._take_signals()
                    self._look(on_ready)
            except BaseException:
                self._kill_all()
                raise
            finally:
                self._selector.close()
        return signal.Signals(self._signals[0])

    def _start(self, number: int, pause: float) -> None:
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                pass_fds=(*self._listening, theirs.fileno()),
                env={**os.environ, LINE: str(theirs.fileno())},
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        worker = _Worker(number, process, ours, pause)
        self._workers[number] = worker
        self._selector.register(ours, selectors.EVENT_READ, worker)

    def _wait(self) -> None:
        """Wait for whatever comes first, and take it in."""
        moments = [when for when, _ in self._due.values()]
        moments += [worker.deadline for worker in self._workers.values() if worker.state is not _State.SERVING]
        if self._changed is not None and not self._stopping:
            moments.append(monotonic() + 0.5)
        timeout = max(0.0, min(moments) - monotonic()) if moments else None
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    while os.read(key.fd, 4096):
                        pass
                continue
            self._hear(key.data)

    def _hear(self, worker: _Worker) -> None:
        try:
            said = worker.line.recv(64)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._bury(worker)
        elif worker.state is _State.STARTING:
            worker.state = _State.SERVING

    def _look(self, on_ready: Callable[[Sequence[int]], object] | None) -> None:
        """Do what is due by now."""
        now = monotonic()
        for worker in self._workers.values():
            if worker.state is not _State.SERVING and now >= worker.deadline:
                logger.error("worker %d (process %d) did not come to an end of its own: killed", *_names(worker))
                worker.deadline = now + AFTER_GRACE
                worker.process.kill()
        for number, (when, pause) in list(self._due.items()):
            if now >= when:
                del self._due[number]
                self._start(number, pause)
        if not self._served and len(self._workers) == self._count and self._all(_State.SERVING):
            self._served = True
            if on_ready is not None:
                on_ready([worker.process.pid for worker in self._workers.values()])
        if self._changed is not None and not self._stopping and self._changed():
            logger.info("the application has changed: its workers start again")
            for number in self._due:
                self._due[number] = (now, PAUSE[0])
            for worker in self._workers.values():
                self._end(worker, signal.SIGTERM)

    def _all(self, state: _State) -> bool:
        return all(worker.state is state for worker in self._workers.values())

    def _end(self, worker: _Worker, number: int) -> None:
        worker.state = _State.ENDING
        worker.deadline = monotonic() + self._grace + AFTER_GRACE
        with contextlib.suppress(ProcessLookupError):
            worker.process.send_signal(number)

    def _bury(self, worker: _Worker) -> None:
        """A worker has closed its line: it has ended, or is about to."""
        self._selector.unregister(worker.line)
        worker.line.close()
        try:
            status = worker.process.wait(AFTER_GRACE)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            status = worker.process.wait()
        del self._workers[worker.number]
        if self._stopping:
            return
        if worker.state is _State.ENDING:
            self._due[worker.number] = (monotonic(), PAUSE[0])
            return
        if self._changed is not None:
            logger.error("worker %d (process %d) ended, %s: waiting for a change", *_names(worker), _how(status))
            self._due[worker.number] = (math.inf, PAUSE[0])
            return
        if not self._served:
            raise WorkerFailed(status)
        self.restarts += 1
        if monotonic() - worker.born >= STEADY:
            wait, pause = 0.0, PAUSE[0]
        else:
            wait, pause = worker.pause, min(2 * worker.pause, PAUSE[1])
        what = "worker %d (process %d) ended by itself, %s: started again in %.1f s"
        logger.error(what, *_names(worker), _how(status), wait)
        self._due[worker.number] = (monotonic() + wait, pause)

    # Signals.

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Note SIGINT and SIGTERM, and wake the selector by them; what was there is put back."""
        readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        previous = {number: signal.signal(number, self._on_signal) or signal.SIG_DFL for number in ENDS}
        woken = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        self._selector.register(readable, selectors.EVENT_READ, None)
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken)
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(readable)
            os.close(writable)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's own signature
        self._signals.append(number)

    def _take_signals(self) -> None:
        if not self._signals:
            return
        if len(self._signals) > 1:
            # The second: workers that got two end at once, and so does this.
            self._kill_all()
            os._exit(128 + self._signals[1])
        if not self._stopping:
            self._stopping = True
            self._due.clear()
            for worker in self._workers.values():
                self._end(worker, self._signals[0])

    def _kill_all(self) -> None:
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
        for worker in self._workers.values():
            worker.process.wait()
            worker.line.close()


def _names(worker: _Worker) -> tuple[int, int]:
    return worker.number + 1, worker.process.pid


def _how(status: int) -> str:
    if status >= 0:
        return f"with status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"


class Line:
    """A worker's end of its line.

    Attributes:
        socket: To be watched: it is readable when the supervisor has ended.
    """

    def __init__(self, number: int) -> None:
        self.socket = socket.socket(fileno=number)
        self.socket.set_inheritable(False)
        self.socket.setblocking(False)

    @classmethod
    def take(cls) -> Line | None:
        """Return the line of this process if it is a worker; the first time only, so that no child takes it for its own."""
        number = os.environ.pop(LINE, None)
        return None if number is None else cls(int(number))

    def say_ready(self) -> None:
        """Say that it serves."""
        with contextlib.suppress(OSError):
            self.socket.send(READY)
