"""The files of a site: pages that open from a disk, tables, the history itself. Nothing else in the folder is touched."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from actconform.files import read_bytes, write_bytes
from actconform.report.across_runs.history import trends
from actconform.report.across_runs.history_store import read_history, with_past
from actconform.report.files.accuracy import accuracy
from actconform.report.html.data import page_data
from actconform.report.html.page import ASSETS as REPORT_ASSETS
from actconform.report.html.page import html_document, page, table_page
from actconform.report.html.page_values import shown
from actconform.report.html.without_script import summary_without_script
from actconform.report.site.accuracy_tables import (
    ACCURACY_CSV,
    ACCURACY_TEX,
    COLUMNS,
    accuracy_csv,
    accuracy_latex,
)
from actconform.report.site.citation import CITATION, citation
from actconform.report.site.history_data import history_data
from actconform.run.recorder import REPORT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from actconform.types.cause import Cause
    from actconform.types.report import Report

ASSETS = files("actconform.report.site") / "assets"
HISTORY_PAGE, REPORT_PAGE, ACCURACY_PAGE = "index.html", "report.html", "accuracy.html"
ACCURACY_JSON, HISTORY = "accuracy.json", "history.jsonl"
SCRIPTS = ("elements.js", "svg.js", "bars.js", "theme.js", "table_page.js")  # of the report; in the order of their use


def write_site(report: Report, file: Path, store: Path, folder: Path, register: Sequence[Cause]) -> list[Path]:
    """Write a site of the latest report, which was read from `file`, and of a history; return its files.

    Raises OSError where one cannot be written, and UsageError where the history cannot be read.
    """
    data = history_data(read_history(store))
    past = trends(with_past(report, store))
    table = accuracy(report)
    versions = _versions(report)
    contents = {
        HISTORY_PAGE: _history_page(data | {"latest": report.when}),
        REPORT_PAGE: page(
            page_data(report, file.parent, trends=past, register=register), summary_without_script(report)
        ),
        ACCURACY_PAGE: _accuracy_page(table, versions),
        ACCURACY_JSON: msgspec.json.format(msgspec.json.encode(table), indent=1).decode() + "\n",
        ACCURACY_CSV: accuracy_csv(table["entries"]),
        ACCURACY_TEX: accuracy_latex(table["entries"], versions),
        CITATION: citation(report),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_bytes(folder / name, text.encode())
    for name, path in ((HISTORY, store), (REPORT, file)):
        if (folder / name).resolve() != path.resolve():
            write_bytes(folder / name, read_bytes(path))
    return [folder / name for name in (*contents, HISTORY, REPORT)]


def _history_page(data: dict[str, Any]) -> str:
    scripts = [*(REPORT_ASSETS / name for name in SCRIPTS), ASSETS / "history.js"]
    return html_document(
        data, "actconform history", HISTORY, [REPORT_ASSETS / "page.css", ASSETS / "site.css"], scripts
    )


def _accuracy_page(table: dict[str, Any], versions: str) -> str:
    rows = [[entry[key] for key in COLUMNS] for entry in table["entries"]]
    data = {"when": table["when"], "versions": versions, "units": table["units"], "rows": rows, "texts": []}
    return table_page("actconform.report.site", ("accuracy.js",), shown(data), "actconform accuracy", ACCURACY_JSON)


def _versions(report: Report) -> str:
    """Return the run's time and the libraries that computed, each once, as far as facts are named like their backends or packages."""
    words = [f"actconform {report.facts.actconform}", f"run of {report.when}"] if report.when else []
    for facts in report.facts.backends.values():
        words += [f"{fact} {value}" for fact, value in facts.items() if value[:1].isdigit() and "." in value]
    return ", ".join(dict.fromkeys(words))
