"""One cell of a table of subjects by routes: the finding that it names, its mark and its style."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.report.terminal.console import plain
from actconform.types import RAN, FindingClass, Verdict
from actconform.types.finding import CONVENTION
from actconform.verdict.severity import MARKS, gravest, mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.types import Finding, Result

NUMBERS = (
    FindingClass.SCALED_ERROR,
    FindingClass.TAIL,
    FindingClass.BIAS,
)  # what is shown by its name even where it is a convention
# By mark: what is new and what is critical is loud, what is minor or a convention quiet.
STYLES = {"●": "bold red", "▲": "yellow", "◦": "dim"}
MARKS_MEAN = "[bold red]● NEW[/], known: [yellow]▲ critical[/], △ major, ◦ minor or by convention"


def named(findings: Sequence[Finding]) -> Finding | None:
    """Return the finding whose class stands for all of them; None where there is none, or nothing but conventions.

    A wrong number is named even where it is a convention: an error within its limit would hide it.
    """
    worst = gravest(findings)
    if worst is None or worst.deviation is None or worst.severity != CONVENTION:
        return worst
    return gravest(finding for finding in findings if finding.class_ in NUMBERS)


def cell(results: Sequence[Result]) -> str:
    """Return the markup of one cell; empty where nothing was selected."""
    if not results:
        return ""
    verdicts = {result.verdict for result in results}
    for verdict in (Verdict.ERROR, Verdict.CRASH, Verdict.TIMEOUT, Verdict.XPASS):
        if verdict in verdicts:
            return f"[red]{verdict}[/]"
    findings = [finding for result in results for finding in result.findings]
    worst = named(findings)
    if worst:
        sign = mark(worst)
        style = STYLES.get(sign)
        return f"[{style}]{sign}{plain(worst.class_)}[/]" if style else f"{sign}{plain(worst.class_)}"
    if not verdicts & set(RAN):
        return "[dim]?[/]" if Verdict.UNAVAILABLE in verdicts else "[dim]–[/]"
    # An accepted side of a kink, or an error inside a row's bound, may be far beyond a limit that does not hold there.
    ratios = [m.max_scaled / m.limit for r in results for m in r.measurements if m.limit and m.max_scaled <= m.limit]
    worst_ratio = max(ratios, default=0.0)
    words = "0" if worst_ratio == 0 else "<1%" if worst_ratio < 0.01 else f"{100 * worst_ratio:.0f}%"
    return f"[dim]{MARKS[CONVENTION]}[/]{words}" if findings else words
