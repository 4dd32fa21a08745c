"""docs/report-schema.json: the JSON Schema of report.json, generated from the structs. `python -m actconform.report.files.schema`."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from actconform.types.report import SCHEMA, Report

NUMBER = {
    "description": "A number; one that is not finite is a word.",
    "anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}],
}


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of report.json."""
    report_schema: dict[str, Any] = _as_written(msgspec.json.schema(Report))
    report_schema["$defs"]["Report"]["properties"]["schema"] = {"const": SCHEMA}
    report_schema["$defs"]["Number"] = NUMBER
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "report.json of actconform",
        **report_schema,
    }


def _as_written(part: Any) -> Any:
    """Return a part of msgspec's schema with numbers as they are written, and docstrings without their indentation."""
    if isinstance(part, list):
        return [_as_written(element) for element in part]
    if not isinstance(part, dict):
        return part
    if part.get("type") == "number":
        return {**{key: value for key, value in part.items() if key != "type"}, "$ref": "#/$defs/Number"}
    rewritten = {key: _as_written(value) for key, value in part.items()}
    if isinstance(rewritten.get("description"), str):
        rewritten["description"] = inspect.cleandoc(rewritten["description"])
    return rewritten


def schema_document() -> str:
    """Return the text of docs/report-schema.json."""
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    print(schema_document(), end="")
