"""Programs of faults, each run in a fresh interpreter: served, and with the leak line at their end."""

from __future__ import annotations

import inspect
import json

import pytest

each_thread_count = pytest.mark.parametrize("threads", [1, 4])


def check(subprocess_python, program, *arguments, timeout: float = 60) -> dict:
    """Run `program(*arguments)` alone, with the serving and the leak line around it; return what it reports."""
    code = source_of(program, *arguments)
    done = subprocess_python(code, timeout=timeout)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def source_of(program, *arguments) -> str:
    """Return the text of a program that calls `program` between the descriptors' count and the leak line."""
    parts = [inspect.getsource(served), inspect.getsource(leak_line), inspect.getsource(program)]
    call = ", ".join(map(repr, arguments))
    last = f"""
import json, logging, os, resource
import manyhands
logging.getLogger("manyhands.loop").setLevel(logging.ERROR)  # a slow handler is the machine's load, not the fault
manyhands.EventLoop().close()  # what the library keeps for the whole process is made with the first loop
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
descriptors = len(os.listdir("/proc/self/fd"))
report = {program.__name__}({call})
leak_line(descriptors)
print(json.dumps(report))
"""
    return "\n".join(["from __future__ import annotations", *parts, last])


def served(loop, threads):
    """Join `threads` threads to the loop for as long as the block lasts, and stop it at its end."""
    import contextlib
    import threading

    @contextlib.contextmanager
    def block():
        joined = [threading.Thread(target=loop.join) for _ in range(threads)]
        for thread in joined:
            thread.start()
        pause = threading.Event()
        while loop.joined < threads:
            pause.wait(0.001)
        try:
            yield joined
        finally:
            assert loop.stop(30)
            for thread in joined:
                thread.join(30)

    return block()


def leak_line(descriptors):
    """Assert that no object of the core, no descriptor and no thread is left."""
    import gc
    import os
    import threading
    import time

    from manyhands.testing import live_objects

    deadline = time.monotonic() + 10
    while True:
        gc.collect()
        alive = {kind: count for kind, count in live_objects().items() if count}
        if not alive or time.monotonic() > deadline:
            break  # else the monitor may hold the frames of a handler that it writes down
    assert not alive, alive
    assert len(os.listdir("/proc/self/fd")) == descriptors
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    assert [name for name in others if name not in ("mh-monitor", "mh-reports")] == []
