"""What a run shows in the terminal: facts, the table of kernels by routes, new findings, the verdict."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actconform.compare.ulp import from_hex
from actconform.types import DTYPES, RAN, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from actconform.run import Plan
    from actconform.types import Finding, Kernel, Result

NEW_SHOWN = 20
PLAIN_WIDTH = 160
FACTS_SHOWN = ("keras", "tensorflow", "torch", "onnxruntime", "cpu_capability")
WORDS = {
    Verdict.PASS: "pass",
    Verdict.XFAIL: "known",
    Verdict.FAIL: "NEW",
    Verdict.XPASS: "XPASS",
    Verdict.CRASH: "CRASH",
    Verdict.TIMEOUT: "TIMEOUT",
    Verdict.ERROR: "ERROR",
    Verdict.UNSUPPORTED: "unsupported",
}


class Screen:
    """The terminal, or plain lines where there is none; `to_stderr` leaves standard output to JSON."""

    def __init__(self, *, to_stderr: bool = False) -> None:
        self.console = Console(stderr=to_stderr, highlight=False)
        if not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH

    def header(self, facts: Mapping[str, Mapping[str, str]], plan: Plan) -> None:
        """Print versions and capability on one line."""
        words: dict[str, str] = {}
        for of_backend in facts.values():
            for fact in FACTS_SHOWN:
                if fact in of_backend:
                    value = of_backend[fact]
                    words.setdefault(value if fact == "cpu_capability" else f"{fact} {value}", "")
        subjects = len({case.subject for case in plan.cases})
        self.console.print(escape(" · ".join([*words, f"goldens of {subjects} kernels verified"])))

    def table(self, results: Iterable[Result], kernels: Mapping[str, Kernel]) -> None:
        """Print kernels by routes: the worst error as a share of its limit, or the finding."""
        cells: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
        columns: dict[str, None] = {}
        for result in results:
            cells[result.subject][result.route].append(result)
            columns.setdefault(result.route)
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
        table.add_column("")
        for route in columns:
            table.add_column(escape(route), justify="right")
        for subject in (name for name in kernels if name in cells):
            table.add_row(escape(subject), *(_cell(cells[subject][route]) for route in columns))
        self.console.print(table)
        self.console.print(
            "a cell is the worst error over aspects and dtypes in % of its limit, or the finding;"
            " [yellow]▲ known[/], [red]● new[/], [dim]– not supported, ? not run[/]",
            style="dim",
        )

    def findings(self, results: Iterable[Result]) -> None:
        """Print the new findings, the worst of each case, with the command that repeats it."""
        new = [result for result in results if result.verdict is Verdict.FAIL]
        for result in new[:NEW_SHOWN]:
            unregistered = [finding for finding in result.findings if finding.deviation is None]
            self.console.print(f"[bold red]NEW[/]  {escape(result.case)}   blame: {result.blame}")
            for finding in unregistered[:4]:
                self.console.print(f"     {escape(describe(finding, result.dtype))}")
            self.console.print(f"     actconform run {escape(result.case)}")
        if len(new) > NEW_SHOWN:
            self.console.print(f"     … and {len(new) - NEW_SHOWN} more cases with new findings, in report.json")

    def timings(self, results: Iterable[Result]) -> None:
        """Print seconds by backend and stage."""
        seconds: dict[str, Counter[str]] = defaultdict(Counter)
        for result in results:
            seconds[result.case.rsplit("/", 1)[1]].update(result.timings)
        stages = sorted({stage for counter in seconds.values() for stage in counter})
        table = Table("route", *stages, box=None, padding=(0, 2, 0, 0))
        for route, counter in seconds.items():
            table.add_row(escape(route), *(f"{counter[stage]:.2f}" for stage in stages))
        self.console.print(table)

    def verdict(
        self, results: Sequence[Result], problems: Sequence[str], folder: Path, seconds: float, *, interrupted: bool
    ) -> None:
        """Print the counts, what was not run and why, and the verdict."""
        counts = Counter(result.verdict for result in results)
        parts = [
            f"{counts[verdict]:,} {word}"
            for verdict, word in WORDS.items()
            if counts[verdict] or verdict is Verdict.PASS
        ]
        self.console.print(" · ".join(parts), style="bold")
        for reason, routes in _not_run(results).items():
            self.console.print(f"{sum(routes.values())} not run: {', '.join(routes)} ({escape(reason)})")
        for result in results:
            if result.verdict in (Verdict.XPASS, Verdict.CRASH, Verdict.TIMEOUT, Verdict.ERROR):
                self.console.print(f"[red]{result.verdict}[/] {escape(result.case)}: {escape(result.reason)}")
        for problem in problems:
            self.console.print(f"[red]·[/] {escape(problem)}")
        if interrupted:
            self.console.print("[red]interrupted[/]: what had come in is kept")
        words = "[bold red]DOES NOT CONFORM[/]" if problems else "[bold green]CONFORMS[/]"
        self.console.print(f"{words}     {escape(str(folder / 'report.json'))}     {_clock(seconds)}")


def describe(finding: Finding, dtype: str) -> str:
    """Return one line for a finding: class, where, and the worst element with truth and answer."""
    head = f"{finding.class_} x{finding.count} in {finding.regime} of {finding.tensor}"
    if finding.worst is None:
        return f"{head}: {finding.evidence}"
    worst = finding.worst
    x = from_hex(worst.input_hex, DTYPES[dtype])
    numbers = f"x={worst.input_hex} ({x:.6g})   truth {worst.truth:.6g}   got {worst.got:.6g}"
    return f"{head}: {numbers}   {worst.scaled:.3g} units, {worst.ulp:.3g} ULP, blame: {finding.blame}"


def _cell(results: Sequence[Result]) -> str:
    verdicts = {result.verdict for result in results}
    for verdict in (Verdict.ERROR, Verdict.CRASH, Verdict.TIMEOUT, Verdict.XPASS):
        if verdict in verdicts:
            return f"[red]{verdict}[/]"
    findings = [finding for result in results for finding in result.findings]
    new = [finding for finding in findings if finding.deviation is None]
    if new:
        return f"[bold red]{_main_class(new)}●[/]"
    if findings:
        return f"[yellow]{_main_class(findings)}▲[/]"
    if not verdicts & set(RAN):
        return "[dim]?[/]" if Verdict.UNAVAILABLE in verdicts or not results else "[dim]–[/]"
    shares = [m.max_scaled / m.limit for result in results for m in result.measurements if m.limit]
    return f"{100 * max(shares, default=0.0):.0f}"


def _main_class(findings: Sequence[Finding]) -> str:
    """Return the class that a reader should know first: wrong numbers before special values before small print."""
    order = (
        "scaled-error",
        "nan-lost",
        "nan-made",
        "inf",
        "range",
        "kink",
        "tail",
        "position-dependent",
        "subnormal-flush",
    )
    present = {finding.class_ for finding in findings}
    return next((class_ for class_ in order if class_ in present), min(present))


def _not_run(results: Iterable[Result]) -> dict[str, Counter[str]]:
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        if result.verdict is Verdict.UNAVAILABLE:
            reasons[result.reason][result.route] += 1
    return reasons


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}m{seconds % 60:02.0f}s" if seconds >= 60 else f"{seconds:.1f}s"
