"""A server for WSGI applications (Flask, Django, plain) that lets go: `serve()`, `Server`, `Limits`, `websocket()`.

    manyhands.server.serve(app, port=8000)        until Ctrl-C
    with manyhands.server.Server(app) as server:  for tests and embedding

Connections live on a loop and hold no thread while they are idle, slow or half-way through a request. A request is a job that
its connection owns: when the client hangs up, `manyhands.check_in()` in the view raises, and a request that still waited
in the queue never starts. In a view `environ["manyhands.job"]` is the job and `environ["manyhands.connection"]` the
connection.

A response may wait for something else than its client without a thread too: `Events` are fed from any thread, `iter_async`
takes an async generator.

It listens on TCP or a Unix socket, by TLS if it is given a certificate. `serve("module:app", workers=N)` runs it in several
processes, and so does `manyhands serve --workers N`.

What it is not, yet: no HTTP/2. Put it behind a proxy that has what you need.

Needs `httptools` and `websockets`: `pip install 'manyhands[server]'`.
"""

import sys as _sys

try:
    # So that their absence is explained here.
    import httptools as _httptools  # noqa: F401
    import websockets as _websockets  # noqa: F401
except ImportError as _error:
    raise ImportError(
        f"manyhands.server needs {_error.name}: install it with `pip install 'manyhands[server]'`", name=_error.name
    ) from _error

from manyhands.server._connection import Connection as Connection
from manyhands.server._errors import HandshakeRefused as HandshakeRefused
from manyhands.server._errors import NoApplication as NoApplication
from manyhands.server._errors import WebSocketClosed as WebSocketClosed
from manyhands.server._errors import WorkerFailed as WorkerFailed
from manyhands.server._handshake import websocket as websocket
from manyhands.server._iter_async import iter_async as iter_async
from manyhands.server._limits import Limits as Limits
from manyhands.server._serve import serve as serve
from manyhands.server._server import Server as Server
from manyhands.server._server import ServerStats as ServerStats
from manyhands.server._sse import Events as Events
from manyhands.server._supervisor import Supervisor as Supervisor
from manyhands.server._websocket import WebSocket as WebSocket

__all__ = [
    "Connection",
    "Events",
    "HandshakeRefused",
    "Limits",
    "NoApplication",
    "Server",
    "ServerStats",
    "Supervisor",
    "WebSocket",
    "WebSocketClosed",
    "WorkerFailed",
    "iter_async",
    "serve",
    "websocket",
]

for _name in __all__:
    _value = getattr(_sys.modules[__name__], _name)
    _value.__module__ = "manyhands.server"
