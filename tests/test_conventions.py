"""What holds for every public name: where it is found, what it is called in a traceback, and that it explains itself."""

from __future__ import annotations

import enum
import importlib
import inspect
import pydoc
import re
import sys
import traceback
import types
from pathlib import Path

import pytest

import manyhands as mh
from manyhands import errors, testing

ERRORS = {
    "ManyhandsError": (Exception,),
    "LoopClosed": (RuntimeError,),
    "LoopStopped": (RuntimeError,),
    "ForkedError": (RuntimeError,),
    "WouldDeadlock": (RuntimeError,),
    "QueueFull": (RuntimeError,),
    "WatchExists": (),
    "WatchRemoved": (),
    "StrandClosed": (),
    "ActorStopped": (errors.StrandClosed,),
    "NotPollable": (OSError,),
    "BadDescriptor": (OSError,),
}
LOOP = [
    "Delay",
    "ErrorReport",
    "EventLoop",
    "Events",
    "KEEP",
    "LoopStats",
    "Message",
    "RemovalReason",
    "STOP",
    "SignalWatch",
    "Strand",
    "StrandState",
    "ThreadedEventLoop",
    "Timer",
    "Watch",
]
TESTING = ["Hold", "MockClock", "POINTS", "hold", "live_objects", "points_compiled", "wait_all_idle"]
MEMBERS = {
    "EventLoop": (
        "join run_ready request_stop wait stop restart close name joined stopped closed add get post post_urgent "
        "post_terminal call_later call_at call_every now strand on_signal stats dump"
    ),
    "ThreadedEventLoop": "start run handle_events stop __enter__ __exit__",
    "Strand": "post post_urgent post_terminal call_later call_at call_every pause resume close state name pending",
    "Watch": "fd source events strand paused removed modify pause resume remove",
    "Timer": "when active cancel",
    "SignalWatch": "signum removed remove",
    "Actor": "process on_start on_failure on_stop send ask start stop wait stopped pending strand",
    "Reply": "result exception cancel cancelled done running add_done_callback __await__",
}
SIGNATURES = {
    "EventLoop": (
        "*, name='loop', poller='epoll', clock=None, pool=None, on_error=None, slow_handler=0.1, handover=0.0002"
    ),
    "EventLoop.join": "timeout=None, *, until_idle=False, wait_restart=False, max_handlers=None",
    "EventLoop.run_ready": "max_handlers=None",
    "EventLoop.request_stop": "*, drain=False",
    "EventLoop.wait": "timeout=None",
    "EventLoop.stop": "timeout=None, *, drain=False",
    "EventLoop.restart": "",
    "EventLoop.close": "timeout=None",
    "EventLoop.add": "fd, events, handler, *, strand=None, name=None, close=False, on_error=None, on_removed=None",
    "EventLoop.get": "fd",
    "EventLoop.post": "callback, *args",
    "EventLoop.post_urgent": "callback, *args",
    "EventLoop.post_terminal": "callback=None, *args",
    "EventLoop.call_later": "delay, callback, *args",
    "EventLoop.call_at": "when, callback, *args",
    "EventLoop.call_every": "interval, callback, *args",
    "EventLoop.now": "",
    "EventLoop.strand": "*, name=None, max_pending=None",
    "EventLoop.on_signal": "signum, callback",
    "EventLoop.stats": "",
    "EventLoop.dump": "",
    "ThreadedEventLoop": "threads=None, handler=None, **options",
    "ThreadedEventLoop.start": "",
    "ThreadedEventLoop.run": "",
    "ThreadedEventLoop.handle_events": "watch, events",
    "Strand.post": "callback, *args",
    "Strand.post_urgent": "callback, *args",
    "Strand.post_terminal": "callback=None, *args",
    "Strand.call_later": "delay, callback, *args",
    "Strand.call_at": "when, callback, *args",
    "Strand.call_every": "interval, callback, *args",
    "Strand.pause": "timeout=None",
    "Strand.resume": "",
    "Strand.close": "*, on_closed=None, timeout=None",
    "Watch.modify": "events",
    "Watch.pause": "timeout=None",
    "Watch.resume": "",
    "Watch.remove": "*, on_removed=None, close=False, timeout=None",
    "Timer.cancel": "",
    "Actor": "loop, *, name=None, max_pending=1024",
    "Actor.process": "message",
    "Actor.on_start": "",
    "Actor.on_failure": "error, message",
    "Actor.on_stop": "",
    "Actor.start": "",
    "Actor.send": "message",
    "Actor.ask": "message",
    "Actor.stop": "*, drain=False",
    "Actor.wait": "timeout=None",
    "Reply.result": "timeout=None",
    "Reply.exception": "timeout=None",
}


def find(dotted: str) -> object:
    found: object = mh
    for name in dotted.split("."):
        found = getattr(found, name)
    return found


def public_members(owner: type) -> list[tuple[str, object]]:
    """What `owner` and its bases in this package define under a public name."""
    members: dict[str, object] = {}
    for base in reversed(owner.__mro__):
        if base.__module__.partition(".")[0] == "manyhands":
            members.update((name, value) for name, value in vars(base).items() if not name.startswith("_"))
    return sorted(members.items())


CLASSES = [(f"manyhands.{name}", getattr(mh, name)) for name in mh.__all__ if inspect.isclass(getattr(mh, name))]
CLASSES += [(f"manyhands.testing.{name}", getattr(testing, name)) for name in ("MockClock", "Hold")]
FUNCTIONS = [(f"manyhands.{name}", getattr(mh, name)) for name in mh.__all__ if inspect.isroutine(getattr(mh, name))]
FUNCTIONS += [
    (f"manyhands.testing.{name}", getattr(testing, name))
    for name in testing.__all__
    if inspect.isroutine(getattr(testing, name))
]


def by_name(pairs: list[tuple[str, object]]) -> list:
    return [pytest.param(value, id=name) for name, value in pairs]


# ---------------------------------------------------------------------------------------------------------- the names


def test_public_names_are_found_in_manyhands():
    """Everything public is importable from `manyhands` itself and is listed there."""
    assert [name for name in [*ERRORS, *LOOP] if not hasattr(mh, name) or name not in mh.__all__] == []


def test_tools_for_tests_are_found_in_manyhands_testing():
    """Test tools have a namespace of their own."""
    assert [name for name in TESTING if not hasattr(testing, name) or name not in testing.__all__] == []


def test_errors_are_found_in_manyhands_errors():
    """One tree, drawn in one place; the same classes, not copies."""
    assert [name for name in ERRORS if getattr(errors, name) is not getattr(mh, name)] == []


@pytest.mark.parametrize("module", [mh, testing, errors], ids=lambda module: module.__name__)
def test_all_lists_every_public_name_once(module):
    """`__all__` is complete: nothing public is missing, nothing that is missing is listed, nothing twice."""
    assert len(module.__all__) == len(set(module.__all__))
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and (module is mh or getattr(value, "__module__", "manyhands").partition(".")[0] == "manyhands")
        and name not in ("annotations", "TYPE_CHECKING")
    }
    if module is testing:
        public -= set(mh.__all__)
    assert public - set(module.__all__) == set()
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize(("owner", "members"), MEMBERS.items(), ids=MEMBERS)
def test_a_class_has_the_members_that_are_promised(owner, members):
    """Methods, properties and attributes are there by their names."""
    cls = getattr(mh, owner)
    assert [
        name for name in members.split() if not hasattr(cls, name) and name not in inspect.get_annotations(cls)
    ] == []


@pytest.mark.parametrize(
    ("enumeration", "members"),
    [
        ("Events", ["READ", "WRITE", "PRIORITY", "HANGUP", "ERROR"]),
        ("StrandState", ["ACTIVE", "PAUSED", "CLOSING", "CLOSED"]),
        ("RemovalReason", ["REMOVED", "FD_GONE", "HANDLER_ERROR", "STRAND_CLOSED", "LOOP_CLOSED"]),
    ],
)
def test_an_enumeration_has_its_members(enumeration, members):
    """Members in capitals, each its own value."""
    cls = getattr(mh, enumeration)
    assert issubclass(cls, enum.Enum)
    assert [member.name for member in cls] == members
    assert len({member.value for member in cls}) == len(members)


def test_events_combine():
    """Events are flags."""
    both = mh.Events.READ | mh.Events.WRITE
    assert isinstance(both, mh.Events)
    assert mh.Events.READ in both
    assert mh.Events.PRIORITY not in both


def shapes(signature: inspect.Signature) -> list[tuple]:
    """Names, kinds and defaults: what a caller can rely on. `self` and the names of *args and **options are nobody's."""
    return [
        ("" if kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) else parameter.name, kind, parameter.default)
        for parameter in signature.parameters.values()
        if parameter.name != "self" and (kind := parameter.kind) is not None
    ]


@pytest.mark.parametrize("owner", sorted({name.partition(".")[0] for name in SIGNATURES}))
def test_signatures_are_what_is_promised(owner):
    """Names, order, defaults and what is by keyword only are the contract."""
    for name, parameters in SIGNATURES.items():
        if name.partition(".")[0] == owner:
            space: dict = {}
            exec(f"def wanted({parameters}): pass", space)  # parsed, not compared as text: spelling is not the contract
            assert shapes(inspect.signature(find(name))) == shapes(inspect.signature(space["wanted"])), name


# --------------------------------------------------------------------------------------------------- what it is called


@pytest.mark.parametrize("cls", by_name(CLASSES))
def test_a_class_says_where_it_is_found(cls, request):
    """Reprs and tracebacks say `manyhands.X`: the name by which a reader can import it."""
    assert f"{cls.__module__}.{cls.__qualname__}" == request.node.callspec.id


@pytest.mark.parametrize("function", by_name(FUNCTIONS))
def test_a_function_says_where_it_is_found(function, request):
    """The same for functions."""
    assert f"{function.__module__}.{function.__qualname__}" == request.node.callspec.id


def test_the_repr_of_each_object_says_manyhands(make_loop, pair):
    """Nobody has to know that there is a compiled module: no repr names it."""
    loop = make_loop(name="kitchen")
    a, _b = pair()
    strand = loop.strand(name="pantry")
    watch = loop.add(a, mh.Events.READ, print, name="door", strand=strand)
    timer = loop.call_later(3600, print)
    for value, words in {
        loop: ["manyhands.EventLoop", "kitchen"],
        strand: ["manyhands.Strand", "pantry"],
        watch: ["manyhands.Watch", "door", str(a.fileno())],
        timer: ["manyhands.Timer"],
    }.items():
        text = repr(value)
        assert "_core" not in text
        assert [word for word in words if word not in text] == []


def test_a_traceback_says_manyhands(make_loop):
    """The last line of a traceback names the error by where it is found."""
    loop = make_loop()
    loop.close()
    try:
        loop.join()
    except mh.LoopClosed as error:
        text = "".join(traceback.format_exception(error))
    assert text.splitlines()[-1].startswith("manyhands.LoopClosed: ")
    assert "_core" not in text.splitlines()[-1]


@pytest.mark.parametrize(("name", "bases"), ERRORS.items(), ids=ERRORS)
def test_an_error_is_under_one_roof(name, bases):
    """All are ManyhandsErrors; those that have a cousin in Python are that as well."""
    cls = getattr(mh, name)
    assert issubclass(cls, mh.ManyhandsError)
    for base in bases:
        assert issubclass(cls, base)
    assert not issubclass(cls, Warning)


# ------------------------------------------------------------------------------------------------- that it explains itself


def explains_itself(doc: str | None) -> bool:
    """More than one line, or one sentence with something to say."""
    if not doc or not doc.strip():
        return False
    lines = [line for line in inspect.cleandoc(doc).splitlines() if line.strip()]
    return len(lines) > 1 or (lines[0].rstrip().endswith((".", "?", "!", "`")) and len(lines[0].split()) >= 3)


@pytest.mark.parametrize("cls", by_name(CLASSES))
def test_a_class_explains_itself(cls):
    """Each public class has a docstring of its own that is more than its name."""
    assert explains_itself(cls.__dict__.get("__doc__")), cls.__doc__
    if cls.__mro__[1].__doc__:
        assert cls.__doc__ != cls.__mro__[1].__doc__


@pytest.mark.parametrize("function", by_name(FUNCTIONS))
def test_a_function_explains_itself(function):
    """Each public function has a docstring."""
    assert explains_itself(inspect.getdoc(function)), function.__doc__


@pytest.mark.parametrize("cls", by_name(CLASSES))
def test_methods_explain_themselves(cls):
    """Each public method and property has a docstring, compiled ones as well."""
    silent = [
        f"{name}: {member.__doc__!r}"
        for name, member in public_members(cls)
        if (inspect.isroutine(member) or isinstance(member, property) or inspect.isgetsetdescriptor(member))
        and not explains_itself(member.__doc__)
    ]
    assert silent == []


@pytest.mark.parametrize("module", ["manyhands", "manyhands.errors", "manyhands.testing"])
def test_a_module_explains_itself(module):
    """A public module says what it is and what it is not."""
    doc = importlib.import_module(module).__doc__
    assert doc is not None
    assert len(doc.strip().splitlines()) >= 3


@pytest.mark.parametrize("cls", by_name([pair for pair in CLASSES if pair[0].startswith("manyhands.")]))
def test_help_renders(cls):
    """`help()` of each class: its docstring, and its methods with their parameters."""
    text = pydoc.render_doc(cls, renderer=pydoc.plaintext)
    assert inspect.cleandoc(cls.__doc__).splitlines()[0] in text


def test_help_of_the_loop_shows_every_method_with_its_parameters():
    """`help(manyhands.EventLoop)` is the manual of the loop."""
    text = re.sub(r"^ \|", "  ", pydoc.render_doc(mh.EventLoop, renderer=pydoc.plaintext), flags=re.MULTILINE)
    for name in MEMBERS["EventLoop"].split():
        assert name in text
    for name, parameter in {"join": "timeout", "stop": "timeout", "add": "fd", "call_later": "delay"}.items():
        assert re.search(rf"\b{name}\(\s*self,\s*(/,\s*)?{parameter}\b", text), (
            f"{name} is shown without its parameters"
        )
    for word in ("Args:", "Returns:", "Raises:"):
        assert word in text


# ------------------------------------------------------------------------------------------------------- the package


def test_the_package_is_typed():
    """A type checker finds the marker and the stub of the compiled module."""
    package = Path(mh.__file__).parent
    assert (package / "py.typed").exists()
    assert (package / "_core.pyi").exists()


def test_the_import_warns_of_nothing(subprocess_python):
    """`python -X dev -W error -c 'import manyhands'` is silent."""
    done = subprocess_python("import sys, subprocess\nimport manyhands\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    strict = subprocess_python(
        "import subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-X', 'dev', '-W', 'error', '-c', 'import manyhands'],"
        " capture_output=True, text=True)\n"
        "assert (done.returncode, done.stdout, done.stderr) == (0, '', ''), done\n"
    )
    assert strict.returncode == 0, strict.stderr


def test_the_import_leaves_the_gil_off(subprocess_python):
    """On a free-threaded interpreter the compiled module does not switch the GIL on."""
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("an interpreter with the GIL")
    done = subprocess_python("import sys, manyhands\nassert not sys._is_gil_enabled()\n")
    assert done.returncode == 0, done.stderr


def test_the_import_starts_no_thread_and_opens_no_descriptor(subprocess_python):
    """A program that only imports the package is as it was."""
    done = subprocess_python(
        "import os, threading\n"
        "before = os.listdir('/proc/self/fd'), len(os.listdir('/proc/self/task'))\n"
        "import manyhands\n"
        "assert (os.listdir('/proc/self/fd'), len(os.listdir('/proc/self/task'))) == before\n"
        "assert threading.active_count() == 1\n"
    )
    assert done.returncode == 0, done.stderr


def test_nothing_outside_the_standard_library_is_imported(subprocess_python):
    """The product has no dependency at run time."""
    done = subprocess_python(
        "import sys\n"
        "before = set(sys.modules)\n"
        "import manyhands, manyhands.testing\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - sys.stdlib_module_names - {'manyhands'}))\n"
    )
    assert done.stdout == "[]\n", done.stderr
