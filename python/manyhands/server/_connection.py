"""A connection: joins the protocol to a socket, a watch and the jobs of its requests. Sockets are here and in the listener.

Theory of operation. A connection is on the strand of its watch: what reads, parses, begins a request or closes runs there,
one thing at a time. A request is a job that the watch owns; while it is in hand its thread is the only one that writes. So
two threads may be in a connection, one on the strand and one in the job. What both touch is guarded by `_lock`:

* Who goes on when the job has ended. If nothing is left to do, the job's thread sets READING, and nobody is woken; else
  it sets DONE and posts `_after_job` to the strand. What comes in between is noted in `_more`.
* The socket's end. While a job is in hand, closing only marks the socket, and the job's end closes it: or another
  connection could have its number already when the job writes.

| state | what is under way | bytes that come | who writes |
|---|---|---|---|
| READING | nothing, or a request that is not complete | are parsed | |
| FLUSHING | the last bytes of a response | are not read | the strand |
| LINGERING | the response to a refused request was sent | are thrown away | |
| BUSY | a request's job, queued or running | are kept, up to a bound | the job |
| DONE | the job has ended, and the strand is to go on | are kept | |

A client that hangs up while its request is in hand is gone: the watch is removed, which tells the job to stop
(OWNER_GONE) or lets it never start. A job that finishes all the same may still write, as half of the connection may be
open. If the whole response was given already, the end of the input only means that no request will follow. With
`half_close="finish"` that is all it ever means: what was sent is answered, and only a reset means that the client is gone.

Memory: a response that is here in full is held until the client has taken it, and no thread waits for that. Of a response
in pieces see `_answer.py`. Of requests that were sent ahead
`AHEAD_BYTES`, or `Limits.pipelined` of them, and one read are held at most, unparsed.

Time: one timer per connection, on its strand: see `_deadline.py`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from http import HTTPStatus
from ssl import SSLError
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from manyhands import _core
from manyhands._events import Events
from manyhands._log import Log
from manyhands.errors import LoopClosed, PoolFinished, QueueFull, StrandClosed, WatchRemoved
from manyhands.server._access import log_access
from manyhands.server._answer import Answer
from manyhands.server._deadline import Deadline
from manyhands.server._request import CONTINUE, Refused, Request, RequestReader
from manyhands.server._response import error_response
from manyhands.server._spool import Spool
from manyhands.server._wire import GONE, Wire

if TYPE_CHECKING:
    import socket

    from manyhands._events import RemovalReason
    from manyhands._job import Job
    from manyhands._pool import ThreadPool
    from manyhands.server._server import Server
    from manyhands.server._tls import TLSSocket
    from manyhands.server._websocket import WebSocket

__all__ = ["Connection"]

logger = Log("manyhands.server")

HEAD_READ: Final = 4096
BODY_READ: Final = 65_536
"""Bytes asked for in one read. A large buffer is cut down to what came, which for a short request costs more."""

AHEAD_BYTES: Final = 16_384
"""Bytes of further requests that are kept while one is in hand; beyond them the client is not read any more."""

READ: Final = Events.READ

LINGER: Final = 2.0
"""Seconds that a client which may go on sending is listened to, so that it can read its response: closing while its bytes are
unread would reset the connection, and take the response away. Source: RFC 9112, 9.6."""

READING, FLUSHING, LINGERING, BUSY, DONE = range(5)
"""From BUSY on a request is in hand."""


class _Ended:
    """What is left of a watch that was removed."""

    __slots__ = ("strand",)

    paused = False

    def __init__(self, strand: _core.Strand) -> None:
        self.strand = strand

    def _do_nothing(self, events: Events | None = None) -> None:
        pass

    remove = pause = resume = modify = _do_nothing


class Connection:
    """One client. In an environ it is `manyhands.connection`.

    Attributes:
        remote: The client's address and port.
        gone: The client has hung up, or the connection was closed.
        pool: The `ThreadPool` that runs the requests.
        wire: Its socket. The server's own.

    Threads: the attributes may be read by any; for the rest see the head of this file.
    """

    __slots__ = (
        "_answer",
        "_armed",
        "_blocked",
        "_body_until",
        "_closed",
        "_conversation",
        "_deadline",
        "_held",
        "_in_head",
        "_input_over",
        "_keep",
        "_left",
        "_lock",
        "_more",
        "_read_size",
        "_reader",
        "_server",
        "_state",
        "_unsent",
        "_watch",
        "gone",
        "remote",
        "wire",
    )

    _watch: _core.Watch

    def __init__(self, server: Server, sock: socket.socket | TLSSocket, remote: tuple[str, int]) -> None:
        self.remote = remote
        self.gone = False
        self._server = server
        self._reader = RequestReader(server.limits, server.budget, server.files)
        # Reentrant: a finalizer may close a forgotten loop, and so this, on a thread that is inside.
        self._lock = threading.RLock()
        self.wire = Wire(sock, self._lock)
        self._state = READING  # GUARDED BY: _lock from BUSY on; else the strand's
        self._more = False  # GUARDED BY: _lock
        self._left = False  # it has hung up behind a response that it was given in full
        self._input_over = False  # the client has closed its half, and is to get its answers all the same
        self._closed = False  # GUARDED BY: _lock; the socket is closed, or the job's end will close it
        self._answer: Answer | None = None  # to the request in hand
        self._conversation: WebSocket | None = None  # GUARDED BY: _lock; what the request in hand has become
        self._armed = Events.READ  # what the watch is asked for
        self._held = False  # the client is not read on
        self._blocked: Job[object] | None = None  # waits for the client to take bytes
        self._unsent: Spool | None = None  # the rest of a response; nothing more comes behind it
        self._keep = True  # whether the connection is used again after this response
        self._deadline = Deadline(self._on_deadline)
        self._in_head = True  # the deadline is that of a head
        self._read_size = HEAD_READ
        self._body_until: float | None = None  # when the body that comes has to be here

    def __repr__(self) -> str:
        return f"<manyhands.server.Connection of {self.remote[0]} port {self.remote[1]}>"

    @property
    def pool(self) -> ThreadPool:
        """The pool that runs the requests of all connections: `pool.jobs()` shows them."""
        return self._server.pool

    # For a conversation, which a request has become.

    @property
    def lock(self) -> threading.RLock:
        """What guards the socket. Whoever holds it calls nobody's code."""
        return self._lock

    @property
    def strand(self) -> _core.Strand:
        """Where the socket is read."""
        return self._watch.strand

    def answer_in_hand(self) -> Answer:
        """The answer to the request in hand.

        Raises:
            RuntimeError: there is none.
        """
        answer = self._answer
        if answer is None:
            raise RuntimeError("the request is over")
        return answer

    def answer_of(self, job: Job[object]) -> Answer | None:
        """The answer to the request in hand, if it is this job's."""
        answer = self._answer
        return answer if answer is not None and answer.is_made_by(job) else None

    def hand_over(self, conversation: WebSocket) -> None:
        """Let it read and write from now on."""
        with self._lock:
            self._conversation = conversation

    def take_rest(self) -> bytes:
        """What the client has sent ahead. The lock is held."""
        return self._reader.take_rest()

    def wait_for(self, events: Events) -> None:
        """On the strand: wait for these."""
        self._read_on()
        self._ask_for(events)

    def _read_on(self) -> None:
        self._held = False
        if self._watch.paused:
            with contextlib.suppress(WatchRemoved, LoopClosed):
                self._watch.resume()

    def wait_for_room(self, job: Job[object]) -> None:
        """On the strand: answer the job when the client can be written to."""
        self._blocked = job
        self._arm()

    def _arm(self) -> None:
        """Wait for what the connection can use now; a hang-up that follows nothing unread is told whatever it waits for."""
        if self._state == FLUSHING:
            events = Events.WRITE
        else:
            events = Events.PRIORITY if self._held or self._input_over else Events.READ
            if self._blocked is not None:
                events |= Events.WRITE
        self._ask_for(events)

    def _ask_for(self, events: Events) -> None:
        if events != self._armed:
            self._armed = events
            with contextlib.suppress(WatchRemoved, LoopClosed):
                self._watch.modify(events)

    @property
    def state(self) -> str:
        """What it is at, at a glance: "idle", "reading" a request, "busy" with one, "writing" a response, or "closing"."""
        state = self._state
        if state == READING:
            return "idle" if self._reader.idle else "reading"
        return {FLUSHING: "writing", BUSY: "busy", DONE: "writing"}.get(state, "closing")

    # What a watch asks of its source.

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.wire.fileno()

    def close(self) -> None:
        """Close the socket, or let the end of the job do it. Called by the watch when it ends."""
        with self._lock:
            self._closed = self.gone = True
            if self._state != BUSY:
                self.wire.close()

    # From outside.

    def start(self) -> None:
        """Put the connection on the loop. Once, by the listener."""
        watch = self._server.loop.add(self, Events.READ, self._on_ready, close=True, on_removed=self._on_removed)
        with self._lock:
            if type(getattr(self, "_watch", None)) is not _Ended:  # it may be over already
                self._watch = watch
        try:
            self._post(self._on_started)
        except BaseException:  # no memory: the socket must not be closed beneath its watch
            self._watch.remove()
            raise

    def end_soon(self) -> None:
        """Close it as soon as no request is in hand. Any thread."""
        self._post(self._on_server_stopping)

    def abandon(self) -> None:
        """Close it now; a request in hand is told to stop. Any thread."""
        self.gone = True
        self._watch.remove()

    def _post(self, callback: Callable[[], object]) -> None:
        # If it has ended, there is nothing left to do.
        with contextlib.suppress(StrandClosed, LoopClosed):
            self._watch.strand.post(callback)

    # The strand: what comes in.

    def _on_started(self) -> None:
        if not self._deadline.is_set:
            self._set_deadline(self._server.limits.head_timeout)

    def _on_server_stopping(self) -> None:
        with self._lock:  # an end of a job that has read `stopping` before it was said is over then
            answer = self._answer
            reading = self._state == READING
        if reading:
            self._watch.remove()
        elif answer is not None:
            answer.on_server_stopping()

    def _on_ready(self, watch: _core.Watch, events: Events) -> None:
        self._watch = watch  # the first time it may come before `start` has it
        if self._state == FLUSHING:
            self._flush()
            return
        conversation = self._conversation
        if events is not READ and Events.PRIORITY in events:
            self.wire.drop_urgent()
        if conversation is not None:
            if not conversation.on_ready(events):
                self.abandon()
        elif events is READ:  # a flag's operators cost as much as the reading
            self._read()
        else:
            self._on_more_than_input(events)

    def _on_more_than_input(self, events: Events) -> None:
        blocked = self._blocked
        if blocked is not None and events is not Events.PRIORITY:
            self._blocked = None
            self._arm()
            with contextlib.suppress(RuntimeError):  # it was told to stop meanwhile
                blocked.answer()
        if Events.READ in events:
            self._read()
        elif events & (Events.HANGUP | Events.ERROR):
            self._on_hang_up()

    def _read(self) -> None:
        try:
            data = self.wire.read(self._read_size)
        except OSError as error:
            if isinstance(error, SSLError):
                logger.info("%s port %d: no TLS with this client: %s", *self.remote, error.reason)
            self._on_end_of_input(reset=True)
            return
        if not data:
            if data is not None:
                self._on_end_of_input(reset=False)
            return
        if self._state == READING:
            # Nearly every request comes alone, and is nothing special.
            try:
                request = self._reader.take_plain(data, self._server.environ, self.remote)
            except Refused as refused:
                self._refuse(refused)
                return
            if request is not None:
                self._in_head = False
                self._begin(request)
                return
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        """Parse these bytes, or keep them, or throw them away."""
        if self._state == LINGERING:
            return
        reader = self._reader
        with self._lock:
            if self._conversation is not None:
                self._conversation.take_in(data)
                return
            reader.receive(data)
            if self._state >= BUSY:
                self._more = True
                if reader.waiting > AHEAD_BYTES or reader.waiting_requests > self._server.limits.pipelined:
                    self._held = True
                    self._arm()
                return
        self._proceed()

    def _on_end_of_input(self, *, reset: bool) -> None:
        if self._state == LINGERING:
            self._watch.remove()
            return
        with self._lock:
            finish = self._state >= BUSY and self._server.half_close == "finish" and not reset
            if finish:
                self._more = self._input_over = True
        if finish:
            self._arm()
        else:
            self._on_hang_up()

    def _on_hang_up(self) -> None:
        """The client has gone; if it has its response, that only means that no request will follow."""
        with self._lock:
            answer = self._answer
            given = self._state == DONE or (self._state == BUSY and answer is not None and answer.complete)
            if given:
                self._more = True
                self._keep = False
            else:
                self.gone = True
        if given:
            self._left = True
            self._watch.pause()  # the end stays readable
            self._set_deadline(self._server.limits.body_gap_timeout)
        else:
            self._watch.remove()

    def _proceed(self) -> None:
        """Parse on, and begin the next request if one is complete. Precondition: READING."""
        reader = self._reader
        while self._state == READING:
            try:
                request = reader.next_request()
            except Refused as refused:
                self._refuse(refused)
                return
            if request is None:
                break
            self._in_head = False
            self._begin(request)
        else:
            return
        if self._input_over:
            self._watch.remove()
            return
        limits = self._server.limits
        if reader.in_body:
            self._in_head = False
            self._read_size = BODY_READ
            self._set_deadline(self._time_for_body())
            if reader.take_continue() and self.wire.write(CONTINUE) != len(CONTINUE):
                self._watch.remove()
        elif not reader.idle and not self._in_head:
            self._in_head = True
            self._set_deadline(limits.head_timeout)

    def _time_for_body(self) -> float:
        """Seconds for the next bytes of a body, of which the whole has a time too."""
        limits = self._server.limits
        if limits.request_timeout is None:
            return limits.body_gap_timeout
        now = monotonic()
        if self._body_until is None:
            self._body_until = now + limits.request_timeout
        return max(0.0, min(limits.body_gap_timeout, self._body_until - now))

    def _refuse(self, refused: Refused) -> None:
        """Tell a client what is wrong, and close: what follows might be anything."""
        logger.info("%s port %d: refused: %s", *self.remote, str(refused))  # it has frames
        response = error_response(refused.status, head_only=self._reader.at_head_request)
        self._server.count_refused(refused.status)
        if self._server.access_log:
            log_access(self.remote[0], "", refused.status.value, len(response), 0.0)
        self._more = True  # it may go on sending: linger
        self._respond(response, keep=False)

    # The strand: a request begins.

    def _begin(self, request: Request | _core.PlainRequest) -> None:
        """Make the request a job. READING again if it could not be taken, and the client was told."""
        self._keep = True
        self._body_until = None
        self._read_size = HEAD_READ
        self._more = len(self._reader.unread) > 0 or self._input_over
        self._state = BUSY
        self._answer = answer = Answer(self._server, self, request)
        try:
            answer.begin(self._watch)
        except (QueueFull, PoolFinished) as error:
            if self._take_back():
                keep = request.keep_alive and isinstance(error, QueueFull)
                self._respond(answer.refuse(keep=keep), keep=keep)
        except (WatchRemoved, LoopClosed):
            request.close()
            self._take_back()
        except Exception:  # no memory, or no thread
            logger.exception("%s port %d: a request could not be begun", *self.remote)
            if self._take_back():
                self._respond(answer.refuse(keep=False), keep=False)

    def _take_back(self) -> bool:
        """No request is in hand any more; False if the connection was closed meanwhile."""
        with self._lock:
            self._state = READING
            self._answer = None
            if self._closed:
                self.wire.close()
            return not self._closed

    # The job's thread, by way of the answer.

    def on_job_ended(self, job: Job[object], unsent: Spool | None, *, keep: bool) -> None:
        """The job writes no more: go on, or leave that to the strand.

        Args:
            job: The job.
            unsent: The rest of its response.
            keep: Whether the connection is used again.

        Threads: the job's, or, if it never ran, any.
        """
        with self._lock:
            self._answer = None  # it refers to this
            if self._conversation is not None:
                self._conversation = None
                self._more = True  # its goodbye
            if self._closed:
                self._state = DONE
                self.wire.close()
                self._reader.close()
                if unsent is not None:
                    unsent.close()
                return
            keep = keep and self._keep and not self._server.stopping
            idle = keep and not self._more and unsent is None
            if idle and self._deadline.move_back(self._server.limits.keep_alive):
                self._state = READING
                return
            self._keep = keep
            self._unsent = unsent
            self._state = DONE
        try:
            job.detach()  # its work is done: that the connection is closed now is no reason to stop it
            self._post(self._after_job)
        except BaseException:  # nobody would go on
            self.abandon()
            raise

    # The strand: the end of a response.

    def _after_job(self) -> None:
        if self._closed:
            return
        self._read_on()
        self._blocked = None
        if self._unsent is not None:
            self._flush_later(self._unsent)
        else:
            self._after_response()

    def _respond(self, data: bytes, *, keep: bool) -> None:
        """Send a response of the server's own."""
        self._keep = keep
        sent = self.wire.write(data)
        if sent == GONE:
            self._watch.remove()
        elif sent < len(data):
            rest = Spool()
            rest.append(memoryview(data)[sent:])
            self._flush_later(rest)
        else:
            self._state = READING
            if not keep:
                self._finish()

    def _flush_later(self, rest: Spool) -> None:
        self._unsent = rest
        self._state = FLUSHING
        self._set_deadline(self._server.limits.body_gap_timeout)
        self._arm()

    def _flush(self) -> None:
        rest = self._unsent
        assert rest is not None
        if rest.write_to(self.wire.write) == GONE:
            self._watch.remove()
        elif rest:
            self._set_deadline(self._server.limits.body_gap_timeout)
        else:
            rest.close()
            self._unsent = None
            self._after_response()

    def _after_response(self) -> None:
        """Go on with what was sent ahead, or close."""
        self._state = READING
        self._arm()
        if not self._keep or self._server.stopping:
            self._finish()
            return
        self._set_deadline(self._server.limits.keep_alive)
        self._proceed()

    def _finish(self) -> None:
        """Close; if the client may be sending still, not before it could read the response."""
        # Who said that this was the last request has nothing more to say; others may have more on its way.
        over = self._reader.over or self._server.stopping
        if self._input_over or (over and not self._more and not self._reader.unread):
            self._watch.remove()
            return
        try:
            self.wire.shut_down()
        except OSError:
            self._watch.remove()
            return
        self._state = LINGERING
        self._read_size = BODY_READ
        self._set_deadline(LINGER)

    def _on_removed(self, watch: _core.Watch, reason: RemovalReason) -> None:  # noqa: ARG002 - the loop's signature
        self._blocked = None
        self._deadline.end()
        with self._lock:
            # The watch refers to this as well: what has ended is not to wait for the collector.
            self._watch = cast("_core.Watch", _Ended(watch.strand))
            if self._state != BUSY:
                self._reader.close()
                if self._unsent is not None:
                    self._unsent.close()
        self._server.listener.left(self)

    # Time.

    def _set_deadline(self, seconds: float) -> None:
        self._deadline.set(self._watch.strand, seconds)

    def _on_deadline(self) -> float | None:
        left = self._deadline.left
        if self._state >= BUSY:
            answer = self._answer
            if self._left and left <= 0 and answer is not None:
                answer.on_client_left()
            return self._server.limits.keep_alive
        if left > 0:
            return left  # a job that has just ended moved it
        if self._state == READING and not self._reader.idle:
            self._refuse(Refused(HTTPStatus.REQUEST_TIMEOUT, "the request did not come to its end in time"))
        else:
            self._watch.remove()
        return None
