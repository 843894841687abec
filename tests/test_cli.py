"""The command line: usage, the version, and the doctor's report."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys

import pytest

import manyhands as mh
from commands import COMMAND, START, run_command
from manyhands import testing


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["echo", "--threads", "0"],
        ["echo", "--threads", "-3"],
        ["echo", "--threads", "1000000"],
        ["echo", "--threads", "٣"],
        ["echo", "--port", "http"],
        ["echo", "--poller", "kqueue"],
        ["echo", "--style", "proactor"],
        ["demo", "--connections", "0"],
        ["demo", "--seconds", "nan"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    """Argparse says what was expected."""
    done = run_command(*arguments)
    assert done.returncode == 2
    assert "error: " in done.stderr and "usage: " in done.stderr


def test_the_doctor_says_what_this_interpreter_and_this_machine_are() -> None:
    """As JSON, compared with what the interpreter says of itself."""
    done = run_command("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["manyhands"] == {
        "package": mh.__version__,
        "core": mh.__version__,
        "test_points": testing.points_compiled(),
    }
    assert found["python"]["version"] == platform.python_version()
    assert found["python"]["gil"] is getattr(sys, "_is_gil_enabled", lambda: True)()
    assert found["system"]["kernel"] == platform.release()
    assert found["system"]["cpus"] == os.cpu_count()
    assert found["limits"]["nofile_soft"] > 0
    assert found["limits"]["somaxconn"] > 0
    assert [name for name, poller in found["pollers"].items() if poller["serves"]] == ["epoll", "poll", "select"]


def test_the_doctor_asks_about_the_gil_at_run_time() -> None:
    """On a free-threaded build the same interpreter answers differently when the GIL is switched on."""
    if not hasattr(sys, "_is_gil_enabled"):
        pytest.skip("this interpreter has no switch for the GIL")
    command = [sys.executable, "-X", "gil=1", "-m", "manyhands", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START, check=False)
    if "Disabling the GIL is not supported" in done.stderr or done.returncode == 2:
        pytest.skip("this build cannot switch")
    assert json.loads(done.stdout)["python"]["gil"] is True


def test_the_doctor_tries_what_each_poller_can_name() -> None:
    """Select alone refuses numbers from FD_SETSIZE on; with a low limit of open files there is none to try."""
    pollers = json.loads(run_command("doctor", "--json", max_descriptors=2048).stdout)["pollers"]
    assert {name: poller["high_numbers"] for name, poller in pollers.items()} == {
        "epoll": True,
        "poll": True,
        "select": False,
    }
    pollers = json.loads(run_command("doctor", "--json", max_descriptors=256).stdout)["pollers"]
    assert [poller["high_numbers"] for poller in pollers.values()] == [None, None, None]


def test_the_doctor_s_text_has_every_figure_of_its_json() -> None:
    """Whichever is pasted into a bug report, nothing is missing."""
    text = run_command("doctor").stdout
    for section, values in json.loads(run_command("doctor", "--json").stdout).items():
        assert re.search(rf"^{section}$", text, re.MULTILINE)
        for name in values:
            assert re.search(rf"^  {name} ", text, re.MULTILINE), name


def test_the_version_is_that_of_the_package() -> None:
    """On standard output, with status 0."""
    done = run_command("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"manyhands {mh.__version__}\n", "")


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    """`manyhands doctor | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([*COMMAND, "doctor"], stdout=writer, stderr=subprocess.PIPE, timeout=START, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
