"""What a worker says to the page that sums them is trusted in nothing: not its length, nor when it comes, nor what it is."""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from manyhands.debug import _summed_sight, _worker
from manyhands.debug._figures import Figures
from manyhands.debug._sight import Sight
from manyhands.debug._summed_sight import SummedSight, WorkerSilent
from manyhands.debug._sums import merge_listed
from pooling import occupied
from support import LONG, wait_until


@pytest.fixture
def sight(monkeypatch) -> SummedSight:
    """One that looks anew each time, and waits for nobody."""
    monkeypatch.setattr(_summed_sight, "FRESH", 0.0)
    monkeypatch.setattr(_summed_sight, "PATIENCE", 0.0)
    return SummedSight("shop:app", os.getpid())


@pytest.fixture
def said(loop, make_pool) -> dict:
    """What a worker with a loop, a pool and two jobs says."""
    pool = make_pool(1, name="reports")
    with occupied(pool):
        pool.enqueue(int, name="later")
        seen = json.loads(Sight([loop, pool]).look_json())
        pool.finish()
    return seen


@contextlib.contextmanager
def worker(sight: SummedSight, number: int = 1, pid: int = 100) -> Iterator[socket.socket]:
    """A worker whose words are the test's."""
    ours, theirs = socket.socketpair()
    tell(sight, number, pid, "serving", theirs)
    with ours:
        ours.settimeout(LONG)
        yield ours
        tell(sight, number, pid, "gone")


def tell(sight: SummedSight, number: int, pid: int, state: str, sock: socket.socket | None = None) -> None:
    sight.hear({"worker": number, "pid": pid, "state": state, "born": 0.0, "restarts": 0}, sock)


def answers(spawn: Callable, sock: socket.socket, *seen: object) -> None:
    """Let the worker answer so many questions, with this."""

    def run() -> None:
        with sock.makefile("rb") as questions:
            for each in seen:
                number = json.loads(questions.readline())["id"]
                # A number that JSON has and Python has not.
                words = json.dumps({"id": number, "seen": each}).replace("Infinity", "1e999")
                sock.sendall(words.encode() + b"\n")

    spawn(run)


@pytest.fixture
def patient(sight, monkeypatch) -> None:
    """Every worker of the test answers, and is waited for."""
    monkeypatch.setattr(_summed_sight, "PATIENCE", LONG)


def test_an_answer_may_come_in_pieces_and_behind_the_rest_of_another(sight, said, monkeypatch):
    """The end of what was said to a process that is gone is no answer."""
    with worker(sight) as sock:
        text = b'0}}]}\n{"id": 77, "seen": {}}\n' + json.dumps({"id": 1, "seen": said}).encode() + b"\n"
        honest = _worker.Worker.ask

        def ask(each: _worker.Worker, number: int, **question: int) -> bool:
            asked = honest(each, number, **question)
            for begin in range(0, len(text), 1000):
                sock.sendall(text[begin : begin + 1000])
            return asked

        monkeypatch.setattr(_worker.Worker, "ask", ask)
        data = sight.look()
        assert data["workers"][0]["answered"]
        assert data["jobs"]["counted"] == 2


def test_one_that_does_not_answer_is_asked_again_after_a_while_and_no_more_after_some(sight, monkeypatch):
    """Not at every look; and its late answers are thrown away."""
    now = [1000.0]
    monkeypatch.setattr(_worker.time, "monotonic", lambda: now[0])
    with worker(sight) as sock:
        for _ in range(3):
            assert not sight.look()["workers"][0]["answered"]
        assert sock.recv(1000) == b'{"id": 1}\n'
        for _ in range(20):
            now[0] += _summed_sight.AGAIN
            row = sight.look()["workers"][0]
        assert row["silent"] == 20 * _summed_sight.AGAIN
        assert sock.recv(1000).count(b"\n") == _worker.MOST_UNANSWERED - 1


def test_a_stop_of_one_that_does_not_answer_is_said_so(sight):
    """What was asked may still be done, and the sentence says that."""
    with worker(sight) as sock:
        with pytest.raises(WorkerSilent, match="may yet stop job 7"):
            sight.stop(7, 100)
        assert json.loads(sock.recv(1000)) == {"id": 1, "stop": 7}
        assert sight.stop(7, 101) is None


def test_one_that_says_too_much_is_heard_no_more(sight, monkeypatch):
    """Its socket is closed, and its row says why."""
    monkeypatch.setattr(_worker, "MOST_ANSWER", 1 << 20)
    with worker(sight) as sock:
        sock.setblocking(False)
        for _ in range(100):
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while True:
                    sock.send(b"x" * 65_536)
            if sight.look()["workers"][0]["trouble"]:
                break
        assert sight.look()["workers"][0]["trouble"] == "it said more than 1 MiB"
        with pytest.raises(ConnectionError):
            sock.send(b"x")


def test_one_that_hangs_up_is_said_to(sight):
    """It lives, as the supervisor knows, and cannot be asked."""
    with worker(sight) as sock:
        sock.shutdown(socket.SHUT_RDWR)
        row = sight.look()["workers"][0]
        assert (row["state"], row["answered"], row["trouble"]) == ("serving", False, "it answers no questions")
        assert sight.trouble() == "No worker serves and answers."


def spoilt(seen: dict, how: str) -> object:
    """The same, but one thing in it makes no sense."""
    seen = copy.deepcopy(seen)
    match how:
        case "no object":
            return [seen]
        case "nothing":
            return None
        case "lacks pools":
            del seen["pools"]
        case "pools are a number":
            seen["pools"] = 5
        case "a count is a word":
            seen["pools"][0]["busy"] = "many"
        case "a bucket is no pair":
            seen["pools"][0]["run_seconds"][3] = 7
        case "a job lacks its name":
            del seen["jobs"]["listed"][0]["name"]
        case "a thread lacks its place":
            seen["threads"]["listed"] = [{"kind": "other"}]
        case "an age is too large for a number":
            seen["jobs"]["listed"][0]["age"] = float("inf")
        case "a key is a list":
            seen["loops"][0]["key"] = []
        case "the process has used a word":
            seen["process"]["cpu_seconds"] = "x"
        case "the process has used for ever":
            seen["process"]["cpu_seconds"] = float("inf")
    return seen


@pytest.mark.parametrize(
    "how",
    [
        "no object",
        "nothing",
        "lacks pools",
        "pools are a number",
        "a count is a word",
        "a bucket is no pair",
        "a job lacks its name",
        "a thread lacks its place",
        "an age is too large for a number",
        "a key is a list",
        "the process has used a word",
        "the process has used for ever",
    ],
)
@pytest.mark.usefixtures("patient")
def test_what_makes_no_sense_spoils_only_its_own_row(sight, said, how, spawn):
    """The other worker is shown; once it makes sense again it is too."""
    with worker(sight, 1, 100) as mad, worker(sight, 2, 200) as sane:
        answers(spawn, mad, spoilt(said, how), said)
        answers(spawn, sane, said, said)
        data = json.loads(sight.look_json())
        assert [row["answered"] for row in data["workers"]] == [False, True]
        assert data["workers"][0]["trouble"].startswith("it said what makes no sense")
        assert data["jobs"]["counted"] == 2
        data = json.loads(sight.look_json())
        assert [(row["answered"], row["trouble"]) for row in data["workers"]] == [(True, None)] * 2
        assert data["jobs"]["counted"] == 4


@pytest.mark.usefixtures("patient")
def test_buckets_that_differ_do_not_end_the_page(sight, said, spawn):
    """Of another version, which cannot be: one of the two is not shown."""
    other = copy.deepcopy(said)
    other["pools"][0]["run_seconds"] = [[1.0, 5], [None, 1]]
    with worker(sight, 1, 100) as first, worker(sight, 2, 200) as second:
        answers(spawn, first, said)
        answers(spawn, second, other)
        data = sight.look()
        assert [row["answered"] for row in data["workers"]] == [True, False]


def test_what_is_no_json_or_too_deep_is_no_answer(sight, said, spawn, monkeypatch):
    """And the next one that is counts."""
    with worker(sight) as sock:
        for line in (b"\xff", b"[" * 100_000, b'{"id": 1, "seen": NaN}', b'{"id": []}', b"7", b""):
            sock.sendall(line + b"\n")
            assert not sight.look()["workers"][0]["answered"]
        answers(spawn, sock, said, said)
        monkeypatch.setattr(_summed_sight, "PATIENCE", LONG)
        wait_until(lambda: sight.look()["workers"][0]["answered"])


def test_a_worker_answers_a_question_a_line_and_hangs_up_at_what_is_none(make_pool, caplog):
    """What there is to see, and whether a job was stopped; it says so in a line of the log."""
    pool = make_pool(1, name="reports")
    for last in (b"nonsense\n", b'{"id": 1' + b" " * 300 + b"}\n", b"7\n"):
        ours, theirs = socket.socketpair()
        with ours, Figures(theirs, pool), ours.makefile("rb") as answers:
            ours.settimeout(LONG)
            ours.sendall(b'{"id": 1}\n{"id": 2, "stop": 999999}\n')
            seen = json.loads(answers.readline())
            assert (seen["id"], seen["seen"]["pools"][0]["key"]) == (1, "reports")
            assert json.loads(answers.readline()) == {"id": 2, "stopped": None}
            ours.sendall(last)
            assert answers.readline() == b""
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3


def test_a_look_that_fails_is_no_end_of_the_figures(make_pool, caplog, monkeypatch):
    """There was no descriptor for it: it is asked again."""
    pool = make_pool(1, name="reports")
    looks = [OSError(errno.EMFILE, "Too many open files"), b"{}"]

    def look_json(_):
        found = looks.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(Sight, "look_json", look_json)
    ours, theirs = socket.socketpair()
    with ours, Figures(theirs, pool), ours.makefile("rb") as answers:
        ours.settimeout(LONG)
        ours.sendall(b'{"id": 1}\n{"id": 2}\n')
        assert json.loads(answers.readline()) == {"id": 1}
        assert json.loads(answers.readline()) == {"id": 2, "seen": {}}
    assert "Too many open files" in caplog.text
    caplog.clear()


def test_streams_that_wait_do_not_hide_the_jobs_that_run():
    """As on the page of one process: who runs comes first, then who waits for a thread, for a client, and who ended."""
    states = ["FINISHED", *["SYNCING"] * 300, "QUEUED", "RUNNING"]
    jobs = [{"status": status, "age": age} for age, status in enumerate(reversed(states))]
    merged = merge_listed([(1, 100, {"jobs": {"counted": len(jobs), "listed": jobs[:200]}})], "jobs")
    assert [row["status"] for row in merged["listed"][:3]] == ["RUNNING", "QUEUED", "SYNCING"]
    assert [row["age"] for row in merged["listed"][2:4]] == [199, 198]
