"""Actor: an object with a mailbox, which processes one message at a time.

An actor is a strand and little else. The strand has the queue, the order, the bound, the one thread inside, and the step in
which its mailbox is closed; it is what makes `send` atomic with `stop`. What is added here: an answer for each `ask`, a place
for failures, and a first and a last call.

No lock is taken here that user code, a finalizer or a done callback could meet: what several threads touch is a set, a list
or an attribute, and each is touched in one step.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import threading
from typing import Any

from manyhands import _core
from manyhands._events import STOP
from manyhands._log import Log
from manyhands._loop import EventLoop
from manyhands._reply import Reply, refuse_to_wait, wait_for
from manyhands.errors import ActorStopped, LoopClosed, ManyhandsError, StrandClosed

__all__ = ["Actor"]

logger = Log("manyhands.loop")

_numbers = itertools.count()


class Actor:
    """An object that processes messages one at a time, in order, on whichever thread of its loop is free.

    Subclass it and override `process`. Nothing that only `process` touches needs a lock; different actors run in parallel.
    An actor lives until it is stopped or its loop is closed, also if nobody refers to it.

    ```python
    class Counter(manyhands.Actor):
        total = 0

        def process(self, message):
            self.total += message
            return self.total

    with manyhands.ThreadedEventLoop() as loop:
        counter = Counter(loop)
        counter.send(2)
        print(counter.ask(3).result(timeout=10))  # 5
    ```

    Args:
        loop: Whose threads serve it.
        name: What errors, logs and `EventLoop.dump` show; None for the class's name and a number.
        max_pending: How many messages may wait in the mailbox, at least 1; None for any number.

    Attributes:
        loop: As given.
        name: As given, or made.

    Raises:
        LoopClosed: the loop was closed.

    Threads: any, for every method; `process`, `on_start`, `on_failure` and `on_stop` are called on a thread that serves the
    loop, one at a time (`on_stop` of an actor that a `loop.close()` ends, on the closing one).
    """

    # Two underscores: what a subclass calls its own attributes is its business.
    __start_posted = False
    __started = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if inspect.iscoroutinefunction(cls.process):
            raise TypeError(
                f"{cls.__qualname__}.process() must be a plain function, and got a coroutine function: start a task in it "
                "for what awaits"
            )

    def __init__(self, loop: EventLoop, *, name: str | None = None, max_pending: int | None = 1024) -> None:
        if not isinstance(loop, EventLoop):
            raise TypeError(f"loop must be an EventLoop, and got {loop!r}")
        strand = loop.strand(name=name or f"{type(self).__name__}-{next(_numbers)}", max_pending=max_pending)
        self.loop = loop
        self.name = strand.name
        self.__loop = loop
        self.__strand = strand
        self.__asked: set[Reply] = set()
        self.__left: list[int] = []  # how many sent messages each call of `__end` has found
        self.__owed = ["on_stop"]  # whoever takes it out calls it
        self.__stopped = threading.Event()
        loop._ends[id(self)] = self.__end  # the loop ends its actors when it is closed
        if loop.closed:  # perhaps after it had looked for them
            loop._ends.pop(id(self), None)
            raise LoopClosed(loop.name)

    # To be overridden.

    def process(self, message: Any) -> Any:
        """Process one message: to be overridden.

        Returns:
            The answer, if it was asked for.
        """
        raise NotImplementedError(f"{type(self).__name__}.process() is to be overridden, and got {message!r}")

    def on_start(self) -> object:
        """Called once, before the first message, on the strand: by `start()`, or because a first message was sent.

        If it raises, the error is reported and the actor is stopped.
        """

    def on_failure(self, error: BaseException, message: Any) -> object:  # noqa: ARG002
        """Called when `process` raised for a message that was sent; whoever asked gets the error as the answer.

        This one raises `error`. What it raises goes to the loop's `on_error`, with source "message"; the actor goes on with
        the next message all the same.

        Args:
            error: What was raised; not KeyboardInterrupt or SystemExit, which leave `join()`.
            message: What was being processed.

        Returns:
            `manyhands.STOP` to stop the actor; anything else is ignored.
        """
        raise error

    def on_stop(self) -> object:
        """Called once for every actor, as the last thing, however it ends: also if it was never started.

        The mailbox is closed and every ask has been answered. What it raises goes to the loop's `on_error`.
        """

    # For everybody.

    @property
    def strand(self) -> _core.Strand:
        """The strand that it is: for watches (`loop.add(…, strand=actor.strand)`), timers, and as the owner of jobs.

        What runs there never runs beside `process`, and ends with the actor. End it by `stop()`, not by `strand.close()`.
        """
        try:
            return self.__strand
        except AttributeError:
            raise RuntimeError("Actor.__init__ was not called; a subclass has to call it first") from None

    @property
    def pending(self) -> int:
        """How many messages wait in the mailbox, with the events and timers that wait on the strand."""
        return self.strand.pending

    @property
    def stopped(self) -> bool:
        """Whether it has ended, `on_stop` included."""
        return self.__stopped.is_set()

    def start(self) -> None:
        """Have `on_start` called now, without a message. The first message does so as well; repeating it is harmless.

        Raises:
            ActorStopped: it was stopped.
            LoopStopped: the loop drains, or has drained.
        """
        try:
            self.strand.post_urgent(self.__start)  # goes before every message: whoever sends one posts this first
        except (StrandClosed, LoopClosed):
            raise ActorStopped(self.strand) from None
        self.__start_posted = True

    def send(self, message: Any) -> None:
        """Put a message into the mailbox. It sees the context variables of the caller.

        A sender's messages are processed in the order in which it sent them. What was taken is processed, unless the actor or
        the loop is stopped at once before its turn.

        Raises:
            ActorStopped: it takes no message any more; this one was not taken.
            QueueFull: `max_pending` messages wait; this one was not taken.
            LoopStopped: the loop drains, or has drained, and the caller is none of its handlers.

        Blocks: never. Finalizers and handlers of signals may call it.
        """
        self.__post(None, message)

    def ask(self, message: Any) -> Reply:
        """Put a message into the mailbox and get a future of its answer: what `process` returns, or raises.

        A reply that is cancelled before its message's turn has no effect: the message is not processed. `process` itself may
        ask its own actor, and let a done callback send on the answer; it cannot wait for it.

        Returns:
            A `Reply`: wait for it by `result()`, or await it in a task.

        Raises:
            ActorStopped, QueueFull, LoopStopped: as `send`.

        Blocks: never.
        """
        reply = Reply(self.strand, self.__loop.name)
        self.__asked.add(reply)
        try:
            self.__post(reply, message)
        except BaseException:
            self.__asked.discard(reply)
            raise
        return reply

    def stop(self, *, drain: bool = False) -> None:
        """Close the mailbox and end the actor. Idempotent; it may stop itself.

        At once: the message that is being processed ends, no other is begun, and each ask among the rest has been answered
        with `ActorStopped` when this returns. How many sent messages were not processed is said in a warning on the logger
        `manyhands.loop`.

        Args:
            drain: Let what is in the mailbox be processed first. A later `stop()` cuts it short.

        Raises:
            LoopStopped: with `drain`, the loop drains, or has drained, and the caller is none of its handlers.

        Blocks: never; `wait()` does.
        """
        if not drain:
            self.__end()
            return
        with contextlib.suppress(StrandClosed, LoopClosed):
            self.strand.post_terminal(self.__end)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the actor has ended, `on_stop` included.

        Args:
            timeout: Seconds; None waits for ever, 0 only looks.

        Returns:
            True if it has; False after `timeout`.

        Raises:
            WouldDeadlock: it has not, and the calling thread serves a loop.
        """
        if self.stopped:
            return True
        _ = self.strand.state  # in a forked child it never ends: ForkedError
        if timeout != 0:
            refuse_to_wait(f"wait() of actor {self.strand.name!r}", "wait()", self.__loop.name)
        return wait_for(self.__stopped.wait, timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {self.name!r}{' stopped' if self.stopped else ''}>"

    # On the strand, but for `__post`, and `__end` when another thread stops it.

    def __post(self, reply: Reply | None, message: Any) -> None:
        if not self.__start_posted:
            self.start()
        try:
            self.strand.post(self.__serve, reply, message)
        except (StrandClosed, LoopClosed):
            raise ActorStopped(self.strand) from None

    def __start(self) -> None:
        if self.__started:
            return
        self.__started = True
        try:
            self.on_start()
        except BaseException:
            self.__end()
            raise

    def __serve(self, reply: Reply | None, message: Any) -> None:
        """Process one message."""
        if reply is not None and not reply._claim():
            self.__asked.discard(reply)
            return
        try:
            answer = self.process(message)
            if reply is not None:
                reply._answer(answer)
        except (KeyboardInterrupt, SystemExit) as error:
            if reply is not None:
                reply._fail(self.__interrupted(error))
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the message's and not the strand's
            if reply is not None:
                reply._fail(error)
            elif self.on_failure(error, message) is STOP:
                self.__end()
        finally:
            if reply is not None:
                self.__asked.discard(reply)
            # What was raised has this frame in its traceback, and the reply has what was raised.
            del reply

    def __interrupted(self, error: BaseException) -> ManyhandsError:
        # Not the error itself: it is for the thread that it was raised in, and would end the asker's.
        interrupted = ManyhandsError(f"actor {self.strand.name!r} was interrupted by {error!r} while it processed this")
        interrupted.__cause__ = error
        return interrupted

    def __end(self) -> None:
        """Close the mailbox, at once, and answer what was asked and will not be processed."""
        try:
            # In one step the strand takes no more and gives back what it had taken: nothing is in between.
            left = self.strand.close(timeout=0)
            self.__left.append(sum(1 for one in left if one.callback == self.__serve and one.args[0] is None))
            for reply in self.__asked.copy():
                if reply._claim():
                    reply._fail(ActorStopped(self.strand, taken=True))
        finally:
            # By another call, which closes nothing more: on_stop is to come after all this, also if Ctrl-C has cut it short.
            self.strand.close(on_closed=self.__over, timeout=0)

    def __over(self, _strand: _core.Strand) -> None:
        """The strand has ended, and nobody is inside any more. Called once for each call of `__end`."""
        count = 0
        with contextlib.suppress(IndexError):
            while True:
                count += self.__left.pop()
        if count:
            logger.warning(
                "actor %r was stopped with %d message(s) that were not processed; stop(drain=True) processes them",
                self.strand.name,
                count,
            )
        try:
            self.__owed.pop()
        except IndexError:
            return
        for reply in self.__asked.copy():
            # Claimed, and not answered yet: by a second thread that stops the actor, or by one that Ctrl-C tore away.
            reply._fail(ActorStopped(self.strand, taken=True))
        try:
            self.on_stop()
        finally:
            self.__loop._ends.pop(id(self), None)
            self.__stopped.set()
