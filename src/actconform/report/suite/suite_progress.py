"""How far a suite is: a bar with the time left on a terminal, a plain line every 15 seconds elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from actconform.report.terminal.live_bar import LiveBar
from actconform.text import number_of

if TYPE_CHECKING:
    from rich.console import Console


class SuiteProgress(LiveBar):
    """Counts cases; a context that ends its bar. `console` is one on standard error."""

    def __init__(self, total: int, console: Console) -> None:
        self._total, self._done = total, 0
        columns = (TextColumn("cases"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(Progress(*columns, console=console, transient=True), console)
        self._task = self._bar.add_task("", total=total)

    def step(self) -> None:
        """Count a case that is done."""
        self._done += 1
        if self._live:
            self._bar.advance(self._task)
        else:
            passed = time.monotonic() - self._started
            left = passed / self._done * (self._total - self._done)
            self._line(f"{self._done:,} of {number_of(self._total, 'case')}, {left:.0f} s left")
