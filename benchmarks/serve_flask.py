"""What does a request cost that goes through Flask, beside other servers?

As `serve_hello`, with the smallest application of Flask: what a framework costs is the same for all, and so a request's price
is what people pay.
"""

from __future__ import annotations

from benchmarks._process import has_module
from benchmarks._report import Plan, Report
from benchmarks.serve_hello import measure_app

QUESTION = "CPU per request: hello by Flask at 64 connections, beside other servers"

LIMITS = {"granian": 0.85, "granian 1": 0.85, "waitress": 0.40}


def measure(plan: Plan) -> Report:
    """Measure every server."""
    if not has_module("flask", plan.python):
        return Report([], [], notes=["skipped: no Flask"])
    return measure_app(plan, "flask_app", LIMITS)
