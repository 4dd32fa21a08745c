"""The stream that a run shows itself on: nothing that happens to it costs a result, and text from outside stays text."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

from rich.console import Console
from rich.markup import escape

from actconform.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

PLAIN_WIDTH = 160
_faults: list[OSError] = []
_ASCII = str.maketrans({"▲": "~", "●": "!", "△": "^", "◦": ".", "–": "-", "·": "|", "…": "...", "✗": "x", "✓": "v"})


def open_console(*, to_stderr: bool = False) -> Console:
    """Return a console on standard output, or on standard error; a log has lines of up to 160 columns."""
    stream = sys.stderr if to_stderr else sys.stdout
    console = Console(file=cast("IO[str]", _Patient(stream)), highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def take_faults() -> list[OSError]:
    """Return what went wrong in writing to consoles since this was last asked: a command ends with exit code 1 for it."""
    taken = list(_faults)
    _faults.clear()
    return taken


def plain(text: str) -> str:
    """Return `text` as markup that shows just it: brackets escaped, the rest as `visible` does."""
    return escape(visible(text))


class _Patient:
    """A text stream whose reader may leave, whose disk may be full, and whose encoding may be ASCII."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """Write what can be written: with other signs where the encoding has not ours."""
        try:
            text.encode(self.encoding or "ascii")
        except UnicodeEncodeError:
            text = text.translate(_ASCII).encode("ascii", "replace").decode()
        self._patiently(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        self._patiently(self._stream.flush)

    @staticmethod
    def _patiently(step: Callable[[], object]) -> None:
        try:
            with suppress(BrokenPipeError):  # its reader left, and misses nothing
                step()
        except OSError as error:
            _faults.append(error)

    def isatty(self) -> bool:
        """Tell whether a person is looking."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor, by which the width of a terminal is asked."""
        return self._stream.fileno()
