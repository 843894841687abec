"""What does a message to an actor cost, and an answer?

Two figures for each. *Sent*: one thread sends a batch of messages that do nothing and asks for a last one; the time until
its answer is there, by the number of messages. Sender and actor work side by side, so this is the slower of the two.
*Asked*: one message after the other, and the next one is not sent before the answer is back: two wake-ups of a thread.

`cores` is where the process may run, as in `pool_round_trip`.

* `queue and thread`: a thread, a `queue.SimpleQueue`, and another one for each answer: nothing that is written in Python
  can be below it. It has no bound, no failures and no end.
* `manyhands`: an `Actor` on a `ThreadedEventLoop` of one thread; its mailbox holds the batch.
* `pykka`: a `ThreadingActor`, which is a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks._process import ALL_CORES, CORES, SERVER_CORES, has_module, in_child
from benchmarks._report import Column, Plan, Report, Row, alternate, figure_columns

QUESTION = "a message to an actor, sent and asked, beside other actors"

MESSAGES = 20_000
ASKS = 5_000
WARM_UP = 500
NEEDS = {"queue and thread": None, "manyhands": "manyhands", "pykka": "pykka"}
"""Engine -> the module that it needs."""

Measured = dict[str, float]


@dataclass(frozen=True)
class Case:
    """Whose actor, and where."""

    engine: str
    cores: int


def measure(plan: Plan) -> Report:
    """Measure each case in a child of its own."""
    missing = [name for name, module in NEEDS.items() if module and not has_module(module, plan.python)]
    engines = [name for name in NEEDS if name not in missing]
    cases = [Case(engine, cores) for cores in ((1, 2) if len(CORES) > 1 else (1,)) for engine in engines]
    rows = {case: Row(vars(case)) for case in cases}
    share = 10 if plan.quick else 1
    sizes = {"messages": MESSAGES // share, "asks": ASKS // share}
    for case in alternate(cases, plan.rounds):
        cores = SERVER_CORES if case.cores == 1 else ALL_CORES
        rows[case].add(**in_child(run, python=plan.python, cores=cores, engine=case.engine, **sizes))
    columns: list[Column] = [
        *figure_columns("us sent", "sent_us"),
        Column("messages/s", "sent_per_second", digits=0),
        *figure_columns("us asked", "asked_us"),
        Column("CPU us asked", "asked_cpu_us"),
    ]
    notes = [f"not installed: {', '.join(missing)}"] if missing else []
    return Report(list(rows.values()), columns, [], notes, dict(sizes))


# ---- in the child ----


def run(engine: str, messages: int, asks: int) -> Measured:
    """Send `messages` and ask `asks`. Returns microseconds of each, and how many were sent in a second."""
    return ENGINES[engine](messages, asks)


def _timed(send: Callable[[int], object], ask: Callable[[int], object], messages: int, asks: int) -> Measured:
    for number in range(WARM_UP):
        send(number)
        ask(number)
    started = time.perf_counter()
    for number in range(messages):
        send(number)
    ask(messages)
    sent = time.perf_counter() - started
    started, cpu = time.perf_counter(), time.process_time()
    for number in range(asks):
        ask(number)
    asked, used = time.perf_counter() - started, time.process_time() - cpu
    return {
        "sent_us": sent / messages * 1e6,
        "sent_per_second": messages / sent,
        "asked_us": asked / asks * 1e6,
        "asked_cpu_us": used / asks * 1e6,
    }


def _with_queue(messages: int, asks: int) -> Measured:
    import queue
    import threading

    mailbox: queue.SimpleQueue[tuple[int, queue.SimpleQueue[int] | None] | None] = queue.SimpleQueue()

    def process() -> None:
        while (item := mailbox.get()) is not None:
            message, answer = item
            if answer is not None:
                answer.put(message)

    def send(message: int) -> None:
        mailbox.put((message, None))

    def ask(message: int) -> int:
        answer: queue.SimpleQueue[int] = queue.SimpleQueue()
        mailbox.put((message, answer))
        return answer.get()

    thread = threading.Thread(target=process)
    thread.start()
    try:
        return _timed(send, ask, messages, asks)
    finally:
        mailbox.put(None)
        thread.join()


def _with_manyhands(messages: int, asks: int) -> Measured:
    import manyhands as mh

    class Same(mh.Actor):
        def process(self, message: int) -> int:
            return message

    with mh.ThreadedEventLoop(threads=1) as loop:
        actor = Same(loop, max_pending=messages + WARM_UP + 1)
        return _timed(actor.send, lambda message: actor.ask(message).result(), messages, asks)


def _with_pykka(messages: int, asks: int) -> Measured:
    import pykka

    class Same(pykka.ThreadingActor):
        def on_receive(self, message: int) -> int:
            return message

    actor = Same.start()
    try:
        return _timed(actor.tell, actor.ask, messages, asks)
    finally:
        actor.stop()


ENGINES: dict[str, Callable[[int, int], Measured]] = {
    "queue and thread": _with_queue,
    "manyhands": _with_manyhands,
    "pykka": _with_pykka,
}
