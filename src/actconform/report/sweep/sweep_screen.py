"""A sweep on the terminal: how far it is, at what rate, and a line for each kernel and route."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn
from rich.segment import Segments
from rich.table import Table

from actconform.exhaustive.patterns import CHUNKS
from actconform.exhaustive.statistics import joined_binades
from actconform.report.terminal.console import plain
from actconform.report.terminal.live_bar import LiveBar
from actconform.sweep.summary import WITHIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from actconform.sweep.journal import Sweep

WIDEST = 1000  # columns of a table


class SweepProgress(LiveBar):
    """Counts inputs, their rate and the time left: a bar on a terminal, a plain line every 15 seconds elsewhere.

    Rate and time left are of chunks alone: the start of frameworks, exports and the search for causes do not count.
    """

    def __init__(self, console: Console, name: str = "sweep") -> None:
        self._done = self._left = 0
        self._since, self._seconds = time.monotonic(), 0.0
        columns = (TextColumn(name), BarColumn(20), TextColumn("{task.fields[words]}", markup=False))
        super().__init__(Progress(*columns, console=console, transient=True), console)
        self._task = self._bar.add_task("", total=None, words="")

    def begin(self, left: int) -> None:
        """Begin chunks, with so many inputs to come in all."""
        self._left, self._since = left, time.monotonic()

    def advance(self, inputs: int, doing: str) -> None:
        """Count inputs that are done; `doing` names their kernel and route."""
        now = time.monotonic()
        self._seconds += now - self._since
        self._since = now
        self._done += inputs
        self._left -= inputs
        rate = self._done / max(self._seconds, 1e-9)
        of = self._done + self._left
        words = f"{100.0 * self._done / of:.0f} %, {rate / 1e6:.3g} M/s, {self._left / rate:.0f} s left: {doing}"
        if self._live:
            self._bar.update(self._task, total=of, completed=self._done, words=words)
        else:
            self._line(words)


def sweep_table(console: Console, sweeps: Sequence[Sweep]) -> None:
    """Print a line for each sweep: its worst errors with their inputs, shares of outputs by error, findings."""
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("kernel", "aspect", "route"):
        grid.add_column(name, no_wrap=True)
    for name in (
        "inputs",
        "max ULP",
        "at",
        "max scaled",
        "at",
        "right",
        *(f"<{ulp} ULP" for ulp in WITHIN),
        "findings",
    ):
        grid.add_column(name, justify="right", no_wrap=True)
    for sweep in sweeps:
        case, counted = sweep.identity.case, sweep.statistics
        if not counted.inputs:
            continue
        inputs = f"{counted.inputs:,}" + ("" if sweep.complete else f" ({len(sweep.chunks)}/{CHUNKS})")
        cells = [case.subject, case.aspect, case.route, inputs]
        for worst in (counted.ulp, counted.scaled):
            cells += [short_error(worst.error), worst.at]
        right = share(counted.correctly_rounded, counted.inputs)
        cells += [("≈" if counted.undecided else "") + right]
        cells += [share(counted.below(ulp), counted.inputs) for ulp in WITHIN]
        findings = joined_binades(counted.findings)
        new = sum(not finding.deviation for finding in findings) if sweep.complete else "?"
        cells += [f"{new}/{len(findings)}" if findings else "none"]
        grid.add_row(*map(plain, cells))
    # as wide as it is: a number that is cut at the edge would be another one
    whole = console.measure(grid, options=console.options.update_width(WIDEST)).maximum
    console.print(Segments(console.render(grid, console.options.update_width(whole))), soft_wrap=True, end="")


def short_error(error: float) -> str:
    """Return an error in four digits, "-" where there is none."""
    return "-" if error < 0 else f"{error:.4g}"


def share(count: int, of: int) -> str:
    """Return a share in per cent; "100 %" only where it is all."""
    if count == of:
        return "100 %"
    return f"{min(100.0 * count / of, 99.9999):.6g} %"
