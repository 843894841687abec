"""The frameworks' own test clients, with a socket and a server between them and the application.

Both clients call the application with an environ. `Wire` is what they get to call instead: it writes the request that
the environ describes to a server, and gives back what comes. So one test can be run in process and over the wire, and what
the two see can be compared.
"""

from __future__ import annotations

import http.client
import io
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import quote
from wsgiref.validate import validator

from support import LONG

HOP_BY_HOP = {"transfer-encoding", "connection", "keep-alive"}
"""Headers that are about the connection, and the server's own."""

OWN = {"date", "server"}
"""Headers that the server adds, whatever the application says."""


class Wire:
    """A WSGI application that is somewhere else: at this address.

    Attributes:
        chunked: Send bodies without saying how long they are.
        headers: Of the last response, as they came.
    """

    def __init__(self, address: tuple[str, int], *, chunked: bool = False) -> None:
        self.chunked = chunked
        self.headers: list[tuple[str, str]] = []
        self._connection = http.client.HTTPConnection(*address, timeout=LONG)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def ask(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        """Status, headers and body."""
        path = quote(environ["PATH_INFO"].encode("latin-1"))
        if query := environ.get("QUERY_STRING"):
            path += f"?{query}"
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        connection = self._connection
        connection.putrequest(environ["REQUEST_METHOD"], path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", environ.get("HTTP_HOST") or environ["SERVER_NAME"])
        for name, value in environ.items():
            if name.startswith("HTTP_") and name != "HTTP_HOST" and (value or name != "HTTP_COOKIE"):
                connection.putheader(name[5:].replace("_", "-").title(), value)
        if environ.get("CONTENT_TYPE"):
            connection.putheader("Content-Type", environ["CONTENT_TYPE"])
        if self.chunked and body:
            connection.putheader("Transfer-Encoding", "chunked")
            pieces = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
            connection.endheaders(pieces, encode_chunked=True)
        else:
            if environ.get("CONTENT_LENGTH"):
                connection.putheader("Content-Length", environ["CONTENT_LENGTH"])
            connection.endheaders(body or None)
        response = connection.getresponse()
        self.headers = response.getheaders()
        return f"{response.status} {response.reason}", self.headers, response.read()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """As an application."""
        status, headers, body = self.ask(environ)
        start_response(status, [pair for pair in headers if pair[0].lower() not in HOP_BY_HOP | OWN])
        return [body]


def validated(app: Any) -> Any:
    """The application inside `wsgiref.validate`."""
    checked = validator(app)

    def call(environ: dict[str, Any], start_response: Any) -> Any:
        # With it Werkzeug reads without a size, which the validator takes for a mistake.
        del environ["wsgi.input_terminated"]
        return checked(environ, start_response)

    return call


def django_client(wire: Wire) -> Any:
    """`django.test.Client`, whose requests go over the wire; CSRF is checked, as the server does."""
    from django.core.handlers.wsgi import WSGIRequest
    from django.http import HttpResponse
    from django.test import Client

    class OverTheWire(Client):
        def __init__(self) -> None:
            super().__init__(enforce_csrf_checks=True, raise_request_exception=False)
            self.handler = self._handle

        def _handle(self, environ: dict[str, Any]) -> HttpResponse:
            status, headers, body = wire.ask(environ)
            code, _, reason = status.partition(" ")
            response = HttpResponse(body, status=int(code), reason=reason)
            del response["Content-Type"]
            cookies: SimpleCookie = response.cookies
            for name, value in headers:
                if name.lower() == "set-cookie":
                    cookies.load(value)
                elif name.lower() not in HOP_BY_HOP | OWN:
                    response[name] = value
            if "Location" in response:
                response.url = response["Location"]
            response.wsgi_request = WSGIRequest(environ | {"wsgi.input": io.BytesIO()})
            return response

    return OverTheWire()


def flask_client(wire: Wire, app: Any) -> Any:
    """The application's own test client, whose requests go over the wire."""
    from flask.testing import FlaskClient
    from werkzeug.test import run_wsgi_app

    class OverTheWire(FlaskClient):
        def run_wsgi_app(self, environ: dict[str, Any], buffered: bool = False) -> Any:
            self._add_cookies_to_wsgi(environ)
            found = run_wsgi_app(wire, environ, buffered=buffered)
            host = environ.get("HTTP_HOST", "localhost").partition(":")[0]
            self._update_cookies_from_response(host, environ["PATH_INFO"], found[2].getlist("Set-Cookie"))
            return found

    return OverTheWire(app, app.response_class)
