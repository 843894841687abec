"""WSGI: a call of the application, and how what it answers becomes bytes. Source: PEP 3333.

Knows no socket and no loop, and waits for nobody: `Exchange` is given a function that takes bytes, and stops between two
pieces of a body, so that the caller can wait there for the client. Everything here happens on the thread of the request's
job, one at a time: a body in pieces may be continued on another thread than it was begun on, so nothing needs a lock.

What is sent in one piece: a list or tuple (its length is known, so it gets a Content-Length), and the head together with
the first piece that is not empty. A piece is never held back for the next one: PEP 3333 forbids it.

The application's `close()` is called once, whatever happens. A head that cannot be sent as it is (a line break in a
value, a header that is not the application's to set) is an error of the application like any other: a 500, and the
traceback in the log.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Protocol, cast

from manyhands.errors import JobStopped
from manyhands.server._django import end_request, is_response
from manyhands.server._environ import Environ
from manyhands.server._file import FileWrapper, Region
from manyhands.server._iter_async import is_async, iter_async
from manyhands.server._response import ONE_COPY, ResponseFrame
from manyhands.server._rules import APPLICATION, BYTES, START_RESPONSE, broken

__all__ = ["Application", "Exchange"]

Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class StartResponse(Protocol):
    """What an application gets to begin its response with."""

    def __call__(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]: ...


Application = Callable[[Environ, Any], Iterable[bytes] | AsyncIterable[bytes]]

WHOLE: Final = (list, tuple)
"""What a body that is here in full is."""

_END: Final = object()


class Send(Protocol):
    """How an exchange gives bytes to the client."""

    def __call__(self, data: bytes | Region, *, final: bool) -> None:
        """Send `data`.

        It does not wait: what the client does not take is kept.

        Args:
            data: Not empty. Of a file all that is sent of it; the caller goes on when it was.
            final: It is the last piece.

        Raises:
            JobStopped: the client has gone.
        """


class Exchange:
    """One call of the application, and what it answers.

    Args:
        frame: The response's framing.
        send: Where the bytes go.

    Attributes:
        frame: As given.
        head_sent: The client has the head, or a part of it: the response cannot be changed any more.
        complete: Every byte of the response was given to `send`.
        taken: The response was given by somebody else, and what the application answers is thrown away.
        djangos: A response in pieces is Django's, which has to stay on one thread.
        over: The request has ended: another one may be answered by now.
        begins: `run` asks for the first pieces, and a source that has none yet may give an empty one.

    Threads: those that run the job, one at a time.
    """

    # Most change few of these.
    _status: str | None = None
    _headers: Headers = []  # noqa: RUF012 - it is replaced, and never added to
    head_sent = False
    complete = False
    taken = False
    djangos = False
    begins = False
    over = False

    def __init__(self, frame: ResponseFrame, send: Send) -> None:
        self.frame = frame
        self._send = send

    def take(self, code: int) -> None:
        """Somebody else gives the response, the whole of it, and the connection is not used again.

        Raises:
            RuntimeError: the client has a part of it already.
        """
        if self.head_sent:
            raise RuntimeError("the response to this request has begun")
        self.head_sent = self.complete = self.taken = True
        self.frame.code = code
        self.frame.keep_alive = False

    def run(self, app: Application, environ: Environ) -> Generator[None] | None:
        """Call the application and send its response: all of it if it is here in full.

        Returns:
            None, or what is left to do: it goes on to the next piece at each `next()`, and is to be closed.

        Raises:
            JobStopped: from `send`, or from the application, which checked in.
            BaseException: whatever the application raised. If `head_sent`, the connection must be closed, so that the
                client can tell a part from the whole; if `complete`, nothing is lost.
        """
        try:
            result: Any = app(environ, self.start_response)
        except JobStopped:
            end_request()
            raise
        whole = isinstance(result, WHOLE)
        if not whole and is_async(result):
            result = iter_async(result)
        if self.taken:
            _close(result)
            return None
        pieces: Iterable[bytes] = result
        self.djangos = not whole and is_response(result)
        if not self.head_sent:
            if whole:
                try:
                    self._send_whole(result)
                finally:
                    _close(result)
                return None
            if isinstance(result, FileWrapper) and (region := result.region()) is not None:
                return self._send_file(result, region)
            if self._announces_length():
                rest = self._send_if_one_piece(result)
                if rest is None:
                    return None
                pieces = rest
        return self._send_pieces(pieces, result)

    def start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """Begin the response; it goes out with the first piece of the body.

        Raises:
            RuntimeError: it was called before, and `exc_info` is missing.
            TypeError: `headers` is no list.
            BaseException: `exc_info`, if the client has the head already.
        """
        if exc_info is not None:
            try:
                if self.head_sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a cycle through this frame
        elif self._status is not None:
            raise broken(
                START_RESPONSE, RuntimeError("start_response() was called twice; the second time it needs exc_info")
            )
        if not isinstance(headers, list):
            text = f"headers must be a list of (name, value), both str, and got {headers!r}"
            raise broken(START_RESPONSE, TypeError(text))
        self._status = status
        self._headers = headers
        return self.write

    def write(self, data: bytes) -> None:
        """Send a piece of the body at once: what `start_response` returns, for applications that cannot iterate."""
        _check_piece(data)
        if self.taken:
            return
        if self.over:
            raise broken(START_RESPONSE, RuntimeError("write() was called after the response had ended"))
        if data:
            self._send_piece(data)

    def _head(self, length: int | None = None) -> bytes:
        if self._status is None:
            text = "the application did not call start_response() before its first piece of the body"
            raise broken(START_RESPONSE, RuntimeError(text))
        try:
            return self.frame.head(self._status, self._headers, length)
        except (TypeError, ValueError) as error:
            broken(START_RESPONSE, error)
            raise

    def _send_whole(self, pieces: list[bytes] | tuple[bytes, ...]) -> None:
        """Send a body that is here in full, with its length."""
        if len(pieces) == 1:
            body = pieces[0]
            if self._send_at_once(body, known=True):
                return
            _check_piece(body)
        else:
            try:
                body = b"".join(pieces)
            except TypeError as error:
                broken(BYTES, error)
                raise
        frame = self.frame
        head = self._head(len(body))
        if body and not frame.bodiless:
            body = frame.frame(body)
            tail = frame.end()
            assert not tail, "a body of known length is not chunked"
            self.head_sent = True
            if len(body) <= ONE_COPY:
                self._send(head + body, final=True)
            else:
                self._send(head, final=False)
                self._send(body, final=True)
        else:
            frame.end()
            self.head_sent = True
            self._send(head, final=True)
        self.complete = True

    def _send_at_once(self, body: object, *, known: bool) -> bool:
        """Send a short response whose head is nothing special, head and body in one: see `ResponseFrame.whole`."""
        if self._status is None:
            return False
        data = self.frame.whole(self._status, self._headers, body, known=known)
        if data is None:
            return False
        self.head_sent = True
        self._send(data, final=True)
        self.complete = True
        return True

    def _announces_length(self) -> bool:
        try:
            return any(name.lower() == "content-length" for name, _ in self._headers)
        except (AttributeError, TypeError, ValueError):
            return False  # they are no headers: writing the head will say so

    def _send_if_one_piece(self, result: Iterable[bytes]) -> Iterable[bytes] | None:
        """Send a body whose first piece is all that was announced, as most bodies are that are no list.

        Returns:
            What is left to iterate; None if that is nothing.
        """
        try:
            pieces = _iterate(result)
            self.begins = True
            try:
                piece = next(pieces, _END)
                if isinstance(piece, bytes) and piece and self._send_at_once(piece, known=False):
                    piece = next(pieces, _END)
            finally:
                self.begins = False
        except BaseException:
            _close(result)
            raise
        if piece is not _END:
            return itertools.chain((cast("bytes", piece),), pieces)
        if self.complete:
            _close(result)
            return None
        return pieces

    def _send_pieces(self, pieces: Iterable[bytes], result: object) -> Generator[None]:
        """Send each piece when it comes. The head waits for the first one, as until then it may be replaced."""
        frame = self.frame
        try:
            for piece in _iterate(pieces):
                _check_piece(piece)
                if piece:
                    self._send_piece(piece)
                    if frame.bodiless:
                        break
                yield
            if not self.head_sent:
                head = self._head(0)
                frame.end()
                self.head_sent = True
                self._send(head, final=True)
            elif not frame.bodiless and (tail := frame.end()):
                self._send(tail, final=True)
            self.complete = True
        finally:
            _close(result)

    def _send_file(self, wrapper: FileWrapper, region: Region) -> Generator[None]:
        """Send the rest of a file, with its length."""
        frame = self.frame
        try:
            head = self._head(region.left)
            region.left = frame.claim(region.left)
            more = region.left > 0 and not frame.bodiless
            self.head_sent = True
            self._send(head, final=not more)
            if more:
                self._send(region, final=True)
                yield
            frame.end()
            self.complete = True
        finally:
            wrapper.close()

    def _send_piece(self, piece: bytes) -> None:
        frame = self.frame
        if self.head_sent:
            data = b"" if frame.bodiless else frame.frame(piece)
        else:
            data = self._head()
            self.head_sent = True
            if not frame.bodiless:
                data += frame.frame(piece)
        if data:
            final = frame.bodiless or frame.filled
            self._send(data, final=final)
            self.complete = final


def _check_piece(piece: object) -> None:
    if not isinstance(piece, bytes):
        raise broken(BYTES, TypeError(f"a piece of the body must be bytes, and got {type(piece).__name__}"))


def _iterate(result: Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(result, bytes | str):
        text = f"the application returned {type(result).__name__}, and not a list or another iterable of bytes, as [b'...']"
        raise broken(BYTES, TypeError(text))
    try:
        return iter(result)
    except TypeError:
        kind = type(result).__name__
        text = f"the application returned {kind}, which is not iterable, and not a list of bytes, as [b'...']"
        raise broken(APPLICATION, TypeError(text)) from None


def _close(result: object) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()
