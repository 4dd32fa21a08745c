"""Progress of a training: a bar with loss, rate and time left on a terminal, lines of epochs elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from actconform.report.terminal.live_bar import LiveBar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

LINE_SECONDS = 1.0  # between two lines of epochs in a log


class TrainScreen(LiveBar):
    """Shows how far a training is, as `actconform.training.own_model.TrainListener`; a context that ends its bar.

    `console` is one on standard error (`open_console(to_stderr=True)`), `epochs` how many are asked for, 0 where that is not known.
    """

    def __init__(self, console: Console, epochs: int) -> None:
        self._epochs = epochs
        self._first: int | None = None
        self._rate = 0.0
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(10),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        super().__init__(Progress(*columns, console=console, transient=True), console, LINE_SECONDS)
        self._task = self._bar.add_task("training", total=None)

    def steps(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = done, now
        elif now > self._started:
            self._rate = (done - self._first) / (now - self._started)
        if self._live:
            self._bar.update(self._task, completed=done, total=total)

    def epoch(self, number: int, losses: NDArray[np.float32], validation: float | None, seconds_left: float) -> None:
        of = f" of {self._epochs:,}" if self._epochs else ""
        judged = "" if validation is None else f", validation {validation:.4g}"
        rate = f", {self._rate:,.0f} steps/s" if self._rate else ""
        text = f"epoch {number:,}{of}: loss {losses.mean(dtype=float):.4g}{judged}{rate}"
        if self._live:
            short = text.partition(": ")[2].replace("validation", "val.")  # in 80 columns, with the time left
            self._bar.update(self._task, description=short)
        else:
            self._line(f"{text}, {seconds_left:,.0f} s left", now=number in (1, self._epochs))
