"""Progress of a training: a bar with loss, rate and time left on a terminal, lines of epochs elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

LINE_SECONDS = 1.0  # between two lines of epochs in a log


class TrainScreen:
    """Shows how far a training is, as `actconform.training.own_model.TrainListener`; a context that ends its bar.

    `console` is one on standard error (`open_console(to_stderr=True)`), `epochs` how many are asked for, 0 where that is not known.
    """

    def __init__(self, console: Console, epochs: int) -> None:
        self._console, self._epochs = console, epochs
        self._started = self._shown = time.monotonic()
        self._first: int | None = None
        self._rate = 0.0
        self._bar = None
        if console.is_terminal and not console.is_dumb_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(10),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("training", total=None)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def steps(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = done, now
        elif now > self._started:
            self._rate = (done - self._first) / (now - self._started)
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)

    def epoch(self, number: int, losses: NDArray[np.float32], validation: float | None, seconds_left: float) -> None:
        of = f" of {self._epochs:,}" if self._epochs else ""
        judged = "" if validation is None else f", validation {validation:.4g}"
        rate = f", {self._rate:,.0f} steps/s" if self._rate else ""
        text = f"epoch {number:,}{of}: loss {losses.mean(dtype=float):.4g}{judged}{rate}"
        if self._bar:
            short = text.partition(": ")[2].replace("validation", "val.")  # in 80 columns, with the time left
            self._bar.update(self._task, description=short)
        elif number in (1, self._epochs) or time.monotonic() - self._shown > LINE_SECONDS:
            self._shown = time.monotonic()
            self._console.print(f"{text}, {seconds_left:,.0f} s left", markup=False, soft_wrap=True)
