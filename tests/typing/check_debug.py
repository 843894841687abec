"""What a type checker makes of the dashboard. Checked by mypy (`make lint`), never run."""

from __future__ import annotations

from typing import assert_type

import manyhands as mh
from manyhands.server import Server


def dashboards(loop: mh.EventLoop, pool: mh.ThreadPool, server: Server) -> None:
    assert_type(mh.debug.dashboard(), mh.debug.Dashboard)
    with mh.debug.dashboard(loop, pool, server, port=8001, token="secret") as page:
        assert_type(page, mh.debug.Dashboard)
        assert_type(page.url, str)
    mh.debug.dashboard("loop")  # type: ignore[arg-type]
