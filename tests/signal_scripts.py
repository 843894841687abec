"""What the programs begin with that are sent signals."""

from __future__ import annotations

PRELUDE = """
import logging, os, signal, socket, sys, threading, time
import manyhands as mh
from manyhands.testing import wait_all_idle

READ = mh.Events.READ
LONG = 10.0

def wait_until(predicate):
    deadline = time.monotonic() + LONG
    pause = threading.Event()
    while not predicate():
        if time.monotonic() > deadline:
            os.write(2, b"nothing came of it\\n")
            os._exit(99)
        pause.wait(0.001)

def make_loop(**options):
    "A busy machine is no reason for a line about a slow handler."
    return mh.EventLoop(slow_handler=60.0, **options)

def thread(function, *args):
    made = threading.Thread(target=function, args=args, daemon=True)
    made.start()
    return made

def to_process():
    os.kill(os.getpid(), signal.SIGINT)

def to_this_thread():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

def close_without_a_word(loop):
    "Close a loop that still has messages, without the warning about them."
    logging.getLogger("manyhands.loop").disabled = True
    loop.close()

def check_books(loop, workers=0):
    "The loop is as if nothing had happened: counts, messages, another join."
    assert loop.joined == workers, loop.joined
    assert not loop.stopped
    ran = []
    if not workers:
        loop.post(ran.append, 1)
        assert loop.join(until_idle=True) == 1
        assert ran == [1]
    else:
        done = threading.Event()
        loop.post(done.set)
        assert done.wait(LONG)
"""
