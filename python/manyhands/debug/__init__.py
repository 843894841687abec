"""Sight into a program while it runs: `dashboard()` opens a page with what every thread, job and connection is doing.

    with manyhands.debug.dashboard(loop, pool) as page:
        print(page.url)

Importing this costs nothing: the server, the page and the rest are loaded when a dashboard is opened.
"""

from __future__ import annotations

from manyhands.debug._dashboard import Dashboard as Dashboard
from manyhands.debug._dashboard import dashboard as dashboard

__all__ = ["Dashboard", "dashboard"]

for _value in (Dashboard, dashboard):
    _value.__module__ = "manyhands.debug"
