"""Escapes text from outside for Markdown, in a table's cell and elsewhere in a line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from actconform.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ANYWHERE = re.compile(r"[&<>\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_AT_START = re.compile(r"^(\d+(?=[.)])|(?=[-+=#]))")  # a list, a heading


def literal(text: str) -> str:
    """Return `text` on one line as Markdown that is read as just that text: no markup, no HTML, no border of a table."""
    line = " ".join(visible(text).split())
    line = _ANYWHERE.sub(lambda match: _ENTITIES.get(match[0], f"\\{match[0]}"), line)
    return _AT_START.sub(r"\1\\", line)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the cells are Markdown already."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
