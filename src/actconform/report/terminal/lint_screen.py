"""What `actconform lint` prints: findings, gravest first, each with why it is one and what to do; and the list of rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.report.terminal.console import plain
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from actconform.plugin.lint_rule import LintRule
    from actconform.types.lint import LintFinding, LintResult

COLOURS = {"error": "[bold red]", "warning": "[yellow]", "note": "[cyan]"}
SHOWN = 10  # findings of a rule; --json has all


def print_lint(console: Console, result: LintResult) -> None:
    """Print all findings of a model, and how many there are."""

    def show(text: str) -> None:
        console.print(text, soft_wrap=True)

    show(f"[bold]{plain(result.source)}[/]   {plain(result.graph)}")
    for group in _by_rule(result.findings):
        first = group[0]
        for finding in group[:SHOWN]:
            colour = COLOURS[finding.severity]
            show(f"  {colour}{finding.severity:<8}[/]{finding.code}  {plain(_place(finding))}{plain(finding.message)}")
        if len(group) > SHOWN:
            show(f"          and {len(group) - SHOWN:,} more, see --json")
        show(f"          why: {plain(first.why)}")
        show(f"          do:  {plain(first.hint)}")
    for note in result.notes:
        show(f"  note: {plain(note)}")
    if result.not_asked:
        groups = (f"{', '.join(codes)} without {option}" for option, codes in result.not_asked.items())
        show(f"  not asked: {plain('; '.join(groups))}")
    counts = [(result.count("error"), "error"), (result.count("warning"), "warning"), (result.count("note"), "note")]
    words = " · ".join(number_of(count, name) for count, name in counts if count)
    ignored = f" ({result.ignored:,} left out)" if result.ignored else ""
    verdict = "[green]CLEAN[/]" if result.clean else "[red]NOT CLEAN[/]"
    show(f"{verdict}   {words or 'no finding'}{ignored}")


def print_rules(console: Console, rules: Iterable[LintRule]) -> None:
    """Print code, severity, name and reason of each rule."""
    for rule in rules:
        fix = "   (--fix)" if rule.fix else ""
        console.print(f"[bold]{plain(rule.code)}[/]  {rule.severity:<8} {plain(rule.name)}{fix}", soft_wrap=True)
        console.print(f"       {plain(rule.why)}", soft_wrap=True)


def _by_rule(findings: Sequence[LintFinding]) -> list[list[LintFinding]]:
    groups: dict[tuple[str, str], list[LintFinding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    return list(groups.values())


def _place(finding: LintFinding) -> str:
    if not finding.node:
        return ""
    layer = f"{finding.layer}: " if finding.layer and finding.layer not in finding.node else ""
    return f"{layer}{finding.node} ({finding.operator})   "
