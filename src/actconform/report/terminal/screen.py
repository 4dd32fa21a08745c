"""A run on the terminal: facts, the table of kernels by routes, new findings, the verdict."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table

from actconform.report.cells import MARKS_MEAN, cell
from actconform.report.critical_causes import critical_causes
from actconform.report.reasons import abbreviate
from actconform.report.rerun_command import rerun_command
from actconform.report.terminal.console import open_console, plain
from actconform.report.terminal.trainings import training_table
from actconform.text import number_of
from actconform.types import TRAINING, Route, Verdict, base_name
from actconform.types.dtypes import DTYPES, from_hex
from actconform.types.finding import CLASSES
from actconform.verdict.severity import counted, gravest, severity_order, tally

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from actconform.run.scheduler import Plan
    from actconform.types import Finding, Result

NEW_SHOWN = 20
CAUSES_SHOWN = 8
FINDINGS_SHOWN = 4
REASON_LINES = 4
INDENT = 5
CONTINUED = "    "  # a line within a message begins no line of its own: CI reads commands there
UNLIMITED = 1 << 16
ONLY_TENSORS = ("y", "d_x")  # of most kernels
DIGITS = {"f32": 9, "f16": 5, "bf16": 4}  # enough to tell two neighbours apart
FACTS_SHOWN = ("keras", "tensorflow", "torch", "jax", "onnxruntime", "openvino")
# What the stages of a case count as; all others, such as checks and messages, are the harness.
STAGES = {"export": "export", "build": "compile", "load": "compile", "run": "run", "compare": "compare"}
TIMED = ("import", "export", "compile", "run", "compare", "harness")
WITHOUT_ANSWER = (Verdict.XPASS, Verdict.CRASH, Verdict.TIMEOUT, Verdict.ERROR)
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

    def __init__(self, *, to_stderr: bool = False, console: Console | None = None) -> None:
        self.console = console or open_console(to_stderr=to_stderr)

    def header(self, facts: Mapping[str, Mapping[str, str]], plan: Plan) -> None:
        """Print versions and CPU capability on one line, each once."""
        words = [
            f"{fact} {of_backend[fact]}" for fact in FACTS_SHOWN for of_backend in facts.values() if fact in of_backend
        ]
        words += [of_backend["cpu_capability"] for of_backend in facts.values() if "cpu_capability" in of_backend]
        subjects = len({case.subject for case in plan.cases})
        words.append(f"goldens of {number_of(subjects, 'subject')} verified")
        self._print(plain(" · ".join(dict.fromkeys(words))))

    def notes(self, lines: Iterable[str]) -> None:
        """Print each line as it is, without wrapping it."""
        for line in lines:
            self._print(plain(line), no_wrap=True)

    def tables(self, results: Sequence[Result], *groups: Iterable[str]) -> None:
        """Print each group of subjects by routes: the worst error as a share of its limit, or the finding."""
        shown = [self._table(results, list(group)) for group in groups]
        if any(shown):
            self._print(
                "a cell is the worst error over aspects and dtypes in % of its limit (0: exact), or the gravest finding: "
                f"{MARKS_MEAN}; – unsupported, ? not run",
                style="dim",
            )

    def trainings(self, results: Iterable[Result]) -> None:
        """Print what the losses of each experiment came to, and its claims."""
        table = training_table(results)
        if table is not None:
            self.console.print(table)

    def _table(self, results: Sequence[Result], wanted: Sequence[str]) -> bool:
        """Print tables without subjects and routes of which nothing ran, as many as the width needs; return whether there is one."""
        cells: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
        answered: dict[str, None] = {}
        refused: dict[str, None] = {}
        for result in (result for result in results if result.subject in wanted):
            cells[result.subject][result.route].append(result)
            if result.verdict is not Verdict.UNAVAILABLE:
                (refused if result.verdict is Verdict.UNSUPPORTED else answered).setdefault(result.route)
        rows = {subject: cells[subject] for subject in wanted if subject in cells}
        left = list(answered or refused)  # a column of refusals is worth its width where there is no other
        while left:
            # rich would make columns narrower until the shortest are gone
            fitting = (count for count in range(len(left), 0, -1) if self._fits(_grid(rows, left[:count])))
            count = next(fitting, 1)
            self.console.print(_grid(rows, left[:count]))
            left = left[count:]
        return bool(answered or refused)

    def _fits(self, table: Table) -> bool:
        unlimited = self.console.options.update(max_width=UNLIMITED)
        return self.console.measure(table, options=unlimited).maximum <= self.console.width

    def causes(self, results: Iterable[Result]) -> None:
        """Print the causes of what is known and critical, a line for each, that of most cases first."""
        causes = critical_causes(results)
        if not causes:
            return
        cases = len(frozenset().union(*(cause.cases for cause in causes)))
        self._print(f"known, critical: {number_of(cases, 'case')}, by cause (and blame):")
        shown = causes[:CAUSES_SHOWN]
        width = max(len(cause.id) for cause in shown)
        for cause in shown:
            about = f"{len(cause.cases):>3} {cause.id:<{width}}  {cause.class_} ({cause.blame})"
            self._print(f"[yellow]▲[/] {plain(about)}", 2)
        if len(causes) > CAUSES_SHOWN:
            self._print(f"… and {number_of(len(causes) - CAUSES_SHOWN, 'more cause')}, in index.html", 2)

    def findings(self, results: Iterable[Result], models: Collection[str] = ()) -> None:
        """Print the new findings, the gravest case first, of each kind in a case the gravest, with the command that repeats it.

        For `models` it names the first layer or gradient to look at, and the wrong tensor: their inputs explain nothing. For
        trainings it prints each evidence once, which names the first wrong step.
        """
        new = [(finding, result) for result in results if (finding := _gravest_new(result))]
        new.sort(key=lambda pair: severity_order(pair[0]))
        for _, result in new[:NEW_SHOWN]:
            self._new(result, of_model=result.subject in models)
        if len(new) > NEW_SHOWN:
            rest = tally(finding for finding, _ in new[NEW_SHOWN:])
            self._print(
                f"… and {number_of(len(new) - NEW_SHOWN, 'more case with new finding', 'more cases with new findings')} ({rest}), in report.json",
                INDENT,
            )

    def _new(self, result: Result, *, of_model: bool) -> None:
        kinds = _kinds([finding for finding in result.findings if finding.deviation is None])
        classes = list(dict.fromkeys(finding.class_ for finding, _ in kinds))
        first = kinds[0][0]
        about = f"{plain(result.case)}   {plain(', '.join(classes))}   blame: {plain(first.blame)}"
        self._print(f"[bold red]NEW[/] {plain(first.severity)}  {about}")
        if of_model and (where := result.reason.partition("; ")[2]):
            self._print(plain(where), INDENT)
        width = max(map(len, classes)) if len(kinds) > 1 else 0
        if result.aspect == TRAINING:
            kinds = list({finding.evidence or finding: (finding, count) for finding, count in reversed(kinds)}.values())
            kinds.reverse()
        for finding, count in kinds[:FINDINGS_SHOWN]:
            line = f"{finding.class_:<{width}}   " if width else ""
            line += describe_finding(finding, result, count, of_model=of_model)
            line += f"   {finding.severity}" if finding.severity not in (first.severity, finding.blame) else ""
            line += f"   blame: {finding.blame}" if finding.blame != first.blame else ""
            self._print(plain(line), INDENT)
        if len(kinds) > FINDINGS_SHOWN:
            self._print(f"… and {len(kinds) - FINDINGS_SHOWN} more", INDENT)
        self._print(plain(rerun_command(result.case)), INDENT, no_wrap=True)

    def timings(self, results: Iterable[Result], imports: Mapping[str, float], clock: Mapping[str, float]) -> None:
        """Print seconds by backend and stage; `imports` has those that each backend's processes took to start.

        All other time is the harness. A case that ended early counts as the stage at which it ended.
        """
        seconds: dict[str, Counter[str]] = {
            name: Counter({"import": stage_seconds}) for name, stage_seconds in imports.items()
        }
        for result in results:
            spent = Counter({"harness": result.seconds})
            for stage, stage_seconds in (result.timings or {result.stage: result.seconds}).items():
                if stage in STAGES:
                    spent.update({STAGES[stage]: stage_seconds, "harness": -stage_seconds})
            backend = Route.of(result.route).backend
            seconds.setdefault(backend if backend in imports else base_name(backend), Counter()).update(spent)
        table = Table("seconds", box=None, pad_edge=False, padding=(0, 3, 0, 0))
        for column in TIMED:
            table.add_column(column, justify="right")
        for backend, counter in seconds.items():
            table.add_row(plain(backend), *(f"{max(counter[column], 0.0):.2f}" for column in TIMED))
        self.console.print(table)
        self._print(f"total {clock['total']:.2f}: backends run side by side · record {clock['record']:.2f}")

    def verdict(
        self, results: Sequence[Result], problems: Sequence[str], folder: Path, seconds: float, *, interrupted: bool
    ) -> None:
        """Print the cases without outputs, the counts, the cases that were not run with their reasons, the first of several cases
        to look at, and the verdict.
        """
        self._without_answer(results)
        by_verdict: dict[Verdict, list[Result]] = {Verdict.PASS: []}
        for result in results:
            by_verdict.setdefault(result.verdict, []).append(result)
        parts = [counted(by_verdict[verdict], word) for verdict, word in WORDS.items() if verdict in by_verdict]
        for reason, routes in _not_run(results).items():
            parts.append(f"{sum(routes.values()):,} not run: {', '.join(routes)} ({reason})")
        self._print(plain(" · ".join(parts)), style="bold")
        for route, reason in _all_unsupported(results).items():
            self._print(plain(f"{route}: every case is unsupported: {reason}"))
        for problem in problems:
            self._print(f"[red]✗[/] {plain(problem)}")
        if interrupted:
            self._print("[red]interrupted[/]: the results until then are kept")
        first = _look_first(results)
        if first:
            self._print(f"[bold red]look first at[/] {plain(first)}")
        words = "[bold red]DOES NOT CONFORM[/]" if problems else "[bold green]CONFORMS[/]"
        page = folder / "index.html"  # a reporter that failed left none
        file = page if page.exists() else folder / "report.json"
        self._print(f"{words}     {plain(str(file))}     {_clock(seconds)}")

    def _without_answer(self, results: Iterable[Result]) -> None:
        """Print each reason once, with the cases that it ended; it may have ended all of a backend."""
        by_reason: dict[tuple[Verdict, str], list[Result]] = defaultdict(list)
        for result in results:
            if result.verdict in WITHOUT_ANSWER:
                by_reason[result.verdict, result.reason].append(result)
        for (verdict, reason), ended in list(by_reason.items())[:NEW_SHOWN]:
            cases = ended[0].case if len(ended) == 1 else f"{number_of(len(ended), 'case')}, {ended[0].case} the first"
            self._print(f"[bold red]{verdict}[/]  {plain(cases)}")
            for line in reason.splitlines()[:REASON_LINES]:
                self._print(plain(line), INDENT)
        if len(by_reason) > NEW_SHOWN:
            self._print(f"… and {len(by_reason) - NEW_SHOWN} more, in report.json", INDENT)

    def _print(self, text: str, indent: int = 0, *, style: str = "", no_wrap: bool = False) -> None:
        """Print markup; a terminal wraps at words except with `no_wrap`, for lines to be copied; a log never wraps."""
        text = text.replace("\n", "\n" + CONTINUED)
        if no_wrap or not self.console.is_terminal:
            self.console.print(" " * indent + text, style=style, soft_wrap=True)
        else:
            self.console.print(Padding(text, (0, 0, 0, indent), expand=False), style=style)


def _grid(rows: Mapping[str, Mapping[str, list[Result]]], routes: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column("", no_wrap=True)
    for route in routes:
        table.add_column(plain(re.sub("(?=[+@])", "\n", route)), justify="right", no_wrap=True)
    for subject, by_route in rows.items():
        table.add_row(plain(subject), *(cell(by_route.get(route, [])) for route in routes))
    return table


def describe_finding(finding: Finding, result: Result, count: int, *, of_model: bool = False) -> str:
    """Return one line for a finding: the worst element with truth, output and error, and the number of elements.

    It begins with the tensor where there may be several.
    """
    tensor = f"{finding.tensor}: " if finding.tensor and (of_model or finding.tensor not in ONLY_TENSORS) else ""
    if finding.worst is None or (result.aspect == TRAINING and finding.evidence):
        # the evidence of a step names the tensor that is wrong first
        return finding.evidence if result.aspect == TRAINING else tensor + finding.evidence
    worst, digits = finding.worst, DIGITS[result.dtype]
    x = from_hex(worst.input_hex, DTYPES[result.dtype])
    parts = [] if of_model else [f"x={worst.input_hex} ({x:.6g})"]
    parts += [f"truth {worst.truth:.{digits}g}", f"got {worst.got:.{digits}g}"]
    if CLASSES[finding.class_].unit == "ulp":
        parts.append(f"{finding.magnitude:.3g} ULP")
    elif CLASSES[finding.class_].unit == "scaled":
        of = (m.limit for m in result.measurements if (m.tensor, m.regime) == (finding.tensor, finding.regime))
        limit = next(of, 0.0)
        # results within their limits, of which all together or a lone one say something
        within = finding.evidence and finding.magnitude <= limit
        words = finding.evidence.partition(";")[0]  # before what was added of whose fault it is
        parts.append(words if within else f"error {finding.magnitude:.3g} (limit {limit:g})")
    parts += [number_of(count, "element")] if count > 1 else []
    return tensor + "   ".join(parts)


def _kinds(findings: Sequence[Finding]) -> list[tuple[Finding, int]]:
    """Return the worst finding of each kind, gravest first, and the elements of all of that kind.

    Findings are of one kind when they differ in nothing but the regime, or in inputs of one sign.
    """
    kinds: dict[tuple[str, str, str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        sign = _sign(finding.worst.input_hex) if finding.worst else ""
        kinds[finding.class_, finding.tensor, finding.blame, sign].append(finding)
    worst = [(min(kind, key=severity_order), sum(finding.count for finding in kind)) for kind in kinds.values()]
    return sorted(worst, key=lambda pair: severity_order(pair[0]))


def _gravest_new(result: Result) -> Finding | None:
    return gravest(finding for finding in result.findings if finding.deviation is None)


def _look_first(results: Iterable[Result]) -> str:
    """Return the gravest of several cases that are new or gave no answer, "" where there are less than two, which are just above."""
    broken, new = [], []
    for result in results:
        if result.verdict in WITHOUT_ANSWER:
            broken.append(f"{result.case}: {result.verdict}")
        elif finding := _gravest_new(result):
            words = f"{result.case}: NEW, {finding.severity}, {finding.class_}, blame: {finding.blame}"
            new.append((severity_order(finding), words))
    if len(broken) + len(new) < 2:
        return ""
    return broken[0] if broken else min(new)[1]


def _sign(input_hex: str) -> str:
    return "-" if int(input_hex[2], 16) >= 8 else "+"


def _not_run(results: Iterable[Result]) -> dict[str, Counter[str]]:
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        if result.verdict is Verdict.UNAVAILABLE:
            reasons[abbreviate(result.reason)][result.route] += 1
    return reasons


def _all_unsupported(results: Sequence[Result]) -> dict[str, str]:
    """Return the routes that ran no case at all, each with its reason, the first of several."""
    answered = {result.route for result in results if result.verdict is not Verdict.UNSUPPORTED}
    return {result.route: abbreviate(result.reason) for result in reversed(results) if result.route not in answered}


def _clock(seconds: float) -> str:
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}s"
    return f"{round(seconds) // 60}m{round(seconds) % 60:02d}s"
