"""summary.md: a short summary for a CI job's page, worst cases first."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from actconform.plugin.interfaces import Reporter
from actconform.report.error_ratio import worst_error_ratio
from actconform.report.files.markdown import literal, table
from actconform.report.reasons import abbreviate
from actconform.report.rerun_command import rerun_command
from actconform.text import number_of
from actconform.types import BAD, Blame, Verdict
from actconform.verdict.severity import counted, gravest, severity_order

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from actconform.types import Result
    from actconform.types.report import Facts, Report

PROBLEMS_SHOWN = 10
BAD_SHOWN = 25
WORST_SHOWN = 15
NOT_RUN_SHOWN = 8
GRAVE_FIRST = (Verdict.CRASH, Verdict.TIMEOUT, Verdict.ERROR, Verdict.FAIL, Verdict.XPASS)
OF_PLACE = (
    "python",
    "platform",
    "machine",
    "cpu_features",
    "build",
    "threads",
    "device",
)  # facts that others of the line imply


class Summary(Reporter):
    """The verdict, the counts, and the worst cases, as Markdown of at most about 100 lines."""

    name = "summary"
    filename = "summary.md"

    def write(self, report: Report, folder: Path) -> None:
        """Write summary.md."""
        (folder / self.filename).write_text(summary(report), encoding="utf-8")


def summary(report: Report) -> str:
    """Return the Markdown of a report; all of its text is escaped."""
    by_verdict = {verdict: [result for result in report.results if result.verdict is verdict] for verdict in Verdict}
    words = [counted(results, str(verdict)) for verdict, results in by_verdict.items() if results]
    lines = [
        f"## actconform: {'conforms' if report.conforms else 'does not conform'}",
        "",
        ", ".join(words) or "nothing was run",
        "",
    ]
    lines += [f"- {literal(problem)}" for problem in report.problems[:PROBLEMS_SHOWN]]
    if len(report.problems) > PROBLEMS_SHOWN:
        lines.append(f"- … and {number_of(len(report.problems) - PROBLEMS_SHOWN, 'more problem')}")
    if report.problems:
        lines.append("")
    lines += _bad([result for result in report.results if result.verdict in BAD])
    lines += _worst(report.results)
    lines += _not_run(report.results)
    lines += _facts(report.facts, report.when)
    return "\n".join(lines).rstrip() + "\n"


def _bad(results: list[Result]) -> list[str]:
    if not results:
        return []
    results = sorted(results, key=lambda result: (GRAVE_FIRST.index(result.verdict), *_gravest_first(result)))
    rows = [
        [
            str(result.verdict),
            _severity(result),
            literal(result.case),
            _worst_cell(result),
            literal(_findings_or_reason(result)),
        ]
        for result in results[:BAD_SHOWN]
    ]
    lines = ["### Not as it should be", "", *table(["verdict", "severity", "case", "worst error", "what"], rows)]
    if len(results) > BAD_SHOWN:
        lines += ["", f"… and {number_of(len(results) - BAD_SHOWN, 'more case')}"]
    return [*lines, "", f"Repeat one with <code>{literal(rerun_command(results[0].case))}</code>.", ""]


def _worst(results: Iterable[Result]) -> list[str]:
    """Return the table of known deviations, gravest first, then of the errors nearest to their limits, one row for a subject."""
    of_subject: dict[str, Result] = {}
    for result in sorted(results, key=_gravest_first):
        good = result.verdict in (Verdict.PASS, Verdict.XFAIL) and result.blame != Blame.CONVENTION
        if good and (result.findings or _error_ratio(result)):
            of_subject.setdefault(result.subject, result)
    worst = list(of_subject.values())[:WORST_SHOWN]
    if not worst:
        return []
    verdict_words = {Verdict.XFAIL: "known", Verdict.PASS: "pass"}
    rows = [
        [
            verdict_words[result.verdict],
            _severity(result),
            literal(result.case),
            _worst_cell(result),
            literal(_classes(result)),
        ]
        for result in worst
    ]
    return ["### Gravest otherwise", "", *table(["", "severity", "case", "worst error", "what"], rows), ""]


def _gravest_first(result: Result) -> tuple[bool, tuple[bool, int] | tuple[()], float]:
    """Return a key that sorts results of one verdict: those with findings first, by the gravest, then by the worst error."""
    finding = gravest(result.findings)
    return finding is None, severity_order(finding)[:2] if finding else (), -_error_ratio(result)


def _severity(result: Result) -> str:
    finding = gravest(result.findings)
    return literal(finding.severity) if finding else ""


def _not_run(results: Iterable[Result]) -> list[str]:
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        if result.verdict is Verdict.UNAVAILABLE:
            reasons[abbreviate(result.reason)][result.route] += 1
    lines = [
        f"- {number_of(sum(routes.values()), 'case')} not run: {literal(reason)} ({literal(', '.join(list(routes)[:4]))}{', …' * (len(routes) > 4)})"
        for reason, routes in list(reasons.items())[:NOT_RUN_SHOWN]
    ]
    return [*lines, ""] if lines else []


def _facts(facts: Facts, when: str) -> list[str]:
    """Return a line with the versions, each once."""
    words = [f"actconform {facts.actconform}"] if facts.actconform else []
    for of_backend in facts.backends.values():
        words += [f"{fact} {value}" for fact, value in of_backend.items() if fact not in OF_PLACE]
    return [literal(" · ".join([*dict.fromkeys(words), *([when] if when else [])])), ""]


def _findings_or_reason(result: Result) -> str:
    return (
        _classes(result) if any(finding.deviation is None for finding in result.findings) else abbreviate(result.reason)
    )


def _classes(result: Result) -> str:
    """Return the classes of a result's findings, of the new ones where there are any, gravest first, and the blame."""
    finding = gravest(result.findings)
    if finding is None:
        return ""
    alike = (
        each
        for each in sorted(result.findings, key=severity_order)
        if (each.deviation is None) == (finding.deviation is None)
    )
    return f"{', '.join(dict.fromkeys(each.class_ for each in alike))}; blame: {finding.blame}"


def _error_ratio(result: Result | None) -> float:
    worst = worst_error_ratio(result) if result else None
    return worst.ratio if worst else 0.0


def _worst_cell(result: Result) -> str:
    worst = worst_error_ratio(result)
    if worst is None:
        return ""
    if worst.ratio <= 1:
        return f"{100 * worst.ratio:.0f} % of its limit"
    return f"{worst.ratio:.3g} times its limit" if worst.limit else f"{worst.error:.3g}, where none is allowed"
