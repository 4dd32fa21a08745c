"""How far a suite is: a bar with the time left on a terminal, a plain line every 15 seconds elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from typing import Self

    from rich.console import Console

PLAIN_SECONDS = 15.0


class SuiteProgress:
    """Counts cases; a context that ends its bar. `console` is one on standard error."""

    def __init__(self, total: int, console: Console) -> None:
        self._total, self._done = total, 0
        self._console = console
        self._started = time.monotonic()
        self._next = self._started + PLAIN_SECONDS
        columns = (TextColumn("cases"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("", total=total)
        self._live = console.is_terminal and not console.is_dumb_terminal

    def __enter__(self) -> Self:
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._bar.stop()

    def step(self) -> None:
        """Count a case that is done."""
        self._done += 1
        if self._live:
            self._bar.advance(self._task)
        elif time.monotonic() >= self._next:
            passed = time.monotonic() - self._started
            left = passed / self._done * (self._total - self._done)
            self._next += PLAIN_SECONDS
            self._console.print(f"{self._done:,} of {self._total:,} cases, {left:.0f} s left", soft_wrap=True)
