"""Four coroutines that wait for times, for an event and for a condition, on one loop.

What each of them does is written from top to bottom; where it waits, the loop serves the others. Nobody has a thread of
its own: with `--threads 4` they run on whichever of four threads is free, each on one at a time, and print the same.

What to look for:
* the numbers are seconds since the start: thread 1 begins at 2, waits 2 and 3 more, and is at 7;
* its last wait is for an event, for 100 s at most, and ends at 9, when a timer notifies it: it gets the values;
* thread 4 waits until something is true, which it is from 9 on;
* with `--mock` the clock jumps to the next timer whenever there is nothing to do: the nine seconds are over at once.

    python examples/pooled_coroutines.py [--mock] [--threads N]
"""

import argparse
import threading
from collections.abc import Callable

import manyhands as mh
from manyhands.coroutines import CoroutinePool, running, wait, wait_until
from manyhands.testing import MockClock

ENV_SEQ = 2313141232
"""The event: any object that can be compared."""


def play(loop: mh.EventLoop, tell: Callable[..., object] = print) -> CoroutinePool:
    """Set the scene; it is over when the loop has been stopped."""
    begin = loop.now()
    pool = CoroutinePool(loop, grow_by=10)
    first: list[int] = []
    condition = False

    def say(text: str, *more: object) -> None:
        tell(f"{text}\t{loop.now() - begin:.3f}", *more)

    async def thread_1() -> None:
        say("thread 1 started")
        await wait(2)
        say("thread 1 wait 1")
        await wait(3)
        first.append(running())
        say("thread 1 wait 2", running())
        tell(*await wait(ENV_SEQ, 100))  # type: ignore[misc]  # not TIMEOUT: it is notified long before
        say("thread 1 end")

    async def thread_2() -> None:
        say("thread 2 started")
        await wait(1)
        say("thread 2 wait 1")
        await wait(3)
        say("thread 2 end")

    async def thread_3() -> None:
        say("thread 3 started")
        await wait(1)
        say("thread 3 wait 1")
        await wait(3)
        say("thread 3 end")

    async def thread_4() -> None:
        say("thread 4 started")
        await wait_until(lambda: condition)
        say("thread 4 end")
        loop.request_stop(drain=True)

    def on_timer_1() -> None:
        say("on timer 1")
        pool.work(thread_1)
        pool.work(thread_2)

    def on_timer_2() -> None:
        nonlocal condition
        tell("notify thread id=", first[0])
        pool.notify(first[0], ENV_SEQ, 0, 4455667788)
        tell("set cond true")
        condition = True

    say("start")
    loop.call_later(2, on_timer_1)
    pool.work(thread_3)
    loop.call_later(9, on_timer_2)
    pool.work(thread_4)
    return pool


def main() -> None:
    """Play the scene once."""
    parser = argparse.ArgumentParser(description="Four coroutines that wait, on one loop.")
    parser.add_argument("--mock", action="store_true", help="on a clock that does not wait")
    parser.add_argument("--threads", type=int, default=1, help="how many threads turn the loop (1)")
    options = parser.parse_args()

    loop = mh.EventLoop(clock=MockClock(autojump=True) if options.mock else None)
    play(loop)
    others = [threading.Thread(target=loop.join) for _ in range(options.threads - 1)]
    for thread in others:
        thread.start()
    loop.join()
    for thread in others:
        thread.join()
    loop.close()


if __name__ == "__main__":
    main()
