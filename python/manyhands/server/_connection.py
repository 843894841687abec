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
open. If the whole response was given already, the end of the input only means that no request will follow.

Memory: a response that is here in full is held until the client has taken it, and no thread waits for that. Of a response
in pieces one piece is held, and its job waits in a sync until the socket has room. Of requests that were sent ahead
`AHEAD_BYTES` and one read are held at most, unparsed.

Time: one timer per connection, on its strand. To move the deadline back costs nothing: the timer finds out when it rings.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Final

from manyhands import _core
from manyhands._events import Events
from manyhands.errors import LoopClosed, PoolFinished, QueueFull, StrandClosed, WatchRemoved
from manyhands.server._answer import GONE, Answer, log_access
from manyhands.server._request import CONTINUE, Refused, Request, RequestReader
from manyhands.server._response import error_response

if TYPE_CHECKING:
    from manyhands._events import RemovalReason
    from manyhands._job import Job
    from manyhands._pool import ThreadPool
    from manyhands.server._server import Server

__all__ = ["Connection"]

logger = logging.getLogger("manyhands.server")

HEAD_READ: Final = 4096
BODY_READ: Final = 65_536
"""Bytes asked for in one read. A large buffer is cut down to what came, which for a short request costs more."""

AHEAD_BYTES: Final = 65_536
"""Bytes of further requests that are kept while one is in hand; beyond them the client is not read any more."""

LINGER: Final = 2.0
"""Seconds that a refused client is listened to, so that it can read why: closing while its bytes are unread would reset the
connection, and take the response away. Source: RFC 9112, 9.6."""

READING, FLUSHING, LINGERING, BUSY, DONE = range(5)
"""From BUSY on a request is in hand."""


class Connection:
    """One client. In an environ it is `manyhands.connection`.

    Attributes:
        remote: The client's address and port.
        gone: The client has hung up, or the connection was closed.
        pool: The `ThreadPool` that runs the requests.

    Threads: the attributes may be read by any; for the rest see the head of this file.
    """

    __slots__ = (
        "_answer",
        "_closed",
        "_deadline",
        "_in_head",
        "_keep",
        "_lock",
        "_more",
        "_reader",
        "_rings",
        "_server",
        "_socket",
        "_state",
        "_timer",
        "_unsent",
        "_watch",
        "gone",
        "remote",
    )

    _watch: _core.Watch

    def __init__(self, server: Server, sock: socket.socket, remote: tuple[str, int]) -> None:
        self.remote = remote
        self.gone = False
        self._server = server
        self._socket = sock
        self._reader = RequestReader(server.limits)
        # Reentrant: a finalizer may close a forgotten loop, and so this, on a thread that is inside.
        self._lock = threading.RLock()
        self._state = READING  # GUARDED BY: _lock from BUSY on; else the strand's
        self._more = False  # GUARDED BY: _lock
        self._closed = False  # GUARDED BY: _lock; the socket is closed, or the job's end will close it
        self._answer: Answer | None = None  # to the request in hand
        self._unsent: memoryview | None = None  # the rest of a response that is complete
        self._keep = True  # whether the connection is used again after this response
        # The clock.
        self._deadline = 0.0
        self._rings = 0.0  # when the timer looks at the deadline
        self._timer: _core.Timer | None = None
        self._in_head = True  # the deadline is that of a head

    def __repr__(self) -> str:
        return f"<manyhands.server.Connection of {self.remote[0]} port {self.remote[1]}>"

    @property
    def pool(self) -> ThreadPool:
        """The pool that runs the requests of all connections: `pool.jobs()` shows them."""
        return self._server.pool

    # What a watch asks of its source.

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket, or let the end of the job do it. Called by the watch when it ends."""
        with self._lock:
            self._closed = self.gone = True
            if self._state != BUSY:
                self._socket.close()

    # From outside.

    def start(self) -> None:
        """Put the connection on the loop. Once, by the listener."""
        self._watch = self._server.loop.add(self, Events.READ, self._on_ready, close=True, on_removed=self._on_removed)
        self._post(self._on_started)

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
        if self._timer is None:
            self._set_deadline(self._server.limits.head_timeout)

    def _on_server_stopping(self) -> None:
        if self._state == READING:
            self._watch.remove()

    def _on_ready(self, watch: _core.Watch, events: Events) -> None:  # noqa: ARG002 - what is ready shows by trying
        self._watch = watch  # the first time it may come before `start` has it
        if self._state == FLUSHING:
            self._flush()
            return
        reader = self._reader
        much = reader.in_body or self._state == LINGERING
        try:
            data = self._socket.recv(BODY_READ if much else HEAD_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if self._state == LINGERING:
            if not data:
                watch.remove()
            return
        if not data:
            self._on_end_of_input()
            return
        with self._lock:
            reader.receive(data)
            if self._state >= BUSY:
                self._more = True
                if reader.waiting > AHEAD_BYTES:
                    watch.pause()
                return
        self._proceed()

    def _on_end_of_input(self) -> None:
        with self._lock:
            answer = self._answer
            given = self._state == DONE or (self._state == BUSY and answer is not None and answer.complete)
            if given:
                self._more = True
                self._keep = False
            else:
                self.gone = True
        if given:
            self._watch.pause()  # the end stays readable
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
        limits = self._server.limits
        if reader.in_body:
            self._in_head = False
            self._set_deadline(limits.body_gap_timeout)
            if reader.take_continue() and self.write(CONTINUE) != len(CONTINUE):
                self._watch.remove()
        elif not reader.idle and not self._in_head:
            self._in_head = True
            self._set_deadline(limits.head_timeout)

    def _refuse(self, refused: Refused) -> None:
        """Tell a client what is wrong, and close: what follows might be anything."""
        logger.info("%s port %d: refused: %s", *self.remote, refused)
        response = error_response(refused.status)
        log_access(self.remote, "-", refused.status.value, len(response), 0.0)
        self._more = True  # it may go on sending: linger
        self._respond(response, keep=False)

    # The strand: a request begins.

    def _begin(self, request: Request) -> None:
        """Make the request a job. READING again if it could not be taken, and the client was told."""
        self._keep = True
        self._more = self._reader.waiting > 0
        self._state = BUSY
        self._answer = answer = Answer(self._server, self, request)
        try:
            answer.begin(self._watch)
        except (QueueFull, PoolFinished) as error:
            if self._take_back():
                keep = request.keep_alive and isinstance(error, QueueFull)
                self._respond(answer.refuse(keep=keep), keep=keep)
        except (WatchRemoved, LoopClosed):
            self._take_back()

    def _take_back(self) -> bool:
        """No request is in hand any more; False if the connection was closed meanwhile."""
        with self._lock:
            self._state = READING
            self._answer = None
            if self._closed:
                self._socket.close()
            return not self._closed

    # The job's thread, by way of the answer.

    def write(self, data: bytes | memoryview) -> int:
        """Write what the socket takes; how much that is, or GONE."""
        with self._lock:
            try:
                return self._socket.send(data)
            except BlockingIOError:
                return 0
            except OSError:
                return GONE

    def on_job_ended(self, job: Job[None], unsent: memoryview | None, *, keep: bool) -> None:
        """The job writes no more: go on, or leave that to the strand.

        Args:
            job: The job.
            unsent: The rest of its response.
            keep: Whether the connection is used again.

        Threads: the job's, or, if it never ran, any.
        """
        deadline = monotonic() + self._server.limits.keep_alive
        with self._lock:
            self._answer = None  # it refers to this
            if self._closed:
                self._state = DONE
                self._socket.close()
                self._reader.close()
                return
            keep = keep and self._keep and not self._server.stopping
            if keep and not self._more and unsent is None and deadline >= self._rings:
                self._deadline = deadline
                self._state = READING
                return
            self._keep = keep
            self._unsent = unsent
            self._state = DONE
        job.detach()  # its work is done: that the connection is closed now is no reason to stop it
        self._post(self._after_job)

    # The strand: the end of a response.

    def _after_job(self) -> None:
        if self._closed:
            return
        if self._watch.paused:
            self._watch.resume()
        if self._unsent is not None:
            self._wait_for_room(self._unsent)
        else:
            self._after_response()

    def _respond(self, data: bytes, *, keep: bool) -> None:
        """Send a response of the server's own."""
        self._keep = keep
        sent = self.write(data)
        if sent == GONE:
            self._watch.remove()
        elif sent < len(data):
            self._wait_for_room(memoryview(data)[sent:])
        else:
            self._state = READING
            if not keep:
                self._finish()

    def _wait_for_room(self, rest: memoryview) -> None:
        self._unsent = rest
        self._state = FLUSHING
        self._set_deadline(self._server.limits.body_gap_timeout)
        self._modify(Events.WRITE)

    def _flush(self) -> None:
        assert self._unsent is not None
        sent = self.write(self._unsent)
        if sent == GONE:
            self._watch.remove()
            return
        if sent < len(self._unsent):
            self._unsent = self._unsent[sent:]
            self._set_deadline(self._server.limits.body_gap_timeout)
            return
        self._unsent = None
        self._modify(Events.READ)
        self._after_response()

    def _after_response(self) -> None:
        """Go on with what was sent ahead, or close."""
        self._state = READING
        if not self._keep or self._server.stopping:
            self._finish()
            return
        self._set_deadline(self._server.limits.keep_alive)
        self._proceed()

    def _finish(self) -> None:
        """Close; if the client may be sending still, not before it could read the response."""
        if not self._more and not self._reader.waiting:
            self._watch.remove()
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._watch.remove()
            return
        self._state = LINGERING
        self._set_deadline(LINGER)

    def _modify(self, events: Events) -> None:
        with contextlib.suppress(WatchRemoved, LoopClosed):
            self._watch.modify(events)

    def _on_removed(self, watch: _core.Watch, reason: RemovalReason) -> None:  # noqa: ARG002 - the loop's signature
        with self._lock:
            if self._state != BUSY:
                self._reader.close()
        self._server.left(self)

    # The clock.

    def _set_deadline(self, seconds: float) -> None:
        """On the strand."""
        self._deadline = monotonic() + seconds
        if self._timer is None or self._rings > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._ring_in(seconds)

    def _ring_in(self, seconds: float) -> None:
        self._rings = monotonic() + seconds
        with contextlib.suppress(StrandClosed, LoopClosed):
            self._timer = self._watch.strand.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        limits = self._server.limits
        left = self._deadline - monotonic()
        if self._state >= BUSY:
            self._ring_in(limits.keep_alive)
        elif left > 0:
            self._ring_in(left)
        elif self._state == READING and not self._reader.idle:
            self._refuse(Refused(HTTPStatus.REQUEST_TIMEOUT, "the request did not come to its end in time"))
        else:
            self._watch.remove()
