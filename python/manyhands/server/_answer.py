"""An answer: one request in hand, from its job's beginning to its end. It runs on the job's thread.

Theory of operation. The connection makes it, and gets the last word by `on_job_ended`; in between the answer alone writes to
the client. What is a thread's and what is the strand's: see `_connection.py`.

The job begins as a plain call of the application. Most responses are one piece, and the call is all there is. One in pieces
that has to wait goes on as a stepwise job: while the client has no room, or others wait for a thread, the job has none, and
the next piece comes from whichever thread is free. So one piece is made ahead at most, and a thread is never held for a
client. One thread at a time is in the job, and what it leaves behind the next one finds: nothing here needs a lock.

A response whose next piece is not there yet, and which can say so (`_source.py`), waits in the same way.

A pinned response stays on its thread, and does not wait for the client: what the client does not take is spooled, and
the connection's strand sends it when the job has ended.

| the client has no room | what is left over | who sends it |
|---|---|---|
| and this was the last piece | a `Spool` | the strand, when the job has ended |
| in between | one piece | the job, in its next step |
| in a file | the file | the job, in its next step |
| in between, pinned, or by `write()` | a `Spool`, in memory, then in a file | the job with its next piece, then the strand |
"""

from __future__ import annotations

from collections.abc import Generator
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn, cast

from manyhands import _core
from manyhands._job import CHECKING_IN, STOPPING, SYNC, Job, JobStatus, StopReason
from manyhands._log import Log
from manyhands._running import go_on_by_steps
from manyhands.errors import JobStopped
from manyhands.server._access import log_access, logs_access
from manyhands.server._environ import environ_of
from manyhands.server._errors import HandshakeRefused, WebSocketClosed
from manyhands.server._file import Region
from manyhands.server._request import Request
from manyhands.server._response import ResponseFrame, error_response
from manyhands.server._rules import CONTENT_LENGTH, rule_of
from manyhands.server._spool import Spool
from manyhands.server._wire import GONE
from manyhands.server._wsgi import Exchange

if TYPE_CHECKING:
    from manyhands._core import Watch
    from manyhands._tasks._root import Root
    from manyhands.server._connection import Connection
    from manyhands.server._server import Server
    from manyhands.server._source import Source
    from manyhands.server._websocket import WebSocket

__all__ = ["Answer"]

logger = Log("manyhands.server")

RETRY_AFTER: Final = 1
"""Seconds after which a client that found the queue full may come again."""

CLIENT_GONE: Final = 499
"""What the access log says of a request whose client did not wait for it; nginx's number."""

SPOOL_BYTES: Final = 1 << 30
"""Bytes of a pinned response that may wait: beyond them its thread waits for the client. The disk is finite, and a
response need not be."""


class Answer:
    """A request and what becomes of it.

    Args:
        server: Has the application and the pool.
        connection: The client's.
        request: The request.
    """

    # Most change few of these.
    _exchange: Exchange | None = None  # None until the job has begun
    _conversation: WebSocket | None = None
    _failed = False  # the application raised
    _job: Job[object] | None = None
    _sent = 0
    _full = False  # the client had no room for the last bytes
    _unsent: Spool | None = None
    _by_steps = False  # the job is at the response's pieces, and may let its thread go
    _source: Source | None = None  # has no piece yet
    _region: Region | None = None  # of a file, behind what is unsent

    def __init__(self, server: Server, connection: Connection, request: Request | _core.PlainRequest) -> None:
        self._server = server
        self._connection = connection
        self._request = request
        self._remote = connection.remote[0]
        self._since = monotonic()

    @property
    def request(self) -> Request | _core.PlainRequest:
        """What is answered."""
        return self._request

    def hand_over(self, conversation: WebSocket) -> None:
        """From now on the connection speaks another protocol, until the job has ended.

        Raises:
            RuntimeError: the response has begun.
        """
        assert self._exchange is not None
        self._exchange.take(HTTPStatus.SWITCHING_PROTOCOLS)
        self._conversation = conversation
        self._connection.hand_over(conversation)

    def refuse_handshake(self, refused: HandshakeRefused) -> None:
        """Answer in the application's place.

        Raises:
            RuntimeError: the response has begun.
        """
        assert self._exchange is not None
        self._exchange.take(refused.status)
        head_only = self._request.method == "HEAD"
        self._send(error_response(refused.status, headers=refused.headers, head_only=head_only), final=True)

    @property
    def stopping(self) -> bool:
        """The server stops."""
        return self._server.stopping

    @property
    def complete(self) -> bool:
        """The whole response was given, and no thread is needed for what is left of it."""
        exchange = self._exchange  # the job's end takes it away meanwhile
        return exchange is not None and exchange.complete and self._region is None

    # For a source of the response, on the job's thread.

    def is_made_by(self, job: Job[object]) -> bool:
        """Whether this is its job."""
        return self._job is job

    @property
    def tasks(self) -> Root:
        """Where tasks of the server are started."""
        return self._server.tasks

    def park(self, source: Source) -> bool:
        """The source has nothing yet, and gives an empty piece: the job is to wait until it has. False if it cannot."""
        if not self._may_park or self._source is not None:
            return False
        self._source = source
        return True

    def wait_with(self, source: Source | None) -> None:
        """The job's thread waits for the source, which cannot be parked; None: no more."""
        if not self._may_park:
            self._source = source
            if source is not None and self._server.stopping:
                source.on_server_stopping()

    @property
    def _may_park(self) -> bool:
        exchange = self._exchange
        return self._by_steps or (exchange is not None and exchange.begins and not self._pins(exchange))

    def _pins(self, exchange: Exchange) -> bool:
        """Whether a response in pieces stays on its thread."""
        server = self._server
        return server.pin_responses or (exchange.djangos and server.limits.pin_responses is None)

    # The strand.

    def on_server_stopping(self) -> None:
        """Tell a source that the job waits for, or a conversation."""
        source, conversation = self._source, self._conversation
        if source is not None:
            source.on_server_stopping()
        if conversation is not None:
            conversation.go_away()

    def on_client_left(self) -> None:
        """The client has its response, and has gone long ago: nobody else would tell a job that waits for a source."""
        job = self._job
        if self._source is not None and job is not None:
            job.stop()

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
            name=request.name,
            in_place=True,
            keep=False,
            on_sync=self._on_sync,
            cleanup=self._on_ended,
            deadline=None if timeout is None else self._since + timeout,
        )

    def refuse(self, *, keep: bool) -> bytes:
        """Return the response to a request that was not taken."""
        self._request.close()
        response = self._unavailable(keep=keep)
        if self._server.access_log:
            self._log(HTTPStatus.SERVICE_UNAVAILABLE, len(response))
        return response

    # The job.

    def _run(self) -> object:
        server, connection = self._server, self._connection
        self._job = job = _core.current_job()
        assert job is not None
        request = self._request
        frame = ResponseFrame(request, keep_alive=not server.stopping)
        self._exchange = exchange = Exchange(frame, self._send)
        try:
            if isinstance(request, _core.PlainRequest):
                environ = request.take_environ()
            else:
                environ = environ_of(server.environ, request, connection.remote)
            if server.proxies is not None:
                server.proxies.apply(environ)
                self._remote = environ.get("REMOTE_ADDR", "")
            environ["manyhands.job"] = job
            environ["manyhands.connection"] = connection
            pieces = exchange.run(server.app, environ)
            if pieces is not None and self._pins(exchange):
                self._pass_on_pinned(pieces)
                pieces = None
        except BaseException as error:  # noqa: BLE001 - it is told and logged there
            self._explain(error)
        else:
            if pieces is not None or self._region is not None:
                return go_on_by_steps(job, self._pass_on(pieces))
        if job._take_cleanup() is not None:  # noqa: SLF001 - its end needs no more Python then
            self._on_ended(job)
        return None

    def _pass_on(self, pieces: Generator[None] | None) -> Generator[object, JobStatus, None]:
        """Go from piece to piece, and wait in between: as the steps of a job. None: only what is left of a file."""
        exchange, job = self._exchange, self._job
        assert exchange is not None
        assert job is not None
        self._by_steps = True
        try:
            try:
                for _ in pieces or (None,):
                    source = self._source
                    if exchange.complete and self._region is None:
                        if source is None:
                            continue  # what is left over needs no thread
                    else:
                        yield from self._write_out(job)
                    if (yield CHECKING_IN if source is None else SYNC(source, timeout=None)) is STOPPING:
                        raise JobStopped(job.reason)
                    self._source = None
            finally:
                if pieces is not None:
                    pieces.close()
        except GeneratorExit:  # nobody goes on with it: the process ends
            raise
        except BaseException as error:  # noqa: BLE001 - it is told and logged there
            self._explain(error)

    def _write_out(self, job: Job[object]) -> Generator[object, JobStatus, None]:
        """Write what there is; wait while the client has no room for it."""
        if self._region is None:  # of a file the kernel keeps no copy
            self._connection.wire.bound_unsent()
        while self._write_on():
            timeout = self._server.limits.body_gap_timeout
            if self._full and self._unsent and not self._settle(self._unsent):
                self._give_up()
            if (yield SYNC(timeout=timeout) if self._full else CHECKING_IN) is STOPPING:
                raise JobStopped(job.reason)

    def _pass_on_pinned(self, pieces: Generator[None]) -> None:
        """Go from piece to piece, and keep what the client has no room for."""
        exchange, job = self._exchange, self._job
        assert exchange is not None
        assert job is not None
        try:
            for _ in pieces:
                job.check_in()
                if self._region is not None:
                    self._region.keep_open()  # it is sent when the application has closed it
                elif not exchange.complete:
                    self._wait_held()
        finally:
            pieces.close()

    def _wait_held(self) -> None:
        """Write on; wait, with the thread, while there is more in the spool than may be."""
        assert self._job is not None
        while self._write_on() > SPOOL_BYTES:
            self._job.sync(timeout=self._server.limits.body_gap_timeout)

    def _on_sync(self, job: Job[object], value: object) -> None:
        """On the strand: see that the job is answered when it can go on."""
        if value is None:
            self._connection.wait_for_room(job)
            return
        source = cast("Source", value)
        if self._server.stopping:
            source.on_server_stopping()
        source.arm(job)

    def _explain(self, error: BaseException) -> None:
        """What the application raised, or what was raised in it: tell the client, and the log.

        Raises:
            JobStopped: as it came.
        """
        exchange, connection = self._exchange, self._connection
        assert exchange is not None
        if self._region is not None:
            exchange.frame.keep_alive = exchange.complete = False
        if isinstance(error, JobStopped):
            if not exchange.complete:
                self._drop_unsent()  # a client that takes nothing is not waited for once more
            if not connection.gone and error.reason is not StopReason.OWNER_GONE:
                self._answer_error(exchange, self._unavailable(keep=False), HTTPStatus.SERVICE_UNAVAILABLE)
            try:
                raise error
            finally:
                del error  # its traceback has this frame
        if isinstance(error, WebSocketClosed) and self._conversation is not None:
            return  # the client's choice, and no mistake of the view
        if isinstance(error, HandshakeRefused) and exchange.taken:
            logger.info("%s: refused: %s", self._what(), str(error))  # the error has the view's frames
            return  # the client's mistake, and it has been told
        self._failed = True
        rule = rule_of(error)
        if rule is None:
            logger.error("%s: the application raised", self._what(), exc_info=error)
        else:
            logger.error("%s: the application breaks PEP 3333, %s: %s", self._what(), rule, error, exc_info=error)
        code = HTTPStatus.INTERNAL_SERVER_ERROR
        self._answer_error(exchange, error_response(code, head_only=exchange.frame.head_only), code)

    def _report_length(self, frame: ResponseFrame) -> None:
        logger.error(
            "%s: the application breaks PEP 3333, %s: the body had %s bytes than its Content-Length said",
            self._what(),
            CONTENT_LENGTH,
            "fewer" if frame.short else "more",
        )

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

    def _send(self, data: bytes | Region, *, final: bool) -> None:
        """Give bytes to the client, and keep what it does not take: see `_wsgi.Send`."""
        if isinstance(data, Region):
            self._region = data
            self._sent += data.left
            return
        size = len(data)
        self._sent += size
        unsent = self._unsent
        if unsent and self._write_on():
            unsent.append(data, spill=not final)
            if not final:
                self._wait_held()
            return
        sent = self._connection.wire.write(data)
        if sent == size:
            return
        if sent == GONE:
            self._give_up()
        if unsent is None:
            self._unsent = unsent = Spool(self._server.limits.response_memory)
        # Not to the file: it is in memory as it is.
        unsent.append(memoryview(data)[sent:], spill=False)

    def _write_on(self) -> int:
        """Write what the client has room for now, of a file no more than a burst; how much is left over."""
        unsent, region = self._unsent, self._region
        self._full = False
        if unsent:
            if unsent.write_to(self._connection.wire.write) == GONE:
                self._give_up()
            self._full = len(unsent) > 0
        if region is None:
            return len(unsent) if unsent is not None else 0
        if not self._full:
            count = region.send(self._connection.wire.send_file)
            if count == GONE:
                self._give_up()
            self._full = count == 0
            if not region.left:
                region.close()
                self._region = None
        return region.left + (len(unsent) if unsent is not None else 0)

    def _drop_unsent(self) -> None:
        if self._unsent is not None:
            self._unsent.close()

    def _give_up(self) -> NoReturn:
        assert self._job is not None
        # The watch may have been removed a moment ago, by a thread that comes to tell the job only now.
        self._job._leave_owner()  # noqa: SLF001
        self._connection.abandon()
        raise JobStopped(StopReason.OWNER_GONE)

    def _on_ended(self, job: Job[object]) -> None:
        """The job's cleanup: behind `_run`, on its thread; on another if it never ran."""
        unsent, keep = None, False
        try:
            unsent, keep = self._end(job)
        except BaseException:
            logger.exception("%s: its end raised", self._what())
        finally:  # or the connection would be busy for ever
            self._connection.on_job_ended(job, unsent, keep=keep)

    def _end(self, job: Job[object]) -> tuple[Spool | None, bool]:
        """Give back what it has; what is left to send, and whether the connection can be used again."""
        exchange = self._exchange
        code = CLIENT_GONE
        if exchange is None:
            keep = False
            if job.reason is not StopReason.OWNER_GONE:
                # It waited in the queue until its time or the pool was over.
                response = self._unavailable(keep=False)
                code, self._sent = HTTPStatus.SERVICE_UNAVAILABLE, len(response)
                self._unsent = Spool()
                self._unsent.append(response)
        else:
            frame = exchange.frame
            exchange.over = True
            # A response that is not whole must not have another one behind it.
            keep = frame.keep_alive and exchange.complete
            if exchange.complete or (exchange.head_sent and not self._connection.gone):
                code = frame.code
            if frame.short or frame.excess:
                self._report_length(frame)
        if self._server.access_log and logs_access():
            self._log(code, self._sent)
        self._request.close()
        if self._region is not None:
            self._region.close()
        unsent, self._unsent = self._unsent, None
        if self._conversation is not None:
            unsent = self._conversation.end(failed=self._failed, stopped=job.reason is not None)
        self._exchange = self._job = self._conversation = self._source = None  # they refer to this
        if unsent is not None and not (unsent and self._settle(unsent)):
            keep = keep and not unsent
            unsent.close()  # it may have had a file
            unsent = None
        return unsent, keep

    def _settle(self, unsent: Spool) -> bool:
        """It waits for its client, and many do: see that they do not fill the memory. False if there is no room at all."""
        try:
            unsent.settle(self._server.outgoing)
        except OSError as error:
            logger.warning("%s: no room for what its client has not taken: %s", self._what(), error)
            return False
        return True

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
        log_access(self._remote, self._what(), code, sent, monotonic() - self._since, self._request)
