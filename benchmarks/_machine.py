"""What a figure belongs to: machine, interpreter, versions, commit, and how quiet it was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

QUIET = 0.03
"""The share of the cores that others may use, or the hypervisor take, before a figure is not for the record."""


def describe_interpreter() -> dict[str, object]:
    """Describe the interpreter this runs in; call it through `_process.in_child` for another one's."""
    return {
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
        "gil": _gil_enabled(),
        "tag": f"{sys.implementation.cache_tag}{'' if _gil_enabled() else 't'}",
        "manyhands": _version("manyhands"),
        "test_points": _has_points(),
        "uvloop": _version("uvloop"),
    }


def describe_machine() -> dict[str, object]:
    """Describe the machine."""
    return {
        "cpu": _first_field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_mib": int(_first_field("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        "kernel": platform.release(),
        "libc": "-".join(platform.libc_ver()),
        "virtual": "hypervisor" in _first_field("/proc/cpuinfo", "flags").split(),
    }


def commit() -> str:
    """The commit of the checkout, with `+changes` if files differ from it, or `unknown`."""
    try:
        name = _git("rev-parse", "HEAD")
        return name + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@dataclass(frozen=True)
class Usage:
    """Seconds of CPU since boot or start: of the whole machine, and of this process and the children it waited for."""

    wall: float
    busy: float
    stolen: float
    own: float

    @classmethod
    def now(cls) -> Usage:
        """Take the figures; to be compared when no child is running."""
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        user, nice, system, _idle, _iowait, irq, softirq, stolen = (
            ticks / os.sysconf("SC_CLK_TCK") for ticks in fields
        )
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        return cls(time.monotonic(), user + nice + system + irq + softirq, stolen, own)

    def shares_since(self, before: Usage) -> dict[str, float]:
        """The shares of all cores' time that other processes used, and that the hypervisor gave to other machines."""
        whole = (self.wall - before.wall) * (os.cpu_count() or 1)
        others = (self.busy - before.busy) - (self.own - before.own)
        return {"others": round(max(0.0, others / whole), 4), "stolen": round((self.stolen - before.stolen) / whole, 4)}


def _gil_enabled() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _has_points() -> bool | None:
    try:
        from manyhands import testing
    except ImportError:
        return None
    return bool(testing.points_compiled())


def _first_field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
