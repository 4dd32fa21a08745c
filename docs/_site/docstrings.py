"""Docstrings, which are plain text with code between backticks and indented, as the reStructuredText that autodoc takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Have autodoc pass each docstring through here."""
    app.connect("autodoc-process-docstring", lambda *event: event[-1].__setitem__(slice(None), restructured(event[-1])))
    return {"parallel_read_safe": True}


def restructured(lines: list[str]) -> list[str]:
    """Return lines of a docstring as reStructuredText: `code` as a literal, an indented block as a literal block, all else as it is."""
    text: list[str] = []
    for line in lines:
        if line.startswith("    "):
            if not any(written.startswith("    ") for written in text[-2:]):
                text += ["", "::", ""]
        elif text and text[-1].startswith("    ") and line:
            text.append("")
        text.append(line if line.startswith("    ") else _escaped(line))
    return text


def _escaped(line: str) -> str:
    parts = re.split(r"`+([^`]+)`+", line)
    return "".join(
        f"``{part}``\\ " if index % 2 else re.sub(r"([*|_\\`])", r"\\\1", part) for index, part in enumerate(parts)
    )
