"""A script that used `ThreadPoolExecutor`: one line is changed, and then some that the executor could not do.

The work is a search for a word in files. `with ThreadPoolExecutor(4) as pool:` has become `with mh.ThreadPool(4) as pool:`;
`submit`, `map`, `as_completed`, `result` and the end of the block are as they were.

What to look for:
* names: the threads have one that `top -H` and tracebacks show, and so has every call;
* a bound: `submit` waits while the queue is full, so a producer that is too fast cannot fill the memory;
* a stop: a call that has begun can be stopped, because its loop checks in. `cancel_futures=True` could only ever cancel those
  that had not begun;
* sight: `pool.jobs()` says what runs, for how long, and how far it is.

    python examples/replace_thread_pool_executor.py [--files N]
"""

import argparse
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import as_completed

import manyhands as mh

WORD = re.compile(rb"\bneedle\b")


def count_in(path: str) -> int:
    """Count a word in one file. Unchanged: a call that ends soon needs no check-in."""
    with open(path, "rb") as file:
        return sum(len(WORD.findall(line)) for line in file)


def watch_forever(path: str, begun: threading.Event) -> int:
    """Look into a file again and again: a call that ends only because it checks in."""
    job = mh.current_job()
    assert job is not None
    looks = 0
    while True:
        looks += 1
        job.progress(looks, note=f"{count_in(path)} found")
        begun.set()
        mh.sleep_blocking(0.01)


def make_files(directory: str, count: int) -> Iterator[str]:
    """Files with a needle in every third one."""
    for number in range(count):
        path = os.path.join(directory, f"{number}.txt")
        with open(path, "w", encoding="ascii") as file:
            file.write("hay\n" * 100 + "needle\n" * (number % 3 == 0))
        yield path


def main() -> None:
    """Search, then stop what would never end."""
    parser = argparse.ArgumentParser(description="Search files on a pool.")
    parser.add_argument("--files", type=int, default=300, help="to search (default: %(default)s)")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        paths = list(make_files(directory, options.files))

        with mh.ThreadPool(4, name="search", max_queue_depth=16) as pool:  # was: ThreadPoolExecutor(4)
            print("by map:", sum(pool.map(count_in, paths)))
            futures = {pool.submit(count_in, path): path for path in paths}
            print("by submit:", sum(future.result() for future in as_completed(futures)))

        pool = mh.ThreadPool(4, name="watch")
        begun = threading.Event()
        job = pool.enqueue(watch_forever, paths[0], begun, name="watch 0.txt")
        begun.wait(timeout=10)
        (seen,) = pool.jobs()
        assert seen.progress is not None
        print(f"{seen.name!r} is {seen.status.name} on {seen.thread}: {seen.progress[2]}")
        print("stopped:", job.stop())
        try:
            job.result(timeout=10)
        except mh.JobCancelled as cancelled:
            print("its result:", type(cancelled).__name__)
        print("left behind:", pool.destroy(timeout=10))


if __name__ == "__main__":
    main()
