"""A traffic light: a state machine as an actor.

Its colour is changed by its timers and by people who press the button. Both run on the actor's strand, one at a time, so
there is no lock, and nobody ever sees a light between two colours.

What to look for:
* `process` answers: whoever presses the button by `ask()` gets what it returns, here the advice to go or to wait;
* the timers are `self.strand.call_later(…)`: they never run beside `process`, and end with the actor;
* somebody who presses while it is green has the green cut short: the timer that was set is cancelled, another one set;
* `on_start` shows the first colour; `on_stop`, the last thing that is called, leaves the light as it must be found.

    python examples/traffic_light.py [--pace SECONDS]
"""

import argparse
import enum
import queue
from collections.abc import Callable
from dataclasses import dataclass

import manyhands as mh


class Colour(enum.Enum):
    """What cars see."""

    RED = "red"
    GREEN = "green"
    YELLOW = "yellow"


AFTER = {Colour.RED: Colour.GREEN, Colour.GREEN: Colour.YELLOW, Colour.YELLOW: Colour.RED}
LASTS = {Colour.RED: 6, Colour.GREEN: 600, Colour.YELLOW: 1}
"""How long; green for as long as nobody comes, nearly."""
CUT_SHORT = 2


@dataclass(frozen=True)
class Pressed:
    """Somebody wants to cross the street."""

    who: str


class TrafficLight(mh.Actor):
    """Goes from colour to colour. `shows(colour)` is called for each; `pace` is a second's length."""

    def __init__(self, loop: mh.EventLoop, shows: Callable[[Colour], object], pace: float) -> None:
        super().__init__(loop, name="light")
        self._shows = shows
        self._pace = pace
        self._timer: mh.Timer

    def on_start(self) -> None:
        self._turn(Colour.RED)

    def process(self, message: Pressed) -> str:
        if self._colour is Colour.RED:
            return f"go, {message.who}"
        if self._colour is Colour.GREEN:
            self._timer.cancel()
            self._timer = self.strand.call_later(CUT_SHORT * self._pace, self._turn, Colour.YELLOW)
        return f"wait, {message.who}"

    def on_stop(self) -> None:
        print("out of order: mind the traffic")

    def _turn(self, colour: Colour) -> None:
        self._colour = colour
        self._timer = self.strand.call_later(LASTS[colour] * self._pace, self._turn, AFTER[colour])
        print(colour.value)
        self._shows(colour)


def cross(light: TrafficLight, colours: "queue.SimpleQueue[Colour]", who: str, at: Colour) -> None:
    """Come when the light shows a colour, press the button, and cross when one may."""
    while colours.get(timeout=10) is not at:
        pass
    advice = light.ask(Pressed(who)).result(timeout=10)
    print(f"  {who} presses the button: {advice!r}")
    while advice.startswith("wait"):
        if colours.get(timeout=10) is Colour.RED:
            advice = light.ask(Pressed(who)).result(timeout=10)
            print(f"  {who} presses the button: {advice!r}")


def main() -> None:
    """Let Ann come at red and Bob at green."""
    parser = argparse.ArgumentParser(description="A traffic light that two people want to cross at.")
    parser.add_argument("--pace", type=float, default=0.05, help="seconds that a second takes (default: %(default)s)")
    pace = parser.parse_args().pace

    with mh.ThreadedEventLoop(threads=2, name="street") as loop:
        colours: queue.SimpleQueue[Colour] = queue.SimpleQueue()
        light = TrafficLight(loop, colours.put, pace)
        light.start()
        cross(light, colours, "ann", Colour.RED)
        cross(light, colours, "bob", Colour.GREEN)
        light.stop()
        light.wait()
        try:
            light.ask(Pressed("carl"))
        except mh.ActorStopped as error:
            print(f"  carl presses the button: {error}")


if __name__ == "__main__":
    main()
