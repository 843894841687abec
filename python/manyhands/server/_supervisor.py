"""Several processes that serve on one listening socket, and the one that looks after them.

Theory of operation. The supervisor opens the socket and starts fresh processes with it: no fork of a process that has
threads, and each imports the application anew. It runs none of the application's code, and has one thread, which waits in a
selector for signals and for its workers. Each worker holds one end of a socket pair, its *line*: a byte from the worker says
that it serves; the end of the line says to the supervisor that the worker has ended, and to the worker that its supervisor
has: it then ends as at SIGTERM, so that nobody is left behind. If there is a page that shows all of them, a process of its own
serves it (`_page_process.py`); a worker then has a second socket, on which that process asks it for its figures.

Workers are in process groups of their own: a Ctrl-C at the terminal reaches the supervisor alone, which passes it on, once.

| state of a worker | what it is waited for | when it ends |
|---|---|---|
| STARTING | its byte, `START` at most | the first ones: everything ends, as the next would fare no better; later: as below |
| SERVING | | it is started again: at once, or, if it lived for less than `STEADY`, after a pause that doubles |
| ENDING | its exit, `grace` and a little at most, then it is killed | it is gone |

One that has closed its line, in whichever state, has `AFTER_GRACE` to end, and is looked at every `LOOK` until it has: nobody
waits for it, so the others are looked after meanwhile.

The page is told two more, which no worker is in: GONE, and WAITING for the next one of its number.

Where changes of the sources are looked for, a worker that has ended by itself is started again at the next one.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

from manyhands._log import Log
from manyhands.server._errors import WorkerFailed, how_it_ended
from manyhands.server._line import LINE
from manyhands.server._worker_process import State, Worker

if TYPE_CHECKING:
    from types import FrameType

    from manyhands.server._bind import Listening
    from manyhands.server._page_process import PageProcess

__all__ = ["Supervisor"]

logger = Log("manyhands.server")

STEADY: Final = 10.0
"""Seconds; a worker that ended sooner is started again after a pause."""

PAUSE: Final = (0.1, 10.0)
"""Seconds: the first pause, and the longest. Each is twice the one before."""

AFTER_GRACE: Final = 5.0
"""Seconds that a worker has to come to its end after its requests' grace is over."""

LOOK: Final = 0.02
"""Seconds between two looks at a worker that is about to end."""

ENDS: Final = (signal.SIGINT, signal.SIGTERM)


class Supervisor:
    """Keeps so many processes serving until a signal ends them, or `stop()`. Made by `serve(workers=...)`.

    Args:
        command: What a worker is started with.
        count: How many.
        listening: The socket that they inherit.
        grace: Seconds that their requests have to finish.
        changed: Looked at every half second: when it is true, the workers are ended and started again.
        page: The process that shows their figures.
        signals: End at SIGINT and SIGTERM.

    Attributes:
        address: Host and port; of a Unix socket its path and 0.
        url: Where it is found, for a person to read.
        restarts: How many workers were started in place of one that ended by itself.

    Threads: `stop()` any; the rest is of the thread that runs it, which must be the main thread if there are signals.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        listening: Listening,
        *,
        url: str,
        grace: float,
        changed: Callable[[], bool] | None = None,
        page: PageProcess | None = None,
        signals: bool = True,
    ) -> None:
        self._command = list(command)
        self._count = count
        self._listening = listening
        self.address = listening.address
        self.url = url
        self._grace = grace
        self._changed = changed
        self._page = page
        self._restarted: Counter[int] = Counter()
        self._selector = selectors.DefaultSelector()
        self._workers: dict[int, Worker] = {}
        self._due: dict[int, tuple[float, float]] = {}  # worker's number -> when to start it, the pause after that
        self._ends: tuple[signal.Signals, ...] = ENDS if signals else ()
        self._signals: list[int] = []
        self._asked = False  # stop() was called
        self._bell = -1  # GUARDED BY: _bell_lock; a byte to it wakes the selector
        self._bell_lock = threading.RLock()  # reentrant: a signal's handler may call stop()
        self._stopping = False
        self._served = False  # as many as were asked for have served once

    @property
    def processes(self) -> list[int]:
        """The process ids of its workers, as they are now."""
        return [worker.process.pid for worker in list(self._workers.values())]

    @property
    def restarts(self) -> int:
        """How many workers were started in place of one that ended by itself."""
        return sum(self._restarted.copy().values())

    def stop(self) -> None:
        """End the workers as at SIGTERM, and `serve()`, which returns when they have ended. Idempotent.

        Threads: any. Blocks: never.
        """
        with self._bell_lock:
            self._asked = True
            if self._bell >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._bell, b"s")

    def run(
        self,
        on_ready: Callable[[Supervisor], object] | None = None,
        on_ending: Callable[[Supervisor], object] | None = None,
    ) -> signal.Signals | None:
        """Start the workers and keep them until SIGINT or SIGTERM; end them in order. The second signal ends all at once.

        Args:
            on_ready: Called with this when all of the first ones serve.
            on_ending: Called with this when the workers have been told to end.

        Returns:
            The signal that ended it; None if `stop()` did.

        Raises:
            WorkerFailed: one of the first ones could not serve; the others were ended.
        """
        with self._woken():
            try:
                if self._page is not None:
                    self._start_page(self._page)
                for number in range(self._count):
                    self._start(number, PAUSE[0])
                while not (self._stopping and not self._workers):
                    self._wait()
                    if self._take_signals() and on_ending is not None:
                        on_ending(self)
                    self._look(on_ready)
            except BaseException:
                self._kill_all()
                raise
            finally:
                if self._page is not None:
                    self._page.kill()
                self._selector.close()
        return signal.Signals(self._signals[0]) if self._signals else None

    def _start(self, number: int, pause: float) -> None:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            pairs = [socket.socketpair() for _ in range(1 if self._page is None else 2)]
            for mine, its in pairs:
                ours.enter_context(mine)
                theirs.enter_context(its)
            numbers = [its.fileno() for _, its in pairs]
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                pass_fds=(self._listening.fileno(), *numbers),
                env={**os.environ, LINE: ",".join(map(str, numbers))},
                process_group=0,
            )
            ours.pop_all()
        line, *figures = [mine for mine, _ in pairs]
        line.setblocking(False)
        worker = Worker(number, process, line, figures[0] if figures else None, pause)
        self._workers[number] = worker
        self._selector.register(line, selectors.EVENT_READ, worker)
        self._tell(worker, hand_on=True)

    def _wait(self) -> None:
        """Wait for whatever comes first, and take it in."""
        moments = [when for when, _ in self._due.values()]
        moments += [worker.deadline for worker in self._workers.values() if worker.state is not State.SERVING]
        if any(worker.left for worker in self._workers.values()):
            moments.append(monotonic() + LOOK)
        if self._changed is not None and not self._stopping:
            moments.append(monotonic() + 0.5)
        if (page := self._page_to_start()) is not None:
            moments.append(page.due)
        timeout = max(0.0, min(moments) - monotonic()) if moments else None
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    while os.read(key.fd, 4096):
                        pass
            elif isinstance(key.data, Worker):
                self._hear(key.data)
            else:
                self._hear_page(key.data)

    def _hear(self, worker: Worker) -> None:
        try:
            said = worker.line.recv(64)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._selector.unregister(worker.line)
            worker.close()
            worker.left = True
            worker.deadline = monotonic() + AFTER_GRACE
        elif worker.state is State.STARTING:
            worker.state = State.SERVING
            self._tell(worker)

    # The page that shows all of them.

    def _page_to_start(self) -> PageProcess | None:
        return self._page if self._page is not None and self._page.line is None and not self._stopping else None

    def _start_page(self, page: PageProcess) -> None:
        page.start()
        if page.line is not None:
            self._selector.register(page.line, selectors.EVENT_READ, page)
            for worker in self._workers.values():
                self._tell(worker, hand_on=not worker.left)

    def _hear_page(self, page: PageProcess) -> None:
        assert page.line is not None
        try:
            said = page.line.recv(64)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._selector.unregister(page.line)
            if self._stopping:
                page.kill()  # nobody is surprised
            else:
                page.bury()

    def _tell(self, worker: Worker, state: State | None = None, *, hand_on: bool = False) -> None:
        if self._page is None:
            return
        message = {
            "worker": worker.number + 1,
            "pid": worker.process.pid,
            "state": (state or worker.state).name.lower(),
            "born": worker.born,
            "restarts": self._restarted[worker.number],
        }
        self._page.tell(message, worker.figures if hand_on else None)

    def _look(self, on_ready: Callable[[Supervisor], object] | None) -> None:
        """Do what is due by now."""
        now = monotonic()
        for worker in list(self._workers.values()):
            if worker.left and (status := worker.process.poll()) is not None:
                self._bury(worker, status)
            elif (worker.left or worker.state is not State.SERVING) and now >= worker.deadline:
                logger.error("worker %d (process %d) did not come to an end of its own: killed", *worker.names)
                worker.deadline = now + AFTER_GRACE
                worker.process.kill()
        for number, (when, pause) in list(self._due.items()):
            if now >= when:
                del self._due[number]
                self._start_again(number, pause)
        if (page := self._page_to_start()) is not None and now >= page.due:
            self._start_page(page)
        if not self._served and len(self._workers) == self._count and self._all_serve():
            self._served = True
            if on_ready is not None:
                on_ready(self)
        if self._changed is not None and not self._stopping and self._changed():
            self._reload(now)

    def _reload(self, now: float) -> None:
        logger.warning("the application has changed: its workers start again")
        for number in self._due:
            self._due[number] = (now, PAUSE[0])
        for worker in self._workers.values():
            self._end(worker, signal.SIGTERM)

    def _start_again(self, number: int, pause: float) -> None:
        try:
            self._start(number, pause)
        except OSError as error:  # no process, no descriptor, no memory: the others serve on
            logger.error("worker %d could not be started: %s: tried again in %.1f s", number + 1, error, pause)  # noqa: TRY400
            self._due[number] = (monotonic() + pause, min(2 * pause, PAUSE[1]))

    def _all_serve(self) -> bool:
        return all(worker.state is State.SERVING and not worker.left for worker in self._workers.values())

    def _end(self, worker: Worker, number: int) -> None:
        if worker.state is State.ENDING:
            return  # a second signal would end its requests at once
        worker.state = State.ENDING
        if not worker.left:  # else it is at its last functions, and the signal would kill it
            worker.deadline = monotonic() + self._grace + AFTER_GRACE
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(number)
        self._tell(worker)

    def _bury(self, worker: Worker, status: int) -> None:
        """A worker has ended."""
        del self._workers[worker.number]
        if self._stopping:
            self._tell(worker, State.GONE)
            return
        self._plan_next(worker, status)
        self._tell(worker, State.WAITING)

    def _plan_next(self, worker: Worker, status: int) -> None:
        """Say when the next one of its number is due."""
        if worker.state is State.ENDING:
            self._due[worker.number] = (monotonic(), PAUSE[0])
            return
        if self._changed is not None:
            logger.error("worker %d (process %d) ended, %s: waiting for a change", *worker.names, how_it_ended(status))
            self._due[worker.number] = (math.inf, PAUSE[0])
            return
        if not self._served:
            raise WorkerFailed(status)
        self._restarted[worker.number] += 1
        if monotonic() - worker.born >= STEADY:
            wait, pause = 0.0, PAUSE[0]
        else:
            wait, pause = worker.pause, min(2 * worker.pause, PAUSE[1])
        what = "worker %d (process %d) ended by itself, %s: started again in %.1f s"
        logger.error(what, *worker.names, how_it_ended(status), wait)
        self._due[worker.number] = (monotonic() + wait, pause)

    # Signals.

    @contextlib.contextmanager
    def _woken(self) -> Iterator[None]:
        """Let signals and `stop()` wake the selector; what was there is put back."""
        readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with self._bell_lock:
            self._bell = writable
        self._selector.register(readable, selectors.EVENT_READ, None)
        previous = {number: signal.signal(number, self._on_signal) or signal.SIG_DFL for number in self._ends}
        woken = signal.set_wakeup_fd(writable, warn_on_full_buffer=False) if self._ends else -1
        try:
            yield
        finally:
            if self._ends:
                signal.set_wakeup_fd(woken)
            for number, handler in previous.items():
                signal.signal(number, handler)
            with self._bell_lock:
                self._bell = -1
                os.close(writable)
            os.close(readable)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's own signature
        self._signals.append(number)

    def _take_signals(self) -> bool:
        """Do what they ask for; whether the workers were told to end, once."""
        if len(self._signals) > 1:
            # The second: workers that got two end at once, and so does this.
            self._kill_all()
            os._exit(128 + self._signals[1])
        if self._stopping or not (self._signals or self._asked):
            return False
        self._stopping = True
        self._due.clear()
        for worker in self._workers.values():
            self._end(worker, self._signals[0] if self._signals else signal.SIGTERM)
        return True

    def _kill_all(self) -> None:
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
        for worker in self._workers.values():
            worker.process.wait()
            worker.close()
