"""Files, read and written by operations: on the kernel's ring and on threads, with the same results."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import manyhands as mh
from manyhands import _core
from support import LONG, wait_until


def test_a_read_gives_what_is_there_and_is_short_at_the_end_of_the_file(proactor, file, joined):
    """FAULT 30. Beyond the end there is nothing, which is no error."""
    with joined(proactor.loop):
        assert proactor.read(file, 4, 0).result(LONG) == b"0123"
        assert proactor.read(file.fileno(), 100, 7).result(LONG) == b"789"
        assert proactor.read(file, 4, 10).result(LONG) == b""
        assert proactor.read(file, 0, 0).result(LONG) == b""
    assert file.tell() == 0, "the file's own position stays"


def test_what_was_written_is_read_again(proactor, file, joined):
    """FAULT 30. Any buffer of bytes can be written; the result is how many there were."""
    with joined(proactor.loop):
        for data in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
            operation = proactor.write(file, data, 12)
            assert operation.result(LONG) == operation.transferred == 3
        assert proactor.fsync(file).result(LONG) is None
        assert proactor.read(file, 100, 8).result(LONG) == b"89\0\0abc"


def test_a_read_into_a_buffer_fills_as_much_as_there_is(proactor, file, joined):
    """FAULT 30. The rest of the buffer stays as it was."""
    buffer = bytearray(b"------")
    with joined(proactor.loop):
        assert proactor.read_into(file, buffer, 6).result(LONG) == 4
    assert buffer == b"6789--"


def test_a_megabyte_goes_there_and_back(proactor, file, joined):
    """FAULT 30. More than a page, and more than is kept in a small object."""
    data = os.urandom(1 << 20)
    with joined(proactor.loop):
        assert proactor.write(file, data, 0).result(LONG) == len(data)
        assert proactor.read(file, 2 << 20, 0).result(LONG) == data


def test_what_the_kernel_refuses_is_the_operations_error(proactor, tmp_path, joined):
    """FAULT 30. With the class of its number; it is raised at the wait, not at the call."""
    with open(tmp_path / "only", "wb") as only, joined(proactor.loop):
        operation = proactor.read(only, 1, 0)
        with pytest.raises(OSError, match="Bad file descriptor") as raised:
            operation.result(LONG)
        assert raised.value.errno == errno.EBADF
        assert operation.exception() is raised.value
        assert operation.transferred == 0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p, f: p.read(f, -1, 0), ValueError, ["size", "-1"]),
        (lambda p, f: p.read(f, 2**31, 0), ValueError, ["size", str(2**31 - 1)]),
        (lambda p, f: p.read(f, 1, -1), ValueError, ["offset", "-1"]),
        (lambda p, f: p.read(f, 1, 2**63), ValueError, ["offset", str(2**63)]),
        (lambda p, f: p.read(f, 1.0, 0), TypeError, ["size", "1.0"]),
        (lambda p, f: p.read(f, 1, True), TypeError, ["offset", "True"]),
        (lambda p, f: p.read(True, 1, 0), TypeError, ["fileno", "True"]),
        (lambda p, f: p.read("f", 1, 0), TypeError, ["fileno", "'f'"]),
        (lambda p, f: p.read(-1, 1, 0), ValueError, ["file", "-1"]),
        (lambda p, f: p.read(2**40, 1, 0), ValueError, ["file", str(2**40)]),
        (lambda p, f: p.fsync(f, 42), TypeError, ["handler", "42"]),
        (lambda p, f: p.write(f, "text", 0), TypeError, ["str"]),
        (lambda p, f: p.write(f, memoryview(b"0123")[::2], 0), BufferError, ["contiguous"]),
        (lambda p, f: p.read_into(f, b"0123", 0), BufferError, ["written"]),
        (lambda p, f: p.fsync(f).result(-1), ValueError, ["timeout", "-1"]),
    ],
)
def test_a_wrong_argument_is_refused_at_the_call(proactor, file, call, error, words):
    """T92. With what was expected and what came; nothing is pending."""
    with pytest.raises(error) as raised:
        call(proactor, file)
    assert all(word in str(raised.value) for word in words), raised.value


def test_what_is_no_open_file_is_refused_at_the_call(proactor, tmp_path):
    """T92. A closed file, a number that is not open, a socket, a pipe, a directory."""
    with open(tmp_path / "closed", "wb") as closed:
        number = closed.fileno()
    with pytest.raises(ValueError, match="closed"):
        proactor.read(closed, 1, 0)
    with pytest.raises(OSError, match="not open") as raised:
        proactor.read(number, 1, 0)
    assert raised.value.errno == errno.EBADF
    a, b = socket.socketpair()
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="regular file") as raised:
            proactor.read(a, 1, 0)
        assert raised.value.errno == errno.ESPIPE
        with pytest.raises(IsADirectoryError):
            proactor.read(directory, 1, 0)
    finally:
        a.close()
        b.close()
        os.close(directory)
    with pytest.raises(OSError, match="not open"):
        proactor.read(a, 1, 0)
    assert "0 pending" in repr(proactor)


def test_a_buffer_keeps_its_size_as_long_as_it_is_used(proactor, file, joined):
    """T90. It can be resized when its operation has completed, also by the handler."""
    data, buffer = bytearray(b"abc"), bytearray(3)
    freed = []

    def handler(operation):
        data.extend(b"!")
        freed.append(operation.result())

    operations = [proactor.write(file, data, 0, handler), proactor.read_into(file, buffer, 7)]
    if proactor.backend == "io_uring":
        with pytest.raises(BufferError):
            data.extend(b"?")
        with pytest.raises(BufferError):
            buffer.clear()
    with joined(proactor.loop):
        assert [operation.result(LONG) for operation in operations] == [3, 3]
        wait_until(lambda: freed)
    buffer.clear()
    assert (data, freed) == (b"abc!", [3])


def test_unknown_files_are_refused_with_the_choices(loop, monkeypatch):
    """T92. As an argument and in the environment; the argument counts more."""
    with pytest.raises(ValueError, match=r'files must be "io_uring" or "threads".*\'aio\''):
        mh.Proactor(loop, files="aio")
    monkeypatch.setenv("MANYHANDS_FILES", "aio")
    with pytest.raises(ValueError, match=r"MANYHANDS_FILES must be .*'aio'"):
        mh.Proactor(loop)
    with pytest.raises(TypeError, match="loop must be an EventLoop"):
        mh.Proactor(None)


def test_the_environment_chooses_who_reads_files(make_proactor, monkeypatch):
    """FAULT 30. MANYHANDS_FILES=threads is for whoever does not trust his kernel's ring."""
    monkeypatch.setenv("MANYHANDS_FILES", "threads")
    assert make_proactor().backend == "threads"


def test_without_a_ring_files_are_read_on_threads_and_one_line_says_so(
    make_proactor, file, monkeypatch, logged, joined
):
    """FAULT 30. Unless the ring was asked for by name: then it is an error."""

    def refuse():
        raise PermissionError(errno.EPERM, "io_uring_setup: Operation not permitted")

    monkeypatch.setattr(_core, "Ring", refuse)
    with logged.at_level(logging.INFO, "manyhands.loop"):
        proactor = make_proactor(name="small")
    assert proactor.backend == "threads"
    (record,) = [record for record in logged.records if "io_uring" in record.getMessage()]
    assert record.levelno == logging.INFO
    assert "'small'" in record.getMessage()
    assert "io_uring_setup: Operation not permitted" in record.getMessage()
    with joined(proactor.loop):
        assert proactor.read(file, 3, 0).result(LONG) == b"012"
    with pytest.raises(PermissionError, match="io_uring_setup"):
        make_proactor("io_uring")


@pytest.mark.fault
def test_files_are_read_where_the_kernel_refuses_its_ring():
    """FAULT 30. The tests of this file pass where io_uring_setup gives EPERM, on threads, with the same results."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    inject = ["-f", "-qq", "--seccomp-bpf", "-e", "trace=io_uring_setup", "-e", "inject=io_uring_setup:error=EPERM"]
    tests = Path(__file__)
    command = [sys.executable, *xoptions(), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "normal"]
    with tempfile.NamedTemporaryFile("r") as trace:
        done = subprocess.run(
            ["strace", "-o", trace.name, *inject, *command, str(tests)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tests.parent.parent,
            env={**os.environ, "MANYHANDS_TEST_FILES": "threads"},
        )
        calls = trace.read()
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "INJECTED" in calls
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout


def xoptions() -> list[str]:
    """The options of this interpreter that another one needs to be the same."""
    return [f"-X{name}={value}" for name, value in sys._xoptions.items() if name == "gil"]


@pytest.mark.fault
def test_a_proactor_of_the_parent_is_dead_in_the_child(subprocess_python, backend, tmp_path):
    """FAULT 11. Its ring is the parent's; the parent goes on, and a new one works in the child."""
    done = subprocess_python(
        f"""
import os, sys, threading, warnings
import manyhands as mh

warnings.simplefilter("ignore", DeprecationWarning)
files = {None if backend == "normal" else backend!r}
file = open({str(tmp_path / "file")!r}, "w+b", buffering=0)
file.write(b"abc")
loop = mh.EventLoop()
proactor = mh.Proactor(loop, files=files)
operation = proactor.read(file, 3, 0)
pid = os.fork()
if not pid:
    for use in (
        lambda: proactor.read(file, 3, 0),
        lambda: proactor.write(file, b"x", 0),
        lambda: proactor.fsync(file),
        lambda: operation.result(1),
    ):
        try:
            use()
        except mh.ForkedError as error:
            assert error.parent == os.getppid()
        else:
            os._exit(1)
    own = mh.EventLoop()
    thread = threading.Thread(target=own.join)
    thread.start()
    with mh.Proactor(own, files=files) as proactor:
        good = proactor.read(file, 3, 0).result(10) == b"abc"
    own.request_stop()
    thread.join()
    os._exit(2 + good)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
thread = threading.Thread(target=loop.join)
thread.start()
assert operation.result(10) == b"abc"
assert proactor.read(file, 3, 1).result(10) == b"bc"
loop.request_stop()
thread.join()
loop.close()
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
