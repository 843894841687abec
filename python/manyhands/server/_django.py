"""What Django asks of a server beyond WSGI. Django is looked at only if the application has imported it.

* Its database connections refuse every thread but the one that opened them, and a transaction belongs to its thread. So a
  response in pieces has to stay where it began.
* It lets go of them when its signal `request_finished` is sent, which the `close()` of a response does. A view that was told to
  stop has no response.
"""

from __future__ import annotations

import sys

from manyhands.server._file import FileWrapper

__all__ = ["end_request", "is_application", "is_response"]


def is_application(app: object) -> bool:
    """Whether this is Django's own handler, and not something around it."""
    handlers = sys.modules.get("django.core.handlers.wsgi")
    return handlers is not None and isinstance(app, handlers.WSGIHandler)


def is_response(result: object) -> bool:
    """Whether this came from Django, as it does also through what somebody has put around its handler."""
    responses = sys.modules.get("django.http.response")
    if responses is None:
        return False
    if isinstance(result, FileWrapper):
        # Django hands on the file alone, with its response's `close()`.
        result = getattr(getattr(result.filelike, "close", None), "__self__", None)
    return isinstance(result, responses.HttpResponseBase)


def end_request() -> None:
    """Do what the `close()` of Django's response would have done, in a program that has Django's handler, under whatever.

    To be called on the thread of the request. Where the request was not Django's, it finds nothing to let go of.
    """
    handlers = sys.modules.get("django.core.handlers.wsgi")
    if handlers is not None and sys.modules["django.conf"].settings.configured:
        signals = sys.modules["django.core.signals"]
        signals.request_finished.send_robust(sender=handlers.WSGIHandler)
