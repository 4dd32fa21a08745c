"""Generated parts of documents: the text between two marks is replaced, everything else stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.errors import UsageError
from actconform.files import read_text, write_bytes

if TYPE_CHECKING:
    from pathlib import Path


def write_between(path: Path, begin: str, end: str, text: str) -> None:
    """Replace the text between the marks `begin` and `end` of a file by `text`. Raises UsageError as `expect_marks` does."""
    before, after = expect_marks(path, begin, end)
    write_bytes(path, f"{before}{begin}\n{text}\n{end}{after}".encode())


def expect_marks(path: Path, begin: str, end: str) -> tuple[str, str]:
    """Return the text before and after the marks; raise UsageError where one is missing or they stand the wrong way round."""
    before, begin_mark, rest = read_text(path).partition(begin)
    _, end_mark, after = rest.partition(end)
    if not begin_mark or not end_mark:
        raise UsageError(f"{path} has no lines {begin!r} and, after it, {end!r} to write between")
    return before, after
