"""The stream that a run shows itself on: nothing that happens to it costs a result, and text from outside stays text."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TYPE_CHECKING, TextIO, cast

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from typing import IO

PLAIN_WIDTH = 160
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_ASCII = str.maketrans({"▲": "~", "●": "!", "△": "^", "◦": ".", "–": "-", "·": "|", "…": "...", "✗": "x", "✓": "v"})


def open_console(*, to_stderr: bool = False) -> Console:
    """Return a console on standard output, or on standard error; a log has lines of up to 160 columns."""
    stream = sys.stderr if to_stderr else sys.stdout
    console = Console(file=cast("IO[str]", _Patient(stream)), highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def plain(text: str) -> str:
    """Return `text` as markup that shows just it: brackets escaped, control characters written out."""
    return escape(visible(text))


def visible(text: str) -> str:
    """Return `text` with what is no character to show written out: controls but tab and newline, those that
    turn the direction of writing, lone surrogates.

    What comes back can be encoded, and XML can hold it.
    """
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


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
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Tell whether a person is looking."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor, by which the width of a terminal is asked."""
        return self._stream.fileno()
