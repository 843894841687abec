"""Find the application that was named, as in `module:app`, and say in a sentence why it cannot be served."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from manyhands.server._errors import NoApplication

__all__ = ["is_asgi", "load", "refuse_asgi", "refuse_import", "takes_two"]

_importing = 0
"""How many imports of applications are under way."""


def load(target: str) -> Callable[..., Any]:
    """Import `module:app`, or call the factory of `module:create()`.

    The current directory is looked in first.

    Raises:
        NoApplication: no such module, no such name in it, nothing that can be called, or an ASGI application.
    """
    name, _, path = target.partition(":")
    if not name or not path:
        raise NoApplication(
            f"{target!r} names no application: write its module and its name there, as in 'module:app'."
        )
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    with _while_importing():
        module = _import(name)
        found = _find(module, target, name, path)
    if not callable(found):
        raise NoApplication(f"{target} is no application: it is {_kind(found)}, and cannot be called.")
    if is_asgi(found):
        raise NoApplication(refuse_asgi(target))
    if not takes_two(found):
        hint = "" if path.endswith("()") else f" If it is a factory, write {target}()."
        raise NoApplication(
            f"{target} is no WSGI application: it cannot be called with two arguments, environ and start_response.{hint}"
        )
    _keep_loggers()
    app: Callable[..., Any] = found
    return app


def _keep_loggers() -> None:
    """Switch our loggers on again: `logging.config.dictConfig` switches off all that are there, unless it is told not to."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "manyhands":
            logging.getLogger(name).disabled = False


@contextlib.contextmanager
def _while_importing() -> Iterator[None]:
    global _importing  # noqa: PLW0603 - of the process, as the modules are
    _importing += 1
    try:
        yield
    finally:
        _importing -= 1


def refuse_import(what: str) -> None:
    """Refuse a call that would serve for ever within the import of what is to be served.

    Raises:
        RuntimeError: an application is imported at the moment.
    """
    if _importing:
        raise RuntimeError(
            f"{what} was called while the application is imported, by a module that serves as it is imported: put the call "
            "under `if __name__ == '__main__':`"
        )


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise NoApplication(
                f"there is no module {name!r} in {os.getcwd()} or on Python's path: start it in the directory of your "
                "application, and write its name without .py."
            ) from None
        what = repr(error.name) if error.name else "something"
        raise NoApplication(f"{name} imports {what}, which is not installed; its traceback is above.") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise NoApplication(f"importing {name} raised {type(error).__name__}; its traceback is above.") from error


def _find(module: object, target: str, name: str, path: str) -> Any:
    factory = path.endswith("()")
    path = path.removesuffix("()")
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise NoApplication(f"{name} has no {path!r}: {_suggest(module)}")
        found = getattr(found, part)
    if not factory:
        return found
    if not callable(found):
        raise NoApplication(f"{target} is no factory: {path!r} is {_kind(found)}, and cannot be called.")
    try:
        made = found()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise NoApplication(
            f"the factory {path!r} of {name} raised {type(error).__name__}; its traceback is above."
        ) from error
    if inspect.iscoroutine(made):
        made.close()
        raise NoApplication(
            f"the factory {path!r} of {name} is an async function: a WSGI application is made by a plain one."
        )
    return made


def takes_two(app: Callable[..., Any]) -> bool:
    """Whether it can be called as PEP 3333 has it; so it is if it does not say."""
    try:
        # Of what is called, and not of what it wraps: a decorator may give the latter other arguments.
        inspect.signature(app, follow_wrapped=False).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def refuse_asgi(target: str) -> str:
    """Say why it is not served, and who does."""
    return (
        f"{target} is an ASGI application, and this server speaks WSGI: serve it with uvicorn or hypercorn, or wrap it in an "
        "adapter such as a2wsgi."
    )


def is_asgi(app: object) -> bool:
    """Whether it looks like an ASGI application: a coroutine function, or one that takes scope, receive and send."""
    call = app if inspect.isroutine(app) or inspect.isclass(app) else type(app).__call__
    if inspect.iscoroutinefunction(call):
        return True
    try:
        names = list(inspect.signature(app, follow_wrapped=False).parameters)  # type: ignore[arg-type]
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
