"""After a fork: the parent loses nothing, the child gets a clear error and may make a loop of its own."""

from __future__ import annotations

import pytest

PRELUDE = """
import gc, logging, os, signal, socket, sys, threading, time, traceback, warnings
logging.getLogger("manyhands").setLevel(logging.ERROR)  # on a busy machine a handler may well be slow
warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on CPython warns of any fork with threads about
import manyhands as mh

def forked(child):
    "Run child() in a forked process, which ends as any program does, and return what it wrote."
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        signal.alarm(20)
        status = 0
        try:
            answer = child()
        except SystemExit:  # a child of this child, on its way out
            raise
        except BaseException:
            answer, status = traceback.format_exc(), 1
        os.write(write_end, str(answer).encode())
        os.close(write_end)
        sys.exit(status)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        answer = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {status}: {answer}"
    return answer

def echo(watch, events):
    watch.source.send(watch.source.recv(100))

def pair():
    a, b = socket.socketpair()
    a.setblocking(False)
    b.settimeout(10)
    return a, b

def exchange(sock, number):
    message = f"{number:06}".encode()
    sock.send(message)
    came = sock.recv(100)
    assert came == message, (came, message)
"""


@pytest.fixture
def run(subprocess_python):
    """Run a program after the prelude; it must end with status 0 and say "ok" last."""

    def run(code: str, *args: object, timeout: float = 60) -> None:
        ended = subprocess_python(PRELUDE + code, timeout=timeout, args=[str(arg) for arg in args])
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.splitlines()[-1:] == ["ok"], ended.stdout + ended.stderr
        assert ended.stderr == ""

    return run


@pytest.mark.fault
@pytest.mark.parametrize("threads", [0, 1, 4])
def test_every_use_of_an_inherited_loop_in_the_child_names_the_parent(run, threads):
    """T96. After fork the child gets `ForkedError`, which names the parent, on every use, and at once."""
    run(
        """
threads = int(sys.argv[1])
loop = mh.EventLoop(name="mill")
a, b = pair()
c, d = pair()
watch = loop.add(a, mh.Events.READ, echo)
strand = loop.strand()
timer = loop.call_later(60, print)
crew = [threading.Thread(target=loop.join) for _ in range(threads)]
for thread in crew:
    thread.start()
while loop.joined < threads:
    threading.Event().wait(0.001)
parent = os.getpid()

def child():
    uses = {
        "join": lambda: loop.join(timeout=1),
        "run_ready": loop.run_ready,
        "request_stop": loop.request_stop,
        "wait": lambda: loop.wait(1),
        "stop": lambda: loop.stop(1),
        "restart": loop.restart,
        "close": lambda: loop.close(1),
        "add": lambda: loop.add(c, mh.Events.READ, echo),
        "get": lambda: loop.get(a),
        "post": lambda: loop.post(print),
        "post_urgent": lambda: loop.post_urgent(print),
        "post_terminal": loop.post_terminal,
        "call_later": lambda: loop.call_later(1, print),
        "call_every": lambda: loop.call_every(1, print),
        "strand": loop.strand,
        "on_signal": lambda: loop.on_signal(signal.SIGUSR1, print),
        "stats": loop.stats,
        "dump": loop.dump,
        "strand.post": lambda: strand.post(print),
        "strand.post_urgent": lambda: strand.post_urgent(print),
        "strand.post_terminal": strand.post_terminal,
        "strand.pause": lambda: strand.pause(1),
        "strand.resume": strand.resume,
        "strand.close": lambda: strand.close(timeout=1),
        "strand.call_later": lambda: strand.call_later(1, print),
        "watch.modify": lambda: watch.modify(mh.Events.WRITE),
        "watch.pause": lambda: watch.pause(1),
        "watch.resume": watch.resume,
        "watch.remove": lambda: watch.remove(timeout=1),
        "timer.cancel": timer.cancel,
    }
    for name, use in uses.items():
        fastest = 1.0
        for _ in range(5):
            start = time.monotonic()
            try:
                use()
            except mh.ForkedError as error:
                assert isinstance(error, RuntimeError)
                assert error.parent == parent, (error.parent, parent)
                assert str(parent) in str(error), str(error)
            else:
                raise AssertionError(f"{name} raised nothing")
            fastest = min(fastest, time.monotonic() - start)
        assert fastest < 0.001, (name, fastest)
    return "refused"

assert forked(child) == "refused"
if threads:
    exchange(b, 1)
else:
    b.send(b"000001")
    loop.join(until_idle=True)
    assert b.recv(100) == b"000001"
loop.stop()
loop.close()
for thread in crew:
    thread.join()
print("ok")
""",
        threads,
    )


@pytest.mark.fault
@pytest.mark.parametrize("ending", ["exit", "collect", "exec"])
def test_the_exit_and_the_garbage_of_a_child_leave_the_watches_of_the_parent_alone(run, ending):
    """T96. What a child drops, closes or replaces never reaches the kernel's registrations, which it shares."""
    run(
        """
loop = mh.EventLoop()
a, b = pair()
closes = loop.add(a, mh.Events.READ, echo, close=True)
thread = threading.Thread(target=loop.join)
thread.start()
exchange(b, 1)

def child():
    global loop, closes
    if sys.argv[1] == "exec":
        os.execv(sys.executable, [sys.executable, "-c", ""])
    if sys.argv[1] == "collect":
        loop = closes = None
        gc.collect()
        gc.collect()
    return "gone"

for number in range(5):
    answer = forked(child)
    assert answer == ("" if sys.argv[1] == "exec" else "gone"), answer
    exchange(b, number)
loop.stop()
loop.close()
thread.join()
print("ok")
""",
        ending,
    )


@pytest.mark.fault
def test_the_child_closes_its_copies_of_the_descriptors_of_inherited_loops(run):
    """FAULT 11. No epoll and no eventfd of the parent stays open in the child, to be changed by accident."""
    run(
        """
def kernel_objects():
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue
        if target.startswith("anon_inode:"):
            found.append(target)
    return sorted(found)

loops = [mh.EventLoop(name=f"loop {n}", poller=poller) for n, poller in enumerate(["epoll", "poll", "select"])]
here = kernel_objects()
assert "anon_inode:[eventpoll]" in here, here
assert forked(kernel_objects) == "[]"
assert kernel_objects() == here
while loops:
    loops.pop().close()
print("ok")
"""
    )


@pytest.mark.fault
def test_what_another_thread_was_making_as_the_process_forked_is_made_in_the_child(run):
    """T96. The parent's first thread to serve a loop was asking for something that a process asks for once."""
    run(
        """
import types
real, entered, go_on = threading, threading.Event(), threading.Event()

class Slow(types.ModuleType):
    def __getattr__(self, name):
        if name == "main_thread" and real.current_thread() is asking:
            entered.set()
            go_on.wait(10)
        return getattr(real, name)

loop = mh.EventLoop()
asking = threading.Thread(target=loop.join)
sys.modules["threading"] = Slow("threading")
asking.start()
assert entered.wait(10), "nobody asks: another look for what is made once"

def child():
    sys.modules["threading"] = real
    loop = mh.EventLoop()
    a, b = pair()
    loop.add(a, mh.Events.READ, echo)
    thread = threading.Thread(target=loop.join)
    thread.start()
    exchange(b, 7)
    loop.stop()
    thread.join()
    loop.close()
    return "served"

assert forked(child) == "served"
go_on.set()
sys.modules["threading"] = real
loop.stop()
asking.join()
loop.close()
print("ok")
"""
    )


@pytest.mark.fault
def test_a_loop_made_in_the_child_works(run):
    """T96. A new loop in the child has watches, messages, timers and threads like any other."""
    run(
        """
old = mh.EventLoop()
thread = threading.Thread(target=old.join)
thread.start()

def child():
    loop = mh.EventLoop()
    a, b = pair()
    loop.add(a, mh.Events.READ, echo)
    crew = [threading.Thread(target=loop.join) for _ in range(2)]
    for member in crew:
        member.start()
    exchange(b, 7)
    ran, fired = threading.Event(), threading.Event()
    loop.post(ran.set)
    loop.call_later(0.001, fired.set)
    assert ran.wait(10) and fired.wait(10)
    assert loop.stop(10)
    for member in crew:
        member.join(10)
    loop.close()
    with mh.ThreadedEventLoop(threads=2) as owner:
        again = threading.Event()
        owner.post(again.set)
        assert again.wait(10)
    owner.close()
    return forked(lambda: "a grandchild")

assert forked(child) == "a grandchild"
old.stop()
old.close()
thread.join()
print("ok")
"""
    )


@pytest.mark.fault
def test_a_fork_in_the_middle_of_a_handler_leaves_both_usable(run):
    """T96. The thread that forks is lent: the child leaves its frames behind and makes a loop of its own."""
    run(
        """
loop = mh.EventLoop()
answers = []

def work():
    inner = mh.EventLoop()
    ran = []
    inner.post(ran.append, 1)
    thread = threading.Thread(target=inner.join, kwargs={"until_idle": True})
    thread.start()
    thread.join(10)
    inner.close()
    return ran

loop.post(lambda: answers.append(forked(work)))
loop.post(answers.append, "the next message")
loop.join(until_idle=True)
assert sorted(answers) == ["[1]", "the next message"], answers
loop.close()
print("ok")
"""
    )


@pytest.mark.fault
def test_an_owned_threads_loop_of_before_the_fork_refuses_in_the_child(run):
    """T96. So do start, stop and the context manager of a loop that owned threads in the parent."""
    run(
        """
loop = mh.ThreadedEventLoop(threads=2)
loop.start()
parent = os.getpid()

def child():
    for use in (loop.start, loop.stop, lambda: loop.post(print)):
        try:
            use()
        except mh.ForkedError as error:
            assert error.parent == parent
        else:
            raise AssertionError(f"{use} raised nothing")
    return "refused"

assert forked(child) == "refused"
ran = threading.Event()
loop.post(ran.set)
assert ran.wait(10)
loop.stop()
loop.close()
print("ok")
"""
    )


UNDER_LOAD = """
forks, threads = int(sys.argv[1]), int(sys.argv[2])
loop = mh.EventLoop(slow_handler=10)
socks = [pair() for _ in range(8)]
for a, _ in socks:
    loop.add(a, mh.Events.READ, echo)
crew = [threading.Thread(target=loop.join) for _ in range(threads)]
for thread in crew:
    thread.start()

enough = threading.Event()
rounds, wrong = [], []

def client(b):
    number = 0
    try:
        while not enough.is_set() or number == 0:
            exchange(b, number % 1_000_000)
            number += 1
    except BaseException as error:
        wrong.append(repr(error))
    rounds.append(number)

posted, ran = 0, []
clients = [threading.Thread(target=client, args=(b,)) for _, b in socks]
for thread in clients:
    thread.start()

def child():
    own = mh.EventLoop(slow_handler=10)
    a, b = pair()
    own.add(a, mh.Events.READ, echo)
    members = [threading.Thread(target=own.join) for _ in range(2)]
    for member in members:
        member.start()
    exchange(b, 1)
    assert own.stop(10)
    for member in members:
        member.join(10)
    own.close()
    return "served"

for _ in range(forks):
    loop.post(ran.append, posted)
    posted += 1
    assert forked(child) == "served"
enough.set()
for thread in clients:
    thread.join(20)
assert wrong == [], wrong
assert len(rounds) == 8 and min(rounds) > 0, rounds
assert loop.stop(10, drain=True)
assert sorted(ran) == list(range(posted))
loop.close()
for thread in crew:
    thread.join(10)
print("ok")
"""


@pytest.mark.fault
@pytest.mark.parametrize("threads", [1, 4])
def test_forks_under_load_lose_nothing_in_the_parent(run, threads):
    """T96a. Eight clients talk to the parent while it forks; each child makes a new loop with two threads."""
    run(UNDER_LOAD, 25, threads)


@pytest.mark.fault
@pytest.mark.stress
def test_a_thousand_forks_under_load_lose_nothing_in_the_parent(run):
    """T96a. The same 1,000 times. FAULT 11's own figure."""
    run(UNDER_LOAD, 1000, 4, timeout=300)
