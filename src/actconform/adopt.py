"""New findings as a local, dated register for a user's own platform: narrow to what was seen, with a stated margin."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from actconform.compare.ulp import from_hex
from actconform.formats import DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterable

_VERSION = re.compile(r"\d+\.\d+\.\d+")
MARGIN = 1.25  # other thread counts and array lengths move an observed maximum a little


def adopt(report: dict[str, Any], date: str) -> tuple[str, int]:
    """Return the TOML text of one deviation for each case, class and tensor with new findings, and how many there are.

    Raises KeyError or TypeError where the report lacks what a report has.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for result in report["results"]:
        for finding in result["findings"]:
            if finding["deviation"] is None:
                key = (
                    result["subject"],
                    result["aspect"],
                    result["dtype"],
                    result["route"],
                    finding["class"],
                    finding["tensor"],
                )
                groups[key].append(finding)
    facts = report["facts"]["backends"]
    tables = [_table(key, findings, facts, date) for key, findings in sorted(groups.items())]
    return f"# adopted on {date}: seen here, not yet explained\n\n" + "\n\n".join(tables) + "\n", len(tables)


def _table(key: tuple[str, ...], findings: list[dict[str, Any]], facts: dict[str, dict[str, str]], date: str) -> str:
    kernel, aspect, dtype, route, class_, tensor = key
    here = facts.get(route.rsplit("+", 1)[-1], {})
    # without the local part ("2.13.0+cpu"), which `holds` leaves out of the version too
    versions = {fact: value.partition("+")[0] for fact, value in here.items() if fact != "python"}
    when: dict[str, Any] = {fact: f"=={value}" for fact, value in versions.items() if _VERSION.fullmatch(value)}
    when |= {fact: [here[fact]] for fact in ("cpu_capability", "onednn", "machine") if fact in here}
    fields: dict[str, Any] = {
        "id": f"local-{kernel}-{aspect}-{dtype}-{route}-{class_}-{tensor}".replace("+", "-"),
        "class": class_,
        "aspect": aspect,
        "kernels": [kernel],
        "dtypes": [dtype],
        "routes": [route],
        "tensors": [tensor],
        "regimes": sorted({finding["regime"] for finding in findings}),
        "inputs": sorted({_interval(finding["interval"], dtype) for finding in findings if finding["interval"][0]}),
        "bound": MARGIN * max(float(finding["magnitude"]) for finding in findings),
        "when": when,
        "reason": f"adopted {date}: seen here, not explained",
        "link": "unreported",
    }
    return "\n".join(["[[deviation]]", *(f"{name} = {_toml(value)}" for name, value in fields.items())])


def _interval(ends: Iterable[str], dtype: str) -> str:
    low, high = (from_hex(end, DTYPES[dtype]) for end in ends)
    return '"nan"' if low != low else f"[{low!r}, {high!r}]"  # noqa: PLR0124  NaN is not itself


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(item if item.startswith(("[", '"nan')) else _toml(item) for item in value) + "]"
    return json.dumps(value) if isinstance(value, str) else repr(value)
