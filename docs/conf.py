"""How the documentation is built: `make docs`, or `sphinx-build -n -W -b html docs docs/_build/html`."""

import builtins
import sys
from pathlib import Path

import manyhands

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "manyhands"
author = "the manyhands authors"
copyright = "the manyhands authors"
version = release = manyhands.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "docstrings"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_typehints = "none"
"""Types are the stub's and the type checker's: the signatures of the compiled classes have none to show."""
autodoc_member_order = "bysource"
add_module_names = False

nitpicky = True
nitpick_ignore = [(role, name) for name in dir(builtins) for role in ("py:exc", "py:class")]
"""Python's own: this build fetches no inventory of another project."""
nitpick_ignore += [
    ("py:class", "_LoopCore"),
    ("py:class", "manyhands._core.LoopCore"),
    ("py:class", "manyhands._core.ManualClock"),
]

html_theme = "furo"
html_title = "manyhands"
html_static_path = ["_static"]
