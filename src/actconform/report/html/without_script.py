"""The summary of a run for a reader whose browser runs no script: plain HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from actconform.report.critical_causes import critical_causes
from actconform.report.terminal.screen import WORDS
from actconform.text import number_of, visible
from actconform.types import Verdict
from actconform.verdict.severity import counted, gravest, severity_order

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actconform.types import Finding, Result
    from actconform.types.report import Report

NEW_SHOWN = 100
WITHOUT_ANSWER = (Verdict.ERROR, Verdict.CRASH, Verdict.TIMEOUT, Verdict.XPASS)


def summary_without_script(report: Report) -> str:
    """Return HTML: the verdict, the problems, the counts, what is new, and the causes of critical known findings. All text is escaped."""
    by_verdict = {verdict: [result for result in report.results if result.verdict is verdict] for verdict in Verdict}
    words = [counted(results, WORDS.get(verdict, "not run")) for verdict, results in by_verdict.items() if results]
    parts = [
        f"<h1>{'✓ Conforms' if report.conforms else '✗ Does not conform'}</h1>",
        _list(report.problems),
        f"<p>{_text(' · '.join(words))}</p>",
    ]
    new = [result for result in report.results if _is_new(result)]
    parts.append(f"<h2>New: {len(new):,}</h2>")
    new.sort(key=_gravest_first)
    parts.append(_list(_new_words(result) for result in new[:NEW_SHOWN]))
    if len(new) > NEW_SHOWN:
        parts.append(f"<p>and {len(new) - NEW_SHOWN:,} more, in report.json</p>")
    causes = critical_causes(report.results)
    parts.append(f"<h2>Known, critical: {len(causes)} by cause</h2>")
    parts.append(_list(f"{cause.id}: {number_of(len(cause.cases), 'case')}" for cause in causes))
    return "\n".join(part for part in parts if part)


def _is_new(result: Result) -> bool:
    worst = gravest(result.findings)
    return result.verdict in WITHOUT_ANSWER or (worst is not None and worst.deviation is None)


def _gravest_first(result: Result) -> tuple[bool, tuple[object, ...]]:
    worst = gravest(result.findings)
    return result.verdict not in WITHOUT_ANSWER, () if worst is None else severity_order(worst)


def _new_words(result: Result) -> str:
    worst: Finding | None = gravest(result.findings)
    if worst is None or result.verdict in WITHOUT_ANSWER:
        return f"{result.verdict} {result.case}: {result.reason[:200]}"
    return f"NEW {worst.severity} {result.case}: {worst.class_}, blame: {worst.blame}"


def _list(lines: Iterable[str]) -> str:
    items = [f"<li>{_text(line)}</li>" for line in lines]
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _text(text: str) -> str:
    return escape(visible(text))
