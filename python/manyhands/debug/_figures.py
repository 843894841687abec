"""Figures: a worker's answers to the process that shows all workers on one page.

They come over a socket that both have from their supervisor, so nobody else can ask. A question is a line of JSON, and so is
its answer; both begin with its number:

| question | answer |
|---|---|
| `{"id": 1}` | `{"id": 1, "seen": …}`: what `Sight.look()` returns |
| `{"id": 2, "stop": 7}` | `{"id": 2, "stopped": true}`: as `Sight.stop(7)` returns |

One thread answers, which waits for nothing of the program's: it does so also when every other one is stuck. A question that
cannot be read ends the conversation.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Final

from manyhands._log import Log
from manyhands.debug._sight import Sight, Source

if TYPE_CHECKING:
    from typing import Self

__all__ = ["MOST_QUESTION", "Figures"]

logger = Log("manyhands.debug")

MOST_QUESTION: Final = 256
"""Bytes of a question, its end of line included."""

LEAVE: Final = 1.0
"""Seconds that its thread has to end."""


class Figures:
    """Answers while it is entered.

    Args:
        sock: On which it is asked. It is closed at the end.
        sources: As of `dashboard()`.
    """

    def __init__(self, sock: socket.socket, *sources: Source) -> None:
        self._socket = sock
        self._sight = Sight(sources)
        self._thread = threading.Thread(target=self._run, name="mh-figures", daemon=True)

    def __enter__(self) -> Self:
        self._socket.setblocking(True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):  # the other side has gone
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(LEAVE)
        self._socket.close()

    def _run(self) -> None:
        try:
            with self._socket.makefile("rb") as questions:
                while question := questions.readline(MOST_QUESTION):
                    try:
                        asked = json.loads(question)
                        number, job = int(asked["id"]), int(asked.get("stop", 0))
                    except (ValueError, TypeError, KeyError, AttributeError):
                        logger.warning(
                            "a worker was asked what is no question, and can be asked for its figures no more"
                        )
                        return
                    try:
                        answer = self._answer(number, job)
                    except Exception:  # a want of descriptors, say: it is asked again
                        logger.exception("a look at this process for its figures failed")
                        answer = b'{"id":%d}\n' % number
                    self._socket.sendall(answer)
        except OSError:
            pass  # the other side has gone, or this is the end
        finally:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _answer(self, number: int, job: int) -> bytes:
        if job:
            return json.dumps({"id": number, "stopped": self._sight.stop(job)}).encode("ascii") + b"\n"
        return b'{"id":%d,"seen":%s}\n' % (number, self._sight.look_json())
