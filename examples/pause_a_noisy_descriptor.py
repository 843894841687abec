"""Pause a noisy descriptor: read no faster than you can work, and let nobody else wait for it.

One pipe is filled as fast as it takes bytes. What comes out of it is worked on slowly, by messages of a strand of its
own. Whenever that strand has enough to do, the noisy watch is paused, and a message behind the backlog resumes it. A
second, quiet pipe ticks all the while.

What to look for:
* the backlog stays near its mark, far from what was written: the rest waits in the pipe, and the writer waits for the pipe;
* what came while the watch was paused is delivered after `resume()`, so that every byte is worked on once;
* the quiet pipe is served while the noisy one is paused: pausing a watch stops its own events only;
* `resume` is posted behind the backlog instead of asked for by a flag. "Is it low enough? Then resume" on one thread and
  "is it too high? Then pause" on another could pass each other, and the pipe would stay paused for ever.

    python examples/pause_a_noisy_descriptor.py [--seconds S]
"""

import argparse
import hashlib
import os
import threading
import time

import manyhands as mh

ENOUGH = 20
"""Pieces that wait to be worked on: from here on no more is read."""

PIECE = 4096
READ = 16 * PIECE
TICK = 0.02


class NoisyReader:
    """Reads the noisy pipe and hands its pieces to the slow strand."""

    def __init__(self, loop: mh.EventLoop, fd: int) -> None:
        self.pauses = 0
        self.most_pending = 0
        self.read = 0
        self.worked_on = 0  # touched on the slow strand only
        self._loop = loop
        self._slow = loop.strand(name="slow", max_pending=ENOUGH + READ // PIECE + 1)
        self.watch = loop.add(fd, mh.Events.READ, self.on_ready, name="noisy", close=True)

    def on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        """Read what is there. With enough to do already, read no more until that is done."""
        try:
            data = os.read(watch.fd, READ)
        except BlockingIOError:
            return
        if not data:  # the writer has closed its end
            watch.remove()
            self._slow.post_terminal(self._loop.request_stop)
            return
        self.read += len(data)
        for start in range(0, len(data), PIECE):
            self._slow.post(self._work_on, data[start : start + PIECE])
        self.most_pending = max(self.most_pending, self._slow.pending)
        if self._slow.pending >= ENOUGH:
            self.pauses += 1
            watch.pause()
            self._slow.post(watch.resume)

    def _work_on(self, piece: bytes) -> None:
        hashlib.pbkdf2_hmac("sha256", piece, b"", 1000)
        self.worked_on += len(piece)


class QuietReader:
    """Counts the ticks of the quiet pipe."""

    def __init__(self, loop: mh.EventLoop, fd: int, noisy: NoisyReader) -> None:
        self.ticks = 0
        self.ticks_meanwhile = 0
        self._noisy = noisy
        loop.add(fd, mh.Events.READ, self.on_ready, name="quiet", close=True)

    def on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        """Take a tick, and see whether the noisy pipe is paused just now."""
        try:
            os.read(watch.fd, 1)
        except BlockingIOError:
            return
        self.ticks += 1
        self.ticks_meanwhile += self._noisy.watch.paused


def make_noise(fd: int, seconds: float, written: list[int]) -> None:
    """Write as fast as the pipe takes it, then close it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        written.append(os.write(fd, bytes(PIECE)))
    os.close(fd)


def main() -> None:
    """Listen to both pipes on two threads until the noise is over."""
    parser = argparse.ArgumentParser(description="Pause and resume a descriptor that is too fast.")
    parser.add_argument("--seconds", type=float, default=1.0, help="of noise (default: %(default)s)")
    options = parser.parse_args()

    noisy_end, noise = os.pipe()
    quiet_end, ticker = os.pipe()
    os.set_blocking(noisy_end, False)
    os.set_blocking(quiet_end, False)

    loop = mh.EventLoop(name="pipes")
    noisy = NoisyReader(loop, noisy_end)
    quiet = QuietReader(loop, quiet_end, noisy)
    loop.call_every(TICK, os.write, ticker, b".")
    written: list[int] = []
    writer = threading.Thread(target=make_noise, args=(noise, options.seconds, written))
    helper = threading.Thread(target=loop.join)
    writer.start()
    helper.start()
    loop.join()
    helper.join()
    writer.join()
    loop.close()
    os.close(ticker)

    print(f"written {sum(written):,} bytes, read {noisy.read:,}, worked on {noisy.worked_on:,}")
    print(f"paused and resumed {noisy.pauses} times, never more than {noisy.most_pending} pieces waiting")
    print(f"the quiet pipe ticked {quiet.ticks} times, {quiet.ticks_meanwhile} of them while the noisy one was paused")


if __name__ == "__main__":
    main()
