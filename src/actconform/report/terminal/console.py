"""The console that a run prints on: a failing stream costs no result, and text from outside is never markup."""

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
    console = Console(file=cast("IO[str]", _FaultTolerant(stream)), highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def take_faults() -> list[OSError]:
    """Return the errors of writing to consoles since the last call: a command ends with exit code 1 for them."""
    faults = list(_faults)
    _faults.clear()
    return faults


def plain(text: str) -> str:
    """Return `text` as markup that shows exactly that text: brackets escaped, the rest as `visible` does."""
    return escape(visible(text))


class _FaultTolerant:
    """A text stream that tolerates a closed pipe, a full disk and an ASCII encoding."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """Write the text, with ASCII signs where the encoding lacks a character."""
        try:
            text.encode(self.encoding or "ascii")
        except UnicodeEncodeError:
            text = text.translate(_ASCII).encode("ascii", "replace").decode()
        self._without_fault(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._without_fault(self._stream.flush)

    @staticmethod
    def _without_fault(step: Callable[[], object]) -> None:
        try:
            with suppress(BrokenPipeError):  # the reader is gone
                step()
        except OSError as error:
            _faults.append(error)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor, from which the width of a terminal is read."""
        return self._stream.fileno()
