"""Worker: one of several processes behind the page, asked for its figures.

What it says is not trusted to be short, prompt or sensible: it runs the application's code, and may be stuck or broken in any
way. Nothing here waits for it; an answer that comes too late is thrown away, and one that is too long ends the conversation.
"""

from __future__ import annotations

import json
import math
import socket
import time
from typing import Any, Final, NoReturn

__all__ = ["MOST_ANSWER", "Worker"]

MOST_ANSWER: Final = 4 << 20
"""Bytes of an answer. 200 jobs and 200 threads with names of 200 characters are far below it."""

MOST_UNANSWERED: Final = 8
"""Questions; one that answers none of so many is asked no more until it does."""


class Worker:
    """What the page knows of a worker.

    Args:
        number: Its place: a worker that is started in place of this one has the same.

    Attributes:
        pid: Its process.
        state: Of its life, as its supervisor says it.
        born: When it was started, monotonic.
        restarts: How often one of its place was started because the one before it had ended by itself.
        seen: What it said last, or None.
        answered: It has answered the last question.
        trouble: Why it cannot be asked, or empty.

    Threads: one at a time.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0
        self.state = ""
        self.born = 0.0
        self.restarts = 0
        self.seen: dict[str, Any] | None = None
        self.answered = False
        self.trouble = ""
        self._socket: socket.socket | None = None
        self._said = bytearray()
        self._asked: dict[int, float] = {}  # question -> when
        self._answers: dict[int, dict[str, Any]] = {}

    def begin(self, pid: int, sock: socket.socket) -> None:
        """A process has been started; it is asked on this socket, which is closed at the end."""
        self.end()
        sock.setblocking(False)
        self.pid, self._socket, self.trouble = pid, sock, ""

    def end(self) -> None:
        """The process has ended."""
        self._hang_up()
        self.seen = None

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self.answered = None, False
        self._said.clear()
        self._asked.clear()
        self._answers.clear()

    @property
    def connected(self) -> bool:
        """Whether it can be asked at all."""
        return self._socket is not None

    @property
    def silent(self) -> float | None:
        """Seconds that the oldest question has been without an answer; None if there is none."""
        return time.monotonic() - min(self._asked.values()) if self._asked else None

    @property
    def last_asked(self) -> float:
        """Seconds since the youngest question that has no answer; infinite if there is none."""
        return time.monotonic() - max(self._asked.values()) if self._asked else math.inf

    def fileno(self) -> int:
        """The socket's descriptor, for a selector."""
        assert self._socket is not None
        return self._socket.fileno()

    def ask(self, number: int, **question: int) -> bool:
        """Ask, if it can be asked, without waiting."""
        if self._socket is None or len(self._asked) >= MOST_UNANSWERED:
            return False
        try:
            self._socket.send(json.dumps({"id": number, **question}).encode("ascii") + b"\n")
        except BlockingIOError:
            return False
        except OSError as error:
            self._give_up(f"its socket is broken ({error.strerror})")
            return False
        self._asked[number] = time.monotonic()
        return True

    def hear(self) -> None:
        """Take in what it has said, without waiting, and no more than an answer may have: it might go on for ever."""
        heard = 0
        while self._socket is not None and heard <= MOST_ANSWER:
            try:
                said = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                self._give_up(f"its socket is broken ({error.strerror})")
                return
            if not said:
                self._give_up("it answers no questions")
                return
            heard += len(said)
            *lines, rest = said.split(b"\n")
            for line in lines:
                self._take(bytes(self._said) + line)
                self._said.clear()
            self._said += rest
            if len(self._said) > MOST_ANSWER:
                self._give_up(f"it said more than {MOST_ANSWER >> 20} MiB")

    def answer(self, number: int) -> dict[str, Any] | None:
        """Return the answer to a question, once; None if there is none, yet or ever."""
        return self._answers.pop(number, None)

    def waits_for(self, number: int) -> bool:
        """Whether it may still answer the question."""
        return self._socket is not None and number in self._asked

    def _take(self, line: bytes) -> None:
        try:
            answer = json.loads(line, parse_constant=_refuse)
            number = answer["id"]
            known = self._asked.pop(number, None) is not None
        except (ValueError, TypeError, KeyError, RecursionError):
            return  # the rest of an answer that was asked for by somebody else, who is gone
        if known:
            self._answers.clear()  # of questions that nobody waits for any more
            self._answers[number] = answer

    def _give_up(self, why: str) -> None:
        self._hang_up()
        self.trouble = why


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
