"""A difference as text for a terminal, as Markdown for a CI job's page, and as one self-contained HTML page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import msgspec

from actconform.bench.workloads import shown
from actconform.report.across_runs.changed_facts import change_in_words
from actconform.report.across_runs.diff import FindingChange
from actconform.report.files.markdown import literal, table
from actconform.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.bench.workloads import Workload
    from actconform.report.across_runs.diff import BlameChange, Difference
    from actconform.report.error_ratio import ErrorRatio

ROWS_SHOWN = 50
SAME = "nothing differs"
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent);
  vertical-align: top; overflow-wrap: break-word; }
td { min-width: 5rem; }
td:nth-child(n + 3) { min-width: 12rem; }
td:first-child { font-family: ui-monospace, monospace; white-space: nowrap; }
@media (max-width: 640px) {
  body { margin: 1rem auto; }
  td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 15rem; }
}
"""


class Section(msgspec.Struct, frozen=True):
    """One kind of difference as a table: plain text, to be escaped."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def headline(difference: Difference) -> str:
    """Return the verdict on the difference in one line."""
    between = f" ({difference.before or 'undated'} to {difference.after or 'undated'})"
    if difference.worse:
        return f"worse: {', '.join(difference.worse)}{between}"
    return f"nothing got worse{between}"


def sections(difference: Difference) -> list[Section]:
    """Return a table for each kind of difference, the most important first, without empty ones."""
    columns = ("case", "severity", "finding", "worst", "blame")
    error_changes = tuple((moved.case, _size(moved.before), _size(moved.after)) for moved in difference.moved)
    verdict_changes = tuple(
        (turned.case, f"{turned.before} -> {turned.after}", turned.reason) for turned in difference.verdicts
    )
    all_sections = [
        Section("Changed facts", ("fact",), tuple((change_in_words(change),) for change in difference.changed)),
        Section("Why it does not conform", ("problem",), tuple((problem,) for problem in difference.problems)),
        Section("New findings", columns, tuple(map(_finding_cells, difference.new))),
        Section(
            "Changed blame",
            ("case", "severity", "finding", "before", "now"),
            tuple(map(_blame_cells, difference.blamed)),
        ),
        Section("Changed verdicts", ("case", "verdict", "reason"), verdict_changes),
        Section("Moved errors", ("case", "before", "now"), error_changes),
        Section("Throughput", ("workload", "route", "change"), _speeds(difference)),
        Section("Gone findings", columns, tuple(map(_finding_cells, difference.gone))),
        Section("Missing cases", ("case",), tuple((case,) for case in difference.disappeared)),
        Section("Added cases", ("case",), tuple((case,) for case in difference.appeared)),
    ]
    return [section for section in all_sections if section.rows]


def diff_as_text(difference: Difference) -> str:
    """Return plain lines, at most 50 of a kind."""
    lines = []
    for section in sections(difference):
        lines += [f"{section.title} ({len(section.rows):,})"]
        shown = [[visible(cell) for cell in row] for row in section.rows[:ROWS_SHOWN]]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        for row in shown:
            cells = [" ".join(cell.split()).ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append(f"  {'   '.join(cells)}".rstrip())
        lines += _more(section) or [""]
    return "\n".join([*(lines or [SAME, ""]), headline(difference)]) + "\n"


def as_markdown(difference: Difference) -> str:
    """Return Markdown, at most 50 rows of a kind; names and reasons are shown as text."""
    lines = [f"## actconform diff: {literal(headline(difference))}", ""]
    for section in sections(difference):
        rows = [[literal(cell) for cell in row] for row in section.rows[:ROWS_SHOWN]]
        lines += [
            f"### {section.title} ({len(section.rows):,})",
            "",
            *table(section.head, rows),
            "",
            *_more(section),
        ]
    return "\n".join(lines if len(lines) > 2 else [*lines, SAME]).rstrip() + "\n"


def as_page(difference: Difference) -> str:
    """Return one page of HTML that needs nothing else, with every row."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>actconform diff</title><style>{STYLE}</style></head><body><main>",
        f"<h1>actconform diff</h1><p>{_shown(headline(difference))}</p>",
    ]
    for section in sections(difference):
        parts.append(f"<h2>{_shown(section.title)} ({len(section.rows):,})</h2>")
        parts.append('<div class="wide" tabindex="0"><table><thead>' + _row(section.head, "th") + "</thead><tbody>")
        parts += [_row(row, "td") for row in section.rows]
        parts.append("</tbody></table></div>")
    if len(parts) == 4:
        parts.append(f"<p>{SAME}</p>")
    return "\n".join([*parts, "</main></body></html>"]) + "\n"


def _row(cells: Sequence[str], tag: str) -> str:
    scope = ' scope="col"' if tag == "th" else ""
    return f"<tr>{''.join(f'<{tag}{scope}>{_shown(cell)}</{tag}>' for cell in cells)}</tr>"


def _shown(text: str) -> str:
    return escape(visible(text))


def _more(section: Section) -> list[str]:
    left = len(section.rows) - ROWS_SHOWN
    return [f"… and {left:,} more", ""] if left > 0 else []


def _finding_cells(change: FindingChange) -> tuple[str, ...]:
    finding, worst = change.finding, ""
    if finding.worst is not None:
        at = finding.worst
        worst = f"x={at.input_hex} truth {at.truth:.9g} got {at.got:.9g} ({at.ulp:.3g} ULP)"
    deviation = f", known: {finding.deviation}" if finding.deviation else ""
    description = f"{finding.class_} in {finding.tensor}, {finding.regime}: {finding.count:,} elements{deviation}"
    return (change.case, finding.severity, description, worst or finding.evidence, finding.blame)


def _blame_cells(change: BlameChange) -> tuple[str, ...]:
    case, severity, description, *_ = _finding_cells(FindingChange(change.case, change.finding))
    return (case, severity, description, change.before, change.finding.blame)


def _speeds(difference: Difference) -> tuple[tuple[str, ...], ...]:
    """Return the routes that became slower or faster; where machines differ, one row that says that nothing was compared."""
    speeds = difference.speeds
    if speeds.differing:
        return (("not compared", "", f"other machines: {'; '.join(speeds.differing)}"),)
    changes = [change for change in speeds.judgements if change.change in ("slower", "faster")]
    return tuple((_workload(change.workload), change.route, f"{change.change}: {change.words}") for change in changes)


def _workload(workload: Workload) -> str:
    return f"{workload.subject} {workload.direction} {shown(workload.size)}"


def _size(error: ErrorRatio) -> str:
    return f"{100 * error.ratio:.3g} % of its limit in {error.tensor}, {error.regime}"
