"""Server: a loop, the listener on it whose connections it serves, and the pool that runs their requests."""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
from collections import Counter
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

from manyhands import _core, _guards
from manyhands._arguments import check_choice
from manyhands._pool import ThreadPool
from manyhands._tasks._root import Root
from manyhands._threads import LOOK, ThreadedEventLoop
from manyhands.errors import LoopClosed, WouldDeadlock
from manyhands.server._application import is_asgi, refuse_asgi, takes_two
from manyhands.server._bind import Bind, Listening
from manyhands.server._budget import FILES, Budget
from manyhands.server._django import is_application
from manyhands.server._environ import base_environ
from manyhands.server._limits import Limits
from manyhands.server._listener import Listener
from manyhands.server._proxies import Proxies
from manyhands.server._wsgi import Application

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

    from manyhands._job import JobSnapshot
    from manyhands._stats import PoolStats

__all__ = ["HOST", "Server", "ServerStats", "check_grace", "default_threads"]

HOST: Final = "127.0.0.1"
"""Where a server listens if nobody says where: nobody else can reach it."""

LOCAL: Final = ("localhost", 80)
"""What an application gets for the server's name and port on a Unix socket; they may not be empty (PEP 3333)."""

START_LOOK: Final = 0.001
"""Seconds between two looks whether every thread has joined the loop."""

START_LOOKS: Final = 1000
"""So many looks; then it begins with those that are here."""

LAST_WORDS: Final = 1.0
"""Seconds that requests which were told to stop at the end of the server have to say so to their clients."""


@dataclass(frozen=True)
class ServerStats:
    """A server at one moment.

    Attributes:
        name: Its name.
        connections: How many there are, by what they are at: see `Connection.state`.
        refused: Requests that were refused before they were any, by status, since the start.
        requests: The pool's: each request is a job.
    """

    name: str
    connections: dict[str, int]
    refused: dict[int, int]
    requests: PoolStats


def default_threads() -> int:
    """Return how many views run at once unless it is said: 8 with the GIL, without it at least 8 and 4 per core."""
    return 8 if _guards.gil_enabled() else max(8, 4 * (os.cpu_count() or 1))


class Server:
    """Serves a WSGI application from threads of its own: for tests, and to be embedded in a program.

    ```python
    with manyhands.server.Server(app) as server:
        host, port = server.address
        ...
    ```

    Connections live on a loop and hold no thread while they are idle or slow. A request is a job, owned by its connection:
    it runs on the thread that read it, or on another one of the loop's. It is told to stop when its client hangs up.

    Args:
        app: A WSGI application.
        host: Name or address to listen on; empty for all IPv4 addresses of the machine.
        port: 0 takes a free one; see `address`.
        bind: Where to listen instead of at host and port: `HOST:PORT`, `unix:PATH`, or `fd:NUMBER` of a socket that
            listens already, as systemd hands on.
        tls: Speak TLS, with this server's certificate.
        trusted_proxies: Addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are taken for who the client is;
            "unix" for whoever connects to a Unix socket.
        threads: How many requests run at once; None for `default_threads()`. They run on the threads that serve the
            connections, of which there is one more.
        limits: What a client may ask for.
        max_queue_depth: Requests that may wait for a thread; a further one is answered with 503 at once.
        half_close: What it means that a client closes its half of the connection while its request is in hand: it is "gone",
            and its job is told to stop; or it is to be answered, "finish", and only a reset means that it has gone.
        name: What threads and errors show.
        access_log: Write a record of each request to the logger `manyhands.access`.

    Attributes:
        app, limits, half_close, name, access_log: As given.
        loop: The connections' loop.
        pool: The pool of the requests: `pool.jobs()` shows what runs.
        budget: The memory that bodies of requests may take, all of them together.
        files: The bytes of temporary files that they may take.
        outgoing: The memory that responses may take which wait for their clients.
        listener: Accepts the clients. The server's own.
        stopping: It takes no more requests.
        pin_responses: Whether a response stays on the thread that began it, whoever made it: see `Limits`.

    Raises:
        OSError: it cannot listen there.
        TypeError, ValueError: an argument that makes no sense.
    """

    def __init__(
        self,
        app: Application,
        host: str = HOST,
        port: int = 0,
        *,
        bind: str | Bind | None = None,
        tls: ssl.SSLContext | None = None,
        trusted_proxies: Iterable[str] = (),
        threads: int | None = None,
        limits: Limits | None = None,
        max_queue_depth: int = 1024,
        half_close: Literal["gone", "finish"] = "gone",
        name: str = "http",
        access_log: bool = True,
    ) -> None:
        _check(app, limits, tls)
        bind = Bind.of(bind, host, port, (HOST, 0))
        threads = default_threads() if threads is None else threads
        self.app = app
        self.limits = limits or Limits()
        check_choice("half_close", half_close, ("gone", "finish"))
        self.half_close = half_close
        self.name = name
        self.access_log = access_log
        self.stopping = False
        pin = self.limits.pin_responses
        self.pin_responses = is_application(app) if pin is None else pin
        self.pool = ThreadPool(threads, max_queue_depth=max_queue_depth, name=f"{name}-view")
        self.budget = Budget()
        self.files = Budget(FILES)
        self.outgoing = Budget()
        self._books = threading.RLock()  # reentrant: a finalizer may ask for `refused`
        self._tasks: Root | None = None  # GUARDED BY: _books
        self._refused: Counter[int] = Counter()  # GUARDED BY: _books
        self._stopper: int | None = None  # GUARDED BY: _books, as `_until`; the thread that is inside `_stop`
        self._until = 0.0  # when what it waits for is over
        self._ended = threading.Event()  # it is outside again
        self._left_behind: list[JobSnapshot] = []
        self.on_stop: Callable[[], object] = _nothing  # who waits for the end hears of it
        self.proxies = Proxies(trusted_proxies) if trusted_proxies else None
        self._tls = tls
        self._listening = Listening(bind)
        with contextlib.ExitStack() as undo:
            undo.callback(self._listening.close)
            self.environ = base_environ(*(self._listening.address if self._listening.tcp else LOCAL))
            if tls is not None:
                self.environ["wsgi.url_scheme"] = "https"
            self.loop = ThreadedEventLoop(threads + 1, name=name)
            undo.callback(self.loop.close)
            self.pool._use_threads_of(self.loop)  # noqa: SLF001 - the one user
            self.listener = Listener(self, self._listening, tls)
            undo.pop_all()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on; of a Unix socket its path and 0."""
        return self._listening.address

    @property
    def url(self) -> str:
        """Where it is found, for a person to read."""
        url = self._listening.url
        return url if self._tls is None else url.replace("http:", "https:", 1)

    @property
    def tasks(self) -> Root:
        """The tasks that make responses; the group is made when it is asked for."""
        with self._books:
            if self._tasks is None:
                self._tasks = Root(self.loop)
            return self._tasks

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self.listener)

    def refused(self) -> dict[int, int]:
        """Count the requests that were refused before they were any: malformed, too long or too slow. By status."""
        with self._books:
            return dict(self._refused)

    def count_refused(self, status: int) -> None:
        """Count one more. Called by the connection."""
        with self._books:
            self._refused[int(status)] += 1

    def stats(self) -> ServerStats:
        """Say how much is under way, and how much was. Any thread."""
        return ServerStats(self.name, self.connection_states(), self.refused(), self.pool.stats())

    def connection_states(self) -> dict[str, int]:
        """Count the connections by what they are at: see `Connection.state`."""
        return dict(Counter(connection.state for connection in self.listener.connections))

    def start(self) -> None:
        """Start the threads and return. Before, clients wait in the kernel's queue.

        Raises:
            RuntimeError: it runs already, or a thread could not be started.
            LoopClosed: it was stopped.
        """
        if self.loop.closed:
            raise LoopClosed(self.name, f"server {self.name!r} was stopped: make a new one")
        self.loop.start()
        # A timer, as nobody misses one that a stop which comes at once leaves behind.
        self.loop.call_later(0.0, self._begin, self.pool.threads + 1, START_LOOKS)

    def __enter__(self) -> Self:
        """Start it; leaving the `with` block stops it."""
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self, grace: float = 10.0) -> list[JobSnapshot]:
        """Stop: accept no more clients, close idle connections, let requests in hand finish, then tell them to stop.

        Idempotent; called again after it returned requests, it sees whether they have ended. Called while another thread is
        in it, it waits for that one, whose grace it may shorten. In a signal's handler that interrupts it on the same thread it
        shortens the grace and returns an empty list at once.

        Args:
            grace: Seconds that requests have to finish by themselves. After it those in the queue never start, those that
                run are told to stop (POOL_FINISHING), and their clients get 503 if nothing was sent yet.

        Returns:
            The requests that run all the same; each is logged with its stack. Their threads end with the process.

        Raises:
            WouldDeadlock: the calling thread serves a loop or runs a job.
        """
        if _core.is_lent():
            raise WouldDeadlock("Server.stop()", self.name)
        check_grace(grace)
        until = monotonic() + grace
        with self._books:
            stopper, self._until = self._stopper, until if self._stopper is None else min(until, self._until)
            if stopper is None:
                self._stopper = threading.get_ident()
                self._ended.clear()
        if stopper == threading.get_ident():
            return []  # a signal's handler, within the stop that it has made shorter
        if stopper is not None:
            while not self._ended.wait(LOOK):
                pass
            return list(self._left_behind)
        try:
            self._left_behind = [] if self.loop.closed else self._stop()
        finally:
            self._stopper = None
            self._ended.set()
        return list(self._left_behind)

    def _stop(self) -> list[JobSnapshot]:
        self.listener.close()
        self.stopping = True
        self.on_stop()
        for connection in self.listener.left_over():
            connection.end_soon()
        self._wait_for_nobody()
        self.pool.finish()
        self._until = monotonic() + LAST_WORDS
        self._wait_for_nobody()
        for connection in self.listener.left_over():
            connection.abandon()
        left = self.pool.destroy(LAST_WORDS)
        tasks = self._tasks
        if tasks is not None:  # their responses have ended: what is left of them is their cleanup
            tasks.end(LAST_WORDS)
        if self.loop.stop(LAST_WORDS):
            self.loop.close()
            if tasks is not None:
                tasks.abandon()
        return left

    def _wait_for_nobody(self) -> None:
        # In slices: another call may make it shorter, and free-threaded CPython 3.13 misses a signal that comes just before a
        # wait for a lock.
        while (left := self._until - monotonic()) > 0 and not self.listener.nobody.wait(min(left, LOOK)):
            pass

    def _begin(self, threads: int, looks: int) -> None:
        """Accept when every thread is here. While there is one only, requests would get threads of the pool."""
        if looks and self.loop.joined < threads:
            self.loop.call_later(START_LOOK, self._begin, threads, looks - 1)
            return
        self.listener.accept()


def _nothing() -> None:
    """Do nothing."""


def check_grace(grace: object) -> None:
    """Refuse what is no time for the end, before anything is served.

    Raises:
        TypeError, ValueError: it is no number of seconds.
    """
    if not isinstance(grace, int | float) or isinstance(grace, bool):
        raise TypeError(f"grace must be a number of seconds, and got {grace!r}")
    if not grace >= 0:
        raise ValueError(f"grace must be a number of seconds, 0 or more, and got {grace!r}")


def _check(app: Any, limits: object, tls: object) -> None:
    if not callable(app):
        raise TypeError(f"app must be a WSGI application, which is callable, and got {app!r}")
    if limits is not None and not isinstance(limits, Limits):
        raise TypeError(f"limits must be a Limits, and got {limits!r}")
    if is_asgi(app):
        raise TypeError(refuse_asgi(repr(app)))
    if not takes_two(app):
        raise TypeError(
            f"app must be a WSGI application, and {app!r} cannot be called with two arguments, environ and start_response; "
            "if it makes one, give what it returns"
        )
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        raise TypeError(f"tls must be an ssl.SSLContext, and got {tls!r}")
    if tls is not None and tls.protocol is ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(
            "tls is a context for clients: make one for a server, as by "
            "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) and load_cert_chain()"
        )
