"""Find the application that `manyhands serve` was asked to serve, and say in a sentence why it cannot."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from manyhands.cli._failure import Failure


def load(target: str) -> Callable[..., Any]:
    """Import `module:app`, or call the factory of `module:create()`.

    The current directory is looked in first. What the import itself raises is shown with its traceback, from the user's
    module on.

    Raises:
        Failure: no such module, no such name in it, nothing that can be called, or an ASGI application.
    """
    name, _, path = target.partition(":")
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    module = _import(name)
    factory = path.endswith("()")
    path = path.removesuffix("()")
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise Failure(f"{name} has no {path!r}: {_suggest(module)}")
        found = getattr(found, part)
    if factory:
        if not callable(found):
            raise Failure(f"{target} is no factory: {path!r} is {_kind(found)}, and cannot be called.")
        try:
            found = found()
        except Exception as error:
            traceback.print_exc()
            raise Failure(
                f"the factory {path!r} of {name} raised {type(error).__name__}; its traceback is above."
            ) from error
    if not callable(found):
        raise Failure(f"{target} is no application: it is {_kind(found)}, and cannot be called.")
    if is_asgi(found):
        raise Failure(
            f"{target} is an ASGI application, and this server speaks WSGI: serve it with uvicorn or hypercorn, or wrap "
            "it in an adapter such as a2wsgi."
        )
    app: Callable[..., Any] = found
    return app


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Failure(
                f"there is no module {name!r} in {os.getcwd()} or on Python's path: start it in the directory of your "
                "application, and write its name without .py."
            ) from error
        traceback.print_exc()
        raise Failure(f"{name} imports {error.name!r}, which is not installed; its traceback is above.") from error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        traceback.print_exc()
        raise Failure(f"importing {name} raised {type(error).__name__}; its traceback is above.") from error


def is_asgi(app: object) -> bool:
    """Whether it looks like an ASGI application: a coroutine function, or one that takes scope, receive and send."""
    call = app if inspect.isroutine(app) or inspect.isclass(app) else type(app).__call__
    if inspect.iscoroutinefunction(call):
        return True
    try:
        names = list(inspect.signature(app).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return names in (["scope", "receive", "send"], ["scope"])


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"


def _suggest(module: object) -> str:
    """Name what could have been meant: the likely names that are there."""
    likely = [
        name
        for name in ("app", "application", "create_app", "make_app", "wsgi")
        if callable(getattr(module, name, None))
    ]
    if likely:
        return f"did you mean {' or '.join(map(repr, likely))}?"
    return "give the name of the WSGI application in it, as in `manyhands serve module:app`."
