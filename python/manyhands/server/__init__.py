"""A server for WSGI applications (Flask, Django, plain) that lets go: `serve()`, `Server`, `Limits`.

    manyhands.server.serve(app, port=8000)        until Ctrl-C
    with manyhands.server.Server(app) as server:  for tests and embedding

Connections live on a loop and hold no thread while they are idle, slow or half-way through a request. A request is a job that
its connection owns: when the client hangs up, `manyhands.check_in()` in the view raises, and a request that still waited
in the queue never starts. In a view `environ["manyhands.job"]` is the job and `environ["manyhands.connection"]` the
connection.

What it is not, yet: no TLS, no WebSocket, no Unix sockets, one process. Put it behind a proxy that has what you need.

Needs `httptools`: `pip install 'manyhands[server]'`.
"""

import sys as _sys

try:
    import httptools as _httptools  # noqa: F401 - so that its absence is explained here
except ImportError as _error:
    raise ImportError(
        "manyhands.server needs httptools: install it with `pip install 'manyhands[server]'`", name="httptools"
    ) from _error

from manyhands.server._connection import Connection as Connection
from manyhands.server._limits import Limits as Limits
from manyhands.server._serve import serve as serve
from manyhands.server._server import Server as Server

__all__ = ["Connection", "Limits", "Server", "serve"]

for _name in __all__:
    _value = getattr(_sys.modules[__name__], _name)
    _value.__module__ = "manyhands.server"
