"""The site of the documents. Its source is the top of the repository, so that a link to any document of it resolves."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

TOP = Path(__file__).parents[1]
sys.path[:0] = [str(TOP / "docs/_site"), str(TOP / "src"), *map(str, sorted(TOP.glob("plugins/*/src")))]

from actconform import __version__  # noqa: E402  of this checkout

project = "actconform"
author = copyright = "The actconform maintainers"
release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton", "commands", "docstrings"]

root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**", "plugins/*/README.md"]
exclude_patterns = [".*", "build", "dist", "nightly", "*-out", "src", "tests", "golden", "benchmarks", "plugins/*/src"]
templates_path = ["_site/templates"]
suppress_warnings = ["myst.header"]  # a part may begin one level deeper than the last
smartquotes = False  # two hyphens begin an option
highlight_language = "none"  # an indented block is a screen

myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds a cell
autodoc_preserve_defaults = True
copybutton_prompt_text = "$ "
linkcheck_timeout = 10
linkcheck_retries = 1

html_theme = "furo"
html_title = f"actconform {release}"
html_additional_pages = {"index": "to_documents.html"}

LINK_BY_FILE = re.compile(r"\[(?:docs/)?[\w-]+\.md\]\(((?:\.\./|docs/)?[\w-]+\.md)\)")


def setup(app: Sphinx) -> None:
    """Have a link whose text is the name of a document show that document's title."""
    app.connect("source-read", lambda _, __, source: source.__setitem__(0, LINK_BY_FILE.sub(r"[](\1)", source[0])))
