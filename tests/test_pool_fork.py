"""After a fork: a pool of the parent is dead in the child, and a new one works there."""

from __future__ import annotations

import pytest


@pytest.mark.fault
def test_a_pool_of_the_parent_is_dead_in_the_child(subprocess_python):
    """FAULT 11. Any use of it or of its jobs raises ForkedError, which names the parent; a new pool works there."""
    done = subprocess_python(
        """
import os, signal, sys, threading, traceback, warnings
import manyhands as mh

warnings.simplefilter("ignore", DeprecationWarning)
pool = mh.ThreadPool(2, name="mill")
running = pool.enqueue(mh.sleep_blocking, 60)
queued = [pool.enqueue(mh.sleep_blocking, 60) for _ in range(3)]
ended = pool.enqueue(int, keep=True, priority=9)
while pool.stats().busy < 2:
    threading.Event().wait(0.001)
parent = os.getpid()

def child():
    signal.alarm(20)
    uses = {
        "enqueue": lambda: pool.enqueue(int),
        "enqueue_steps": lambda: pool.enqueue_steps(lambda: (yield)),
        "submit": lambda: pool.submit(int),
        "map": lambda: list(pool.map(int, "1")),
        "jobs": pool.jobs,
        "job_group": lambda: pool.job_group().__enter__().enqueue(int),
        "shutdown": pool.shutdown,
        "finish": pool.finish,
        "destroy": lambda: pool.destroy(1),
        "stats": pool.stats,
        "dump": pool.dump,
        "stop": running.stop,
        "cancel": running.cancel,
        "stop of a queued one": queued[-1].stop,
        "result": lambda: running.result(1),
        "answer": running.answer,
        "detach": running.detach,
        "reap": queued[-1].reap,
    }
    wrong = []
    for name, use in uses.items():
        try:
            use()
        except mh.ForkedError as error:
            if error.parent != parent or str(parent) not in str(error):
                wrong.append(f"{name}: {error}")
        except BaseException as error:
            wrong.append(f"{name}: {error!r}")
        else:
            wrong.append(f"{name}: nothing")
    if wrong:
        return "; ".join(wrong)
    with mh.ThreadPool(2) as own:
        assert list(own.map(str, range(5))) == list("01234")
    assert mh.default_pool().submit(pow, 2, 3).result(10) == 8
    return "ok"

read_end, write_end = os.pipe()
pid = os.fork()
if pid == 0:
    try:
        answer = child()
    except BaseException:
        answer = traceback.format_exc()
    os.write(write_end, answer.encode())
    os.close(write_end)
    sys.exit(0)
os.close(write_end)
with open(read_end) as pipe:
    answer = pipe.read()
_, status = os.waitpid(pid, 0)
assert running.stop()
for job in queued:
    job.stop()
assert pool.destroy(10) == []
print(answer, status)
""",
        timeout=60,
    )
    assert done.stdout.strip() == "ok 0", done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.fault
def test_a_fork_inside_a_job_is_survived(subprocess_python):
    """FAULT 11. The child of a job goes its own way; the parent's pool loses nothing."""
    done = subprocess_python(
        """
import os, warnings
import manyhands as mh

warnings.simplefilter("ignore", DeprecationWarning)
pool = mh.ThreadPool(4)

def work(number):
    pid = os.fork()
    if pid == 0:
        try:
            pool.enqueue(int)
        except mh.ForkedError:
            os._exit(7)
        os._exit(8)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert list(pool.map(work, range(40))) == [7] * 40
pool.shutdown()
print("ok")
""",
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "ok"), done.stderr
