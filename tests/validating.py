"""`wsgiref.validate` around the applications of tests: `MANYHANDS_TEST_VALIDATE=1` puts it there, see `test_validated.py`."""

from __future__ import annotations

from typing import Any
from wsgiref.validate import validator


def validated(app: Any) -> Any:
    """The application inside the validator, which also wants a type of each response; those of the tests may leave it out."""
    if not callable(app):
        return app  # what the server is to refuse

    def typed(environ: dict[str, Any], start_response: Any) -> Any:
        def start(status: Any, headers: Any, *more: Any) -> Any:
            if isinstance(headers, list) and str(status)[:3] not in ("204", "304"):
                names = [pair[0].lower() for pair in headers if isinstance(pair, tuple)]
                if "content-type" not in names:
                    headers = [*headers, ("Content-Type", "text/plain")]
            return start_response(status, headers, *more)

        return app(environ, start)

    return validator(typed)
