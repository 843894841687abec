"""The C programs: compiled with `cc -O2` on first use, and again whenever their source has changed."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra")


@functools.cache
def program(name: str) -> Path:
    """Compile `<name>.c` if it must be.

    Returns:
        The program's path.

    Raises:
        RuntimeError: there is no C compiler (`cc`, or what `CC` names), or it refuses the source.
    """
    source = HERE / f"{name}.c"
    digest = hashlib.sha256(" ".join(FLAGS).encode() + source.read_bytes()).hexdigest()[:12]
    built = HERE / "build" / f"{name}-{digest}"
    if built.exists():
        return built
    built.parent.mkdir(exist_ok=True)
    # Under a name of its own first: another run may be compiling the same program.
    partial = built.with_suffix(f".{os.getpid()}")
    command = [os.environ.get("CC", "cc"), *FLAGS, "-o", str(partial), str(source)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError(f"no C compiler: install one, or name it in CC (tried {command[0]!r})") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{' '.join(command)} failed:\n{error.stderr}") from None
    partial.replace(built)
    return built


@functools.cache
def compiler() -> str:
    """The compiler's first line about itself, with the flags used."""
    done = subprocess.run([os.environ.get("CC", "cc"), "--version"], capture_output=True, text=True, check=True)
    return f"{done.stdout.splitlines()[0]} {' '.join(FLAGS)}"
