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
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from manyhands import _core
from manyhands._events import Events
from manyhands.errors import LoopClosed, PoolFinished, QueueFull, StrandClosed, WatchRemoved
from manyhands.server._access import log_access
from manyhands.server._answer import GONE, Answer
from manyhands.server._deadline import Deadline
from manyhands.server._request import CONTINUE, Refused, Request, RequestReader
from manyhands.server._response import error_response
from manyhands.server._spool import Spool
from manyhands.server._tls import TLSSocket

if TYPE_CHECKING:
    from manyhands._events import RemovalReason
    from manyhands._job import Job
    from manyhands._pool import ThreadPool
    from manyhands.server._server import Server
    from manyhands.server._websocket import WebSocket

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

UNSENT_BYTES: Final = 131_072
"""Bytes of a stream that the kernel keeps for a client beyond those on their way. By itself it keeps megabytes: of a thousand
slow readers more than there is memory, and made by views that have nobody to read what they make."""

NO_SENDFILE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""A file that the kernel does not send by itself fails like this, and is read. Source: sendfile(2)."""

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
        "_bounded",
        "_closed",
        "_conversation",
        "_deadline",
        "_in_head",
        "_input_over",
        "_keep",
        "_lock",
        "_more",
        "_reader",
        "_server",
        "_socket",
        "_state",
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
        self._input_over = False  # the client has closed its half, and is to get its answers all the same
        self._closed = False  # GUARDED BY: _lock; the socket is closed, or the job's end will close it
        self._answer: Answer | None = None  # to the request in hand
        self._conversation: WebSocket | None = None  # GUARDED BY: _lock; what the request in hand has become
        self._bounded = False  # Touched by the job alone.
        self._unsent: Spool | None = None  # the rest of a response; nothing more comes behind it
        self._keep = True  # whether the connection is used again after this response
        self._deadline = Deadline(self._on_deadline)
        self._in_head = True  # the deadline is that of a head

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

    def hand_over(self, conversation: WebSocket) -> None:
        """Let it read and write from now on."""
        with self._lock:
            self._conversation = conversation

    def take_rest(self) -> bytes:
        """What the client has sent ahead. The lock is held."""
        return self._reader.take_rest()

    def wait_for(self, events: Events) -> None:
        """On the strand: wait for these."""
        if self._watch.paused:
            self._watch.resume()
        self._modify(events)

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
        if not self._deadline.is_set:
            self._set_deadline(self._server.limits.head_timeout)

    def _on_server_stopping(self) -> None:
        if self._state == READING:
            self._watch.remove()

    def _on_ready(self, watch: _core.Watch, events: Events) -> None:
        self._watch = watch  # the first time it may come before `start` has it
        if self._state == FLUSHING:
            self._flush()
            return
        conversation = self._conversation
        if conversation is not None:
            if not conversation.on_ready(self._socket, events):
                self.abandon()
        elif self._input_over:
            self._on_ready_after_end(events)
        else:
            self._read()

    def _read(self) -> None:
        reader = self._reader
        much = reader.in_body or self._state == LINGERING
        reset = False
        try:
            data = self._socket.recv(BODY_READ if much else HEAD_READ)
        except BlockingIOError:
            return
        except OSError:
            data, reset = b"", True
        if self._state == LINGERING:
            if not data:
                self._watch.remove()
            return
        if not data:
            self._on_end_of_input(reset=reset)
            return
        with self._lock:
            if self._conversation is not None:
                self._conversation.take_in(data)
                return
            reader.receive(data)
            if self._state >= BUSY:
                self._more = True
                if reader.waiting > AHEAD_BYTES or reader.waiting_requests > self._server.limits.pipelined:
                    self._watch.pause()
                return
        self._proceed()

    def _on_end_of_input(self, *, reset: bool) -> None:
        with self._lock:
            answer = self._answer
            given = self._state == DONE or (self._state == BUSY and answer is not None and answer.complete)
            finish = self._state >= BUSY and self._server.half_close == "finish" and not reset
            if finish:
                self._more = self._input_over = True
            elif given:
                self._more = True
                self._keep = False
            else:
                self.gone = True
        if finish:
            self._modify(Events.PRIORITY)  # a reset is reported all the same
        elif given:
            self._watch.pause()  # the end stays readable
        else:
            self._watch.remove()

    def _on_ready_after_end(self, events: Events) -> None:
        """The client sends no more, and waits for its answers."""
        if events & (Events.HANGUP | Events.ERROR):
            self.gone = True
            self._watch.remove()
        else:
            self._watch.pause()  # whatever it was, nothing can follow it

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
        if self._server.access_log:
            log_access(self.remote[0], "", refused.status.value, len(response), 0.0)
        self._more = True  # it may go on sending: linger
        self._respond(response, keep=False)

    # The strand: a request begins.

    def _begin(self, request: Request) -> None:
        """Make the request a job. READING again if it could not be taken, and the client was told."""
        self._keep = True
        self._more = self._reader.waiting > 0 or self._input_over
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

    def bound_unsent(self) -> None:
        """Have the kernel take no more than a piece or two ahead of the client, from here on. By the job."""
        if not self._bounded:
            self._bounded = True
            with contextlib.suppress(OSError):  # not TCP, or gone: writing will say so
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send part of a file, as much as the socket takes; how much that is, or GONE. By the job, which is in hand.

        Raises:
            OSError: the file cannot be read.
        """
        if isinstance(self._socket, TLSSocket):
            return self.write(os.pread(fd, min(count, BODY_READ), offset))
        try:
            return os.sendfile(self._socket.fileno(), fd, offset, count)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno in NO_SENDFILE:
                return self.write(os.pread(fd, min(count, BODY_READ), offset))
            if error.errno == errno.EIO:
                raise
            return GONE

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
                self._socket.close()
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
            rest = Spool()
            rest.append(memoryview(data)[sent:])
            self._wait_for_room(rest)
        else:
            self._state = READING
            if not keep:
                self._finish()

    def _wait_for_room(self, rest: Spool) -> None:
        self._unsent = rest
        self._state = FLUSHING
        self._set_deadline(self._server.limits.body_gap_timeout)
        self._modify(Events.WRITE)

    def _flush(self) -> None:
        rest = self._unsent
        assert rest is not None
        if rest.write_to(self.write) == GONE:
            self._watch.remove()
        elif rest:
            self._set_deadline(self._server.limits.body_gap_timeout)
        else:
            rest.close()
            self._unsent = None
            self._modify(Events.PRIORITY if self._input_over else Events.READ)
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
        if self._input_over or (not self._more and not self._reader.waiting):
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
                if self._unsent is not None:
                    self._unsent.close()
        self._server.left(self)

    # Time.

    def _set_deadline(self, seconds: float) -> None:
        self._deadline.set(self._watch.strand, seconds)

    def _on_deadline(self) -> float | None:
        if self._state >= BUSY:
            return self._server.limits.keep_alive
        left = self._deadline.left
        if left > 0:
            return left  # a job that has just ended moved it
        if self._state == READING and not self._reader.idle:
            self._refuse(Refused(HTTPStatus.REQUEST_TIMEOUT, "the request did not come to its end in time"))
        else:
            self._watch.remove()
        return None
