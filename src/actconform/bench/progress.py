"""How far a measurement is: a bar on a terminal, a plain line now and then elsewhere, drawn only between workloads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from actconform.bench.workloads import shown

if TYPE_CHECKING:
    from typing import Self

    from rich.console import Console

    from actconform.bench.workloads import Workload

PLAIN_SECONDS = 15.0


class WorkloadProgress:
    """Counts workloads. Nothing is redrawn while one is timed: a thread that draws would distort the times."""

    def __init__(self, total: int, console: Console) -> None:
        self._total = total
        self._done = 0
        self._console = console
        self._next = time.monotonic() + PLAIN_SECONDS
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, transient=True, auto_refresh=False)
        self._task = self._bar.add_task("", total=total)
        self._live = console.is_terminal and not console.is_dumb_terminal

    def __enter__(self) -> Self:
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._bar.stop()

    def begins(self, workload: Workload) -> None:
        """Show which workload is timed next."""
        words = f"{workload.subject} {workload.direction} {shown(workload.size)}"
        if self._live:
            self._bar.update(self._task, completed=self._done, description=words, refresh=True)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_SECONDS
            self._console.print(f"{self._done}/{self._total}: {words}", markup=False, soft_wrap=True)
        self._done += 1
