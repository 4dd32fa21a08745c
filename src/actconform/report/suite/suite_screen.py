"""A suite on the terminal: a table by operator for each runtime, what is outside, what the shipped data have wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from actconform.report.suite.suite_words import blame_words, bound_words, data_findings
from actconform.report.terminal.console import plain
from actconform.suite.operator_rows import data_states, operator_rows, runtime_totals
from actconform.suite.suite_result import is_fine
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from actconform.suite.operator_rows import OperatorRow
    from actconform.suite.suite_result import RuntimeFacts, RuntimeVerdict, SuiteRecord, SuiteReport

MOST_LETTERS = 300
ORDER = ("outside", "crash", "timeout", "memory", "error", "not judged")  # of findings
MOST_LINES = 25  # of findings of a runtime, and of the data
FACTS = ("device", "cpu_capability")
HEAD = ("passed", "failed", "unsup-\nported", "within", "outside", "refused", "no\nanswer", "not\njudged")


def print_suite(console: Console, report: SuiteReport) -> None:
    """Print a suite. Rows of operators with nothing to say are counted below their table."""
    rows = operator_rows(report.records)
    for runtime in report.identity.runtimes:
        own = [row for row in rows if row.runtime == runtime.name]
        console.print(f"\n[bold]{plain(runtime.name)}[/]  {plain(_facts(runtime))}", soft_wrap=True)
        if own:
            console.print(_grid([row for row in own if not row.clean], runtime_totals(own)[0]))
            _say_clean(console, own)
        _findings(console, report, runtime.name)
    _data(console, report)
    for words in (*report.left_out, *report.notes):
        console.print(plain(one_line(words)), style="dim", soft_wrap=True)


def _facts(runtime: RuntimeFacts) -> str:
    version = [f"{name} {runtime.facts[name]}" for name in runtime.packages if name in runtime.facts][:1]
    return " · ".join([*version, *(runtime.facts[name] for name in FACTS if name in runtime.facts)])


def _grid(rows: Sequence[OperatorRow], total: OperatorRow) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="dim")
    grid.add_column("operator", no_wrap=True)
    for name in ("cases", *HEAD):
        grid.add_column(name, justify="right", no_wrap=True, min_width=max(map(len, name.split("\n"))))
    grid.add_column("error /\nbound", justify="right", no_wrap=True, min_width=8)
    grid.add_column("worst case", overflow="ellipsis", no_wrap=True)
    for row in rows:
        grid.add_row(*map(plain, (row.operator, *_cells(row))))
    grid.add_row(*map(plain, ("all operators", *_cells(total))), style="bold")
    return grid


def _cells(row: OperatorRow) -> tuple[str, ...]:
    outside = f"{row.outside}" + (f" ({row.known} known)" if row.known else "")
    counts = (
        row.passed,
        row.failed,
        row.not_supported,
        row.within,
        outside,
        row.refused,
        row.no_answer,
        row.not_judged,
    )
    worst = f"{row.worst_ratio:.3g}" if row.worst_case else ""
    return str(row.cases), *(str(count) if count else "" for count in counts), worst, row.worst_case


def _say_clean(console: Console, rows: Sequence[OperatorRow]) -> None:
    clean = [row for row in rows if row.clean]
    if clean:
        cases = sum(row.cases for row in clean)
        words = f"{number_of(len(clean), 'more operator')}: all of their {number_of(cases, 'case')} passed, and are within their bounds"
        console.print(words, style="dim", soft_wrap=True)


def _findings(console: Console, report: SuiteReport, runtime: str) -> None:
    """Print the cases that are no refusal and not within, those of a bound first."""
    findings = [
        (record, record.runtimes[runtime])
        for record in report.records
        if runtime in record.runtimes and not is_fine(record.runtimes[runtime])
    ]
    findings.sort(key=lambda pair: (ORDER.index(pair[1].truth.state), -_ratio(pair[1])))
    for record, verdict in findings[:MOST_LINES]:
        words = bound_words(verdict.truth)
        if verdict.truth.state == "not judged":
            words = f"fails by ONNX's limits: {verdict.standard_words}"
        _say_finding(console, record, f"{verdict.truth.state}: {words}", blame_words(verdict))
    if len(findings) > MOST_LINES:
        console.print(f"  ... and {len(findings) - MOST_LINES:,} more, in suite.json", soft_wrap=True)


def _ratio(verdict: RuntimeVerdict) -> float:
    return verdict.truth.worst.ratio if verdict.truth.worst else 0.0


def _data(console: Console, report: SuiteReport) -> None:
    outside = data_findings(report.records)
    states = data_states(report.records)
    words = ", ".join(f"{states[state]:,} {state}" for state in ("within", "outside", "not judged") if states[state])
    console.print(f"\n[bold]the data that the cases ship[/]  {words}", soft_wrap=True)
    for record in outside[:MOST_LINES]:
        _say_finding(console, record, bound_words(record.data), "test data")
    if len(outside) > MOST_LINES:
        console.print(f"  ... and {len(outside) - MOST_LINES:,} more, in suite.json", soft_wrap=True)


def _say_finding(console: Console, record: SuiteRecord, words: str, blame: str) -> None:
    parts = [one_line(record.operator), one_line(record.case), one_line(words, MOST_LETTERS)]
    line = "  ".join([*parts, *([f"blame: {one_line(blame)}"] if blame else [])])
    console.print(f"  {plain(line)}", soft_wrap=True)
