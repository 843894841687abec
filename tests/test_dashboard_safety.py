"""The dashboard: who may look and stop, names that are programs, and bounds."""

from __future__ import annotations

import json
import math
import re
import threading
from importlib import resources

import pytest

import manyhands as mh
from dashing import HOSTILE, ask, seen, stop, wait_seen
from gate import Gate
from manyhands.debug import _pages, _rows, _sight, _thread_rows
from pooling import occupied

dashboard = mh.debug.dashboard

TOKEN = "correct-horse/battery+staple="

PAGE = resources.files("manyhands.debug") / "page"


def port_of(page: mh.debug.Dashboard) -> str:
    return page.url.rstrip("/").rpartition(":")[2]


# --- Whose request it is.


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}", "localhost"]
)
def test_this_machine_is_answered_by_each_of_its_names(host):
    """By names that no resolver can be made to change; the port may be a tunnel's."""
    with dashboard() as page:
        assert ask(page, "/data.json", headers={"Host": host.format(port=port_of(page))})[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example:{port}",
        "localhost.evil.example",
        "evil.example#localhost:{port}",
        "127.0.0.1:{port}@evil.example",
        "127.0.0.2:{port}",
        "0.0.0.0:{port}",
        "localhost:{port}:{port}",
    ],
)
def test_without_a_token_no_other_name_is_answered(host):
    """DNS rebinding: a page elsewhere whose name was made to lead here sends that name."""
    with dashboard() as page:
        for path in ("/", "/data.json", "/metrics", "/nothing"):
            assert ask(page, path, headers={"Host": host.format(port=port_of(page))})[0] in (400, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "http://127.0.0.1:{port}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example:{port}"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": ""},
    ],
    ids=str,
)
def test_a_stop_that_a_page_elsewhere_sends_is_refused(make_pool, headers):
    """A form, an image or a script of another origin: 403 or 415, and the job waits on."""
    pool = make_pool(1)
    with dashboard(pool) as page, occupied(pool):
        job = pool.enqueue(int)
        headers = {name: value.format(port=port_of(page)) for name, value in headers.items()}
        assert stop(page, job, **headers)[0] in (403, 415)
        assert not job.stop_requested
        own = {"Origin": page.url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        assert stop(page, job, **own)[0] == 200
        assert job.stop_requested


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_only_a_post_stops(make_pool, method):
    """What a link, an image or a prefetch sends does nothing; and nothing else can be posted to."""
    pool = make_pool(1)
    with dashboard(pool) as page, occupied(pool):
        job = pool.enqueue(int)
        body = json.dumps({"job": job.id}).encode()
        status, headers, _ = ask(page, "/stop", method, {"Content-Type": "application/json"}, body)
        assert (status, headers["allow"]) == (405, "POST")
        assert not job.stop_requested
        assert ask(page, "/data.json", "POST", body=b"")[0] == 405


NO_JOBS = [
    b"",
    b"7",
    b"[]",
    b"{}",
    b'{"job": "7"}',
    b'{"job": true}',
    b'{"job": 7.0}',
    b'{"job": null}',
    b"{" * 900,
    b"[" * 1024,
    b"\xff",
]


def test_a_stop_that_names_no_job_is_400():
    """JSON, an object, a whole number."""
    with dashboard() as page:
        for body in NO_JOBS:
            assert ask(page, "/stop", "POST", {"Content-Type": "application/json"}, body)[0] == 400, body


def test_a_request_that_is_too_large_is_refused():
    """The body beyond 1 KiB, the head beyond 8 KiB."""
    with dashboard() as page:
        assert ask(page, "/stop", "POST", {"Content-Type": "application/json"}, b" " * 1025)[0] == 413
        assert ask(page, "/", headers={"X": "x" * 9000})[0] == 431


# --- The token.


NO_TOKENS = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Bearer wrong",
    f"Bearer {TOKEN}x",
    f"Bearer {TOKEN[:-1]}",
    f"Basic {TOKEN}",
    TOKEN,
    f"Bearer {TOKEN} {TOKEN}",
    "Bearer \xe9",
]


def test_without_the_token_nothing_of_the_program_is_told(make_pool):
    """401 for what there is to see, the metrics and a stop, from this machine too."""
    pool = make_pool(1)
    with dashboard(pool, token=TOKEN) as page, occupied(pool):
        job = pool.enqueue(int, name="secret name")
        for authorization in NO_TOKENS:
            headers = {} if authorization is None else {"Authorization": authorization}
            for path in ("/data.json", "/metrics"):
                status, sent, body = ask(page, path, headers=headers)
                assert (status, sent["www-authenticate"].partition(" ")[0]) == (401, "Bearer"), authorization
                assert b"secret" not in body
            assert stop(page, job, **headers)[0] == 401, authorization
        assert not job.stop_requested


def test_with_the_token_the_name_does_not_matter(make_pool):
    """Through a tunnel or a proxy, whatever it calls this machine; the page itself and its health need none."""
    pool = make_pool(1)
    own = {"Authorization": f"Bearer {TOKEN}", "Host": "dash.example", "Origin": "https://dash.example"}
    with dashboard(pool, token=TOKEN) as page, occupied(pool):
        job = pool.enqueue(int)
        assert ask(page, "/data.json", headers=own)[0] == 200
        assert ask(page, "/data.json", headers={**own, "Authorization": f"bearer  {TOKEN}"})[0] == 200
        assert ask(page, "/metrics", headers=own)[0] == 200
        assert stop(page, job, **own)[0] == 200
        assert job.stop_requested
        for path in ("/", "/dashboard.js", "/health"):
            assert ask(page, path, headers={"Host": "dash.example"})[0] == 200


def test_the_token_is_compared_in_constant_time(monkeypatch):
    """`hmac.compare_digest` decides, and not `==`."""
    asked = []
    monkeypatch.setattr(_pages.hmac, "compare_digest", lambda given, right: asked.append((given, right)) or False)
    with dashboard(token=TOKEN) as page:
        assert ask(page, "/data.json", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 401
    assert asked == [(TOKEN.encode(), TOKEN.encode())]


def test_the_token_is_in_no_log_and_on_no_page(loop, logged):
    """Neither the right one nor one that was tried."""
    logged.set_level("DEBUG")
    with dashboard(loop, token=TOKEN) as page:
        told = [repr(page), page.url]
        for tried in (TOKEN, f"{TOKEN}-tried"):
            for path in ("/", "/data.json", "/metrics", f"/{tried}"):
                answer = ask(page, path, headers={"Authorization": f"Bearer {tried}"})
                told.append(f"{answer[1]} {answer[2].decode()}")
    assert TOKEN not in logged.text
    assert not any(TOKEN in text for text in told)


# --- What the page is made of.


def test_every_answer_forbids_what_is_not_its_own():
    """A strict policy, no sniffing, no frame, no cache, no cookie, whatever the status."""
    with dashboard() as page:
        for path, method in [
            *((path, "GET") for path in _pages.FILES),
            ("/x", "GET"),
            ("/stop", "POST"),
            ("/health", "GET"),
        ]:
            _, headers, _ = ask(page, path, method)
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "unsafe" not in policy
            assert "*" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["x-frame-options"] == "DENY"
            assert not {"set-cookie", "access-control-allow-origin"} & headers.keys()


def test_the_page_asks_nobody_else_and_makes_no_markup_of_texts():
    """No address but its own, nothing inline, and none of the calls that parse."""
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[\w.]+\.\w|@import|url\(", text), file.name
        parses = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser|setTimeout\(['\"]"
        )
        assert not re.search(parses, text), file.name
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    assert {
        f"/{name}" for name in re.findall(r"(?:src|href)=\"([\w.]+\.(?:js|css|svg))\"", html)
    } <= _pages.FILES.keys()


@pytest.mark.parametrize(
    "path", ["/../_pages.py", "/%2e%2e/_pages.py", "//etc/passwd", "/page/index.html", "/index.html"]
)
def test_only_what_the_page_is_made_of_can_be_read(path):
    """By a table of paths; nothing is looked up in a directory."""
    with dashboard() as page:
        assert ask(page, path)[0] in (400, 404)


def test_hostile_names_are_sent_as_ascii_json_and_never_as_markup(make_loop, make_pool):
    """A job's name, its note and a strand's name may be a user's input."""
    loop, pool = make_loop(), make_pool(1)
    for name in HOSTILE:  # what is no text is a name for a job only
        loop.strand(name=name.replace("\ud800", "")).post(int)
    with dashboard(loop, pool) as page, occupied(pool) as (running,):
        running.progress(1, None, HOSTILE[0])
        for name in filter(None, HOSTILE):
            pool.enqueue(int, name=name)
        status, headers, body = ask(page, "/data.json")
        pool.finish()
    assert (status, headers["content-type"]) == (200, "application/json")
    assert body.isascii()
    assert not re.search(rb"[\x00-\x1f\x7f]", body)
    whole = [name.encode("utf-8", "backslashreplace").decode() for name in HOSTILE if name]
    shown = [job["name"] for job in json.loads(body)["jobs"]["listed"][1:]]
    assert shown == [name if len(name) <= 200 else name[:199] + "…" for name in whole]


def test_any_progress_is_good_json(make_pool, monkeypatch):
    """`progress()` refuses nothing; what is no number is none here."""
    monkeypatch.setattr(_sight, "FRESH", 0.0)
    monkeypatch.setattr(_sight, "SHARE", 0)
    pool = make_pool(1)
    with dashboard(pool) as page, occupied(pool) as (job,):
        for said, shown in [
            ((1, 2, "half"), {"done": 1.0, "total": 2.0, "note": "half"}),
            ((math.nan, math.inf, ""), {"done": None, "total": None, "note": ""}),
            ((10**400, -1, ""), {"done": None, "total": -1.0, "note": ""}),
            (("<b>", None, object()), {"done": None, "total": None, "note": "object"}),
            ((0, 0, "n" * 1000), {"done": 0.0, "total": 0.0, "note": "n" * 199 + "…"}),
        ]:
            job.progress(*said)
            assert seen(page)["jobs"]["listed"][0]["progress"] == shown


def test_what_a_name_is_made_of_is_not_asked(make_pool, pair, loop):
    """A name, a note or a descriptor's owner may be any object: none of its own code runs in a look."""

    class Odd:
        @property
        def __class__(self):
            raise AssertionError("somebody asked")

        __str__ = __repr__ = __len__ = __float__ = __class__.fget

    class Late:
        def __float__(self):
            threads.append(threading.current_thread())
            return 1.0

    class OddText(str):
        __slots__ = ()
        __str__ = __len__ = __getitem__ = encode = Odd.__str__

    ours, _theirs = pair()
    threads = []
    pool = make_pool(1)
    with dashboard(loop, pool) as page, occupied(pool) as (job,):
        watch = loop.add(ours, mh.Events.READ, print, name=OddText("till"))
        pool.enqueue(int, owner=watch, name="later")
        job.progress(Odd(), OddText("x"), OddText("y"))
        running, later = seen(page)["jobs"]["listed"]
        job.progress(Late(), Late(), "")
        assert seen(page)
    assert set(threads) == {threading.current_thread()}
    assert later["owner"] == "watch till"
    assert running["progress"] == {"done": None, "total": None, "note": "y"}
    assert _rows.text(Odd()) == "Odd"


def test_no_more_jobs_are_listed_than_anybody_reads(make_pool):
    """200 of all pools together. What is counted is exact; what is at work comes before what waits."""
    pools = [make_pool(1, max_queue_depth=None) for _ in range(2)]
    with dashboard(*pools) as page, occupied(pools[0]) as (first,), occupied(pools[1]) as (second,):
        for pool in pools:
            for _ in range(300):
                pool.enqueue(int)
        jobs = seen(page)["jobs"]
        assert (jobs["counted"], len(jobs["listed"])) == (602, 200)
        assert [job["id"] for job in jobs["listed"][:2]] == [first.id, second.id]
        for pool in pools:
            pool.finish()


def test_no_more_threads_are_listed_than_anybody_reads(loop, spawn, monkeypatch):
    """Those of loops and pools come first."""
    monkeypatch.setattr(_thread_rows, "MOST_THREADS", 3)
    gate = Gate()
    with dashboard(loop) as page, gate:
        for _ in range(4):
            spawn(gate)
        loop.post(gate)
        spawn(loop.join, 0)
        threads = wait_seen(page, lambda data: any(row["kind"] == "loop" for row in data["threads"]["listed"]))[
            "threads"
        ]
    assert threads["counted"] > 4
    assert [row["kind"] for row in threads["listed"]] == ["loop", "other", "other"]
