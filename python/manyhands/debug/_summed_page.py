"""The page that shows several workers, as their supervisor has it: its socket, and the process that serves it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from manyhands._arguments import check_int
from manyhands.debug._dashboard import HOST, TOKEN_VARIABLE, check_token
from manyhands.server._bind import Bind, Listening
from manyhands.server._line import fresh_python
from manyhands.server._page_process import PageProcess

if TYPE_CHECKING:
    from typing import Self

__all__ = ["SummedPage"]


class SummedPage:
    """Holds the socket; leaving the `with` block closes it.

    Args:
        name: What is shown for the program's name.
        port: As of `dashboard()`.
        token: As of `dashboard()`. The process finds it in its environment, which no other user can read.

    Attributes:
        url: The page's address.
        process: For the supervisor.

    Raises:
        OSError, ValueError: as `dashboard()`.
    """

    def __init__(self, name: str, *, port: int, token: str | None) -> None:
        check_int("port", port, at_least=0, at_most=65_535)
        check_token(token)
        self._listening = Listening(Bind(HOST, port))
        self.url = self._listening.url
        number = self._listening.fileno()
        order = json.dumps({"listening": number, "name": name, "pid": os.getpid()})
        self.process = PageProcess(
            fresh_python("manyhands.debug._page_main", order), number, {} if token is None else {TOKEN_VARIABLE: token}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listening.close()
