"""Documents as what a test executes: their fenced blocks, edits of files, and what a command must have printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).parents[2]


class Block(NamedTuple):
    """One fenced block: what stands behind the fence, and the text."""

    language: str
    text: str


def blocks(document: Path) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    fenced = re.findall(r"^```([^\n]+)\n(.*?)^```$", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in fenced]


def edit(top: Path, diff: str) -> None:
    """Change a file below `top` as a diff without line numbers says: "--- PATH", then lines whose old ones it has, and once."""
    header, *lines = diff.splitlines()
    file = top / header.removeprefix("--- ")
    assert all(line[:1] in {" ", "+", "-", ""} for line in lines), diff
    old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] != without) for without in "+-")
    text = file.read_text("utf-8")
    assert text.count(f"\n{old}") == 1, f"{file} has not, or not once:\n{old}"
    file.write_text(text.replace(f"\n{old}", f"\n{new}"), "utf-8")


def assert_shown(text: str, printed: str) -> None:
    """Hold that each line of a document was printed, in order; numbers, and what follows a screen's first column, may differ."""
    lines = iter(_without_digits(printed))
    for line in _without_digits(text):
        assert any(line == got or got.startswith(f"{line} ") for got in lines), f"{line!r} is not in:\n{printed}"


def _without_digits(text: str) -> list[str]:
    return [re.sub(r" +", " ", re.sub(r"\d[\d,.]*", "N", line)).strip() for line in text.splitlines()]
