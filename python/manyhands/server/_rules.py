"""The rules of PEP 3333 that an application can break, by the names of their sections, and the errors that say so."""

from __future__ import annotations

from typing import Final, TypeVar

__all__ = ["APPLICATION", "BYTES", "CONTENT_LENGTH", "HOP_BY_HOP", "START_RESPONSE", "broken", "rule_of"]

APPLICATION: Final = "The Application/Framework Side"
START_RESPONSE: Final = "The start_response() Callable"
HOP_BY_HOP: Final = "Other HTTP Features"
CONTENT_LENGTH: Final = "Handling the Content-Length Header"
BYTES: Final = "Unicode Issues"

E = TypeVar("E", bound=BaseException)


def broken(rule: str, error: E) -> E:
    """Note on an error which rule was broken; the first one counts."""
    if rule_of(error) is None:
        error._pep_3333 = rule  # type: ignore[attr-defined]  # noqa: SLF001
    return error


def rule_of(error: BaseException) -> str | None:
    """Return the rule that was broken, if the error is about one."""
    found = getattr(error, "_pep_3333", None)
    return found if isinstance(found, str) else None
