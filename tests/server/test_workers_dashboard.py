"""`manyhands serve --workers N --dashboard PORT`: one page for all of them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from browsing import browser
from commands import run_command
from dashing import ask, seen, wait_seen
from supervised import APP, Serving, alive, serving, stopped
from support import LONG, wait_until

TWO = ("--workers", "2", "--dashboard", "0")


def all_answer(data: dict) -> bool:
    return data["workers"] and all(worker["answered"] and worker["state"] == "serving" for worker in data["workers"])


def count(buckets: list) -> int:
    return sum(number for _, number in buckets)


def metrics(served: Serving, up: tuple[int, int] = (1, 1)) -> dict:
    """(name of a sample, its labels' values but the bound) -> value; of a moment when these workers answer."""
    found: dict = {}

    def look() -> bool:
        found.update(scraped(served))
        return (found["manyhands_worker_up", "1"], found["manyhands_worker_up", "2"]) == up

    wait_until(look)
    return found


def scraped(served: Serving) -> dict:
    status, _, body = ask(served, "/metrics")
    assert status == 200, body
    return {
        (sample.name, *(value for name, value in sample.labels.items() if name != "le")): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


def stop(served: Serving, body: str) -> tuple[int, bytes]:
    status, _, answer = ask(served, "/stop", "POST", {"Content-Type": "application/json"}, body.encode())
    return status, answer


def test_the_page_sums_what_two_workers_do_and_says_who_has_a_job(tmp_path):
    """Threads, connections, jobs and histograms; a row for each worker, and its number on what is listed."""
    with serving(tmp_path, *TWO) as served, served.busy(served.workers[0]), served.busy(served.workers[1]):
        data = wait_seen(served, lambda data: all_answer(data) and data["pools"][0]["busy"] == 2)
        assert data["process"]["name"] == "site_here:app"
        assert data["process"]["pid"] == served.process.pid
        assert [(row["worker"], row["pid"], row["busy"]) for row in data["workers"]] == [
            (1, served.workers[0], 1),
            (2, served.workers[1], 1),
        ]
        assert [(row["key"], row["limit"]) for row in data["pools"]][:1] == [("http-view", 4)]
        assert [row["key"] for row in data["loops"]][:1] == ["http"]
        assert data["loops"][0]["joined"] == 6  # two for requests and one for the connections, twice
        assert data["servers"][0]["connections"] == {"busy": 2}
        assert count(data["pools"][0]["wait_seconds"]) == 2
        assert data["jobs"]["counted"] == 2
        assert {(job["worker"], job["pid"]) for job in data["jobs"]["listed"]} == set(enumerate(served.workers, 1))
        assert {row["pid"] for row in data["threads"]["listed"]} == set(served.workers)
        assert data["threads"]["counted"] == sum(row["threads"] for row in data["workers"])

        found = metrics(served)
        assert found["manyhands_pool_busy_jobs", "http-view"] == 2
        assert found["manyhands_pool_wait_seconds_count", "http-view"] == 2
        assert found["manyhands_server_refused_requests_total", "http", "400"] == 0
        assert found["manyhands_worker_restarts_total", "1"] == 0
        assert found["manyhands_worker_cpu_seconds_total", "2"] > 0
        assert not any(name.startswith("process_") for name, *_ in found)
        wait_until(lambda: ask(served, "/health")[::2] == (200, b"ok\n"))


def test_requests_that_workers_refused_are_summed(tmp_path):
    """By status; each worker has its own count."""
    with serving(tmp_path, *TWO) as served:
        for worker in served.workers:
            (other,) = (number for number in served.workers if number != worker)
            with stopped(other), socket.create_connection(("127.0.0.1", served.port), LONG) as client:
                client.sendall(b"rubbish\r\n\r\n")
                assert client.recv(12) == b"HTTP/1.1 400"
        wait_until(lambda: metrics(served)["manyhands_server_refused_requests_total", "http", "400"] == 2)


def test_a_job_is_stopped_in_whichever_worker_has_it(tmp_path):
    """The other's goes on, although it may have the same number; without the process, or with one that has gone: not at all."""
    with serving(tmp_path, *TWO) as served:
        first, second = served.workers
        with served.busy(first), served.busy(second) as client:
            data = wait_seen(served, lambda data: all_answer(data) and data["jobs"]["counted"] == 2)
            jobs = {job["pid"]: job["id"] for job in data["jobs"]["listed"]}
            assert stop(served, f'{{"job": {jobs[second]}}}')[0] == 400
            assert stop(served, f'{{"job": {jobs[second]}, "pid": {served.process.pid}}}')[0] == 404
            assert stop(served, f'{{"job": 999999, "pid": {second}}}')[0] == 404
            assert stop(served, f'{{"job": {jobs[second]}, "pid": {second}}}')[0] == 200
            assert client.recv(12) == b"HTTP/1.1 503"
            data = wait_seen(served, lambda data: data["jobs"]["counted"] == 1)
            assert data["jobs"]["listed"][0]["pid"] == first
            assert data["jobs"]["listed"][0]["can_stop"]


def test_a_worker_that_hangs_is_said_to_and_the_others_are_shown(tmp_path):
    """What grows does not fall meanwhile; once it goes on it is there again. Nothing waits for it twice."""
    with serving(tmp_path, *TWO) as served:
        first, second = served.workers
        for worker in (first, second):
            with stopped(second if worker == first else first):
                assert served.ask()[0] == worker
        before = wait_seen(served, lambda data: all_answer(data) and count(data["pools"][0]["run_seconds"]) == 2)
        with stopped(second):
            data = wait_seen(served, lambda data: [row["answered"] for row in data["workers"]] == [True, False])
            row = data["workers"][1]
            assert (row["state"], row["threads"], row["restarts"]) == ("serving", None, 0)
            assert row["silent"] > 0
            assert data["pools"][0]["limit"] == 2
            assert count(data["pools"][0]["run_seconds"]) == 2
            assert data["process"]["cpu_seconds"] >= before["process"]["cpu_seconds"]
            assert {row["pid"] for row in data["threads"]["listed"]} == {first}
            found = metrics(served, up=(1, 0))
            assert found["manyhands_pool_finished_jobs_total", "http-view"] == 2
            status, words = stop(served, f'{{"job": 1, "pid": {second}}}')
            assert (status, words[:29]) == (504, b"Worker 2 did not answer; if i")
            wait_until(lambda: ask(served, "/health")[0] == 200)
            with stopped(first):
                wait_until(lambda: ask(served, "/health")[0] == 503)
        data = wait_seen(served, all_answer)
        assert data["pools"][0]["limit"] == 4
        assert [row["pid"] for row in data["workers"]] == served.workers


def test_a_worker_that_was_killed_is_counted_and_what_it_did_is_kept(tmp_path):
    """The sums do not fall; the one in its place has its number."""
    with serving(tmp_path, *TWO) as served:
        first, second = served.workers
        with stopped(second):
            for _ in range(5):
                served.ask()
        wait_seen(served, lambda data: all_answer(data) and count(data["pools"][0]["run_seconds"]) == 5)
        os.kill(first, signal.SIGKILL)
        data = wait_seen(
            served,
            lambda data: all_answer(data) and data["workers"][0]["restarts"] == 1,
        )
        assert data["workers"][0]["pid"] not in (first, second)
        assert data["workers"][1]["pid"] == second
        assert count(data["pools"][0]["run_seconds"]) == 5
        found = metrics(served)
        assert found["manyhands_worker_restarts_total", "1"] == 1
        assert found["manyhands_pool_finished_jobs_total", "http-view"] == 5


@pytest.mark.parametrize("how", ["killed", "asleep"])
def test_a_page_process_that_ends_or_hangs_is_nothing_to_the_workers(tmp_path, how):
    """Killed, it is back at the same address, told of every worker; asleep, workers are replaced and all of it ends."""
    with serving(tmp_path, *TWO) as served:
        page = served.page()
        if how == "killed":
            os.kill(page, signal.SIGKILL)
            wait_until(
                lambda: not alive(page) and any(b"_page_main" in told(child, "cmdline") for child in served.children())
            )
            data = wait_seen(served, all_answer)
            assert [row["pid"] for row in data["workers"]] == served.workers
        else:
            with stopped(page):
                os.kill(served.workers[0], signal.SIGKILL)
                wait_until(lambda: len(workers_of(served)) == 2 and served.workers[0] not in workers_of(served))
                with stopped(served.workers[1]):
                    assert served.ask()[0] not in served.workers
                status, _, _ = served.end(signal.SIGTERM)
                assert status == 0
                assert not alive(page)


def told(process: int, what: str) -> bytes:
    """Its "cmdline" or its "environ", as it was started."""
    try:
        return Path(f"/proc/{process}/{what}").read_bytes()
    except FileNotFoundError:
        return b""


def workers_of(served: Serving) -> list[int]:
    return [child for child in served.children() if b"_serve_worker" in told(child, "cmdline")]


def test_a_signal_to_all_of_the_processes_ends_them_in_silence(tmp_path):
    """As a service manager may send it: the page's process waits for its supervisor, and is no error."""
    with serving(tmp_path, *TWO) as served:
        wait_seen(served, all_answer)
        page = served.page()
        os.kill(page, signal.SIGTERM)
        os.kill(page, signal.SIGINT)
        wait_seen(served, all_answer)
        assert served.page() == page
        status, _, complaints = served.end(signal.SIGTERM)
        assert (status, complaints) == (0, "")
        assert not alive(page)


def test_clients_of_the_page_are_nothing_to_the_supervisor(tmp_path):
    """More of them than are served at once, with half a request each: workers are replaced, and the end is as ever."""
    with serving(tmp_path, *TWO) as served, contextlib.ExitStack() as clients:
        port = int(served.url.rstrip("/").rpartition(":")[2])
        for _ in range(40):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port), LONG))
            client.sendall(b"GET /data.json HTTP/1.1\r\nHost: local")
        os.kill(served.workers[0], signal.SIGKILL)
        wait_until(lambda: len(workers_of(served)) == 2 and served.workers[0] not in workers_of(served))
        assert served.end(signal.SIGINT)[0] == 0


def test_with_reload_it_shows_the_one_that_is_there_and_that_none_is(tmp_path):
    """A change, one that cannot be imported, and its mending."""
    with serving(tmp_path, "--reload", "--dashboard", "0") as served:
        (row,) = wait_seen(served, all_answer)["workers"]
        assert row["pid"] == served.workers[0]
        source = tmp_path / "site_here.py"
        source.write_text(APP.replace("first", "second"))
        wait_seen(served, lambda data: all_answer(data) and data["workers"][0]["pid"] != row["pid"])
        source.write_text("def app(:\n")
        data = wait_seen(served, lambda data: data["workers"][0]["state"] == "waiting")
        assert (data["pools"], data["jobs"]) == ([], {"counted": 0, "listed": []})
        assert ask(served, "/health")[::2] == (503, b"No worker serves and answers.\n")
        source.write_text(APP.replace("first", "third"))
        data = wait_seen(served, all_answer)
        assert data["workers"][0]["restarts"] == 0
        assert served.end(signal.SIGINT)[0] == 0


def test_the_token_is_asked_for_and_only_the_page_has_it(tmp_path):
    """As with one process: for the figures and for a stop, by every name; without one only by this machine's names.

    It is on no command line, and in the environment of the page's process alone: the workers run the application.
    """
    with serving(tmp_path, *TWO, token="open-sesame") as served:
        for path in ("/data.json", "/metrics"):
            assert ask(served, path)[0] == 401
            own = {"Authorization": "Bearer open-sesame", "Host": "dash.example"}
            assert ask(served, path, headers=own)[0] == 200
        assert stop(served, "{}")[0] == 401
        assert ask(served, "/health")[0] == 200
        assert not any(b"sesame" in told(child, "cmdline") for child in served.children())
        assert [child for child in served.children() if b"sesame" in told(child, "environ")] == [served.page()]
    with serving(tmp_path, *TWO) as served:
        assert ask(served, "/data.json", headers={"Host": "dash.example"})[0] == 403
        assert ask(served, "/stop", "POST", {"Origin": "http://evil.example"}, b"{}")[0] == 403
        assert seen(served)["workers"]


def test_top_shows_the_workers_too(tmp_path):
    """Each with its state, and their numbers before threads and jobs."""
    with serving(tmp_path, *TWO) as served, served.busy(served.workers[1]):
        data = wait_seen(served, lambda data: all_answer(data) and data["jobs"]["counted"] == 1)
        done = run_command("top", "--once", served.url)
        assert (done.returncode, done.stderr) == (0, "")
        for worker in (1, 2):
            assert any(
                line.split()[:3] == [str(worker), str(served.workers[worker - 1]), "serving"]
                for line in done.stdout.splitlines()
            )
        assert f"2:{data['jobs']['listed'][0]['id']}" in done.stdout
        with stopped(served.workers[0]):
            wait_seen(served, lambda data: not data["workers"][0]["answered"])
            assert "did not answer" in run_command("top", "--once", served.url).stdout


@pytest.mark.whole
def test_in_a_browser_the_workers_are_rows_and_the_button_stops_a_job_of_one(tmp_path):
    """The page that everybody has, with a table more."""
    with serving(tmp_path, *TWO) as served, browser() as tab, served.busy(served.workers[1]) as client:
        tab.open(served.url)
        tab.wait("document.querySelectorAll('#workers tbody tr').length === 2")
        tab.wait("document.querySelector('#jobs tbody tr')?.textContent.includes('of worker 2')")
        tab.click("document.querySelector('#jobs tbody tr button.stop')")
        assert client.recv(12) == b"HTTP/1.1 503"
        tab.wait("document.querySelector('#jobs').hidden")
        with stopped(served.workers[0]):
            tab.wait("document.querySelector('#workers tbody tr').textContent.includes('did not answer for')")
        assert tab.errors == []


@pytest.mark.parametrize("arguments", [("--workers", "2"), ("--reload",)])
def test_a_port_that_the_dashboard_cannot_have_ends_all_of_it(tmp_path, arguments):
    """In a sentence, before a worker is started."""
    (tmp_path / "site_here.py").write_text("open('imported', 'w')\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in (str(taken.getsockname()[1]), "99999"):
            done = run_command("serve", "site_here:app", "--port", "0", "--dashboard", port, *arguments)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith("manyhands serve: cannot open the dashboard")
            assert done.stderr.count("\n") == 1
    assert not (tmp_path / "imported").exists()
