"""A study on the terminal: how far it is, and a table for each role of each experiment."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from actconform.report.terminal.console import plain
from actconform.report.terminal.live_bar import LiveBar
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from actconform.study.summary import StudyRow
    from actconform.study.trial import Trial


class StudyProgress(LiveBar):
    """Counts trainings, their rate and the time left: a bar on a terminal, a plain line every 15 seconds elsewhere."""

    def __init__(self, total: int, console: Console) -> None:
        self._total, self._done, self._failed = total, 0, 0
        columns = (
            TextColumn("training"),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[doing]}", markup=False),
        )
        super().__init__(Progress(*columns, console=console, transient=True), console)
        self._task = self._bar.add_task("", total=total, rate="", doing="")

    def advance(self, trial: Trial) -> None:
        """Count a training that is done."""
        self._done += 1
        self._failed += bool(trial.failure)
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        words = f"{trial.experiment}, {trial.role} {trial.kernel}, seed {trial.seed}"
        if self._live:
            self._bar.update(self._task, completed=self._done, rate=f"{rate:.1f}/s", doing=words)
        else:
            left = (self._total - self._done) / rate
            failed = f", {self._failed} failed" if self._failed else ""
            line = (
                f"{self._done}/{number_of(self._total, 'training')}, {rate:.1f}/s, {left:.0f} s left{failed}: {words}"
            )
            self._line(line)


def study_tables(console: Console, rows: Sequence[StudyRow]) -> None:
    """Print the rows, a table for each role of each experiment; what was not trained on a line below it, by reason."""
    for (experiment, role), grouped in groupby(rows, key=lambda row: (row.experiment, row.role)):
        group = list(grouped)
        trained = [row for row in group if not row.reason]
        console.print(f"\n[bold]{plain(experiment)}[/]  {role}", soft_wrap=True)
        if trained:
            console.print(_grid(trained))
        reasons: dict[str, list[str]] = {}
        for row in group:
            if row.reason:
                reasons.setdefault(row.reason, []).append(row.kernel)
        for reason, kernels in reasons.items():
            console.print(plain(f"{reason}: {', '.join(kernels)}"), style="dim", soft_wrap=True)


def _grid(rows: Sequence[StudyRow]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="dim")
    grid.add_column("kernel", no_wrap=True)
    metric = next((row.metric_name for row in rows if row.metric_name), "metric")
    for name in (
        "loss",
        "validation",
        metric,
        "stated at",
        "first/last",
        "dead",
        "saturated",
        "rank",
        "dimension",
        "ms/step",
    ):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("what became of it")
    for row in rows:
        kernel = plain(row.kernel)
        grid.add_row(f"[bold]{kernel}[/]" if row.present else kernel, *map(plain, _cells(row)))
    return grid


def _cells(row: StudyRow) -> tuple[str, ...]:
    reached = _shown(row.reached) + (f" ({row.reached_seeds}/{row.seeds})" if 0 < row.reached_seeds < row.seeds else "")
    rank = f"{row.rank:g}/{row.width}" if np.isfinite(row.rank) else "-"
    return (
        _shown(row.loss.median),
        _shown(row.validation_loss.median),
        _shown(row.metric.median),
        reached,
        _shown(row.gradient_ratio),
        _share(row.dead),
        _share(row.saturated),
        rank,
        _shown(row.dimension),
        _shown(1000.0 * row.step_seconds),
        row.words,
    )


def _shown(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "-"


def _share(value: float) -> str:
    return f"{100.0 * value:.3g} %" if np.isfinite(value) else "-"
