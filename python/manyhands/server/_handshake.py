"""How a request becomes a WebSocket conversation. Source: RFC 6455, 4."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request as Handshake
from websockets.server import ServerProtocol

from manyhands.server._errors import HandshakeRefused
from manyhands.server._websocket import WebSocket

if TYPE_CHECKING:
    from manyhands import _core
    from manyhands.server._request import Request

__all__ = ["websocket"]

CONTROL_BYTES = 125
"""A ping may come between two parts of a message that is nearly as long as it may be, and the protocol counts it in. The bound
itself is looked at by the conversation. Source: RFC 6455, 5.5."""

_quiet = logging.Logger("websockets", logging.CRITICAL + 1)  # noqa: LOG001
"""Not of the tree: nobody's handler is called while the lock is held."""


def websocket(
    environ: dict[str, Any],
    *,
    subprotocols: Sequence[str] = (),
    origins: Sequence[str | None] | None = None,
    max_size: int = 1 << 20,
    ping_interval: float | None = 20.0,
    ping_timeout: float = 20.0,
    compress: bool = True,
) -> WebSocket:
    """Turn the request in hand into a WebSocket conversation. Called by a view, once.

    ```python
    @app.route("/echo", websocket=True)
    def echo():
        with manyhands.server.websocket(flask.request.environ) as ws:
            for message in ws:
                ws.send(message)
        return ""  # nobody gets it
    ```

    What the view returns afterwards is thrown away.

    Args:
        environ: The request's.
        subprotocols: Those that the view speaks, the best first.
        origins: The pages that may open it, as in `"https://example.com"`; None in it stands for clients that are no
            browsers. None: any page may, with the user's cookies (RFC 6455, 10.2).
        max_size: Bytes of a message, unpacked. A longer one ends the conversation (1009).
        ping_interval: Seconds between pings; None for none.
        ping_timeout: Seconds that a client may leave a ping without any answer.
        compress: Let messages be deflated (RFC 7692) if the client can.

    Raises:
        HandshakeRefused: the request does not ask for it, or not as it should, or its page may not. The client has
            been told; what the view returns is thrown away.
        RuntimeError: the server is another, or the response has begun.

    Threads: the one that runs the view.
    """
    connection = environ.get("manyhands.connection")
    if connection is None:
        raise RuntimeError(
            "environ is not of this server, which alone lends its connection: serve the application by `manyhands serve`, in a "
            "test by manyhands.server.Server"
        )
    answer = connection.answer_in_hand()
    protocol = ServerProtocol(
        origins=origins,  # type: ignore[arg-type]  # its own str
        subprotocols=list(subprotocols) or None,  # type: ignore[arg-type]
        extensions=[ServerPerMessageDeflateFactory()] if compress else None,
        max_size=max_size + CONTROL_BYTES,
        logger=_quiet,
    )
    try:
        _shake_hands(protocol, answer.request)
    except HandshakeRefused as refused:
        answer.refuse_handshake(refused)
        raise
    made = WebSocket(connection, protocol, max_size, ping_timeout)
    answer.hand_over(made)
    made.begin(ping_interval)
    if answer.stopping:  # it was not there when the others were told
        made.go_away()
    return made


def _shake_hands(protocol: ServerProtocol, request: Request | _core.PlainRequest) -> None:
    """Let the protocol read the request, and make its answer.

    Raises:
        HandshakeRefused: it is refused.
    """
    if request.method != "GET" or request.http_10:
        raise HandshakeRefused(
            HTTPStatus.METHOD_NOT_ALLOWED, "a WebSocket is opened by GET and HTTP/1.1", {"Allow": "GET"}
        )
    headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers)
    # It would read the head anew, with bounds of its own on lines and headers. What it is given instead says nothing.
    protocol.receive_data(b"GET / HTTP/1.1\r\n\r\n")
    protocol.events_received()
    response = protocol.accept(Handshake(request.target.decode("ascii"), headers))
    if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        more = {
            name: value for name, value in response.headers.raw_items() if name in ("Upgrade", "Sec-WebSocket-Version")
        }
        # The client's words are in it, and it goes to a log.
        reason = str(protocol.handshake_exc).encode("ascii", "backslashreplace").decode("ascii")
        raise HandshakeRefused(HTTPStatus(response.status_code), reason, more)
    protocol.send_response(response)
