"""CITATION.cff of the table of a run: what it is of, which version of actconform measured it, when."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from actconform.text import one_line

if TYPE_CHECKING:
    from actconform.types.report import Report

CITATION = "CITATION.cff"
AUTHORS = "The actconform maintainers"


def citation(report: Report) -> str:
    """Return the text of the file, in the format of version 1.2.0; strings are those of JSON, which YAML reads as such."""
    version = json.dumps(one_line(report.facts.actconform) or "unknown")
    title = json.dumps(
        f"Worst errors of activation functions, measured by actconform, run of {report.when or 'unknown time'}"
    )
    lines = [
        "cff-version: 1.2.0",
        'message: "If you use figures of these tables, please cite them."',
        "type: dataset",
        f"title: {title}",
        "authors:",
        f'  - name: "{AUTHORS}"',
        *([f"date-released: {report.when[:10]}"] if report.when else []),
        "references:",
        "  - type: software",
        '    title: "actconform: ONNX export and cross-runtime conformance of activation functions"',
        "    authors:",
        f'      - name: "{AUTHORS}"',
        f"    version: {version}",
    ]
    return "\n".join(lines) + "\n"
