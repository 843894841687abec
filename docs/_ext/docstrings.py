"""Docstrings as `help()` shows them, made into reStructuredText for the reference.

A docstring of this project is one imperative line, prose, and sections (`Args:`, `Returns:`, `Raises:`, `Threads:`,
`Blocks:`, …). In prose and sections a name stands between single backticks, an example between two fences. Lines that
begin with a name in capitals and a colon are a list.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

from sphinx.application import Sphinx

SECTION = re.compile(r"^(Args|Returns|Raises|Threads|Blocks|Source|Attributes):(?: (?P<rest>.*))?$")
ITEM = re.compile(r"^(?P<names>[\w, ]+): (?P<text>.*)$")
MEMBER = re.compile(r"^(?P<name>[A-Z_]{2,}): (?P<text>.*)$")


def to_rst(lines: list[str]) -> list[str]:
    """Return the lines of a docstring as reStructuredText."""
    out: list[str] = []
    rest = textwrap.dedent("\n".join(lines)).split("\n")
    while rest:
        line = rest.pop(0)
        if line.startswith("```"):
            out += ["", f".. code-block:: {line[3:] or 'text'}", ""]
            while rest and not rest[0].startswith("```"):
                out.append(f"    {rest.pop(0)}")
            del rest[:1]
            out.append("")
        elif section := SECTION.match(line):
            block = [section["rest"]] if section["rest"] else []
            while rest and (rest[0].startswith(" ") if not section["rest"] else rest[0].strip()):
                block.append(rest.pop(0))
            out += ["", f":{section[1]}:", *(f"    {text}" for text in items(block)), ""]
        elif member := MEMBER.match(line):
            text = [member["text"]]
            while rest and rest[0].startswith(" "):
                text.append(rest.pop(0).strip())
            out += ["", f"* **{member['name']}**: {literals(' '.join(text))}", ""]
        else:
            out.append(literals(line))
    return out


def items(block: list[str]) -> list[str]:
    """The text of a section: a list if its lines are `name: text`, else one paragraph."""
    dedented = textwrap.dedent("\n".join(block)).split("\n")
    found: list[str] = []
    for line in dedented:
        item = ITEM.match(line)
        if item and not line.startswith(" "):
            found.append(f"* ``{item['names']}``: {literals(item['text'])}")
        elif found and found[-1].startswith(("* ", "  ")) and line.startswith(" "):
            found.append(f"  {literals(line.strip())}")
        else:
            # A sentence after the list: reStructuredText wants a blank line between the two.
            if found and found[-1].startswith(("* ", "  ")):
                found.append("")
            found.append(literals(line.strip()))
    return found


def literals(line: str) -> str:
    """Single backticks become double ones."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line)


def process(*arguments: Any) -> None:
    """Sphinx's hook: the last of its arguments is the list of lines, to be changed in place."""
    lines = arguments[-1]
    lines[:] = to_rst(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry."""
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
