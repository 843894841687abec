"""run(): a program of tasks from its start to its end, on one thread and on several."""

from __future__ import annotations

import gc
import logging
import threading

import pytest

import manyhands as mh
from garbage import collect
from gate import Gate
from manyhands.errors import Cancelled, LoopClosed, LoopStopped, WouldDeadlock
from manyhands.testing import MockClock, live_objects, wait_all_tasks_blocked
from support import LONG, wait_until
from tasking import cancelled_here, on_threads, run


def on_main_thread() -> bool:
    """Whether the calling thread is the process's main one."""
    return threading.current_thread() is threading.main_thread()


# --------------------------------------------------------------------------------------------------------- what it returns


@on_threads
def test_run_returns_what_its_function_returns_and_raises_what_it_raises(threads):
    """T85a. Arguments go through, and the error is the very one."""

    async def add(a, b):
        await mh.checkpoint()
        return a + b

    async def fail(error):
        await mh.checkpoint()
        raise error

    assert mh.run(add, 1, 2, threads=threads) == 3
    for error in (KeyError("one"), SystemExit(3), Cancelled()):
        with pytest.raises(type(error)) as caught:
            mh.run(fail, error, threads=threads)
        assert caught.value is error


@on_threads
def test_a_program_that_is_over_before_its_threads_have_begun_ends(threads):
    """FAULT 19. Threads that come late find the loop stopped, or closed, and leave; again and again."""

    async def nothing():
        return 1

    async def one_yield():
        await mh.checkpoint()
        return 1

    for _ in range(100):
        assert mh.run(nothing, threads=threads) == 1
        assert mh.run(one_yield, threads=threads) == 1


def test_the_main_task_may_end_on_another_thread():
    """T85a. run() waits for that thread, and takes it for nobody's stop."""
    moved = threading.Event()

    async def hold_the_main_thread():
        while not moved.is_set():
            if on_main_thread():
                moved.wait(LONG)
            await mh.checkpoint()

    async def main():
        async with mh.create_task_group() as group:
            group.start_soon(hold_the_main_thread)
            while on_main_thread():
                await mh.checkpoint()
            moved.set()
            group.cancel_scope.cancel()
        while on_main_thread():
            with Gate() as gate:
                # A step that lasts: another thread takes the lead meanwhile, and the next step.
                threading.Timer(0.002, gate.open).start()
                gate()
            await mh.sleep(0.0001)
        return "elsewhere"

    assert run(main, threads=2) == "elsewhere"


def test_what_run_takes_is_checked():
    """T85a. At the call, and nothing is left of it."""

    async def main():
        return 1

    for wrong in (0, -1):
        with pytest.raises(ValueError, match="threads"):
            mh.run(main, threads=wrong)
    for wrong in (1.0, None, True):
        with pytest.raises(TypeError, match="threads"):
            mh.run(main, threads=wrong)
    with pytest.raises(TypeError, match="got a coroutine"):
        mh.run(main())
    with pytest.raises(TypeError, match="takes an async function.* returned 1"):
        mh.run(lambda: 1)
    with pytest.raises(TypeError, match="takes an async function.* got None"):
        mh.run(None)
    with pytest.raises(TypeError):
        mh.run(main, "one argument too many")
    with pytest.raises(ValueError, match="poller"):
        mh.run(main, poller="kqueue")


def test_the_threads_are_named_and_there_are_as_many_as_asked_for():
    """T85a. The calling one among them."""

    async def main():
        return sorted(t.name for t in threading.enumerate() if t.name.startswith("mh-web-"))

    assert run(main, threads=3, name="web") == ["mh-web-1", "mh-web-2"]


@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
def test_a_program_runs_on_every_poller(poller):
    """T85a. The contract is one."""

    async def main():
        async with mh.create_task_group() as group:
            for _ in range(5):
                group.start_soon(mh.sleep, 0.001)

    run(main, threads=2, poller=poller)


# ------------------------------------------------------------------------------------------------------ where it is called


def test_run_on_a_thread_that_is_lent_raises_at_once(loop, make_pool):
    """FAULT 22. In a task, in a handler, in a job: it would wait where nobody may."""

    async def inner():
        return 1

    def call():
        with pytest.raises(WouldDeadlock, match="await the function there"):
            mh.run(inner)
        return "refused"

    async def main():
        return call()

    assert run(main) == "refused"
    refused = []
    loop.post(lambda: refused.append(call()))
    loop.join(until_idle=True)
    assert refused == ["refused"]
    assert make_pool().submit(call).result(LONG) == "refused"


@on_threads
def test_two_programs_run_side_by_side(spawn, threads):
    """T85a. On threads of their own, with an event that the one sets for the other."""
    made = []

    async def waits():
        made.append(mh.Event())
        await made[0].wait()
        return "woken"

    async def sets():
        while not made or not made[0].waiting:
            await mh.checkpoint()
        made[0].set()
        return "set"

    first, second = spawn(lambda: run(waits, threads=threads)), spawn(lambda: run(sets, threads=threads))
    assert (first.result(), second.result()) == ("woken", "set")


# ---------------------------------------------------------------------------------------------------------- stopped, failed


@on_threads
def test_a_loop_that_somebody_stops_cancels_the_program(threads):
    """T85a. Every task cleans up, also with waits; then run() says who has ended it."""

    async def main(cleaned):
        async def child():
            try:
                await mh.sleep_forever()
            finally:
                with mh.CancelScope(shield=True):
                    await mh.sleep(0.001)
                cleaned.append("child")

        async with mh.create_task_group() as group:
            for _ in range(5):
                group.start_soon(child)
            await wait_all_tasks_blocked()
            mh.current_task().group.owner.request_stop()

    cleaned = []
    with pytest.raises(LoopStopped):
        run(main, cleaned, threads=threads)
    assert cleaned == ["child"] * 5


def test_a_stop_waits_for_the_thread_that_is_inside_of_a_task_and_all_threads_serve_the_cleanup():
    """T85a. The loop is opened again only when everybody has left it; then everybody comes back."""
    gates = Gate(), Gate()

    async def meet(gate):
        if on_main_thread():
            wait_until(lambda: gate.entered)  # the other one, on the other thread
        else:
            gate()

    async def main():
        async with mh.create_task_group() as group:
            group.start_soon(meet, gates[0])
            group.start_soon(meet, gates[0])
            while not gates[0].entered or not on_main_thread():
                await mh.sleep(0.001)
            threading.Timer(0.02, gates[0].open).start()
            mh.current_task().group.owner.request_stop()
            try:
                await mh.sleep_forever()
            finally:
                group.start_soon(meet, gates[1])
                group.start_soon(meet, gates[1])
                with mh.CancelScope(shield=True):
                    while not gates[1].entered:
                        await mh.sleep(0.001)
                gates[1].open()

    with gates[0], gates[1], pytest.raises(LoopStopped):
        run(main, threads=2)


@on_threads
def test_a_program_that_does_not_mind_being_stopped_returns(threads):
    """T85a. What it returns counts."""

    async def main():
        mh.current_task().group.owner.request_stop()
        return await cancelled_here(mh.sleep_forever())

    assert run(main, threads=threads) is True


@on_threads
def test_what_leaves_a_join_ends_the_program_on_whichever_thread(threads):
    """FAULT 10. SystemExit of a handler: every task cleans up, and run() raises it."""
    cleaned = []

    def leave(number):
        raise SystemExit(number)

    async def main():
        mh.current_task().group.owner.post(leave, 5)
        try:
            await mh.sleep_forever()
        finally:
            with mh.CancelScope(shield=True):
                await mh.sleep(0.001)
            cleaned.append(1)

    with pytest.raises(SystemExit) as caught:
        run(main, threads=threads)
    assert caught.value.code == 5
    assert cleaned == [1]


def test_a_program_whose_threads_cannot_be_started_leaves_nothing(monkeypatch):
    """T85a. The main task never ran, and nobody is told that it was never awaited."""

    async def main():
        raise AssertionError("ran")

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            mh.run(main, threads=3)
    collect()


def test_a_loop_object_that_is_given_up_with_tasks_in_it_is_freed():
    """T99. Suspended tasks and queued ones end where they are; a wake that comes later finds nobody."""
    left = []

    async def main():
        loop = mh.current_task().group.owner
        event = mh.Event()

        async def waits():
            try:
                await event.wait()
            finally:
                left.append("closed")

        async with mh.create_task_group() as group:
            group.start_soon(waits)
            group.start_soon(waits)
            await wait_all_tasks_blocked()
            event._waits[0].complete()  # the one is queued, the other suspended
            loop.post(interrupt)
            waiting.extend([event, group])
            await event.wait()

    def interrupt():
        raise KeyboardInterrupt  # leaves join(): nobody serves the tasks any more

    waiting = []
    with pytest.raises(KeyboardInterrupt):
        mh.run(main)
    assert left == ["closed"] * 2
    with pytest.raises(LoopClosed):
        waiting.pop().start_soon(mh.sleep, 1)
    waiting.pop().set()
    wait_until(lambda: collect() is None and live_objects()["tasks"] == 0)


def test_a_thread_that_blocks_in_a_task_does_not_keep_an_interrupted_program(logged, monkeypatch):
    """FAULT 12. The second Ctrl-C is not kept waiting: the thread is left behind, and named."""
    monkeypatch.setattr(mh._guards, "EXIT_TIMEOUT", 0.05)
    gate = Gate()
    loops = []

    async def blocks():
        if on_main_thread():
            wait_until(lambda: gate.entered)  # the other one, on the other thread
        else:
            gate()

    def interrupt():
        if not on_main_thread():
            loops[0].call_later(0.001, interrupt)
            return
        raise KeyboardInterrupt

    async def main():
        loops.append(mh.current_task().group.owner)
        async with mh.create_task_group() as group:
            group.start_soon(blocks)
            group.start_soon(blocks)
            while not gate.entered:
                await mh.sleep(0.001)
            loops[0].call_later(0.001, interrupt)

    with gate, logged.at_level(logging.CRITICAL, "manyhands.loop"), pytest.raises(KeyboardInterrupt):
        mh.run(main, threads=2)
    loop = loops.pop()
    loop.close(LONG)
    for task in mh._sight.tasks_below(loop._root):
        task.abandon()
    loop._root = None


# --------------------------------------------------------------------------------------------------------------- Ctrl-C


@on_threads
def test_ctrl_c_cancels_a_program_that_waits(script, threads):
    """FAULT 12. Every task cleans up, with waits; run() raises one KeyboardInterrupt, and can be called again."""
    script(f"""
cleaned = []
async def child():
    try:
        await mh.sleep_forever()
    finally:
        with mh.CancelScope(shield=True):
            await mh.sleep(0.01)
        cleaned.append(1)
async def main():
    async with mh.create_task_group() as group:
        for _ in range(3):
            group.start_soon(child)
        await mh.testing.wait_all_tasks_blocked()
        thread(to_process)
for _ in range(3):
    try:
        mh.run(main, threads={threads})
    except KeyboardInterrupt:
        pass
    else:
        raise SystemExit("run returned")
assert cleaned == [1] * 9, cleaned
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
""")


def test_ctrl_c_reaches_a_program_that_computes(script):
    """FAULT 12. It is told at its next await; a task that never waits is interrupted by the second one, at once."""
    script("""
said = []
async def main():
    to_process()
    for _ in range(1000):
        pass
    said.append("computed")
    await mh.checkpoint()
    said.append("unreached")
try:
    mh.run(main)
except KeyboardInterrupt:
    assert said == ["computed"], said
else:
    raise SystemExit("run returned")
""")


def test_the_second_ctrl_c_interrupts_at_once(script):
    """FAULT 12. In a task that swallows the first; in one that waits under a shield. One KeyboardInterrupt leaves run()."""
    script("""
async def swallows(group_too):
    async def spin():
        try:
            await mh.sleep_forever()
        except mh.errors.Cancelled:
            to_process()
        while True:
            await mh.cancel_shielded_checkpoint()
    if group_too:
        async with mh.create_task_group() as group:
            group.start_soon(spin)
    else:
        await spin()
async def shielded():
    with mh.CancelScope(shield=True):
        await mh.sleep_forever()
def interrupt_twice(loop):
    to_process()
    wait_all_idle(loop)
    to_process()
async def main(body, *args):
    loop = mh.current_task().group.owner
    if body is shielded:
        loop.call_later(0.05, thread, interrupt_twice, loop)
    else:
        loop.call_later(0.05, to_process)
    await body(*args)
for body in [(swallows, False), (swallows, True), (shielded,)]:
    for threads in (1, 3):
        try:
            mh.run(main, *body, threads=threads)
        except KeyboardInterrupt:
            pass
        else:
            raise SystemExit("run returned")
import gc
gc.collect()
assert mh.testing.live_objects()["tasks"] == 0
""")


def test_ctrl_c_while_a_task_waits_for_a_job_stops_the_job_and_the_program(script):
    """FAULT 12. The task's cleanup stops its job; nobody waits for the job's own end."""
    script("""
pool = mh.ThreadPool(1)
reasons = []
def work(started):
    started.set()
    while True:
        mh.sleep_blocking(0.01)
async def main():
    started, ended = mh.Event(), mh.Event()
    job = pool.enqueue(work, started)
    job.add_done_callback(lambda job: ended.set())
    await started.wait()
    thread(to_process)
    try:
        await ended.wait()
    finally:
        job.stop()
        with mh.CancelScope(shield=True):
            await ended.wait()
        reasons.append(job.reason)
try:
    mh.run(main)
except KeyboardInterrupt:
    assert reasons == [mh.StopReason.CALLER], reasons
else:
    raise SystemExit("run returned")
assert pool.destroy(LONG) == []
""")


def test_a_handler_of_the_programs_own_is_left_alone(script):
    """FAULT 12. run() handles SIGINT only where Python's own handler is in place, and on the main thread."""
    script("""
got = []
def mine(number, frame):
    got.append(number)
signal.signal(signal.SIGINT, mine)
async def main():
    assert signal.getsignal(signal.SIGINT) is mine
    to_process()
    await mh.sleep(0.01)
    return 5
assert mh.run(main) == 5
assert got == [signal.SIGINT]
signal.signal(signal.SIGINT, signal.default_int_handler)
async def elsewhere():
    return signal.getsignal(signal.SIGINT)
answers = []
thread(lambda: answers.append(mh.run(elsewhere))).join(LONG)
assert answers == [signal.default_int_handler]
""")


# ------------------------------------------------------------------------------------------------------ async generators


async def counting(said):
    try:
        while True:
            yield len(said)
    finally:
        await mh.sleep(0.001)
        said.append("ended")


@on_threads
def test_an_async_generator_that_was_left_half_way_is_ended(threads):
    """T99. A forgotten one at once, by a task of its own; one that is held when the program ends, before run() returns."""

    async def main(said):
        async for _ in counting(said):
            break
        collect()
        while not said:
            await mh.checkpoint()
        held = counting(said)
        await anext(held)
        return held

    said = []
    held = run(main, said, threads=threads)
    assert said == ["ended", "ended"]
    del held


def test_an_async_generator_whose_end_fails_is_reported(logged):
    """T92. Nobody awaits it: so it is logged."""

    async def failing():
        try:
            yield 1
        finally:
            raise KeyError("at its end")

    async def main():
        held = failing()
        await anext(held)
        return 7

    assert run(main) == 7
    assert "left half-way raised" in logged.text


def test_an_async_generator_that_yields_inside_of_a_scope_and_is_left_is_told():
    """T85a. Its scope would be its consumer's for ever: so the consumer fails."""

    async def scoped():
        with mh.move_on_after(0.01):
            yield 1

    async def main():
        async for _ in scoped():
            break
        collect()
        await mh.sleep(0.02)  # the deadline does not reach beyond the generator
        return 1

    with pytest.raises(RuntimeError, match="async generator"):
        run(main)


# ------------------------------------------------------------------------------------------------------------ the clock


@on_threads
def test_a_program_that_sleeps_is_over_at_once_on_a_clock_that_jumps(threads):
    """T100. In the order of the times, at those times."""

    async def main():
        said = []

        async def sleeper(seconds):
            await mh.sleep(seconds)
            said.append((seconds, mh.current_time()))

        async with mh.create_task_group() as group:
            for seconds in (3600, 1, 86400, 60):
                group.start_soon(sleeper, seconds)
            await mh.sleep_until(30)
            said.append("main")
        return said

    expected = [(1, 1.0), "main", (60, 60.0), (3600, 3600.0), (86400, 86400.0)]
    assert run(main, threads=threads, clock=MockClock(autojump=True)) == expected


def test_a_sleep_is_never_early():
    """T100. On the real clock; and one until the past is a checkpoint."""

    async def main():
        for seconds in (0.0, 0.001, 0.01):
            began = mh.current_time()
            await mh.sleep(seconds)
            assert mh.current_time() >= began + seconds
        await mh.sleep_until(mh.current_time() - 1)

    run(main)


# --------------------------------------------------------------------------------------------------------------- leaving


@on_threads
def test_a_program_leaves_nothing_behind(threads):
    """T99. Also one that ends by an error with tasks in many places."""

    async def child(n):
        with mh.move_on_after(n / 1000):
            await mh.sleep_forever()

    async def main():
        async with mh.create_task_group() as group:
            for n in range(50):
                group.start_soon(child, n)
                group.create_task(child, n)
            await mh.sleep(0.01)
            raise KeyError

    for _ in range(3):
        with pytest.raises(ExceptionGroup):
            run(main, threads=threads)
    wait_until(lambda: gc.collect() is not None and live_objects()["tasks"] == 0)
