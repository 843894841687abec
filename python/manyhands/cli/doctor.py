"""`manyhands doctor`: what a bug report needs to say about the machine, the interpreter and the library.

`examine()` looks, `render()` writes it down for people; `--json` prints what `examine()` found as it is. Looking changes
nothing: the pollers are tried on a socket pair that is closed again. What cannot be found out is null, never a guess.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.metadata
import json
import os
import platform
import resource
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Any

import manyhands as mh
from manyhands import testing
from manyhands._guards import gil_enabled

FD_SETSIZE = 1024
"""select(2) cannot name descriptors from this number on. Source: select(2), glibc and musl alike."""

POLLERS = {
    "epoll": "registrations in the kernel, stale events told apart by generation, same cost for any number",
    "poll": "the whole list goes to the kernel at every wait: cost grows with the number of watches",
    "select": f"three bit sets at every wait: cost grows with the highest number, which must stay below {FD_SETSIZE}",
}
"""Name -> how it works, in a line. Which of them serve here is tried, not assumed."""

SYSTEM_LIMITS = {
    "somaxconn": "/proc/sys/net/core/somaxconn",
    "max_user_watches": "/proc/sys/fs/epoll/max_user_watches",
    "threads_max": "/proc/sys/kernel/threads-max",
}
"""What it is called in the report -> the file that holds the number."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(options: argparse.Namespace) -> int:
    """Print the report. Returns 1 if the default poller does not serve here, else 0."""
    found = examine()
    print(json.dumps(found, indent=2) if options.json else render(found))
    return 0 if found["pollers"]["epoll"]["serves"] else 1


def examine() -> dict[str, dict[str, Any]]:
    """Look at everything.

    Returns:
        Section -> name -> value; all of it fit for JSON.
    """
    return {
        "manyhands": {
            "package": _package_version(),
            "core": mh.__version__,
            "test_points": testing.points_compiled(),
        },
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "build": " ".join(sys.version.split()),
            "free_threaded_build": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
            "gil": gil_enabled(),
            "switch_interval": sys.getswitchinterval(),
            "PYTHON_GIL": os.environ.get("PYTHON_GIL"),
        },
        "system": {
            "system": platform.system(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "libc": " ".join(platform.libc_ver()).strip() or None,
            "cpus": os.cpu_count(),
            "cpus_usable": len(os.sched_getaffinity(0)),
        },
        "limits": _limits(),
        "pollers": {name: {**_try_poller(name), "note": note} for name, note in POLLERS.items()},
    }


def render(found: dict[str, dict[str, Any]]) -> str:
    """Write the report for people: a section, then its lines."""
    lines = []
    for section, values in found.items():
        lines.append(section)
        for name, value in values.items():
            lines.append(f"  {name:<20} {_poller(value) if isinstance(value, dict) else _word(value)}")
    return "\n".join(lines)


def _package_version() -> str | None:
    """Return the version that was installed. The core was compiled with its own: two that differ are a stale build."""
    try:
        return importlib.metadata.version("manyhands")
    except importlib.metadata.PackageNotFoundError:
        return None


def _word(value: object) -> str:
    """Say a value in a word; null is "not known" or "not set"."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _poller(result: dict[str, Any]) -> str:
    """Write a poller's line."""
    if not result["serves"]:
        return f"does not serve: {result['error']}"
    high = {True: "any number", False: f"numbers below {FD_SETSIZE}", None: "high numbers not tried"}[
        result["high_numbers"]
    ]
    return f"serves, {high}; {result['note']}"


def _limits() -> dict[str, int | str | None]:
    """Read the limits that a server runs into."""
    limits: dict[str, int | str | None] = {}
    for name, which in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        for side, value in zip(("soft", "hard"), resource.getrlimit(which), strict=True):
            limits[f"{name}_{side}"] = "unlimited" if value == resource.RLIM_INFINITY else value
    for name, path in SYSTEM_LIMITS.items():
        try:
            limits[name] = int(Path(path).read_text(encoding="ascii"))
        except (OSError, ValueError):
            limits[name] = None
    return limits


def _try_poller(name: str) -> dict[str, Any]:
    """Serve one event through the poller, and once more through a descriptor that select cannot name.

    Returns:
        `serves`: bool; `high_numbers`: bool, or None if the limit of open files leaves no such number;
        `error`: the text of what went wrong, or None.
    """
    result: dict[str, Any] = {"serves": False, "high_numbers": None, "error": None}
    ours, peer = socket.socketpair()
    with ours, peer:
        try:
            result["serves"] = _serves(name, ours.fileno(), peer)
        except (OSError, RuntimeError) as error:
            result["error"] = f"{type(error).__name__}: {error}"
            return result
        if not result["serves"]:
            result["error"] = "an event was not delivered"
        try:
            high = fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, FD_SETSIZE)
        except OSError:
            return result
        try:
            result["high_numbers"] = _serves(name, high, peer)
        except (OSError, RuntimeError):
            result["high_numbers"] = False
        finally:
            os.close(high)
    return result


def _serves(poller: str, fd: int, peer: socket.socket) -> bool:
    """Tell whether a loop with this poller delivers one byte on `fd`."""
    heard: list[bytes] = []

    def on_ready(watch: mh.Watch, events: mh.Events) -> None:
        heard.append(os.read(watch.fd, 1))
        watch.remove()

    loop = mh.EventLoop(name=f"doctor-{poller}", poller=poller)
    try:
        loop.add(fd, mh.Events.READ, on_ready)
        peer.send(b"?")
        loop.join(timeout=1.0, until_idle=True)
    finally:
        loop.close()
    return heard == [b"?"]
