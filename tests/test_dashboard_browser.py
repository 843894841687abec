"""The dashboard's page in a browser: its figures move, its stop button stops, names stay text."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

import manyhands as mh
from browsing import browser
from dashing import HOSTILE
from gate import Gate
from manyhands.server import Server
from pooling import Stoppable
from support import LONG, wait_until

pytestmark = pytest.mark.whole

ROW = "[...document.querySelectorAll('#jobs tbody tr')].find((row) => row.textContent.includes({name!r}))"

SHOTS = os.environ.get("MANYHANDS_SCREENSHOTS")
"""A directory for pictures to look at."""


def test_in_a_browser_figures_move_and_the_stop_button_stops_a_job(make_pool, make_loop, joined):
    """One look after the other, without a reload; the button is clicked with the mouse; nothing was refused or raised."""
    pool, work = make_pool(2, name="reports"), Stoppable()
    loop = make_loop(name="kitchen")
    with mh.debug.dashboard(loop, pool) as page, joined(loop, 2), browser() as tab:
        job = pool.enqueue(work, name="endless report")
        work.wait_entered()
        job.progress(1, 4, "page one")
        tab.open(page.url)
        tab.wait(f"{ROW.format(name='endless report')}.querySelector('progress').value === 0.25")

        job.progress(3, 4, "page three")
        for _ in range(50):
            loop.post(int)
        tab.wait(f"{ROW.format(name='endless report')}.querySelector('progress').value === 0.75")
        tab.wait("document.querySelector('#plots figure rect.bar') !== null")
        tab.wait("document.querySelector('#loops tbody tr').cells[2].textContent === '2'")
        assert tab.ask("document.querySelector('#live').textContent") == "live"
        if SHOTS:
            tab.screenshot(Path(SHOTS) / "dashboard.png")

        tab.click(f"{ROW.format(name='endless report')}.querySelector('button.stop')")
        with pytest.raises(mh.JobCancelled):
            job.result(LONG)
        assert work.told == [mh.StopReason.CALLER]
        tab.wait(f"!{ROW.format(name='endless report')}?.querySelector('button.stop')")
        assert tab.errors == []


def test_in_a_browser_a_server_shows_its_connections_first():
    """A tile and a table, which a program without a server does not have; a pool without a job has no plots."""
    with Server(lambda environ, start: [], threads=1, name="shop") as server, browser() as tab:
        clients = [socket.create_connection(server.address) for _ in range(3)]
        wait_until(lambda: server.connections == len(clients))
        with mh.debug.dashboard(server) as page:
            tab.open(page.url)
            tab.wait("document.querySelector('#tiles .tile').innerText.replace(/\\s+/g, ' ') === '3 connections'")
            tab.wait("document.querySelector('#servers tbody tr').cells[2].textContent === '3'")
            assert tab.ask(
                "[...document.querySelectorAll('#plots figcaption')].map((f) => f.textContent)[0]"
            ).startswith("shop")
            assert tab.ask("document.querySelectorAll('#plots figure').length") == 1
        for client in clients:
            client.close()


def test_in_a_browser_hostile_names_are_text(make_pool):
    """No element is made of them, no script runs, and what cannot be shown is shown as something else."""
    pool, gate = make_pool(1), Gate()
    with mh.debug.dashboard(pool) as page, browser() as tab, gate:
        pool.enqueue(gate)
        gate.wait_entered()
        jobs = [pool.enqueue(int, name=name) for name in HOSTILE if name]
        tab.open(page.url)
        tab.wait(f"document.querySelectorAll('#jobs tbody tr').length === {len(jobs) + 1}")
        made = "[...document.querySelectorAll('#jobs tbody *')].map((e) => e.localName)"
        assert set(tab.ask(made)) == {"tr", "td", "span", "button"}
        shown = tab.ask(
            "[...document.querySelectorAll('#jobs tbody tr')].map((row) => row.cells[0].firstChild.textContent)"
        )
        assert shown[1:6] == HOSTILE[:5]
        assert tab.ask("document.querySelectorAll('[onerror], [onmouseover], img').length") == 0
        assert tab.errors == []


def test_in_a_browser_the_token_is_asked_for_and_kept_for_the_tab(make_loop):
    """A wrong one is refused in words; the right one opens the page, and a reload does not ask again."""
    with mh.debug.dashboard(make_loop(name="kitchen"), token="open-sesame") as page, browser() as tab:
        tab.open(page.url)
        for given in ("sesame", "open-sesame"):
            tab.wait("!document.querySelector('#token-form').hidden && document.activeElement.id === 'token'")
            assert tab.ask("document.querySelector('#main').hidden")
            tab.call("Input.insertText", text=given)
            tab.click("document.querySelector('#token-form button')")
            if given == "sesame":
                tab.wait("document.querySelector('#live').textContent === 'that is not the token'")
        tab.wait("document.querySelector('#loops tbody tr')?.cells[0].textContent === 'kitchen'")
        tab.ask("window.before = true")
        tab.call("Page.reload")
        tab.wait("!window.before && document.querySelector('#loops tbody tr')?.cells[0].textContent === 'kitchen'")
        assert not any("policy" in error.lower() for error in tab.errors)
