"""A strand as a monitor without a lock: accounts that many threads use, and only messages touch.

A monitor is an object whose methods exclude each other. The usual one takes a lock in every method. This one posts every
call to a strand: at most one message runs at a time, in order, on whichever thread of the loop is free. Callers never
wait for each other, and a caller that wants an answer gets a future.

What to look for:
* `_transfer` takes two steps and holds no lock, yet nobody ever sees the money between two accounts: every total is right;
* a thread's own calls run in the order in which it made them;
* `close()` is the terminal message: what was posted before runs, what comes later is refused with `StrandClosed`;
* `max_pending` bounds the queue: a caller that is too fast gets `QueueFull`, and tries again a little later.

    python examples/strand_as_monitor.py [--tellers N] [--transfers N]
"""

import argparse
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import manyhands as mh

T = TypeVar("T")
ACCOUNTS = 10
EACH = 100


class Bank:
    """Accounts. The public methods may be called from any thread; the private ones run on the strand."""

    def __init__(self, loop: mh.EventLoop) -> None:
        self._strand = loop.strand(name="bank", max_pending=1000)
        self._balances = [EACH] * ACCOUNTS
        self._transfers = 0

    def transfer(self, source: int, target: int, amount: int) -> None:
        """Ask for a transfer; it is made soon, or not at all if the source has too little."""
        self._strand.post(self._transfer, source, target, amount)

    def total(self) -> Future[int]:
        """Ask for the sum of all accounts."""
        answer: Future[int] = Future()
        self._strand.post(self._total, answer)
        return answer

    def close(self) -> Future[int]:
        """Take no more calls; the answer is the number of transfers that were made."""
        answer: Future[int] = Future()
        self._strand.post_terminal(lambda: answer.set_result(self._transfers))
        return answer

    def _transfer(self, source: int, target: int, amount: int) -> None:
        if self._balances[source] >= amount:
            self._balances[source] -= amount
            self._balances[target] += amount
            self._transfers += 1

    def _total(self, answer: Future[int]) -> None:
        answer.set_result(sum(self._balances))


def teller(bank: Bank, seed: int, transfers: int, totals: list[int]) -> None:
    """Make transfers at random and look at the total now and then."""
    choice = random.Random(seed)
    for number in range(transfers):
        source, target = choice.sample(range(ACCOUNTS), 2)
        patiently(partial(bank.transfer, source, target, choice.randrange(1, EACH)))
        if number % 100 == 0:
            totals.append(patiently(bank.total).result(timeout=10))


def patiently(call: Callable[[], T]) -> T:
    """Call again for as long as the queue is full."""
    while True:
        try:
            return call()
        except mh.QueueFull:
            threading.Event().wait(0.001)


def main() -> None:
    """Let tellers work on one bank, then count."""
    parser = argparse.ArgumentParser(description="Share state between threads by messages to a strand.")
    parser.add_argument("--tellers", type=int, default=4, help="threads that use the bank (default: %(default)s)")
    parser.add_argument("--transfers", type=int, default=5000, help="by each of them (default: %(default)s)")
    options = parser.parse_args()

    with mh.ThreadedEventLoop(threads=2, name="bank") as loop:
        bank = Bank(loop)
        totals: list[int] = []
        tellers = [
            threading.Thread(target=teller, args=(bank, seed, options.transfers, totals))
            for seed in range(options.tellers)
        ]
        for thread in tellers:
            thread.start()
        for thread in tellers:
            thread.join()
        made = bank.close().result(timeout=10)
        try:
            bank.total()
        except mh.StrandClosed as refused:
            print(f"after close(): {refused}")

    print(f"{made:,} transfers made for {options.tellers} threads; looked {len(totals)} times, and saw a total of:")
    print(", ".join(str(total) for total in sorted(set(totals))))


if __name__ == "__main__":
    main()
