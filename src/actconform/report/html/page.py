"""The page as one text: style, script and data in their places, and a policy that runs this script and no other."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.resources.abc import Traversable

ASSETS = files("actconform.report.html") / "assets"
SCRIPTS = (
    "elements.js",
    "base.js",
    "svg.js",
    "charts.js",
    "bars.js",
    "curves.js",
    "filters.js",
    "controls.js",
    "map.js",
    "findings.js",
    "case.js",
    "causes.js",
    "tables.js",
    "theme.js",
    "start.js",
)  # in the order of their use
TABLE_SCRIPTS = ("elements.js", "svg.js", "theme.js", "table_page.js")  # likewise


def page(data: Mapping[str, Any], summary: str) -> str:
    """Return the HTML document of a run's report; `summary` is HTML, which a browser without scripts shows."""
    scripts = [ASSETS / name for name in SCRIPTS]
    return html_document(data, "actconform report", "report.json", [ASSETS / "page.css"], scripts, summary)


def table_page(package: str, scripts: Sequence[str], data: Mapping[str, Any], title: str, file: str) -> str:
    """Return the HTML document of a page of tables: scripts and all styles in the `assets` of a package, behind those that such pages share."""
    assets = files(package) / "assets"
    styles = sorted((asset for asset in assets.iterdir() if asset.name.endswith(".css")), key=lambda asset: asset.name)
    shared = [ASSETS / name for name in TABLE_SCRIPTS]
    return html_document(
        data, title, file, [ASSETS / "page.css", *styles], [*shared, *(assets / name for name in scripts)]
    )


def html_document(
    data: Mapping[str, Any],
    title: str,
    file: str,
    styles: Sequence[Traversable],
    scripts: Sequence[Traversable],
    summary: str = "",
) -> str:
    """Return one HTML document that shows `data`. No text of it can become markup or script, whatever it holds.

    `title`, `file`, the file beside it that holds the same data, and `summary`, HTML for browsers that run no script, are
    written as they are; scripts run in their order.
    """
    style = "".join(asset.read_text(encoding="utf-8") for asset in styles)
    script = "(() => {\n" + "\n".join(asset.read_text(encoding="utf-8") for asset in scripts) + "\n})();"
    frame = (ASSETS / "page.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "title": title,
        "file": file,
        "summary": summary,
        "style": style,
        "script": script,
        "data": _embedded(data),
    }
    text, *rest = frame.split("{{")
    for piece in rest:
        name, _, after = piece.partition("}}")
        text += parts[name] + after
    return text


def _embedded(data: Mapping[str, Any]) -> str:
    """Return JSON that a script element can hold: nothing in it ends the element or begins a comment.

    It is plain ASCII, which browsers read much faster than a text with one other letter in it.
    """
    text = msgspec.json.encode(data).decode()
    return re.sub("[^\x00-\x7f]|<", _escaped, text)


def _escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
