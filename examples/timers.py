"""Timers: once, at a time, again and again, with a delay of their own, and cancelled.

What to look for:
* timers run in the order of their deadlines, whatever the order in which they were set; those with the same deadline in
  the order in which they were set; never early;
* `call_every` keeps its rate: tick 5 is due five intervals after the start, however late tick 4 was;
* a callback ends its own timer with `mh.STOP`, or chooses the next gap, once, with `mh.Delay(seconds)`: a retry that
  backs off is one timer;
* timers on a strand never run beside its messages; a cancelled timer never fires.

    python examples/timers.py
"""

import manyhands as mh


class Timeline:
    """Prints what happens, with the milliseconds since the start."""

    def __init__(self, loop: mh.EventLoop) -> None:
        self._loop = loop
        self._start = loop.now()

    def note(self, text: str) -> None:
        """Print it."""
        print(f"{(self._loop.now() - self._start) * 1000:6.0f} ms  {text}", flush=True)


class Retry:
    """Tries something that fails three times, waiting twice as long each time."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._attempts = 0
        self._gap = 0.05

    def attempt(self) -> object:
        """Try once. Returns what the timer is to do next."""
        self._attempts += 1
        if self._attempts == 4:
            self._timeline.note(f"attempt {self._attempts} succeeded")
            return mh.STOP
        self._gap *= 2
        self._timeline.note(f"attempt {self._attempts} failed, the next in {self._gap * 1000:.0f} ms")
        return mh.Delay(self._gap)


class Metronome:
    """Ticks five times."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._ticks = 0

    def tick(self) -> object:
        """Tick, and stop after the fifth."""
        self._ticks += 1
        self._timeline.note(f"tick {self._ticks}")
        return mh.STOP if self._ticks == 5 else None


def main() -> None:
    """Set the timers, then turn the loop with this thread until the last one stops it."""
    loop = mh.EventLoop(name="timers")
    timeline = Timeline(loop)
    note = timeline.note

    loop.call_later(0.33, note, "set first, due third")
    loop.call_later(0.11, note, "set second, due first")
    loop.call_later(0.22, note, "set third, due second")

    strand = loop.strand(name="together")
    when = loop.now() + 0.44
    for name in ("a", "b", "c"):
        strand.call_at(when, note, f"same deadline: {name}")

    never = loop.call_later(0.5, note, "this line is never printed")
    loop.call_later(0.4, lambda: note(f"cancelled in time: {never.cancel()}"))

    loop.call_every(0.1, Metronome(timeline).tick)
    loop.call_every(0.05, Retry(timeline).attempt)

    loop.call_later(1.0, loop.request_stop)
    handled = loop.join()
    note(f"{handled} handlers, {loop.stats().timers} timers left")
    loop.close()


if __name__ == "__main__":
    main()
