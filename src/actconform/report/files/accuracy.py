"""accuracy.json: the worst error of every subject, dtype, route and aspect with its limit, unit and versions, to be cited."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from actconform.plugin.interfaces import Reporter
from actconform.report.error_ratio import worst_error_ratio
from actconform.types import RAN, Route
from actconform.types.json import finite

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.types import Result
    from actconform.types.report import Report

SCHEMA = 1
UNITS = {
    "ulp": "units in the last place of the truth, in the dtype",
    "scaled": "|y - f| / (u max(|f|, s, 2^emin)), u the unit roundoff of the dtype, s the scale of the function's input or output",
    "bound": "the rounding error bound computed from the data",
    "": "the unit of the limit",
}


class WorstOfCase(msgspec.Struct, frozen=True, kw_only=True):
    """The worst error of one case. `error_ratio` is error / limit; `max_ulp` is over all regimes, tails included; `n` counts elements."""

    kernel: str
    dtype: str
    route: str
    backend: str
    aspect: str
    verdict: str
    error_ratio: float = msgspec.field(name="share")
    error: float
    limit: float
    unit: str
    tensor: str
    regime: str
    max_ulp: float
    n: int
    deviations: tuple[str, ...] = msgspec.field(default=(), name="known")


class AccuracyReporter(Reporter):
    """The worst error of every case that ran and was measured."""

    name = "accuracy"
    filename = "accuracy.json"

    def write(self, report: Report, folder: Path) -> None:
        """Write accuracy.json."""
        (folder / self.filename).write_bytes(
            msgspec.json.format(msgspec.json.encode(accuracy(report)), indent=1) + b"\n"
        )


def accuracy(report: Report) -> dict[str, Any]:
    """Return the document, with numbers as JSON can hold them, sorted by kernel, dtype, route and aspect."""
    entries = [entry for result in report.results if (entry := _entry(result))]
    entries.sort(key=lambda entry: (entry.kernel, entry.dtype, entry.route, entry.aspect))
    document: dict[str, Any] = finite(
        {
            "schema": SCHEMA,
            "when": report.when,
            "facts": msgspec.to_builtins(report.facts),
            "units": UNITS,
            "entries": entries,
        }
    )
    return document


def _entry(result: Result) -> WorstOfCase | None:
    worst = worst_error_ratio(result)
    if worst is None or result.verdict not in RAN:
        return None
    return WorstOfCase(
        kernel=result.subject,
        dtype=result.dtype,
        route=result.route,
        backend=Route.of(result.route).backend,
        aspect=result.aspect,
        verdict=str(result.verdict),
        error_ratio=worst.ratio,
        error=worst.error,
        limit=worst.limit,
        unit=worst.unit,
        tensor=worst.tensor,
        regime=worst.regime,
        max_ulp=max((m.max_ulp for m in result.measurements if not math.isnan(m.max_ulp)), default=0.0),
        n=sum(m.n for m in result.measurements),
        deviations=tuple(dict.fromkeys(finding.deviation for finding in result.findings if finding.deviation)),
    )
