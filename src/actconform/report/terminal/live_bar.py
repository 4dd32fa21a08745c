"""What shows how far something is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from actconform.report.terminal.console import plain

if TYPE_CHECKING:
    from typing import Self

    from rich.console import Console
    from rich.progress import Progress

PLAIN_SECONDS = 15.0


class LiveBar:
    """A context that shows a bar, where `console` is a terminal that can redraw one. `console` is one on standard error."""

    def __init__(self, bar: Progress, console: Console, every: float = PLAIN_SECONDS) -> None:
        self._bar, self._console, self._every = bar, console, every
        self._live = console.is_terminal and not console.is_dumb_terminal
        self._started = time.monotonic()
        self._next = self._started + every

    def __enter__(self) -> Self:
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._bar.stop()

    def _line(self, words: str, *, now: bool = False) -> None:
        """Print a plain line, at most one in `every` seconds unless it is for now."""
        if now or time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            self._console.print(plain(words), soft_wrap=True)
