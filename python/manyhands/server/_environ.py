"""The environ: what an application gets of a request. Source: PEP 3333, *environ Variables*.

Header names with an underscore are dropped: `X_User` and `X-User` would be the same key, and a proxy in front knows only
how to drop one of them. `Proxy` is dropped as well: HTTP_PROXY is read by clients inside the application.
"""

from __future__ import annotations

import io
import sys
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from manyhands.server._file import FileWrapper
from manyhands.server._request import Request

__all__ = ["Environ", "base_environ", "environ_of"]

Environ = dict[str, Any]

_DROPPED: Final = ""

_names: dict[bytes, str] = {
    b"Content-Type": "CONTENT_TYPE",
    b"Content-Length": "CONTENT_LENGTH",
}
"""A header's name as clients write it -> its key in the environ."""
_KNOWN = 1000
"""How many of them are remembered: the names are the clients' choice."""
_LONGEST = 64
"""Bytes of a name that is: a thousand as long as a head may be would be megabytes, for good."""


def base_environ(host: str, port: int) -> Environ:
    """Make what all requests of a server have in common.

    The keys that each of them has, or nearly each, are there already: so a copy has room for them, and does not grow.
    """
    return {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/",
        "RAW_URI": "/",
        "PATH_INFO": "/",
        "SCRIPT_NAME": "",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_SOFTWARE": "manyhands",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "QUERY_STRING": "",
        "HTTP_HOST": "",
        "REMOTE_ADDR": "",
        "REMOTE_PORT": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        # The body is whole and its length is known, so that reading to the end is safe: what frameworks ask this key.
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input": None,
    }


def environ_of(base: Environ, request: Request, remote: tuple[str, int]) -> Environ:
    """Make the environ of a request.

    Args:
        base: What `base_environ` made; it is copied.
        request: Its body becomes `wsgi.input`.
        remote: The client's address and port; an empty one if it has none.
    """
    environ = base.copy()
    if remote[0]:
        environ["REMOTE_ADDR"] = remote[0]
        environ["REMOTE_PORT"] = str(remote[1])
    else:
        del environ["REMOTE_ADDR"], environ["REMOTE_PORT"]
    target = request.target
    environ["REQUEST_METHOD"] = request.method
    environ["REQUEST_URI"] = environ["RAW_URI"] = target.decode("latin-1")
    if b"?" in target:
        target, _, query = target.partition(b"?")
        environ["QUERY_STRING"] = query.decode("latin-1")
    if b"%" in target:
        target = unquote_to_bytes(target)
    environ["PATH_INFO"] = target.decode("latin-1")
    if request.http_10:
        environ["SERVER_PROTOCOL"] = "HTTP/1.0"
    environ["wsgi.input"] = io.BytesIO(request.body) if request.file is None else request.file
    _add_headers(environ, request)
    if request.host is not None:
        environ["HTTP_HOST"] = request.host.decode("latin-1")
    else:
        del environ["HTTP_HOST"]
    if request.chunked or "CONTENT_LENGTH" in environ:  # never the client's digits: there may be thousands
        environ["CONTENT_LENGTH"] = str(request.length)
    return environ


def _add_headers(environ: Environ, request: Request) -> None:
    for name, value in request.headers:
        key = _names.get(name)
        if key is None:
            key = _key_of(name)
        if key:
            text = value.decode("latin-1")
            if key in environ:
                text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
            environ[key] = text


def _key_of(name: bytes) -> str:
    """Return a header's key in the environ, empty for one that is dropped, and remember it."""
    folded = name.lower()
    # Host is set from the request, since the target may overrule it; Transfer-Encoding is undone.
    if b"_" in name or folded in (b"host", b"proxy", b"transfer-encoding"):
        key = _DROPPED
    else:
        key = name.decode("ascii").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
    if len(_names) < _KNOWN and len(name) <= _LONGEST:
        _names[name] = key
    return key
