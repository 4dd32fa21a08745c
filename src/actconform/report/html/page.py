"""The page as one text: style, script and data in their places, and a policy that runs this script and no other."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPTS = (
    "base.js",
    "svg.js",
    "charts.js",
    "bars.js",
    "filters.js",
    "map.js",
    "findings.js",
    "case.js",
    "tables.js",
    "start.js",
)  # in the order of their use


def page(data: Mapping[str, Any]) -> str:
    """Return the HTML document that shows `data`. No text of it can become markup or script, whatever it holds."""
    assets = files("actconform.report.html") / "assets"
    style = (assets / "page.css").read_text(encoding="utf-8")
    script = "(() => {\n" + "\n".join((assets / name).read_text(encoding="utf-8") for name in SCRIPTS) + "\n})();"
    frame = (assets / "page.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    parts = {"policy": policy, "style": style, "script": script, "data": _embedded(data)}
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
