"""WSGI without sockets: what the application gets, and what becomes of what it answers. PEP 3333."""

from __future__ import annotations

import io
import sys
from wsgiref.validate import validator

import pytest

from manyhands.server import _rules
from manyhands.server._file import FileWrapper
from manyhands.server._response import ResponseFrame
from manyhands.server._wsgi import Exchange
from wsgi_client import GET, Body, Client, List, app_of, environ, request_of


def test_the_environ_has_what_pep_3333_demands():
    """Every key, with native strings; the path unquoted, the query not; the body at hand."""
    found = environ(
        b"POST /a%2Fb%C3%A9?c=%20d HTTP/1.1\r\nHost: example:80\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n"
        b"X-One: 1\r\nx-one: 2\r\nCookie: a=b\r\ncookie: c=d\r\nX-Latin: \xe9\r\n\r\nhello"
    )
    assert found.pop("wsgi.input").read() == b"hello"
    assert found.pop("wsgi.errors") is sys.stderr
    assert found == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b\xc3\xa9",
        "QUERY_STRING": "c=%20d",
        "REQUEST_URI": "/a%2Fb%C3%A9?c=%20d",
        "RAW_URI": "/a%2Fb%C3%A9?c=%20d",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "SERVER_NAME": "here",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "manyhands",
        "REMOTE_ADDR": "10.0.0.1",
        "REMOTE_PORT": "5",
        "HTTP_HOST": "example:80",
        "HTTP_X_ONE": "1,2",
        "HTTP_COOKIE": "a=b; c=d",
        "HTTP_X_LATIN": "\xe9",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
    }


def test_headers_that_could_be_taken_for_others_are_dropped():
    """X_User is not X-User, and Proxy is not the variable that clients inside the application obey."""
    found = environ(
        b"GET / HTTP/1.1\r\nHost: h\r\nX-User: me\r\nX_User: root\r\nContent_Length: 9\r\nProxy: evil\r\n\r\n"
    )
    assert found["HTTP_X_USER"] == "me"
    assert not {"HTTP_PROXY", "CONTENT_LENGTH", "HTTP_CONTENT_LENGTH"} & found.keys()


def test_a_chunked_body_has_a_length_and_no_encoding_left():
    """It was read in full: the application sees what it would see of a body with a length."""
    found = environ(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert found["CONTENT_LENGTH"] == "3"
    assert "HTTP_TRANSFER_ENCODING" not in found
    assert found["wsgi.input"].read() == b"abc"


def test_the_host_of_an_absolute_target_overrules_the_header():
    """RFC 9112, 3.2.2."""
    found = environ(b"GET http://other/x HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (found["HTTP_HOST"], found["PATH_INFO"]) == ("other", "/x")
    assert "HTTP_HOST" not in environ(b"GET / HTTP/1.0\r\n\r\n")


@pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
def test_the_standard_librarys_validator_finds_no_fault(method):
    """`wsgiref.validate` around an application that reads its body and answers with an iterable."""

    def app(environ, start_response):
        body = environ["wsgi.input"].read(100)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body) + 1))])
        return iter([body, b"!"])

    client = Client(method + b" /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
    first, _, body = client.call(validator(app))
    assert first == "HTTP/1.1 200 OK"
    assert body == (b"" if method == b"HEAD" else b"abc!")


# What becomes of its answer.


@pytest.mark.parametrize("result", [[b"hello"], (b"hello",), [b"hel", b"", b"lo"]])
def test_a_body_that_is_here_in_full_is_one_send_with_its_length(result):
    """A list or tuple."""
    client = Client()
    assert client.call(app_of(result)) == ("HTTP/1.1 200 OK", ["Content-Length: 5"], b"hello")
    assert client.final == [True]
    assert client.exchange.complete and client.frame.keep_alive


def test_a_long_body_is_not_copied_behind_its_head():
    """Two sends; the second is the object that the application gave."""
    body = bytes(1 << 20)
    client = Client()
    client.call(app_of([body]))
    assert client.final == [False, True]
    assert client.sent[1] is body


def test_an_empty_body_has_the_length_zero():
    """Whatever it is made of."""
    for result in ([], [b""], iter(()), iter([b"", b""])):
        client = Client()
        assert client.call(app_of(result)) == ("HTTP/1.1 200 OK", ["Content-Length: 0"], b"")
        assert client.final == [True]


def test_an_iterable_is_sent_piece_by_piece_and_chunked():
    """The head goes with the first piece that is not empty; no piece waits for the next."""
    client = Client()
    sends_seen = []

    def pieces():
        for piece in (b"", b"one", b"", b"two"):
            sends_seen.append(len(client.sent))
            yield piece

    first, headers, body = client.call(app_of(pieces()))
    assert (first, headers) == ("HTTP/1.1 200 OK", ["Transfer-Encoding: chunked"])
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert sends_seen == [0, 0, 1, 1]
    assert client.final == [False, False, True]


def test_an_iterable_with_its_length_announced_is_one_send_if_it_is_one_piece():
    """What frameworks give: the end is known without a further send."""
    client = Client()
    headers = [("Content-Length", "5")]
    assert client.call(app_of(iter([b"hello"]), headers=headers)) == (
        "HTTP/1.1 200 OK",
        ["Content-Length: 5"],
        b"hello",
    )
    assert client.final == [True]


def test_start_response_may_be_called_when_the_iteration_begins():
    """As a generator does."""

    def app(environ, start_response):
        start_response("201 Created", [])
        yield b"made"

    assert Client().call(app)[0] == "HTTP/1.1 201 Created"


@pytest.mark.parametrize("result", [lambda: [b"hello"], lambda: iter([b"hel", b"lo"]), lambda: [b""], lambda: iter(())])
def test_head_gets_the_head_alone(result):
    """With the length if it is known; the body is not even asked for beyond its first piece."""
    client = Client(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    first, headers, body = client.call(app_of(result()))
    assert (first, body) == ("HTTP/1.1 200 OK", b"")
    assert headers in ([], ["Content-Length: 5"])
    assert client.final == [True]
    assert client.frame.keep_alive


def test_head_does_not_wait_for_a_body_that_nobody_gets():
    """The iterable is closed behind its first piece."""
    asked = []

    def pieces():
        try:
            for number in range(1000):
                asked.append(number)
                yield b"piece"
        finally:
            asked.append("closed")

    Client(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").call(app_of(pieces()))
    assert asked == [0, "closed"]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("result", [lambda: [b"surplus"], lambda: iter([b"sur", b"plus"]), list])
def test_a_status_without_a_body_has_none(status, result):
    """Whatever the application gives."""
    client = Client()
    first, headers, body = client.call(app_of(result(), status, [("Content-Length", "7")]))
    assert (first, body) == (f"HTTP/1.1 {status}", b"")
    assert headers == ([] if status.startswith("204") else ["Content-Length: 7"])
    assert client.final == [True]


def test_the_old_way_to_write_works():
    """The callable that start_response returns sends at once."""
    client = Client()
    sends_seen = []

    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"")
        write(b"one")
        sends_seen.append(len(client.sent))
        write(b"two")
        return [b"three"]

    assert client.call(app)[2] == b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"
    assert sends_seen == [1]


def test_an_old_client_gets_the_end_of_the_connection_as_the_end_of_the_body():
    """HTTP/1.0 has no chunks."""
    client = Client(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert client.call(app_of(iter([b"one", b"two"]))) == ("HTTP/1.1 200 OK", ["Connection: close"], b"onetwo")
    assert not client.frame.keep_alive


def test_a_body_longer_than_announced_is_cut_and_a_shorter_one_ends_the_connection():
    """FAULT 34. Nothing of one response can be taken for the next."""
    for result in ([b"hello!!"], iter([b"hel", b"lo!", b"!"]), iter([b"hello", b"!!"])):
        client = Client()
        assert client.call(app_of(result, headers=[("Content-Length", "5")]))[2] == b"hello"
        assert client.frame.excess and client.frame.keep_alive
    for result in ([b"hel"], iter([b"he", b"l"]), iter(())):
        client = Client()
        client.call(app_of(result, headers=[("Content-Length", "5")]))
        assert client.frame.short and not client.frame.keep_alive


def test_exc_info_replaces_what_was_not_sent_and_raises_what_was():
    """PEP 3333, *Error Handling*."""
    error = ValueError("halfway")

    def app(environ, start_response):
        start_response("200 OK", [("X", "1")])
        try:
            raise error
        except ValueError:
            start_response("500 Sorry", [("Y", "2")], sys.exc_info())
        yield b"sorry"
        try:
            raise error
        except ValueError:
            start_response("501 Too late", [], sys.exc_info())

    client = Client()
    with pytest.raises(ValueError, match="halfway"):
        client.call(app)
    assert client.parts()[0] == "HTTP/1.1 500 Sorry"
    assert "Y: 2" in client.parts()[1]
    assert client.exchange.head_sent and not client.exchange.complete


@pytest.mark.parametrize(
    ("app", "error", "words", "rule"),
    [
        (lambda environ, start_response: [b"x"], RuntimeError, "start_response", _rules.START_RESPONSE),
        (
            lambda environ, start_response: (start_response("200 OK", []), start_response("200 OK", [])),
            RuntimeError,
            "twice",
            _rules.START_RESPONSE,
        ),
        (app_of(["text"]), TypeError, "bytes", _rules.BYTES),
        (app_of(["te", "xt"]), TypeError, "bytes", _rules.BYTES),
        (app_of(iter(["text"])), TypeError, "bytes", _rules.BYTES),
        (app_of("text"), TypeError, "bytes", _rules.BYTES),
        (app_of(b"bytes"), TypeError, "bytes", _rules.BYTES),
        (app_of([None]), TypeError, "bytes", _rules.BYTES),
        (app_of(None), TypeError, "returned NoneType, which is not iterable", _rules.APPLICATION),
        (app_of("page"), TypeError, "returned str, and not a list", _rules.BYTES),
        (lambda environ, start_response: start_response("200 OK", [])("text"), TypeError, "bytes", _rules.BYTES),
        (
            lambda environ, start_response: start_response("200 OK", {"X": "y"}),
            TypeError,
            "list",
            _rules.START_RESPONSE,
        ),
        (app_of([b"x"], headers=[("X", "a\r\nb: c")]), ValueError, "value of X .* line break", _rules.START_RESPONSE),
        (app_of([b"x"], headers=[("X", b"y")]), TypeError, "value of X .* str", _rules.START_RESPONSE),
        (app_of([b"x"], headers=[("X",)]), ValueError, "unpack", _rules.START_RESPONSE),
        (app_of([b"x"], headers=[("X", "\u20ac")]), ValueError, "value of X .* latin-1", _rules.START_RESPONSE),
        (app_of([b"x"], headers=[("X:", "y")]), ValueError, "no name", _rules.START_RESPONSE),
        (app_of([b"x"], headers=[("Transfer-Encoding", "chunked")]), ValueError, "server's", _rules.HOP_BY_HOP),
        (app_of([b"x"], headers=[("Content-Length", "one")]), ValueError, "number", _rules.CONTENT_LENGTH),
        (
            app_of([b"x"], headers=[("Content-Length", 1)]),
            TypeError,
            "value of Content-Length .* str",
            _rules.START_RESPONSE,
        ),
        (app_of([b"x"], headers=[("Content-Length", "1")] * 2), ValueError, "two", _rules.CONTENT_LENGTH),
        (app_of([b"x"], "OK"), ValueError, "status", _rules.START_RESPONSE),
        (app_of([b"x"], b"200 OK"), TypeError, "status", _rules.START_RESPONSE),
    ],
)
def test_an_application_that_breaks_the_rules_is_told_which(app, error, words, rule):
    """Before anything was sent, so that the client can be told something. The error knows the rule's section."""
    client = Client()
    with pytest.raises(error, match=words) as caught:
        client.call(app)
    assert client.sent == []
    assert not client.exchange.head_sent
    assert _rules.rule_of(caught.value) == rule


def test_an_error_of_the_applications_own_is_about_no_rule():
    """Whatever it looks like."""
    with pytest.raises(TypeError) as caught:
        Client().call(lambda environ, start_response: environ + 1)
    assert _rules.rule_of(caught.value) is None


@pytest.mark.parametrize("where", ["before the head", "after the head", "at the end", "never"])
def test_close_is_called_once_wherever_it_fails(where):
    """FAULT 34. Before, during and after the body; on a list as well."""
    stumble = KeyError("here")
    body = {
        "before the head": Body(stumble, b"x"),
        "after the head": Body(b"x", stumble),
        "at the end": Body(b"x", b"y", stumble),
        "never": Body(b"x"),
    }[where]
    client = Client()
    if where == "never":
        client.call(app_of(body))
    else:
        with pytest.raises(KeyError):
            client.call(app_of(body))
    assert body.closed == 1
    assert client.exchange.head_sent is (where != "before the head")
    assert client.exchange.complete is (where == "never")
    assert not b"".join(client.sent).endswith(b"0\r\n\r\n") or where == "never"
    pieces = List([b"x"])
    Client().call(app_of(pieces))
    assert pieces.closed == 1


def test_close_is_called_when_the_client_has_gone():
    """What `send` raises goes through the application's iterable."""

    class Gone(BaseException):
        pass

    body = Body(b"one", b"two")

    def send(data: bytes, *, final: bool) -> None:
        raise Gone

    exchange = Exchange(ResponseFrame(request_of(GET)), send)
    with pytest.raises(Gone):
        next(exchange.run(app_of(body), {}))
    assert body.closed == 1


def test_an_error_behind_the_last_byte_loses_nothing():
    """The response was given in full: only the log needs to know."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "2")])
        yield b"ok"
        raise ValueError("too late to matter")

    client = Client()
    with pytest.raises(ValueError, match="too late"):
        client.call(app)
    assert client.exchange.complete
    assert client.parts()[2] == b"ok"


def test_the_body_can_be_read_in_every_way_of_a_file():
    """PEP 3333, *Input and Error Streams*."""
    body = environ(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\na\nbc\ndef\n")["wsgi.input"]
    assert isinstance(body, io.BytesIO)
    assert [body.read(1), body.readline(), body.readlines(), body.read()] == [b"a", b"\n", [b"bc\n", b"def\n"], b""]
