"""The worst error of a case over its limit, by which tables are sorted, trends drawn, and reports compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actconform.tolerance.limits import BIAS_LIMIT, TAIL_LIMIT
from actconform.types import FindingClass
from actconform.types.finding import OF_UNIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.types import Result


class ErrorRatio(msgspec.Struct, frozen=True):
    """An error and its limit, both in `unit`, and where it is; `ratio` is error / limit, infinite over a limit of 0."""

    ratio: float = msgspec.field(name="share")  # the key in `diff --json`
    error: float
    limit: float
    unit: str
    tensor: str
    regime: str


def worst_error_ratio(result: Result) -> ErrorRatio | None:
    """Return the largest error of a case against its limit, None where no number was compared.

    An error beyond its limit counts where it is a finding: an accepted side of a kink may be far beyond. Findings that have no
    magnitude (nan-lost, inf, flushes, shapes ...) and `range` have no ratio.
    """
    return max(_error_ratios(result), key=lambda error_ratio: error_ratio.ratio, default=None)


def _error_ratios(result: Result) -> Iterator[ErrorRatio]:
    units = {(m.tensor, m.regime): m for m in result.measurements}
    for m in result.measurements:
        if m.n and m.max_scaled <= m.limit:
            yield ErrorRatio(_over(m.max_scaled, m.limit), m.max_scaled, m.limit, m.unit, m.tensor, m.regime)
    for finding in result.findings:
        measurement = units.get((finding.tensor, finding.regime))
        if measurement is None or math.isnan(finding.magnitude):
            continue
        limits = {
            **dict.fromkeys(OF_UNIT["scaled"], (measurement.limit, measurement.unit)),
            FindingClass.TAIL: (TAIL_LIMIT, "ulp"),
        }
        limits[FindingClass.BIAS] = (BIAS_LIMIT, measurement.unit)
        if finding.class_ in limits:
            limit, unit = limits[finding.class_]
            magnitude = finding.magnitude
            yield ErrorRatio(_over(magnitude, limit), magnitude, limit, unit, finding.tensor, finding.regime)


def _over(error: float, limit: float) -> float:
    return error / limit if limit else math.inf if error else 0.0
