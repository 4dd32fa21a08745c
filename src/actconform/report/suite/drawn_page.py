"""The page of drawn operators: one HTML file that needs nothing else, beside the folders of the findings that it links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform.files import write_bytes
from actconform.report.html.page import table_page
from actconform.report.html.page_values import short_number, shown
from actconform.report.suite.drawn_files import DRAWN_JSON
from actconform.report.suite.suite_page import MOST_LETTERS, SUITE_PAGE
from actconform.suite.drawn.judging import FINDINGS
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.suite.drawn.drawn_report import DrawnReport, OperatorTally

SCRIPTS = ("suite_parts.js", "drawn_start.js")  # in the order of their use
COUNTS = ("within", "refused", "wrong", "failed", "crash", "timeout", "unjudged")


def write_drawn_page(report: DrawnReport, command: str, folder: Path) -> Path:
    """Write index.html into `folder` and return its path. Raises OSError."""
    path = folder / SUITE_PAGE
    data = drawn_page_data(report, command)
    write_bytes(path, table_page(__package__, SCRIPTS, data, "actconform suite drawn", DRAWN_JSON).encode())
    return path


def drawn_page_data(report: DrawnReport, command: str) -> dict[str, Any]:
    """Return the data of the page for JSON: numbers that are not finite are "nan", "inf" and "-inf"."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    families = {tally.operator: tally.family for tally in report.tallies}
    not_run = [f"not run: {', '.join(report.not_run)}"] if report.not_run else []
    page = {
        "title": "Drawn operators",
        "about": f"{number_of(report.examples, 'graph')} of each operator, seed {report.seed}, {versions}",
        "conforms": report.conforms,
        "problems": not_run,
        "command": command,
        "runtimes": [
            {"name": name, "facts": [[fact, one_line(text)] for fact, text in facts.items()]}
            for name, facts in report.runtimes.items()
        ],
        "totals": [_total(report, name) for name in report.runtimes],
        "operators": [_row(report, tally) for tally in report.tallies],
        "findings": [
            {
                "operator": finding.operator,
                "family": families.get(finding.operator, ""),
                "runtime": finding.runtime,
                "dtype": finding.dtype,
                "kind": finding.kind,
                "label": f"{finding.kind} {finding.dtype}",
                "graphs": finding.examples,
                "words": one_line(finding.words, MOST_LETTERS),
                "folder": finding.folder,
            }
            for finding in report.findings
        ],
        "texts": [],
    }
    return dict(shown(page))


def _row(report: DrawnReport, tally: OperatorTally) -> dict[str, Any]:
    places = [
        place
        for place, finding in enumerate(report.findings)
        if (finding.operator, finding.runtime) == (tally.operator, tally.runtime)
    ]
    reasons = "; ".join(f"{count:,} x {words}" for words, count in tally.reasons.items())
    return {
        "operator": tally.operator,
        "family": tally.family,
        "runtime": tally.runtime,
        "graphs": tally.examples,
        **{name: getattr(tally, name) for name in COUNTS},
        "worst": short_number(tally.worst) if tally.within else "nan",
        "cases": sorted(places, key=lambda place: -report.findings[place].examples),
        "reasons": one_line(reasons, MOST_LETTERS),
        "clean": not any(getattr(tally, name) for name in FINDINGS),
    }


def _total(report: DrawnReport, runtime: str) -> dict[str, Any]:
    tallies = [tally for tally in report.tallies if tally.runtime == runtime]
    counts = {name: sum(getattr(tally, name) for tally in tallies) for name in COUNTS}
    worst = max((tally.worst for tally in tallies if tally.within), default=float("nan"))
    return {"runtime": runtime, "graphs": sum(counts.values()), **counts, "worst": short_number(worst)}
