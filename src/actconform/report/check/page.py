"""The page of a check: one HTML file that needs nothing else, in the look of a run's report."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from actconform.files import write_bytes
from actconform.report.check.check_json import CHECK
from actconform.report.check.data import check_page_data
from actconform.report.html.page import ASSETS, html_document

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.checking.result import CheckResult

PAGE = "index.html"
SHARED = ("elements.js", "svg.js", "theme.js")
SCRIPTS = (
    "long_table.js",
    "parts.js",
    "layers.js",
    "layer.js",
    "trained.js",
    "noise.js",
    "start.js",
)  # in the order of their use


def write_page(result: CheckResult, folder: Path) -> Path:
    """Write index.html into `folder` and return its path. The same result gives the same bytes. Raises OSError."""
    assets = files("actconform.report.check") / "assets"
    scripts = [*(ASSETS / name for name in SHARED), *(assets / name for name in SCRIPTS)]
    styles = [ASSETS / "page.css", assets / "check.css"]
    text = html_document(check_page_data(result), "actconform check", CHECK, styles, scripts)
    path = folder / PAGE
    write_bytes(path, text.encode())
    return path
