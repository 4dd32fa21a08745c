"""The screen of drawn operators: a line for each operator and runtime, and one for each finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from actconform.report.terminal.console import plain
from actconform.text import number_of

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from actconform.suite.drawn.drawn_report import DrawnReport, OperatorTally

COUNTS = ("examples", "within", "refused", "wrong", "failed", "crash", "timeout", "unjudged")


def print_drawn(console: Console, report: DrawnReport, out: Path) -> None:
    """Print the counts by family, the findings with their folders, and what did not run."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operator")
    table.add_column("runtime")
    for name in (*COUNTS, "worst / bound"):
        table.add_column(name, justify="right")
    family = ""
    for tally in report.tallies:
        if tally.family != family:
            family = tally.family
            table.add_row(f"[bold]{plain(family)}[/bold]")
        table.add_row(*_row(tally))
    console.print(table)
    for finding in report.findings:
        where = out / finding.folder if finding.folder else "not written"
        text = f"{finding.runtime}  {finding.operator} {finding.dtype} {finding.kind} ({number_of(finding.examples, 'example')}): {finding.words}"
        console.print(f"[red]FINDING[/red]  {plain(text)}\n         {plain(str(where))}", soft_wrap=True)
    if report.not_run:
        console.print(f"NOT RUN  {plain(', '.join(report.not_run))}", soft_wrap=True)
    operators = len({tally.operator for tally in report.tallies})
    count = len(report.findings)
    console.print(
        f"{number_of(operators, 'operator')}, {sum(tally.examples for tally in report.tallies):,} runs of graphs, {number_of(count, 'finding')}"
    )


def _row(tally: OperatorTally) -> list[str]:
    counts = [getattr(tally, name) for name in COUNTS]
    cells = [f"{count:,}" if count else "" for count in counts]
    for place in range(3, 7):  # what is a finding
        if counts[place]:
            cells[place] = f"[red]{cells[place]}[/red]"
    return [plain(tally.operator), plain(tally.runtime), *cells, f"{tally.worst:.2f}" if tally.within else ""]
