"""How far a measurement is: a bar on a terminal, a plain line now and then elsewhere, drawn only between workloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from actconform.bench.workloads import shown
from actconform.report.terminal.live_bar import LiveBar

if TYPE_CHECKING:
    from rich.console import Console

    from actconform.bench.workloads import Workload


class WorkloadProgress(LiveBar):
    """Counts workloads. Nothing is redrawn while one is timed: a thread that draws would distort the times."""

    def __init__(self, total: int, console: Console) -> None:
        self._total, self._done = total, 0
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        super().__init__(Progress(*columns, console=console, transient=True, auto_refresh=False), console)
        self._task = self._bar.add_task("", total=total)

    def begins(self, workload: Workload) -> None:
        """Show which workload is timed next."""
        words = f"{workload.subject} {workload.direction} {shown(workload.size)}"
        if self._live:
            self._bar.update(self._task, completed=self._done, description=words, refresh=True)
        else:
            self._line(f"{self._done}/{self._total}: {words}")
        self._done += 1
