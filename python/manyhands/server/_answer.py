"""An answer: one request in hand, from its job's beginning to its end. It runs on the job's thread.

The connection makes it, and gets the thread's last word by `on_job_ended`; in between the answer alone writes to the
client. What is a thread's and what is the strand's: see `_connection.py`.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Final

from manyhands import _core
from manyhands._job import Job, StopReason
from manyhands.errors import JobStopped
from manyhands.server._response import ResponseFrame, error_response
from manyhands.server._wsgi import Exchange, environ_of

if TYPE_CHECKING:
    from manyhands._core import Watch
    from manyhands.server._connection import Connection
    from manyhands.server._request import Request
    from manyhands.server._server import Server

__all__ = ["GONE", "Answer", "log_access"]

logger = logging.getLogger("manyhands.server")
access_logger = logging.getLogger("manyhands.access")

RETRY_AFTER: Final = 1
"""Seconds after which a client that found the queue full may come again."""

CLIENT_GONE: Final = 499
"""What the access log says of a request whose client did not wait for it; nginx's number."""

GONE: Final = -1
"""What writing to a connection gives when there is nobody left to read."""


class Answer:
    """A request and what becomes of it.

    Args:
        server: Has the application and the pool.
        connection: The client's.
        request: The request.
    """

    __slots__ = ("_connection", "_exchange", "_job", "_request", "_sent", "_server", "_since", "_unsent")

    def __init__(self, server: Server, connection: Connection, request: Request) -> None:
        self._server = server
        self._connection = connection
        self._request = request
        self._since = monotonic()
        self._exchange: Exchange | None = None  # None until the job has begun
        self._job: Job[None] | None = None
        self._sent = 0
        self._unsent: memoryview | None = None

    @property
    def complete(self) -> bool:
        """The whole response was given."""
        return self._exchange is not None and self._exchange.complete

    def begin(self, watch: Watch) -> None:
        """Make it a job of this owner.

        Raises:
            QueueFull, PoolFinished, WatchRemoved, LoopClosed: it was not taken, and nothing of it will run.
        """
        server, request = self._server, self._request
        timeout = server.limits.request_timeout
        server.pool.enqueue(
            self._run,
            owner=watch,
            name=f"{request.method} {request.target.partition(b'?')[0].decode('ascii')}",
            in_place=True,
            keep=False,
            on_sync=_let_go_on,
            cleanup=self._on_ended,
            deadline=None if timeout is None else self._since + timeout,
        )

    def refuse(self, *, keep: bool) -> bytes:
        """Return the response to a request that was not taken."""
        response = self._unavailable(keep=keep)
        self._log(HTTPStatus.SERVICE_UNAVAILABLE, len(response))
        return response

    # The job.

    def _run(self) -> None:
        server, request, connection = self._server, self._request, self._connection
        self._job = job = _core.current_job()
        frame = ResponseFrame(request, keep_alive=not server.stopping)
        self._exchange = exchange = Exchange(frame, self._send)
        environ = environ_of(server.environ, request, connection.remote)
        environ["manyhands.job"] = job
        environ["manyhands.connection"] = connection
        try:
            exchange.run(server.app, environ)
        except JobStopped as stopped:
            if not connection.gone and stopped.reason is not StopReason.OWNER_GONE:
                self._answer_error(exchange, self._unavailable(keep=False), HTTPStatus.SERVICE_UNAVAILABLE)
            raise
        except BaseException:
            logger.exception("%s: the application raised", self._what())
            code = HTTPStatus.INTERNAL_SERVER_ERROR
            self._answer_error(exchange, error_response(code, head_only=frame.head_only), code)
        if frame.short or frame.excess:
            more_or_less = "fewer" if frame.short else "more"
            logger.error("%s: the body had %s bytes than its Content-Length said", self._what(), more_or_less)

    def _answer_error(self, exchange: Exchange, response: bytes, code: HTTPStatus) -> None:
        """Say that it went wrong if nothing was said yet; else the end of the connection says it."""
        if exchange.complete:
            return
        exchange.frame.keep_alive = False
        if exchange.head_sent:
            return
        exchange.frame.code = code
        exchange.head_sent = True
        self._send(response, final=True)
        exchange.complete = True

    def _send(self, data: bytes, *, final: bool) -> None:
        """Give bytes to the client: see `_wsgi.Send`."""
        connection = self._connection
        size = len(data)
        sent = connection.write(data)
        self._sent += size
        if sent == size:
            return
        rest = memoryview(data)
        while True:
            if sent == GONE:
                connection.abandon()
                raise JobStopped(StopReason.OWNER_GONE)
            rest = rest[sent:]
            if not rest:
                return
            if final:
                self._unsent = rest
                return
            assert self._job is not None
            self._job.sync(timeout=self._server.limits.body_gap_timeout, when_writable=True)
            sent = connection.write(rest)

    def _on_ended(self, job: Job[None]) -> None:
        """The job's cleanup: behind `_run`, on its thread; on another if it never ran."""
        exchange = self._exchange
        code = CLIENT_GONE
        if exchange is None:
            keep = False
            if job.reason is not StopReason.OWNER_GONE:
                # It waited in the queue until its time or the pool was over.
                response = self._unavailable(keep=False)
                code, self._unsent, self._sent = HTTPStatus.SERVICE_UNAVAILABLE, memoryview(response), len(response)
        else:
            keep = exchange.frame.keep_alive
            if exchange.complete or (exchange.head_sent and not self._connection.gone):
                code = exchange.frame.code
        if access_logger.isEnabledFor(logging.INFO):
            self._log(code, self._sent)
        self._exchange = self._job = None  # they refer to this
        self._connection.on_job_ended(job, self._unsent, keep=keep)

    # Words.

    def _unavailable(self, *, keep: bool) -> bytes:
        return error_response(
            HTTPStatus.SERVICE_UNAVAILABLE,
            keep_alive=keep,
            retry_after=RETRY_AFTER,
            head_only=self._request.method == "HEAD",
        )

    def _what(self) -> str:
        request = self._request
        return f"{request.method} {request.target.decode('ascii')} HTTP/1.{0 if request.http_10 else 1}"

    def _log(self, code: int, sent: int) -> None:
        log_access(self._connection.remote, self._what(), code, sent, monotonic() - self._since)


def log_access(remote: tuple[str, int], what: str, code: int, sent: int, seconds: float) -> None:
    """Write a line of the access log."""
    access_logger.info('%s "%s" %d %d %.6f', remote[0], what, code, sent, seconds)


def _let_go_on(job: Job[None], value: object) -> None:  # noqa: ARG001 - the pool's signature
    """Answer a sync: the socket has room."""
    job.answer()
