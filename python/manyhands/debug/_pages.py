"""The dashboard's pages: a WSGI application, and who may see what.

| path | answers with | needs the token |
|---|---|---|
| `/` and what the page is made of | the page; nothing of the program is in it | |
| `/health` | `ok`: the process lives; of several workers, that one of them serves and answers, else 503 | |
| `/data.json` | what there is to see | yes |
| `/metrics` | the figures of it, for Prometheus | yes |
| `POST /stop` | stops the job whose number is in `{"job": 7}`; of several workers `{"job": 7, "pid": 4711}` | yes |

Who must be kept out, and by what:

* Other machines: it listens on 127.0.0.1.
* Web pages of others, open in the same browser. They cannot read an answer, for want of CORS headers. One that lets its
  own name lead to 127.0.0.1 (DNS rebinding) could; so without a token only requests for this machine by its address or
  as `localhost` are answered. With a token the name does not matter: there is no cookie that a browser would add.
* What such pages send without being able to read the answer: a stop is a POST of JSON, which needs leave to come from
  another origin, and an Origin that is not ours is refused as well. Where there is a token, only our page can add it.
* Names that are programs: the page makes text of everything, and its policy lets nothing run that is not a file of ours.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from importlib import resources
from typing import Any, Final, NamedTuple

from manyhands._log import Log
from manyhands.debug._sight import Sight
from manyhands.debug._summed_sight import SummedSight, WorkerSilent

__all__ = ["Pages"]

logger = Log("manyhands.debug")

Environ = dict[str, Any]

HEADERS: Final = [
    (
        "Content-Security-Policy",
        (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"

FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/tables.js": ("tables.js", "text/javascript; charset=utf-8"),
    "/plots.js": ("plots.js", "text/javascript; charset=utf-8"),
    "/words.js": ("words.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Path -> the file in `page`, its type."""

LOOPBACK: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
"""This machine by a name that no resolver can be made to change."""

MOST_NUMBER: Final = 1 << 63
MOST_BODY: Final = 1024
"""Bytes of a request's body that are read."""


class Answer(NamedTuple):
    """What a request is answered with."""

    status: HTTPStatus
    kind: str
    body: bytes
    more: tuple[tuple[str, str], ...] = ()


class Pages:
    """The application.

    Args:
        sight: What it shows.
        token: Who has it may look and stop jobs; None for everybody on this machine.
    """

    def __init__(self, sight: Sight | SummedSight, token: str | None) -> None:
        self._sight = sight
        self._token = None if token is None else token.encode("ascii")
        page = resources.files("manyhands.debug") / "page"
        self._files = {path: (page / name).read_bytes() for path, (name, _) in FILES.items()}
        self._open: dict[str, tuple[str, Callable[[Environ], Answer]]] = {"/health": ("GET", self._health)}
        self._guarded: dict[str, tuple[str, Callable[[Environ], Answer]]] = {
            "/data.json": ("GET", self._data),
            "/metrics": ("GET", self._metrics),
            "/stop": ("POST", self._stop),
        }

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = self._answer(environ)
        headers = [("Content-Type", answer.kind), *HEADERS, *answer.more]
        start_response(f"{answer.status.value} {answer.status.phrase}", headers)
        return [answer.body]

    def _answer(self, environ: Environ) -> Answer:
        path = environ["PATH_INFO"]
        if path in self._open:
            return _by_method(environ, *self._open[path])
        if self._token is None and LOOPBACK.fullmatch(environ.get("HTTP_HOST", "")) is None:
            return _words(
                HTTPStatus.FORBIDDEN,
                "This is answered only to those who ask for 127.0.0.1 or localhost: any other name could lead here from "
                "elsewhere. To reach it by another name, open the dashboard with a token.",
            )
        if path in FILES:
            return _by_method(environ, "GET", self._file)
        if path not in self._guarded:
            return _words(HTTPStatus.NOT_FOUND, "There is nothing here.")
        if not self._has_token(environ):
            return _words(
                HTTPStatus.UNAUTHORIZED,
                "This needs the dashboard's token, in a header: Authorization: Bearer TOKEN.",
                ("WWW-Authenticate", 'Bearer realm="manyhands"'),
            )
        return _by_method(environ, *self._guarded[path])

    def _has_token(self, environ: Environ) -> bool:
        if self._token is None:
            return True
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        # In the same time, however much of it is right.
        same = hmac.compare_digest(given.strip().encode("latin-1"), self._token)
        return same and scheme.lower() == "bearer"

    # What is behind a path.

    def _file(self, environ: Environ) -> Answer:
        path = environ["PATH_INFO"]
        return Answer(HTTPStatus.OK, FILES[path][1], self._files[path])

    def _health(self, environ: Environ) -> Answer:  # noqa: ARG002 - as the others
        trouble = self._sight.trouble()
        if trouble is not None:
            return _words(HTTPStatus.SERVICE_UNAVAILABLE, trouble)
        return _words(HTTPStatus.OK, "ok")

    def _data(self, environ: Environ) -> Answer:  # noqa: ARG002
        return Answer(HTTPStatus.OK, JSON, self._sight.look_json())

    def _metrics(self, environ: Environ) -> Answer:
        try:
            from manyhands.debug._metrics import metrics  # noqa: PLC0415 - an extra
        except ImportError as error:
            if error.name is None or error.name.partition(".")[0] != "prometheus_client":
                raise
            return _words(
                HTTPStatus.NOT_IMPLEMENTED,
                "The figures for Prometheus need prometheus-client: install it with `pip install 'manyhands[prometheus]'`.",
            )
        kind, body = metrics(self._sight.look(), environ.get("HTTP_ACCEPT", ""))
        return Answer(HTTPStatus.OK, kind, body)

    def _stop(self, environ: Environ) -> Answer:
        if self._token is None and not _is_own(environ):  # a page from elsewhere does not have the token
            return _words(
                HTTPStatus.FORBIDDEN, "This was sent by a page from elsewhere; only the dashboard's own may stop a job."
            )
        if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != JSON:
            return _words(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, 'Send JSON, as {"job": 7}, with Content-Type: application/json.'
            )
        summed = isinstance(self._sight, SummedSight)
        number, pid = _which_job(environ["wsgi.input"].read(MOST_BODY))
        if number is None or (summed and pid is None):
            words = 'its number and its process, as {"job": 7, "pid": 4711}' if summed else 'its number, as {"job": 7}'
            return _words(HTTPStatus.BAD_REQUEST, f"Name a job by {words}.")
        try:
            # Nothing has such a number, and it is not to be handed on to other processes, whose lines have a bound.
            known = 0 < number < MOST_NUMBER and (pid is None or 0 < pid < MOST_NUMBER)
            stopped = self._sight.stop(number, pid) if known else None
        except WorkerSilent as silent:
            return _words(HTTPStatus.GATEWAY_TIMEOUT, str(silent))
        if stopped is None:
            return _words(HTTPStatus.NOT_FOUND, f"There is no job {number} any more.")
        logger.info("job %d was told to stop by the dashboard", number)
        return Answer(HTTPStatus.OK, JSON, json.dumps({"job": number, "stopped": stopped}).encode("ascii"))


def _which_job(body: bytes) -> tuple[int | None, int | None]:
    """Read the job's number, and its process's if there is one; None, None if it is neither."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return None, None
    number, pid = (asked.get("job"), asked.get("pid")) if isinstance(asked, dict) else (None, None)
    sensible = type(number) is int and (pid is None or type(pid) is int)
    return (number, pid) if sensible else (None, None)


def _is_own(environ: Environ) -> bool:
    """Whether a request that changes something was sent by our own page, or by no page at all."""
    if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
        return False
    origin = environ.get("HTTP_ORIGIN")
    # Whatever scheme a proxy in front speaks: the host is what counts.
    return origin is None or origin.partition("://")[2].lower() == environ.get("HTTP_HOST", "").lower()


def _by_method(environ: Environ, method: str, respond: Callable[[Environ], Answer]) -> Answer:
    asked = environ["REQUEST_METHOD"]
    if asked == method or (asked == "HEAD" and method == "GET"):
        return respond(environ)
    return _words(
        HTTPStatus.METHOD_NOT_ALLOWED, f"Send {method}.", ("Allow", "GET, HEAD" if method == "GET" else method)
    )


def _words(status: HTTPStatus, words: str, *more: tuple[str, str]) -> Answer:
    return Answer(status, TEXT, f"{words}\n".encode(), more)
