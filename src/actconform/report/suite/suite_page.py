"""The page of a suite: one HTML file that needs nothing else, in the look of a run's report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform.files import write_bytes
from actconform.report.html.page import table_page
from actconform.report.html.page_values import short_number, shown
from actconform.report.suite.suite_files import SUITE_JSON
from actconform.report.suite.suite_words import blame_words, bound_words, data_findings
from actconform.suite.operator_rows import COUNTS, operator_rows, runtime_totals
from actconform.suite.suite_result import is_fine
from actconform.text import one_line

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.suite.operator_rows import OperatorRow
    from actconform.suite.suite_result import RuntimeVerdict, SuiteRecord, SuiteReport

SUITE_PAGE = "index.html"
SCRIPTS = ("suite_parts.js", "suite_start.js")  # in the order of their use
MOST_LETTERS = 400


def write_suite_page(report: SuiteReport, command: str, folder: Path) -> Path:
    """Write index.html into `folder` and return its path. Raises OSError."""
    data = suite_page_data(report, command)
    path = folder / SUITE_PAGE
    write_bytes(path, table_page(__package__, SCRIPTS, data, "actconform suite onnx", SUITE_JSON).encode())
    return path


def suite_page_data(report: SuiteReport, command: str) -> dict[str, Any]:
    """Return the data of the page for JSON: numbers that are not finite are "nan", "inf" and "-inf"."""
    rows = operator_rows(report.records)
    page = {
        "title": f"{report.identity.suite} {report.identity.version}",
        "about": f"{report.identity} · {report.date}",
        "conforms": report.conforms,
        "problems": [one_line(words, MOST_LETTERS) for words in filter(None, (report.ending, *report.notes))],
        "leftOut": [one_line(words, MOST_LETTERS) for words in report.left_out],
        "command": command,
        "selected": report.selected,
        "runtimes": [
            {"name": runtime.name, "facts": [[name, one_line(text)] for name, text in runtime.facts.items()]}
            for runtime in report.identity.runtimes
        ],
        "totals": [_counts(row) for row in runtime_totals(rows)],
        "operators": [_counts(row) for row in rows],
        "cases": [
            _case(record, name, verdict) for record in report.records for name, verdict in record.runtimes.items()
        ],
        "data": [
            [record.operator, record.case, bound_words(record.data)[:MOST_LETTERS]]
            for record in data_findings(report.records)
        ],
        "texts": [],
    }
    return dict(shown(page))


def _counts(row: OperatorRow) -> dict[str, Any]:
    counts = {name: getattr(row, name) for name in COUNTS}
    worst = {"worst": row.worst_case, "ratio": short_number(row.worst_ratio)}
    return {"operator": row.operator, "runtime": row.runtime, "clean": row.clean, **counts, **worst}


def _case(record: SuiteRecord, runtime: str, verdict: RuntimeVerdict) -> dict[str, Any]:
    worst = verdict.truth.worst
    clean = verdict.standard == "passed" and verdict.truth.state == "within"
    standard = "" if verdict.standard_words == verdict.truth.reason else verdict.standard_words
    words = "; ".join(filter(None, (bound_words(verdict.truth), standard)))
    return {
        "case": record.case,
        "kind": record.kind,
        "operator": record.operator,
        "runtime": runtime,
        "standard": verdict.standard,
        "state": verdict.truth.state,
        "ratio": short_number(worst.ratio) if worst is not None else "nan",
        "words": one_line(words, MOST_LETTERS),
        "blame": one_line(blame_words(verdict), MOST_LETTERS),
        "clean": clean,
        "fine": is_fine(verdict),
    }
