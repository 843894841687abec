"""The dashboard: what it shows of threads, loops, pools, jobs and connections, and its stop button."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

import manyhands as mh
from dashing import ask, seen, stop, wait_seen
from gate import Gate
from manyhands.debug import _look, _sight
from manyhands.server import Server
from pooling import Stoppable, occupied
from serving import Client, Working
from support import LONG, wait_until

READ = mh.Events.READ
dashboard = mh.debug.dashboard


def thread(data, **wanted):
    """The one thread of the list that has these values."""
    found = [row for row in data["threads"]["listed"] if all(row[key] == value for key, value in wanted.items())]
    return found[0] if len(found) == 1 else None


def test_it_says_what_each_joined_thread_runs(make_loop, joined, pair):
    """A handler by its watch's name, a callback by its own, and who waits; with the place in the program."""
    loop = make_loop(name="kitchen")
    ours, theirs = pair()
    with dashboard(loop) as page, joined(loop, 3), Gate() as gate, Gate() as other:

        def fry() -> None:
            other()

        loop.add(ours, READ, lambda watch, events: gate(), name="till")
        theirs.send(b"x")
        loop.post(fry)
        gate.wait_entered()
        other.wait_entered()
        data = wait_seen(page, lambda data: all(row["at"] for row in data["threads"]["listed"] if row["busy"]))
        of_loop = [row for row in data["threads"]["listed"] if row["kind"] == "loop"]
        assert [row["of"] for row in of_loop] == ["kitchen"] * 3
        assert len([row for row in of_loop if row["what"] == "waits" and row["since"] is None]) == 1
        busy = {row["what"]: row for row in of_loop if row["busy"]}
        assert busy["handler of watch till"]["since"] > 0
        if mh._guards.gil_enabled():  # without it only the last frame of a thread is looked at
            assert "gate.py" in busy["handler of watch till"]["at"]
            assert busy.keys() == {"handler of watch till", f"callback {name_of(fry)}"}


def name_of(function) -> str:
    """As the interpreter at hand has it in its frames."""
    return getattr(function.__code__, "co_qualname", function.__name__)


def test_it_names_the_task_that_runs(spawn):
    """A task is named as it was started, and counted by its state."""
    gate = Gate()

    async def child() -> None:
        gate()

    async def main() -> None:
        async with mh.create_task_group() as group:
            group.start_soon(child, name="the youngest")

    with dashboard() as page, gate:
        program = spawn(lambda: mh.run(main, name="family"))
        gate.wait_entered()
        data = wait_seen(
            page, lambda data: any(row["of"] == "family" and row["at"] for row in data["threads"]["listed"])
        )
        assert data["loops"][0]["tasks"] == {"SUSPENDED": 1, "RUNNING": 1}
        if mh._guards.gil_enabled():
            assert thread(data, of="family")["what"] == "task the youngest"
        gate.open()
        program.result()


def test_it_counts_watches_timers_and_strands(loop, pair):
    """As `stats()` does, and the strands with the most to do, the fullest first."""
    ours, _theirs = pair()
    loop.add(ours, READ, lambda watch, events: None)
    loop.call_later(3600, print)
    full, fuller = loop.strand(name="full"), loop.strand(name="fuller")
    full.post(print)
    for _ in range(3):
        fuller.post(print)
    with dashboard(loop) as page:
        (row,) = seen(page)["loops"]
    assert (row["watches"], row["timers"], row["joined"]) == (1, 1, 0)
    assert row["strands"] >= 2
    assert [(strand["name"], strand["pending"]) for strand in row["busiest"]] == [("fuller", 3), ("full", 1)]


def test_jobs_that_wait_for_their_owner_are_listed_behind_those_that_run_or_are_queued(make_pool, loop):
    """There may be thousands of these: the streams of a server."""
    pool, gate = make_pool(1), Gate()

    def stream():
        yield mh.SYNC(1)

    with dashboard(pool) as page, gate:
        owner = loop.strand()
        waiting = [pool.enqueue_steps(stream, owner=owner, on_sync=lambda *_: None) for _ in range(3)]
        wait_until(lambda: pool.stats().syncing_parked == len(waiting))
        running, queued = pool.enqueue(gate), pool.enqueue(int)
        gate.wait_entered()
        listed = seen(page)["jobs"]["listed"]
        assert [row["id"] for row in listed] == [job.id for job in (running, queued, *waiting)]
        gate.open()
        queued.result(LONG)
        for job in waiting:
            job.stop()


def test_it_lists_jobs_with_state_age_owner_and_progress(make_pool, loop):
    """Those that run first, then those that wait, then those that have ended; each with its thread."""
    pool = make_pool(1, name="reports")
    ended = pool.enqueue(int, name="over", keep=True)
    ended.result(LONG)
    told, gate = threading.Event(), Gate()

    def work() -> None:
        mh.current_job().progress(3, 12, "three of twelve")
        told.set()
        gate()

    with gate, dashboard(pool) as page:
        strand = loop.strand(name="desk")
        running = pool.enqueue(work, name="report", owner=strand)
        assert told.wait(LONG)
        queued = pool.enqueue(int, name="later")
        jobs = seen(page)["jobs"]
        gate.open()
        running.result(LONG)
    assert [(row["id"], row["status"]) for row in jobs["listed"]] == [
        (running.id, "RUNNING"),
        (queued.id, "QUEUED"),
        (ended.id, "FINISHED"),
    ]
    row = jobs["listed"][0]
    assert (row["name"], row["owner"], row["pool"], row["thread"]) == (
        "report",
        "strand desk",
        "reports",
        "mh-reports-0",
    )
    assert row["progress"] == {"done": 3.0, "total": 12.0, "note": "three of twelve"}
    assert 0 <= row["age"] < LONG
    assert [row["can_stop"] for row in jobs["listed"]] == [True, True, False]
    assert jobs["counted"] == 3


def test_a_thread_of_a_pool_is_named_by_its_job_and_one_that_waits_is_there(make_pool):
    """`mh-<pool>-<n>`: what it runs, for how long, where."""
    pool = make_pool(2, name="reports")
    with dashboard(pool) as page:
        with occupied(pool, 2) as jobs:
            data = wait_seen(page, lambda data: sum(row["at"] is not None for row in data["threads"]["listed"]) >= 2)
            row = thread(data, job=jobs[1].id)
            assert (row["kind"], row["of"], row["what"]) == ("pool", "reports", "job occupied 1")
            assert row["name"].startswith("mh-reports-")
        data = wait_seen(page, lambda data: sum(row["what"] == "waits" for row in data["threads"]["listed"]) == 2)
        assert not any(row["busy"] for row in data["threads"]["listed"])


def test_the_histograms_count_what_was_run(make_loop, make_pool):
    """Of handlers, of the time in the queue and of the jobs; the last bound is open."""
    loop, pool = make_loop(), make_pool()
    for _ in range(5):
        loop.post(int)
    loop.join(until_idle=True)
    pool.enqueue(int).result(LONG)
    with dashboard(loop, pool) as page:
        data = wait_seen(page, lambda data: sum(count for _, count in data["pools"][0]["run_seconds"]) == 1)
    assert sum(count for _, count in data["loops"][0]["handler_seconds"]) == 5
    assert sum(count for _, count in data["pools"][0]["wait_seconds"]) == 1
    assert data["pools"][0]["wait_seconds"][-1][0] is None


def test_a_server_is_shown_with_its_connections_by_state_and_its_requests():
    """Idle, half-way through a request, busy; a request's owner is its client, and it brings loop and pool along."""
    view = Working()
    with Server(view, threads=2, name="shop") as server, dashboard(server) as page:
        with Client(server.address) as idle, Client(server.address) as slow, Client(server.address) as busy:
            idle.ask()
            slow.sendall(b"GET / HT")
            busy.sendall(b"GET /work HTTP/1.1\r\nHost: h\r\n\r\n")
            view.wait_begun()
            data = wait_seen(
                page, lambda data: data["servers"][0]["connections"] == {"idle": 1, "reading": 1, "busy": 1}
            )
            assert data["servers"][0]["address"] == server.url
            assert [row["key"] for row in data["loops"]] == ["shop"]
            assert [row["key"] for row in data["pools"]] == ["shop-view"]
            (job,) = data["jobs"]["listed"]
            assert job["name"] == "GET /work"
            assert job["owner"] == "client {} port {}".format(*busy.getsockname())
            assert thread(data, job=job["id"])["busy"]
        wait_until(lambda: server.connections == 0)


def test_a_server_on_a_unix_socket_is_shown_by_its_path(tmp_path):
    """Its clients have no address."""
    view = Working()
    with Server(view, bind=f"unix:{tmp_path}/s", threads=1) as server, dashboard(server) as page:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/s")
            client.sendall(b"GET /work HTTP/1.1\r\nHost: h\r\n\r\n")
            view.wait_begun()
            data = wait_seen(page, lambda data: data["jobs"]["listed"])
        wait_until(lambda: server.connections == 0)
    assert str(tmp_path) in data["servers"][0]["address"]
    assert data["jobs"]["listed"][0]["owner"] == "client"


def test_without_a_source_it_shows_the_whole_process_but_not_itself(make_loop, make_pool):
    """Also what is made when it is open already."""
    with dashboard() as page:
        make_loop(name="late")
        make_pool(name="later")
        data = seen(page)
    assert [row["key"] for row in data["loops"]] == ["late"]
    assert [row["key"] for row in data["pools"]] == ["later"]
    assert data["servers"] == []


def test_a_loop_brings_its_pool_along_and_each_is_shown_once(make_loop, make_pool):
    """A pool that is named twice has one row."""
    pool = make_pool(name="its own")
    loop = make_loop(pool=pool)
    with dashboard(loop, pool, loop) as page:
        data = seen(page)
    assert (len(data["loops"]), [row["key"] for row in data["pools"]]) == (1, ["its own"])


def test_two_of_one_name_are_told_apart(make_loop):
    """By a number; metrics need it."""
    with dashboard(make_loop(name="a"), make_loop(name="a")) as page:
        assert [row["key"] for row in seen(page)["loops"]] == ["a", "a#2"]


def test_a_loop_that_was_closed_is_not_shown_any_more(make_loop):
    """And the page goes on."""
    loop, other = make_loop(name="gone"), make_loop(name="here")
    with dashboard(loop, other) as page:
        loop.close()
        assert [row["key"] for row in seen(page)["loops"]] == ["here"]


def test_the_stop_button_stops_a_job_that_runs_and_one_that_waits(make_pool):
    """CALLER is the reason; a job that has ended or never was is said so."""
    pool, work = make_pool(1), Stoppable()
    with dashboard(pool) as page:
        running = pool.enqueue(work, name="endless")
        work.wait_entered()
        queued = pool.enqueue(pytest.fail, name="never")
        assert stop(page, queued)[::2] == (200, json.dumps({"job": queued.id, "stopped": True}).encode())
        assert stop(page, running)[0] == 200
        assert queued.cancelled()
        with pytest.raises(mh.JobCancelled):
            running.result(LONG)
        assert work.told == [mh.StopReason.CALLER]
        assert stop(page, running)[0] == 404
        assert stop(page, 10**30)[0] == 404


def test_after_a_stop_the_next_look_is_a_new_one(make_pool, monkeypatch):
    """However long the last one would have been good for."""
    monkeypatch.setattr(_sight, "FRESH", 3600.0)
    pool = make_pool(1)
    with dashboard(pool) as page, occupied(pool):
        queued = pool.enqueue(int)
        assert [job["can_stop"] for job in seen(page)["jobs"]["listed"]] == [True, True]
        stop(page, queued)
        assert {job["id"]: job["can_stop"] for job in seen(page)["jobs"]["listed"]}.get(queued.id) is not True


def test_many_who_look_cost_one_look(make_loop, monkeypatch):
    """Within a moment all of them get the same; a look that costs much is good for ten times as long."""
    looks = []
    honest = _sight.Sight._look
    monkeypatch.setattr(_sight, "FRESH", 3600.0)
    monkeypatch.setattr(_sight.Sight, "_look", lambda sight: looks.append(sight) or honest(sight))
    with dashboard(make_loop()) as page:
        assert seen(page) == seen(page) == seen(page)
        assert ask(page, "/metrics")[0] == 200
    assert len(looks) == 1

    times, costs = iter([0.0, 5.0, 54.0, 54.1, 56.0, 57.0]), iter([3.0, 8.0, 8.0, 9.0])
    monkeypatch.setattr(_sight, "FRESH", 0.2)
    monkeypatch.setattr(_look.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(_look.time, "thread_time", lambda: next(costs))
    monkeypatch.setattr(_sight.Sight, "_look", lambda sight: looks.append(sight) or {})
    sight = _sight.Sight([make_loop()])
    looks.clear()
    for expected in (1, 1, 1, 2):
        sight.look()
        assert len(looks) == expected


def test_it_answers_while_every_thread_of_the_program_is_stuck(make_loop, make_pool, joined):
    """It has threads of its own."""
    loop, pool = make_loop(), make_pool(1)
    with dashboard(loop, pool) as page, joined(loop, 1), Gate() as gate, occupied(pool):
        loop.post(gate)
        gate.wait_entered()
        assert ask(page, "/health")[::2] == (200, b"ok\n")
        assert seen(page)["pools"][0]["busy"] == 1


def test_looking_writes_no_access_log(loop, logged):
    """A page asks once a second; the program's own log is for its own requests."""
    logged.set_level("DEBUG")
    with dashboard(loop) as page:
        ask(page, "/")
        ask(page, "/data.json")
        assert ask(page, "/%ff")[0] == 404
    assert [record for record in logged.records if record.name == "manyhands.access"] == []


def test_the_end_of_the_block_ends_its_threads_and_frees_its_port(loop):
    """`close()` does the same, twice too."""
    with dashboard(loop) as page:
        assert page.url.startswith("http://127.0.0.1:")
        port = int(page.url.rstrip("/").rpartition(":")[2])
        assert page.url in repr(page)
        assert any(thread.name.startswith("mh-dashboard") for thread in threading.enumerate())
        with pytest.raises(OSError, match="in use"):
            dashboard(loop, port=port)
    page.close()
    assert not any(thread.name.startswith("mh-dashboard") for thread in threading.enumerate())
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


def test_one_that_nobody_holds_or_closes_ends_with_the_process(subprocess_python):
    """At once and in silence, in the development mode too, with a client connected; in a forked child as well."""
    done = subprocess_python(
        "import http.client, os, urllib.parse, manyhands as mh\n"
        "port = urllib.parse.urlsplit(mh.debug.dashboard().url).port\n"
        "client = http.client.HTTPConnection('127.0.0.1', port)\n"
        "client.request('GET', '/health')\n"
        "print(client.getresponse().read(), flush=True)\n"
        "client.sock.detach()  # stays connected\n"
        "if os.fork():\n    assert os.wait()[1] == 0\n",
        env={"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error,ignore::DeprecationWarning"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "b'ok\\n'\n"


@pytest.mark.parametrize(
    ("sources", "options", "error", "words"),
    [
        (["loop"], {}, TypeError, "EventLoops, ThreadPools and Servers, and got 'loop'"),
        ([], {"port": "80"}, TypeError, "port must be an int"),
        ([], {"port": 65_536}, ValueError, "at most 65535"),
        ([], {"token": b"x"}, TypeError, "token must be a str or None, and got bytes"),
        ([], {"token": ""}, ValueError, "visible ASCII"),
        ([], {"token": "two words"}, ValueError, "visible ASCII"),
        ([], {"token": "gehe\u00efm"}, ValueError, "visible ASCII"),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_call(sources, options, error, words):
    """With what was expected; a token is not repeated."""
    with pytest.raises(error, match=words):
        dashboard(*sources, **options)


def test_a_handler_cannot_open_or_close_one(loop):
    """It would wait for threads; the error names it."""
    raised = []

    def handler() -> None:
        for call in (lambda: dashboard(loop), page.close):
            try:
                call()
            except mh.WouldDeadlock as error:
                raised.append(error)

    with dashboard(loop) as page:
        loop.post(handler)
        loop.join(until_idle=True)
        assert len(raised) == 2
        raised.clear()


@pytest.mark.parametrize("missing", ["httptools", "websockets"])
def test_without_what_the_server_needs_it_says_which_extra_to_install(subprocess_python, missing):
    """And the rest of the library, `manyhands.debug` included, is there without it."""
    done = subprocess_python(
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "import manyhands as mh\n"
        "try:\n    mh.debug.dashboard()\n"
        "except ImportError as error:\n    print(error.name, error)\n"
    )
    assert done.stderr == ""
    assert done.stdout.startswith(f"{missing} manyhands.debug.dashboard() needs {missing}")
    assert "pip install 'manyhands[server]'" in done.stdout


def test_who_opens_none_loads_neither_server_nor_page(subprocess_python):
    """Importing the package does not pay for it."""
    done = subprocess_python(
        "import sys, manyhands\n"
        "print([name for name in sys.modules if name.startswith(('manyhands.server', 'manyhands.debug._s', 'httptools', "
        "'prometheus_client', 'rich'))])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_a_look_that_had_to_wait_is_soon_taken_again(monkeypatch):
    """What counts is the processor's time that it took: on a busy machine one would else see the past for ten times as long."""
    sight, waited = _sight.Sight([]), threading.Event()
    monkeypatch.setattr(sight, "_look", lambda: {"waited": waited.wait(0.5)})
    assert sight.look() == {"waited": False}
    assert sight._good_until - time.monotonic() < 2.0
