"""A serial port: one watch, line framing, and a watchdog that says when the device has gone silent.

With no argument the device is made up: a thread at the other end of a pseudo-terminal, which sends its readings in odd
pieces, sends noise without an end of line, goes silent for a while, comes back and hangs up. With a path it is yours.

What to look for:
* pieces become lines wherever the kernel cuts them; a line that never ends is dropped at `MAX_LINE`, not collected;
* the watchdog is a timer on the watch's own strand: it never runs beside the reader, so the two share their state without
  a lock, although two threads turn the loop;
* a hang-up ends the watch, which closes the descriptor, and `on_removed` is the last thing that happens.

    python examples/serial_port.py [/dev/ttyUSB0] [--silence S]
"""

import argparse
import os
import threading
import tty
from collections.abc import Callable

import manyhands as mh

MAX_LINE = 80


class LineFramer:
    """Cuts a stream of bytes into lines. Knows no descriptor."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False
        self.dropped = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next piece; return the lines that it completes, without their ends."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._skipping and lines:
            del lines[0]  # the tail of the line that was too long
            self._skipping = False
        if len(self._rest) > MAX_LINE:
            self.dropped += not self._skipping
            self._skipping, self._rest = True, b""
        return [line.rstrip(b"\r") for line in lines]


class SerialReader:
    """Reads a port on a strand of its own: the handler, the watchdog and the end, one at a time."""

    def __init__(self, loop: mh.EventLoop, fd: int, silence: float, on_event: Callable[[str], None]) -> None:
        self._loop = loop
        self._silence = silence
        self._on_event = on_event
        self._framer = LineFramer()
        self._strand = loop.strand(name="serial")
        self._watchdog = self._strand.call_later(silence, self._on_silence)
        loop.add(
            fd,
            mh.Events.READ,
            self._on_ready,
            strand=self._strand,
            name="port",
            close=True,
            on_removed=self._on_removed,
        )

    def _on_ready(self, watch: mh.Watch, events: mh.Events) -> None:
        try:
            data = os.read(watch.fd, 4096)
        except BlockingIOError:
            return
        except OSError:  # a terminal whose other end has gone says EIO
            data = b""
        if not data:
            watch.remove()
            return
        self._watchdog.cancel()
        self._watchdog = self._strand.call_later(self._silence, self._on_silence)
        for line in self._framer.feed(data):
            self._on_event(f"line {line.decode('ascii', 'backslashreplace')!r}")

    def _on_silence(self) -> None:
        self._on_event(f"nothing for {self._silence:g} s: is the device still there?")

    def _on_removed(self, watch: mh.Watch, reason: mh.RemovalReason) -> None:
        self._watchdog.cancel()
        self._on_event(f"hung up; {self._framer.dropped} lines were too long")
        self._loop.request_stop()


def pretend_device(fd: int, silence: float) -> None:
    """Send readings as a device would: not when or as the reader would like them."""
    pause = threading.Event().wait
    for piece in (b"temp 21", b".5\nte", b"mp 21.6\r\nhumidity 40\n"):
        os.write(fd, piece)
        pause(0.05)
    os.write(fd, b"#" * 200)
    pause(0.05)
    os.write(fd, b"###\ntemp 21.7\n")
    pause(silence * 1.5)
    os.write(fd, b"temp 21.9\n")
    pause(0.05)
    os.close(fd)


def main() -> None:
    """Read the port until it hangs up, or until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Read lines from a serial port, and notice when it is silent.")
    parser.add_argument("port", nargs="?", help="such as /dev/ttyUSB0; without it a device is made up")
    parser.add_argument("--silence", type=float, default=0.4, help="seconds until it is noticed (default: %(default)s)")
    options = parser.parse_args()

    device = None
    if options.port is None:
        master, port = os.openpty()
        device = threading.Thread(target=pretend_device, args=(master, options.silence))
    else:
        port = os.open(options.port, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    os.set_blocking(port, False)
    if os.isatty(port):
        tty.setraw(port)

    loop = mh.EventLoop(name="serial")
    start = loop.now()
    print(f"reading {os.ttyname(port) if os.isatty(port) else options.port}", flush=True)
    SerialReader(loop, port, options.silence, lambda text: print(f"{loop.now() - start:5.2f} s  {text}", flush=True))
    helper = threading.Thread(target=loop.join)
    helper.start()
    if device is not None:
        device.start()
    try:
        loop.join()
    except KeyboardInterrupt:
        loop.request_stop()
    helper.join()
    if device is not None:
        device.join()
    loop.close()


if __name__ == "__main__":
    main()
